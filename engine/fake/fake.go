// Package fake is an engine.Backend without an engine, for tests of what stands on engines: its models are Go functions of one image,
// it counts what is asked of it, and it fails or blocks where it is told to.
package fake

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
)

// Model is what a session computes. Element types are only declared: values go in and out as float32, unrounded.
type Model struct {
	// Input is the model's only input. Its outermost dimension is tensor.Dynamic, or the batch that the model fixes.
	Input engine.Port
	// Outputs are the model's outputs in order. Options.Outputs chooses among them, as taps are chosen in a real engine.
	Outputs []Output
}

// Output is one output of a model.
type Output struct {
	engine.Port // Shape: the batch as the outermost dimension, every other one fixed
	// Compute fills the output's values for one image. Both slices are the callee's for the duration of the call; it must
	// not change image, nor depend on anything else, so that any batch and any order of calls give the same bits.
	Compute func(image, out []float32)
}

// Call is one call of Run that has passed its checks.
type Call struct {
	Model  string // engine.Model.Name
	Number int    // counts the calls of Run on all sessions of the backend, from 1
	Batch  int    // number of images
}

// Hook runs at the beginning of each call of Run. An error ends the call with it.
type Hook func(ctx context.Context, c Call) error

// FailAt returns a hook that fails the call of the given number, counted from 1, with err.
func FailAt(number int, err error) Hook {
	return func(_ context.Context, c Call) error {
		if c.Number == number {
			return err
		}
		return nil
	}
}

// BlockFrom returns a hook that blocks each call from the given number on until its context is cancelled.
func BlockFrom(number int) Hook {
	return func(ctx context.Context, c Call) error {
		if c.Number < number {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

// Stats counts what a backend was asked for.
type Stats struct {
	Opened        int // sessions opened
	Open          int // of these, not closed yet
	Runs          int // calls of Run that passed their checks
	Images        int // images in them
	MaxConcurrent int // most calls of Run at the same time
}

// Backend opens sessions on fake models. Set its fields before the first Open. It is safe for concurrent use.
type Backend struct {
	// Describe says what a model computes; its error is what Open fails with. Options are what Open was given.
	Describe func(m engine.Model, o engine.Options) (Model, error)
	// Hook, if not nil, runs at the beginning of each call of Run.
	Hook Hook

	mu      sync.Mutex
	stats   Stats
	running int
}

var _ engine.Backend = (*Backend)(nil)

// New returns a backend that knows the given models by engine.Model.Name.
func New(models map[string]Model) *Backend {
	return &Backend{Describe: func(m engine.Model, _ engine.Options) (Model, error) {
		known, ok := models[m.Name]
		if !ok {
			return Model{}, errors.New("not a model that this fake knows")
		}
		return known, nil
	}}
}

// Classifier returns a model with one output, "logits", for images of the given shape without the batch. The logits are sums of the
// image's values with weights -2..2 that differ from class to class, so integers give the same bits in any order of adding.
func Classifier(image tensor.Shape, classes int) Model {
	return Model{
		Input: engine.Port{Name: "data", DType: tensor.Float32, Shape: append(tensor.Shape{tensor.Dynamic}, image...)},
		Outputs: []Output{{
			Port: engine.Port{Name: "logits", DType: tensor.Float32, Shape: tensor.Shape{tensor.Dynamic, int64(classes)}},
			Compute: func(image, out []float32) {
				for k := range out {
					out[k] = 0
					for j, v := range image {
						out[k] += v * float32((j*7+k*13+j*k)%5-2)
					}
				}
			},
		}},
	}
}

// Name returns "fake".
func (b *Backend) Name() string { return "fake" }

// Version returns "1".
func (b *Backend) Version() string { return "1" }

// Stats returns the counts so far.
func (b *Backend) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stats
}

// Open returns a session on the model that Describe gives.
func (b *Backend) Open(ctx context.Context, m engine.Model, o engine.Options) (engine.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	model, err := b.Describe(m, o)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", m.Name, err)
	}
	if _, err := engine.OneInput([]engine.Port{model.Input}); err != nil {
		return nil, fmt.Errorf("model %s: %w", m.Name, err)
	}
	ports := make([]engine.Port, len(model.Outputs))
	byName := make(map[string]Output, len(model.Outputs))
	for i, out := range model.Outputs {
		ports[i], byName[out.Name] = out.Port, out
	}
	if ports, err = engine.ChooseOutputs(ports, o.Outputs); err != nil {
		return nil, fmt.Errorf("model %s: %w", m.Name, err)
	}
	s := &session{backend: b, name: m.Name, input: model.Input}
	for _, p := range ports {
		s.outputs = append(s.outputs, byName[p.Name])
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stats.Opened++
	b.stats.Open++
	return s, nil
}
