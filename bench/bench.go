// Package bench measures an engine's throughput and latency, and keeps the figures. It calls no native library: it takes sessions, the engine's
// memory for batches, sensors and a clock.
package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
)

// MinRepeats is the fewest repeats that a median and a spread are told of.
const MinRepeats = 5

// Repeater is a Session that can run without copies between host and device.
type Repeater interface {
	engine.Session
	// Fill puts a batch, of the size that the session was opened for, into the memory of every batch in flight.
	Fill(ctx context.Context, in *tensor.Tensor) error
	// Repeat runs n such batches on each device and returns when all are done.
	Repeat(ctx context.Context, n int) error
}

// Options say how to measure.
type Options struct {
	Batch    int           // images a call
	Devices  int           // that share the calls; 0 means 1
	Parallel int           // calls of Run in flight while throughput with copies is measured, each with a batch of its own; 0 means 1
	Warmup   time.Duration // before each kind of figure
	Duration time.Duration // of one repeat
	Repeats  int           // at least MinRepeats
	// Image is the height and width of an image where the model leaves them open.
	Image [2]int64
	// Host, if not nil, allocates the batches that are run with their copies, as the pipeline's are. Where it cannot, they lie in Go's memory.
	Host engine.HostMemory
	// Warn, if not nil, is told where Host failed, for which no figure is lost.
	Warn func(err error)
	// Watch, if not nil, is called before the repeats that throughput is taken from; what it returns, after them.
	Watch func() (stop func() *Conditions)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (o Options) check() error {
	switch {
	case o.Batch < 1:
		return fmt.Errorf("batch %d: must be at least 1", o.Batch)
	case o.Repeats < MinRepeats:
		return fmt.Errorf("%d repeats: at least %d are needed for a median with its spread", o.Repeats, MinRepeats)
	case o.Duration <= 0:
		return fmt.Errorf("duration %s: must be positive", o.Duration)
	case o.Warmup < 0:
		return fmt.Errorf("warm-up %s: must not be negative", o.Warmup)
	}
	return nil
}

// Rate is throughput in images a second: the median of the repeats, and the least and the most of them.
type Rate struct {
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Repeats []float64 `json:"repeats"` // in the order they were measured
}

// Spread is the range of the repeats as a share of the median.
func (r Rate) Spread() float64 { return (r.Max - r.Min) / r.Median }

// Latency is the time of one call with its copies while no other is in flight, in seconds.
type Latency struct {
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Calls int     `json:"calls"`
}

// Figures are what Measure finds.
type Figures struct {
	Compute    *Rate // without copies; nil where the session cannot do without
	EndToEnd   Rate  // with copies
	Latency    Latency
	Conditions *Conditions
}

// Percentile is the nearest-rank percentile of sorted values: the smallest of them that at least p % of them do not exceed.
func Percentile(sorted []float64, p float64) float64 {
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Median is the middle of the values, or the mean of the two in the middle.
func Median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

func newRate(repeats []float64) Rate {
	return Rate{Median: Median(repeats), Min: slices.Min(repeats), Max: slices.Max(repeats), Repeats: repeats}
}

// Measure times a session on random images. Throughput comes from Options.Repeats runs of about Options.Duration each, every one a number
// of calls that was settled before its clock started; without copies where the session is a Repeater, and with them.
func Measure(ctx context.Context, s engine.Session, o Options) (*Figures, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	m := &meter{Options: o}
	m.Devices, m.Parallel = max(o.Devices, 1), max(o.Parallel, 1)
	if m.Now == nil {
		m.Now = time.Now
	}
	if m.Warn == nil {
		m.Warn = func(error) {}
	}
	x, err := Random(s.Inputs()[0].Shape, o.Batch, o.Image, 1)
	if err != nil {
		return nil, err
	}
	f := &Figures{}
	watch := func(run func() error) error {
		if o.Watch == nil {
			return run()
		}
		stop := o.Watch()
		err := run()
		f.Conditions = stop()
		return err
	}
	r, quick := s.(Repeater)
	if quick {
		if err := r.Fill(ctx, x); err != nil {
			return nil, err
		}
		rate, err := m.rate(ctx, m.Batch*m.Devices, 1, r.Repeat, watch)
		if err != nil {
			return nil, err
		}
		f.Compute = &rate
		watch = func(run func() error) error { return run() }
	}
	batches, free := m.batches(x) // after Fill, for which the session needs memory of such a kind too
	defer free()
	if f.Latency, err = m.latency(ctx, s, batches[0]); err != nil {
		return nil, err
	}
	calls := func(ctx context.Context, n int) error { return m.run(ctx, s, batches, n) }
	f.EndToEnd, err = m.rate(ctx, m.Batch, m.Parallel, calls, watch)
	return f, err
}

// batches are copies of x, one for each call in flight: one for all may stay in the processor's caches. free gives their memory back.
func (m *meter) batches(x *tensor.Tensor) (batches []*tensor.Tensor, free func()) {
	memory, free := m.allocate(len(x.Data))
	for _, values := range memory {
		copy(values, x.Data)
		batches = append(batches, &tensor.Tensor{Shape: x.Shape, Data: values})
	}
	return batches, free
}

// allocate makes memory of n values for each call in flight: the engine's, or Go's for all of them.
func (m *meter) allocate(n int) (memory [][]float32, free func()) {
	if m.Host != nil {
		memory, giveBack, err := engine.AllocBatches(m.Host, m.Parallel, n)
		if err == nil {
			return memory, func() {
				if err := giveBack(); err != nil {
					m.Warn(fmt.Errorf("the batches' memory was not given back: %w", err))
				}
			}
		}
		m.Warn(fmt.Errorf("batches lie in ordinary memory, which takes a copy more: %w", err))
	}
	for range m.Parallel {
		memory = append(memory, make([]float32, n))
	}
	return memory, func() {}
}

// mostValues bounds a batch: 8 GiB of float32.
const mostValues = 2 << 30

// Random makes a batch for a model's input: values uniform in -1..1, the same for the same seed. Zeros would flatter a GPU, whose power and
// so whose clocks depend on the bits that change.
func Random(shape tensor.Shape, batch int, image [2]int64, seed uint64) (*tensor.Tensor, error) {
	if n := shape[0]; n != tensor.Dynamic && int(n) != batch {
		return nil, fmt.Errorf("batch %d: the model fixes its batch to %d", batch, n)
	}
	shape = shape.Clone()
	shape[0] = int64(batch)
	for i, d := range shape {
		if d != tensor.Dynamic {
			continue
		}
		if i < 2 || i > 3 || image[i-2] <= 0 {
			return nil, fmt.Errorf("input %s: dimension %d is open: give the size of the images", shape, i)
		}
		shape[i] = image[i-2]
	}
	if n, err := shape.Elems(); err != nil || n > mostValues {
		return nil, fmt.Errorf("batches of %s: more than %d values at once: use a smaller batch", shape, mostValues)
	}
	x := tensor.New(shape...)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range x.Data {
		x.Data[i] = 2*rng.Float32() - 1
	}
	return x, nil
}

// meter holds one measurement's settings.
type meter struct {
	Options
}

// timed is how long n steps take.
func (m *meter) timed(ctx context.Context, n int, steps func(context.Context, int) error) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	began := m.Now()
	err := steps(ctx, n)
	return m.Now().Sub(began), err
}

// enough is how many steps fill the duration d, when n took so long, as a multiple of together. The first guesses may be far off: at
// most 100 times n.
func enough(n int, took, d time.Duration, together int) int {
	most := 100 * n
	if took <= 0 {
		return most
	}
	fill := min(float64(most), float64(n)*float64(d)/float64(took))
	return together * max(1, int(math.Round(fill/float64(together))))
}

// warm runs steps for the warm-up's time, twice as many each time, and returns how many fill a repeat.
func (m *meter) warm(ctx context.Context, together int, steps func(context.Context, int) error) (int, error) {
	n := together
	for total := time.Duration(0); ; n *= 2 {
		took, err := m.timed(ctx, n, steps)
		if err != nil {
			return 0, err
		}
		if total += took; total >= m.Warmup {
			return enough(n, took, m.Duration, together), nil
		}
	}
}

// rate measures throughput; a step is so many images. Steps come in multiples of together, which run at once: fewer, or a rest, would leave
// some of what is measured idle.
func (m *meter) rate(ctx context.Context, images, together int, steps func(context.Context, int) error, watch func(func() error) error) (Rate, error) {
	n, err := m.warm(ctx, together, steps)
	if err != nil {
		return Rate{}, err
	}
	var repeats []float64
	err = watch(func() error {
		for range m.Repeats {
			took, err := m.timed(ctx, n, steps)
			if err != nil {
				return err
			}
			if took <= 0 {
				return errors.New("the clock stood still while images were run")
			}
			repeats = append(repeats, float64(n*images)/took.Seconds())
			n = enough(n, took, m.Duration, together)
		}
		return nil
	})
	if err != nil {
		return Rate{}, err
	}
	return newRate(repeats), nil
}

// latency times single calls until the duration of one repeat has passed, and at least as many as there are repeats.
func (m *meter) latency(ctx context.Context, s engine.Session, x *tensor.Tensor) (Latency, error) {
	out := outputs(s)
	call := func(ctx context.Context, _ int) error { return s.Run(ctx, x, out) }
	var total time.Duration
	for total < m.Warmup || total == 0 {
		took, err := m.timed(ctx, 1, call)
		if err != nil {
			return Latency{}, err
		}
		total += max(took, 1)
	}
	var calls []float64
	for total = 0; total < m.Duration || len(calls) < m.Repeats; {
		took, err := m.timed(ctx, 1, call)
		if err != nil {
			return Latency{}, err
		}
		total += max(took, 1)
		calls = append(calls, took.Seconds())
	}
	slices.Sort(calls)
	return Latency{P50: Percentile(calls, 50), P90: Percentile(calls, 90), P99: Percentile(calls, 99), Calls: len(calls)}, nil
}

// run makes n calls of Run, as many at once as there are batches.
func (m *meter) run(ctx context.Context, s engine.Session, batches []*tensor.Tensor, n int) error {
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for _, x := range batches[:min(len(batches), n)] {
		g.Go(func() error {
			out := outputs(s)
			for next.Add(1) <= int64(n) {
				if err := s.Run(ctx, x, out); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func outputs(s engine.Session) []*tensor.Tensor {
	out := make([]*tensor.Tensor, len(s.Outputs()))
	for i := range out {
		out[i] = &tensor.Tensor{}
	}
	return out
}
