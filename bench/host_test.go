package bench_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/bench"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/engine/fake"
	"github.com/quantgate/quantgate/tensor"
)

// hosting is the fake engine with memory for batches of its own.
type hosting struct {
	*fake.Backend
	most    int   // pieces that there are
	freeErr error // of each free

	mu     sync.Mutex
	pieces [][]float32
	freed  int
}

func newHosting(most int) *hosting {
	known := map[string]fake.Model{"m": fake.Classifier(tensor.Shape{3, 7, 4}, 10)}
	return &hosting{Backend: fake.New(known), most: most}
}

func (h *hosting) AllocHost(n int) ([]float32, func() error, error) {
	if len(h.pieces) == h.most {
		return nil, nil, errors.New("nothing left")
	}
	x := slices.Repeat([]float32{float32(math.NaN())}, n)
	h.pieces = append(h.pieces, x)
	return x, func() error {
		for i := range x {
			x[i] = float32(math.NaN()) // whoever runs it now is found out
		}
		h.freed++
		return h.freeErr
	}, nil
}

// gatheringHost is a session whose calls, behind the first alone, return when as many as are in flight have come. It notes what they run.
type gatheringHost struct {
	engine.Session
	h           *hosting
	alone       int
	inFlight    int
	waiting     []*float32 // where the batches of the calls that wait lie
	done        chan struct{}
	runs        int
	inside      int  // of these, in the engine's memory
	shared, bad bool // a batch was in two calls at once, was not the random one
	want        []float32
}

func (g *gatheringHost) Run(ctx context.Context, in *tensor.Tensor, out []*tensor.Tensor) error {
	h := g.h
	h.mu.Lock()
	at := &in.Data[0]
	g.runs++
	g.bad = g.bad || !slices.Equal(in.Data, g.want)
	if slices.ContainsFunc(h.pieces, func(x []float32) bool { return &x[0] == at }) {
		g.inside++
	}
	if g.alone--; g.alone >= 0 {
		h.mu.Unlock()
		return g.Session.Run(ctx, in, out)
	}
	g.shared = g.shared || slices.Contains(g.waiting, at)
	if g.waiting = append(g.waiting, at); len(g.waiting) == 1 {
		g.done = make(chan struct{})
	}
	done := g.done
	if len(g.waiting) == g.inFlight {
		g.waiting = nil
		close(done)
	}
	h.mu.Unlock()
	select {
	case <-done:
		return g.Session.Run(ctx, in, out)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ticking is a clock that goes on by a millisecond whenever it is read: each measurement takes one, and as many calls as fill it are those
// that are in flight at once.
func ticking() func() time.Time {
	var now time.Time
	return func() time.Time {
		now = now.Add(ms)
		return now
	}
}

// measure measures the fake with 3 calls in flight: latency takes 1 call to warm up and then 5, throughput 3 and then 5 times 3.
func (h *hosting) measure(ctx context.Context, t *testing.T) (*gatheringHost, *bench.Figures, []string, error) {
	t.Helper()
	s, err := h.Open(t.Context(), engine.Model{Name: "m"}, engine.Options{})
	require.NoError(t, err)
	want, err := bench.Random(s.Inputs()[0].Shape, 4, [2]int64{}, 1)
	require.NoError(t, err)
	g := &gatheringHost{Session: s, h: h, alone: 1 + 5, inFlight: 3, want: want.Data}
	var warnings []string
	f, err := bench.Measure(ctx, g, bench.Options{
		Batch: 4, Parallel: 3, Duration: ms, Repeats: 5, Now: ticking(), Host: h, Warn: func(err error) { warnings = append(warnings, err.Error()) },
	})
	require.False(t, g.bad, "each batch is the random one until its call is over")
	require.False(t, g.shared, "each call in flight has a batch of its own")
	require.Equal(t, len(h.pieces), h.freed)
	require.NoError(t, s.Close())
	return g, f, warnings, err
}

const callsMeasured = 1 + 5 + 3 + 5*3

// TestBatchesLieInTheEnginesMemory measures with enough of the engine's memory, and with too little.
func TestBatchesLieInTheEnginesMemory(t *testing.T) {
	for most, inside := range map[int]int{100: callsMeasured, 3: callsMeasured, 2: 0, 0: 0} {
		h := newHosting(most)
		g, f, warnings, err := h.measure(t.Context(), t)
		require.NoError(t, err)
		require.InDelta(t, 12000, f.EndToEnd.Median, 1e-6, "three calls of 4 images in each millisecond")
		require.Equal(t, callsMeasured, g.runs)
		require.Equal(t, inside, g.inside)
		require.Len(t, h.pieces, min(most, 3))
		if inside > 0 {
			require.Empty(t, warnings)
		} else {
			require.Equal(t, []string{"batches lie in ordinary memory, which takes a copy more: nothing left"}, warnings)
		}
	}
}

func TestTheEnginesMemoryIsFreedAfterFailures(t *testing.T) {
	boom := errors.New("boom")
	for call := 1; call <= callsMeasured; call++ {
		h := newHosting(3)
		h.Hook = fake.FailAt(call, boom)
		_, _, warnings, err := h.measure(t.Context(), t)
		require.ErrorIs(t, err, boom)
		require.Equal(t, 3, h.freed)
		require.Empty(t, warnings)
	}
	h := newHosting(3)
	ctx, cancel := context.WithCancel(t.Context())
	h.Hook = func(context.Context, fake.Call) error {
		cancel()
		return nil
	}
	_, _, _, err := h.measure(ctx, t)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 3, h.freed)

	h = newHosting(3) // memory that is not given back is no reason to lose the figures
	h.freeErr = boom
	_, f, warnings, err := h.measure(t.Context(), t)
	require.NoError(t, err)
	require.NotNil(t, f)
	require.Equal(t, []string{"the batches' memory was not given back: boom\nboom\nboom"}, warnings)
}
