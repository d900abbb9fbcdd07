package fake

import (
	"context"
	"fmt"
	"sync"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
)

type session struct {
	backend *Backend
	name    string
	input   engine.Port
	outputs []Output

	mu     sync.RWMutex // held for reading by Run, for writing by Close
	closed bool
}

func (s *session) Inputs() []engine.Port { return []engine.Port{clonePort(s.input)} }

func (s *session) Outputs() []engine.Port {
	ports := make([]engine.Port, len(s.outputs))
	for i, o := range s.outputs {
		ports[i] = clonePort(o.Port)
	}
	return ports
}

func clonePort(p engine.Port) engine.Port {
	p.Shape = p.Shape.Clone()
	return p
}

func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.backend.mu.Lock()
	defer s.backend.mu.Unlock()
	s.backend.stats.Open--
	return nil
}

func (s *session) Run(ctx context.Context, in *tensor.Tensor, out []*tensor.Tensor) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return fmt.Errorf("model %s: %w", s.name, engine.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := engine.CheckRun(s.input, len(s.outputs), in, out); err != nil {
		return fmt.Errorf("model %s: %w", s.name, err)
	}
	call := s.backend.begin(s.name, int(in.Shape[0]))
	defer s.backend.end()
	if s.backend.Hook != nil {
		if err := s.backend.Hook(ctx, call); err != nil {
			return fmt.Errorf("model %s: %w", s.name, err)
		}
	}
	size := s.input.Shape[0]
	if size == tensor.Dynamic || size == in.Shape[0] {
		return s.compute(in, out)
	}
	var p engine.Pieces
	if err := p.RunPieces(ctx, size, s.Outputs(), in, out, s.compute); err != nil {
		return fmt.Errorf("model %s: %w", s.name, err)
	}
	return nil
}

// compute fills the outputs image by image.
func (s *session) compute(in *tensor.Tensor, out []*tensor.Tensor) error {
	n := int(in.Shape[0])
	image := make([]float32, len(in.Data)/n)
	for i, o := range s.outputs {
		shape := o.Shape.Clone()
		if shape[0] == tensor.Dynamic {
			shape[0] = int64(n)
		}
		out[i].Resize(shape...)
		for r := range int(min(shape[0], int64(n))) {
			copy(image, in.Row(r))
			o.Compute(image, out[i].Row(r))
		}
	}
	return nil
}

// begin counts a call of Run that starts.
func (b *Backend) begin(model string, batch int) Call {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stats.Runs++
	b.stats.Images += batch
	b.running++
	b.stats.MaxConcurrent = max(b.stats.MaxConcurrent, b.running)
	return Call{Model: model, Number: b.stats.Runs, Batch: batch}
}

// end counts a call of Run that ends.
func (b *Backend) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running--
}
