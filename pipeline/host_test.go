package pipeline

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/engine/fake"
	"github.com/quantgate/quantgate/tensor"
)

// hosting is the fake engine with memory for batches of its own, and three calls of Run at once.
type hosting struct {
	*fake.Backend
	most int // pieces that there are

	mu       sync.Mutex
	pieces   [][]float32
	freed    int
	inside   atomic.Int64 // images run that lay in it
	outside  atomic.Int64
	misfreed atomic.Int64 // pieces freed while a session was open
}

type hostingSession struct {
	engine.Session
	b *hosting
}

func (b *hosting) Concurrency() int { return 3 }

func (b *hosting) AllocHost(n int) ([]float32, func() error, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.pieces) == b.most {
		return nil, nil, errors.New("nothing left")
	}
	x := make([]float32, n)
	b.pieces = append(b.pieces, x)
	return x, func() error {
		if b.Stats().Open > 0 {
			b.misfreed.Add(1)
		}
		for i := range x {
			x[i] = float32(math.NaN())
		}
		b.freed++
		return nil
	}, nil
}

func (b *hosting) Open(ctx context.Context, m engine.Model, o engine.Options) (engine.Session, error) {
	s, err := b.Backend.Open(ctx, m, o)
	if err != nil {
		return nil, err
	}
	return hostingSession{s, b}, nil
}

func (s hostingSession) Run(ctx context.Context, in *tensor.Tensor, out []*tensor.Tensor) error {
	s.b.mu.Lock()
	inside := slices.ContainsFunc(s.b.pieces, func(x []float32) bool {
		for at := 0; at+len(in.Data) <= len(x); at += side * side {
			if &x[at] == &in.Data[0] {
				return true
			}
		}
		return false
	})
	s.b.mu.Unlock()
	if inside {
		s.b.inside.Add(in.Shape[0])
	} else {
		s.b.outside.Add(in.Shape[0])
	}
	return s.Session.Run(ctx, in, out)
}

// TestBatchesLieInTheEnginesMemory scores with enough of the engine's memory and with too little: the outcomes are the same.
func TestBatchesLieInTheEnginesMemory(t *testing.T) {
	d := open(t, writeIDX(t))
	plain := testJob(t, d)
	_, err := Run(t.Context(), Env{backend(), &recorder{}}, plain)
	require.NoError(t, err)
	want := contents(t, plain.Out)
	const scored = 3 * (images - calibCount*batchSize) // by three sessions
	var others int64                                   // images that calibrate and probe
	for _, most := range []int{100, 8, 0} {
		job := testJob(t, d)
		b, report := &hosting{Backend: backend(), most: most}, &recorder{}
		result, err := Run(t.Context(), Env{b, report}, job)
		require.NoError(t, err)
		require.Equal(t, want, contents(t, job.Out))
		// Two ahead of two decoders, three times three at the engine and two between; there are nine batches.
		require.Len(t, b.pieces, min(most, 9))
		require.Equal(t, len(b.pieces), b.freed)
		require.Zero(t, b.misfreed.Load())
		switch most {
		case 100:
			require.EqualValues(t, scored, b.inside.Load())
			others = b.outside.Load()
			require.NotContains(t, strings.Join(report.debug, "\n"), "ordinary memory")
		default:
			require.Zero(t, b.inside.Load())
			require.Equal(t, scored+others, b.outside.Load())
			require.Contains(t, report.debug, "relu_mlp: batches lie in ordinary memory, which takes a copy more: nothing left")
		}
		require.LessOrEqual(t, b.Stats().MaxConcurrent, 3*3)
		score := result.Stages[slices.IndexFunc(result.Stages, func(s Stage) bool { return s.Name == stageScore })]
		require.Equal(t, 2, score.Workers)
		require.Equal(t, 3*3, score.Runners)
	}
}

// TestTheEnginesMemoryIsFreedAfterFailures fails each call of the engine in turn, and the opening of its sessions.
func TestTheEnginesMemoryIsFreedAfterFailures(t *testing.T) {
	d := open(t, writeIDX(t))
	boom := errors.New("boom")
	whole := backend()
	_, err := Run(t.Context(), Env{whole, &recorder{}}, testJob(t, d))
	require.NoError(t, err)
	last := whole.Stats().Runs
	for call := last - 26; call <= last; call += 5 { // scoring takes 27: the pieces are ten images
		b := &hosting{Backend: backend(), most: 100}
		b.Hook = fake.FailAt(call, boom)
		_, err := Run(t.Context(), Env{b, &recorder{}}, testJob(t, d))
		require.ErrorIs(t, err, boom)
		require.Len(t, b.pieces, 9)
		require.Equal(t, 9, b.freed)
		require.Zero(t, b.misfreed.Load())
	}
	b := &hosting{Backend: backend(), most: 100}
	describe := b.Describe
	b.Describe = func(m engine.Model, o engine.Options) (fake.Model, error) {
		if len(b.pieces) > 0 {
			return fake.Model{}, boom
		}
		return describe(m, o)
	}
	_, err = Run(t.Context(), Env{b, &recorder{}}, testJob(t, d))
	require.ErrorIs(t, err, boom)
	require.Equal(t, 9, b.freed)
}
