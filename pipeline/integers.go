package pipeline

import (
	"context"
	"fmt"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

// The forms that a Q/DQ candidate with int8 activations is scored in. Both give the same logits, so a run may resume on another machine.
const (
	formUint8 = "uint8 activations with zero point 128, which are the same integers"
	formInt8  = "int8 activations, as stated"
)

// What is computed in which type on an engine that computes a model as it states, for people. It is the same on every machine.
const (
	inFloat32 = "all in float32"
	inHalf    = "sums and functions in float32, on weights and activations rounded to float16; a node's result is rounded to float16 " +
		"(nearest, ties to even, overflow to infinity) where it does not only select or move values"
	inTwin = "weights, and the inputs of nodes with weights, rounded to int8; sums of their products as integers, held in float32; scales, biases " +
		"and all else in float32"
	inIntegers = "convolutions and matrix products between Q/DQ pairs by the engine's integer kernels: int32 sums of int8 products, biases rounded " +
		"to int32; all else in float32"
	inStated = "as the engine's default session computes the model"
)

// integers makes a candidate of a Q/DQ model whose activations are int8 compute in integers wherever it says so, whatever the engine's
// default; ONNX Runtime's leaves most of such a model in float32 on x86, and none on ARM. Its kernels for uint8 activations are several
// times as fast as those for int8 and give the same logits, where the processor does not saturate: probes tell.
func (r *run) integers(ctx context.Context, c candidate, model *onnx.Model) (candidate, error) {
	products, err := onnx.IntegerProducts(model)
	if err != nil {
		r.warn("%s: %v: scored as the engine's default session runs it", c.model.Name, err)
		return c, nil
	}
	raised, n, err := onnx.Uint8Activations(products)
	unsafe, wrong := r.inexact(ctx, true), r.inexact(ctx, false)
	switch {
	case ctx.Err() != nil:
		return c, ctx.Err()
	case err == nil && n == 0: // its activations are uint8, or it has none between pairs
		if unsafe != "" && model.QuantizesActivations() {
			r.warn("%s: kernels for uint8 saturate on this processor (%s): the model may lose accuracy here that it keeps on one with VNNI", c.model.Name, unsafe)
		}
		return c, nil
	case wrong != "":
		r.warn("%s: the engine's kernels for int8 activations are not exact here (%s): scored as the engine's default session runs it", c.model.Name, wrong)
		return c, nil
	}
	c.form, c.computed, c.options.IntegerKernels = formUint8, inIntegers, true
	if err != nil || unsafe != "" {
		c.form, raised = formInt8, products
	}
	switch {
	case err != nil:
		r.Report.Debugf("%s: scored with int8 activations: %v", c.model.Name, err)
	case unsafe != "":
		r.Report.Infof("%s: scored with int8 activations, which takes longer: kernels for uint8 saturate on this processor (%s)", c.model.Name, unsafe)
	}
	c.model.Data, err = raised.Bytes()
	return c, err
}

// inexact runs onnx.IntegerProbes in int8 or uint8 once and says which kernel does not give the right answer, "" if all do.
func (r *run) inexact(ctx context.Context, uint8s bool) string {
	if why, known := r.probed[uint8s]; known {
		return why
	}
	why := ""
	if err := r.probe(ctx, uint8s); err != nil {
		why = err.Error()
	}
	if r.probed == nil {
		r.probed = map[bool]string{}
	}
	r.probed[uint8s] = why
	return why
}

func (r *run) probe(ctx context.Context, uint8s bool) error {
	probes, err := onnx.IntegerProbes()
	if err != nil {
		return err
	}
	for _, p := range probes {
		model := p.Model
		if uint8s {
			if model, _, err = onnx.Uint8Activations(model); err != nil {
				return err
			}
		}
		x := tensor.New(p.Shape...)
		for i := range x.Data {
			x.Data[i] = p.Value
		}
		right, err := r.once(ctx, p.Name, p.Model, engine.Options{NoFusion: true}, x)
		if err != nil {
			return err
		}
		got, err := r.once(ctx, p.Name, model, engine.Options{IntegerKernels: true}, x)
		if err != nil {
			return err
		}
		for i, v := range right.Data {
			if got.Data[i] != v {
				return fmt.Errorf("%s gives %g where %g is right", p.Name, got.Data[i], v)
			}
		}
	}
	return nil
}

// once opens a model for one call.
func (r *run) once(ctx context.Context, name string, m *onnx.Model, o engine.Options, x *tensor.Tensor) (*tensor.Tensor, error) {
	data, err := m.Bytes()
	if err != nil {
		return nil, err
	}
	s, err := r.Backend.Open(ctx, engine.Model{Name: name, Data: data}, o)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }() // nothing to lose
	y := &tensor.Tensor{}
	return y, s.Run(ctx, x, []*tensor.Tensor{y})
}
