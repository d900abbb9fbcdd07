package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

// openLean opens a candidate. Where the engine shows what it makes of a model, changes of layout that only roundings caused are taken
// out of that (onnx.KeepBlocked). Both forms then compute one batch of noise, and the shorter one is used if it gives the same bits.
func (r *run) openLean(ctx context.Context, m *prepared, c candidate, o engine.Options) (engine.Session, error) {
	optimizer, ok := r.Backend.(engine.Optimizer)
	if !ok {
		return r.Backend.Open(ctx, c.model, o)
	}
	plain, data, err := optimizer.OpenOptimized(ctx, c.model, o)
	if err != nil { // a model of 2 GiB, or no room for a file: if it is the model itself, Open says so
		r.Report.Debugf("%s: computed as the engine lays it out: %v", c.model.Name, err)
		return r.Backend.Open(ctx, c.model, o)
	}
	lean, err := r.lean(ctx, m, c, o, plain, data)
	switch {
	case ctx.Err() != nil:
		return nil, errors.Join(ctx.Err(), plain.Close())
	case err != nil:
		r.Report.Debugf("%s: computed as the engine lays it out: %v", c.model.Name, err)
		return plain, nil
	case lean == nil:
		return plain, nil
	}
	return lean, plain.Close()
}

// lean returns the shorter form of what the engine made of a candidate, nil where there is none.
func (r *run) lean(ctx context.Context, m *prepared, c candidate, o engine.Options, plain engine.Session, data []byte) (engine.Session, error) {
	optimized, err := onnx.Parse(data, c.model.Name)
	if err != nil {
		return nil, err
	}
	blocked, saved, err := onnx.KeepBlocked(optimized)
	if err != nil || saved == 0 {
		return nil, err
	}
	if data, err = blocked.Bytes(); err != nil {
		return nil, err
	}
	o.NoFusion = true // it is optimised
	lean, err := r.Backend.Open(ctx, engine.Model{Name: c.model.Name, Data: data}, o)
	if err != nil {
		return nil, err
	}
	if err := sameBits(ctx, plain, lean, r.noise(m)); err != nil {
		return nil, errors.Join(err, lean.Close())
	}
	r.Report.Debugf("%s: %d changes of layout saved", c.model.Name, saved)
	return lean, nil
}

// noise is a batch as the engine is given it, of values that normalised images have.
func (r *run) noise(m *prepared) *tensor.Tensor {
	x := &tensor.Tensor{}
	shape := tensor.Shape{int64(r.pieceOf(m))}
	for _, d := range m.input.Shape[1:] {
		if d < 0 {
			d = int64(m.preprocess.InputSize)
		}
		shape = append(shape, d)
	}
	x.Resize(shape...)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range x.Data {
		x.Data[i] = float32(rng.NormFloat64())
	}
	return x
}

// sameBits is nil if two sessions give the same bits for x.
func sameBits(ctx context.Context, a, b engine.Session, x *tensor.Tensor) error {
	var out [2]*tensor.Tensor
	for i, s := range []engine.Session{a, b} {
		out[i] = &tensor.Tensor{}
		if err := s.Run(ctx, x, out[i:i+1]); err != nil {
			return err
		}
	}
	if !out[0].Shape.Equal(out[1].Shape) {
		return fmt.Errorf("the shorter form gives %s, not %s", out[1].Shape, out[0].Shape)
	}
	for i, v := range out[0].Data {
		if w := out[1].Data[i]; math.Float32bits(v) != math.Float32bits(w) {
			return fmt.Errorf("the shorter form gives %g where %g is right", w, v)
		}
	}
	return nil
}
