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
// out of that (onnx.KeepBlocked).
func (r *run) openLean(ctx context.Context, m *prepared, c candidate, o engine.Options) (engine.Session, error) {
	model, err := c.content()
	if err != nil {
		return nil, err
	}
	return r.openBlocked(ctx, m, model, o, onnx.KeepBlocked, sameBits)
}

// openTapped opens a model whose outputs are only counted: changes of layout that merely bring them out in order are taken out as well.
func (r *run) openTapped(ctx context.Context, m *prepared, model engine.Model, o engine.Options) (engine.Session, error) {
	return r.openBlocked(ctx, m, model, o, onnx.BlockedOutputs, sameValues)
}

// openBlocked opens a model, where the engine shows what it makes of it in a form with fewer changes of layout. Both forms then compute one
// batch of noise, and the shorter one is used if it gives the same.
func (r *run) openBlocked(ctx context.Context, m *prepared, model engine.Model, o engine.Options, shorten shortening, same sameness) (engine.Session, error) {
	optimizer, ok := r.Backend.(engine.Optimizer)
	if !ok {
		return r.Backend.Open(ctx, model, o)
	}
	plain, data, err := optimizer.OpenOptimized(ctx, model, o)
	if err != nil { // a model of 2 GiB, or no room for a file: if it is the model itself, Open says so
		r.Report.Debugf("%s: computed as the engine lays it out: %v", model.Name, err)
		return r.Backend.Open(ctx, model, o)
	}
	lean, err := r.lean(ctx, m, model.Name, o, plain, data, shorten, same)
	switch {
	case ctx.Err() != nil:
		_ = plain.Close() // nothing to lose
		if lean != nil {
			_ = lean.Close()
		}
		return nil, ctx.Err()
	case err != nil:
		r.Report.Debugf("%s: computed as the engine lays it out: %v", model.Name, err)
		return plain, nil
	case lean == nil:
		return plain, nil
	}
	if err := plain.Close(); err != nil {
		_ = lean.Close()
		return nil, err
	}
	return lean, nil
}

// shortening rewrites what the engine made of a model, and tells how many changes of layout that saves; sameness says how two outputs differ.
type (
	shortening func(*onnx.Model) (*onnx.Model, int, error)
	sameness   func(want, got *tensor.Tensor) error
)

// lean returns the shorter form of what the engine made of a model, nil where there is none.
func (r *run) lean(ctx context.Context, m *prepared, name string, o engine.Options, plain engine.Session, data []byte, shorten shortening, same sameness) (engine.Session, error) {
	optimized, err := onnx.Parse(data, name)
	if err != nil {
		return nil, err
	}
	blocked, saved, err := shorten(optimized)
	if err != nil || saved == 0 {
		return nil, err
	}
	if data, err = blocked.Bytes(); err != nil {
		return nil, err
	}
	o.NoFusion = true // it is optimised
	lean, err := r.Backend.Open(ctx, engine.Model{Name: name, Data: data}, o)
	if err != nil {
		return nil, err
	}
	if err := compute(ctx, plain, lean, r.noise(m, o.Batch), same); err != nil {
		return nil, errors.Join(err, lean.Close())
	}
	r.Report.Debugf("%s: %d changes of layout saved", name, saved)
	return lean, nil
}

// noise is a batch as the engine is given it, n images or as many as it gets at once where n is 0, of values that normalised images have.
func (r *run) noise(m *prepared, n int) *tensor.Tensor {
	if n == 0 {
		n = r.pieceOf(m)
	}
	x := &tensor.Tensor{}
	shape := tensor.Shape{int64(n)}
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

// compute runs two sessions on x, and is nil if all their outputs are the same.
func compute(ctx context.Context, a, b engine.Session, x *tensor.Tensor, same sameness) error {
	var out [2][]*tensor.Tensor
	for i, s := range []engine.Session{a, b} {
		for range s.Outputs() {
			out[i] = append(out[i], &tensor.Tensor{})
		}
		if err := s.Run(ctx, x, out[i]); err != nil {
			return err
		}
	}
	if len(out[0]) != len(out[1]) {
		return fmt.Errorf("the shorter form has %d outputs, not %d", len(out[1]), len(out[0]))
	}
	for i := range out[0] {
		if err := same(out[0][i], out[1][i]); err != nil {
			return fmt.Errorf("output %d: the shorter form %w", i, err)
		}
	}
	return nil
}

// sameBits is nil if two tensors are alike to the bit.
func sameBits(want, got *tensor.Tensor) error {
	if !want.Shape.Equal(got.Shape) {
		return fmt.Errorf("gives %s, not %s", got.Shape, want.Shape)
	}
	for i, v := range want.Data {
		if w := got.Data[i]; math.Float32bits(v) != math.Float32bits(w) {
			return fmt.Errorf("gives %g where %g is right", w, v)
		}
	}
	return nil
}

// sameValues is nil if two tensors hold the same values, to the bit, in whatever order: the sums of hashes of their values are compared.
func sameValues(want, got *tensor.Tensor) error {
	if a, b := hashSum(want.Data), hashSum(got.Data); len(want.Data) != len(got.Data) || a != b {
		return fmt.Errorf("gives other values (%d, hash %x) than the right ones (%d, hash %x)", len(got.Data), b, len(want.Data), a)
	}
	return nil
}

// hashSum does not depend on the order of x.
func hashSum(x []float32) (sum uint64) {
	for _, v := range x {
		h := (uint64(math.Float32bits(v)) + 1) * 0x9e3779b97f4a7c15 // Steele et al. 2014, as in SplitMix64
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		sum += h ^ h>>27
	}
	return sum
}
