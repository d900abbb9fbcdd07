package ort

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	onnxruntime "github.com/yalue/onnxruntime_go"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
)

// binding keeps the outputs that ONNX Runtime allocated in its first run and has later runs write into them.
type binding struct {
	s      *session
	copies bool // some output cannot be kept: all are copied
	shape  tensor.Shape
	values []onnxruntime.Value // of an input of that shape; nil before the first run
	out    []*tensor.Tensor    // the memory of values, or copies
}

// Bind returns a binding.
func (s *session) Bind() engine.Binding {
	b := &binding{s: s}
	for _, p := range s.outputs {
		b.copies = b.copies || p.DType != tensor.Float32 || p.Name == s.input.Name // for the last see learn
		b.out = append(b.out, &tensor.Tensor{})
	}
	return b
}

// Run computes one batch.
func (b *binding) Run(ctx context.Context, in *tensor.Tensor) ([]*tensor.Tensor, error) {
	s := b.s
	if !b.copies && (s.input.Shape[0] == tensor.Dynamic || len(in.Shape) > 0 && in.Shape[0] == s.input.Shape[0]) {
		done, err := b.runInPlace(ctx, in)
		if done || err != nil {
			return b.out, err
		}
	}
	if b.values != nil {
		if err := b.forget(); err != nil {
			return nil, err
		}
	}
	return b.out, s.Run(ctx, in, b.out)
}

// runInPlace runs into the kept outputs. It reports false where one turns out to be of a kind that cannot be kept.
func (b *binding) runInPlace(ctx context.Context, in *tensor.Tensor) (done bool, err error) {
	s := b.s
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ort == nil {
		return false, fmt.Errorf("model %s: %w", s.model, engine.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := engine.CheckRun(s.input, len(s.outputs), in, b.out); err != nil {
		return false, fmt.Errorf("model %s: %w", s.model, err)
	}
	if b.values != nil && !b.shape.Equal(in.Shape) {
		if err := b.forget(); err != nil {
			return false, err
		}
	}
	var pinned runtime.Pinner
	defer pinned.Unpin()
	x, err := s.bindInput(in, &pinned)
	if err != nil {
		return false, ortError(err)
	}
	defer destroy([]onnxruntime.Value{x})
	if b.values != nil {
		if err = s.ort.Run([]onnxruntime.Value{x}, b.values); err == nil {
			return true, nil
		}
		// An output's shape may depend on more than the input's: let ONNX Runtime allocate anew.
		if err := b.forget(); err != nil {
			return false, err
		}
	}
	values := make([]onnxruntime.Value, len(s.outputs))
	if err := s.ort.Run([]onnxruntime.Value{x}, values); err != nil { // a model's fault, or an output that the binding cannot allocate: a scalar
		destroy(values)
		b.copies = true
		return false, nil
	}
	for i, v := range values {
		t, ok := v.(*onnxruntime.Tensor[float32])
		if !ok {
			destroy(values)
			b.copies = true
			return false, nil
		}
		b.out[i].Shape, b.out[i].Data = tensor.Shape(t.GetShape()), t.GetData()
	}
	b.values, b.shape = values, in.Shape.Clone()
	return true, nil
}

// forget frees the kept outputs.
func (b *binding) forget() error {
	var err error
	for _, v := range b.values {
		err = errors.Join(err, v.Destroy())
	}
	b.values = nil
	for _, t := range b.out {
		*t = tensor.Tensor{}
	}
	return err
}

// Close frees the outputs.
func (b *binding) Close() error { return b.forget() }
