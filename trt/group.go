package trt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
	"github.com/quantgate/quantgate/trt/internal/cuda"
)

// Group is one backend on several GPUs of one kind. Engines are built on the first; the others load the same plan, so that an image's
// outcome does not depend on the GPU that had it. Name and Version are those of one GPU: what a group began, fewer GPUs can continue.
type Group struct {
	all []*Backend
}

var _ engine.Quantizer = (*Group)(nil)

// NewGroup opens the GPUs of the given indices; Options.Device is not looked at.
func NewGroup(o Options, devices []int) (*Group, error) {
	if len(devices) == 0 {
		return nil, errors.New("TensorRT: no device was given")
	}
	g := &Group{}
	for i, d := range devices {
		if slices.Contains(devices[:i], d) {
			return nil, fmt.Errorf("TensorRT: device %d is named twice", d)
		}
		o.Device = d
		var first *Backend
		if i > 0 {
			first = g.all[0]
		}
		b, err := newBackend(o, first)
		if err != nil {
			return nil, err
		}
		g.all = append(g.all, b)
		if first := g.all[0].device; b.device.Name != first.Name || b.device.Major != first.Major || b.device.Minor != first.Minor {
			return nil, fmt.Errorf("device %d is %s and device %d is %s: results would depend on which of them had an image; name devices of one kind",
				d, b.device.Name, first.Index, first.Name)
		}
	}
	return g, nil
}

// ParseDevices reads a list of GPUs, "0,2", or "all" for those that the driver in the libraries' folder, or in the system, lists.
func ParseDevices(list, library string) ([]int, error) {
	if list == "all" {
		driver, err := cuda.Open(driverFile(Options{Library: library}.folder()))
		if err != nil {
			return nil, fmt.Errorf("devices: no GPU is usable: %s: %w", oneLine(err), engine.ErrUnavailable)
		}
		gpus, err := driver.GPUs()
		if err != nil {
			return nil, fmt.Errorf("devices: %w", err)
		}
		if len(gpus) == 0 {
			return nil, fmt.Errorf("devices: the driver lists no GPU: %w", engine.ErrUnavailable)
		}
		out := make([]int, len(gpus))
		for i, g := range gpus {
			out[i] = g.Index
		}
		return out, nil
	}
	var out []int
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 0 {
			return nil, fmt.Errorf("devices %q: %q is not a GPU's number: use all, or numbers such as 0,1", list, s)
		}
		if slices.Contains(out, n) {
			return nil, fmt.Errorf("devices %q: %d is named twice", list, n)
		}
		out = append(out, n)
	}
	return out, nil
}

// Name returns "tensorrt".
func (g *Group) Name() string { return g.all[0].Name() }

// Version is that of one GPU.
func (g *Group) Version() string { return g.all[0].Version() }

// LibraryVersion returns TensorRT's version alone.
func (g *Group) LibraryVersion() string { return g.all[0].LibraryVersion() }

// DeviceName is the name of each of the GPUs.
func (g *Group) DeviceName() string { return g.all[0].device.Name }

// Size is the number of GPUs.
func (g *Group) Size() int { return len(g.all) }

// First is the group of the first n GPUs, which shares everything with this one.
func (g *Group) First(n int) *Group { return &Group{all: g.all[:n]} }

// Calibrate calibrates and builds on the first GPU.
func (g *Group) Calibrate(ctx context.Context, m engine.Model, c engine.Calibration) ([]byte, error) {
	return g.all[0].Calibrate(ctx, m, c)
}

// Plan returns the plan that is kept of a model.
func (g *Group) Plan(m engine.Model, o engine.Options) ([]byte, error) { return g.all[0].Plan(m, o) }

// Open builds a model's engine on the first GPU, or takes the kept plan, and loads it on every one.
func (g *Group) Open(ctx context.Context, m engine.Model, o engine.Options) (engine.Session, error) {
	fail := func(b *Backend, err error) error {
		return fmt.Errorf("model %s: %s: %w", modelName(m), b.title(), err)
	}
	first, built, err := g.all[0].openPlan(ctx, m, o)
	if err != nil {
		return nil, fail(g.all[0], err)
	}
	s := &groupSession{all: []*Session{first}}
	for _, b := range g.all[1:] {
		next, err := b.load(modelName(m), built, o)
		if err != nil {
			return nil, errors.Join(fail(b, err), s.Close())
		}
		s.all = append(s.all, next)
	}
	// Turns alternate between the GPUs, as many as have a lane: whoever is free takes the next batch.
	s.turns = make(chan *Session, len(s.all)*lanes)
	for i := range lanes {
		for _, one := range s.all {
			if i < len(one.all) {
				s.turns <- one
			}
		}
	}
	return s, nil
}

// title is what messages call a backend's GPU.
func (b *Backend) title() string { return fmt.Sprintf("GPU %d (%s)", b.device.Index, b.device.Name) }

// groupSession is one session a GPU. A call of Run goes to one of them whole.
type groupSession struct {
	all   []*Session
	turns chan *Session
}

var (
	_ engine.Inspector = (*groupSession)(nil)
	_ engine.Copier    = (*groupSession)(nil)
)

func (s *groupSession) Inputs() []engine.Port           { return s.all[0].Inputs() }
func (s *groupSession) Outputs() []engine.Port          { return s.all[0].Outputs() }
func (s *groupSession) Layers() ([]engine.Layer, error) { return s.all[0].Layers() }

// Spent adds up what all the GPUs' sessions did.
func (s *groupSession) Spent() (copying, computing time.Duration) {
	for _, one := range s.all {
		a, b := one.Spent()
		copying, computing = copying+a, computing+b
	}
	return copying, computing
}

// Run computes one batch on a GPU that is free. An error names the GPU.
func (s *groupSession) Run(ctx context.Context, in *tensor.Tensor, out []*tensor.Tensor) error {
	var one *Session
	select {
	case one = <-s.turns:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.turns <- one }()
	return one.named(one.Run(ctx, in, out))
}

// named adds the GPU to an error that is the device's, not the caller's.
func (s *Session) named(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, engine.ErrShape) || errors.Is(err, engine.ErrClosed) {
		return err
	}
	return fmt.Errorf("%s: %w", s.b.title(), err)
}

// each works on every GPU at once.
func (s *groupSession) each(ctx context.Context, f func(context.Context, *Session) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, one := range s.all {
		g.Go(func() error { return one.named(f(ctx, one)) })
	}
	return g.Wait()
}

// Fill is Session.Fill on every GPU.
func (s *groupSession) Fill(ctx context.Context, in *tensor.Tensor) error {
	return s.each(ctx, func(ctx context.Context, one *Session) error { return one.Fill(ctx, in) })
}

// Repeat is Session.Repeat on every GPU at once: n batches on each.
func (s *groupSession) Repeat(ctx context.Context, n int) error {
	return s.each(ctx, func(ctx context.Context, one *Session) error { return one.Repeat(ctx, n) })
}

// Close closes every GPU's session.
func (s *groupSession) Close() error {
	var err error
	for _, one := range s.all {
		err = errors.Join(err, one.Close())
	}
	return err
}
