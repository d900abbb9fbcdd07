package trt

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/trttest"
	"github.com/quantgate/quantgate/tensor"
)

// TestHostMemory takes away the driver's pinned memory once batches lie in it: what a session then runs it uploads without memory of its own.
// The fake driver refuses copies from memory that is not pinned.
func TestHostMemory(t *testing.T) {
	t.Setenv("FAKE_DEVICES", "2")
	ctx := context.Background()
	lib := trttest.Build(t, 8601)
	g, err := NewGroup(Options{Library: lib, Batch: 4, CacheDir: t.TempDir()}, []int{0, 1})
	require.NoError(t, err)
	_, before := trttest.Live(t, lib)
	values, free, err := g.AllocHost(9 * 4)
	require.NoError(t, err)
	require.Len(t, values, 9*4)
	for i := range values {
		values[i] = float32(i)
	}
	rows := func(from, to int) *tensor.Tensor {
		return &tensor.Tensor{Shape: tensor.Shape{int64(to - from), 1, 2, 2}, Data: values[4*from : 4*to]}
	}
	check := func(s engine.Session, x *tensor.Tensor) error {
		out := []*tensor.Tensor{{}}
		if err := s.Run(ctx, x, out); err != nil {
			return err
		}
		for i, v := range x.Data {
			require.Equal(t, 2*v, out[0].Data[i])
		}
		return nil
	}
	model := engine.Model{Name: "m", Data: []byte(trttest.Model)}
	fixed := engine.Model{Name: "fixed", Data: []byte("fake\ninput x 0 2 1 2 2\noutput y 0 2 4\n")}
	half := engine.Model{Name: "half", Data: []byte("fake\ninput x 1 -1 1 2 2\noutput y 1 -1 4\n")}
	sessions := map[string]engine.Session{}
	for _, m := range []engine.Model{model, fixed, half} {
		s, err := g.Open(ctx, m, engine.Options{Outputs: []string{"y"}})
		require.NoError(t, err)
		sessions[m.Name] = s
	}

	_, opened := trttest.Live(t, lib)
	t.Setenv("FAKE_CUDA", "no_pinned")
	s := sessions["m"]
	for range 2 * 2 * lanes { // on both GPUs and in each lane
		for from := range 9 {
			for to := from + 1; to <= 9; to++ {
				if n := to - from; n <= 4 || n == 8 { // the engine takes 4 at most: whole pieces are not copied
					require.NoError(t, check(s, rows(from, to)), "images %d to %d", from, to)
				}
			}
		}
	}
	require.NoError(t, check(sessions["fixed"], rows(1, 9)))
	_, live := trttest.Live(t, lib)
	require.Equal(t, opened, live, "nothing was allocated")

	// What lies elsewhere, or partly, or is padded, or goes in as float16, takes the session's own memory.
	for name, x := range map[string]*tensor.Tensor{"m": {Shape: tensor.Shape{1, 1, 2, 2}, Data: []float32{1, 2, 3, 4}}, "fixed": rows(0, 1), "half": rows(0, 1)} {
		require.ErrorContains(t, sessions[name].Run(ctx, x, []*tensor.Tensor{{}}), "cuMemHostAlloc", name)
	}
	t.Setenv("FAKE_CUDA", "")
	require.NoError(t, check(sessions["m"], &tensor.Tensor{Shape: tensor.Shape{1, 1, 2, 2}, Data: []float32{1, 2, 3, 4}}))
	require.NoError(t, check(sessions["fixed"], rows(0, 3)))
	require.NoError(t, check(sessions["half"], rows(0, 3)))

	// The device's share of the copies is in Spent, whichever way they went: a millisecond each on the fake clock.
	copied, computed := s.(engine.Copier).Spent()
	require.NoError(t, check(s, rows(0, 4)))
	copying, computing := s.(engine.Copier).Spent()
	require.GreaterOrEqual(t, (copying - copied).Milliseconds(), int64(2))
	require.EqualValues(t, 1, (computing - computed).Milliseconds())

	// A batch that fails gives the memory up too.
	t.Setenv("FAKE_TRT", "enqueue_fails")
	require.Error(t, check(s, rows(0, 4)))
	t.Setenv("FAKE_TRT", "")
	t.Setenv("FAKE_CUDA", "wait_fails")
	require.Error(t, check(s, rows(0, 4)))
	t.Setenv("FAKE_CUDA", "")

	for _, s := range sessions {
		require.NoError(t, s.Close())
	}
	values[35]++ // the memory outlives the sessions
	require.NoError(t, free())
	require.NoError(t, free())
	_, after := trttest.Live(t, lib)
	require.Equal(t, before, after)
}

func TestHostMemoryIsNotFreedInUse(t *testing.T) {
	lib := trttest.Build(t, 8601)
	b, err := New(Options{Library: lib, CacheDir: t.TempDir()})
	require.NoError(t, err)
	_, before := trttest.Live(t, lib)
	first, freeFirst, err := b.AllocHost(8)
	require.NoError(t, err)
	second, freeSecond, err := b.AllocHost(8)
	require.NoError(t, err)
	k := b.host.use(second[2:5])
	require.NotNil(t, k)
	require.Nil(t, b.host.use(second[:0]))
	require.Nil(t, b.host.use(make([]float32, 8)))
	require.NoError(t, freeFirst())
	require.ErrorIs(t, freeSecond(), errInUse)
	b.host.done(k)
	require.NoError(t, freeSecond())
	require.Nil(t, b.host.use(first), "freed")
	_, after := trttest.Live(t, lib)
	require.Equal(t, before, after)

	for _, n := range []int{-1, 0, math.MaxInt} {
		_, _, err := b.AllocHost(n)
		require.ErrorContains(t, err, "host memory for")
	}
	t.Setenv("FAKE_CUDA", "no_pinned")
	_, _, err = b.AllocHost(8)
	require.ErrorContains(t, err, "pinned host memory: 32 bytes: CUDA: cuMemHostAlloc: out of memory")
	require.Equal(t, 2*lanes, b.Concurrency())
}

// TestHostMemoryFromManyGoroutines allocates, runs and frees at the same time on two GPUs.
func TestHostMemoryFromManyGoroutines(t *testing.T) {
	t.Setenv("FAKE_DEVICES", "2")
	ctx := context.Background()
	lib := trttest.Build(t, 101501)
	g, err := NewGroup(Options{Library: lib, Batch: 4, CacheDir: t.TempDir()}, []int{0, 1})
	require.NoError(t, err)
	require.Equal(t, 2*2*lanes, g.Concurrency())
	s, err := g.Open(ctx, engine.Model{Name: "m", Data: []byte(trttest.Model)}, engine.Options{Outputs: []string{"y"}})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 30 {
				x, free, err := g.AllocHost(16)
				if err != nil {
					t.Errorf("goroutine %d: %v", w, err)
					return
				}
				for k := range x {
					x[k] = float32(w*100 + i + k)
				}
				out := []*tensor.Tensor{{}}
				if err := s.Run(ctx, &tensor.Tensor{Shape: tensor.Shape{4, 1, 2, 2}, Data: x}, out); err != nil || out[0].Data[15] != 2*x[15] {
					t.Errorf("goroutine %d: %v", w, err)
				}
				if err := free(); err != nil {
					t.Errorf("goroutine %d: %v", w, err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, s.Close())
}

// BenchmarkSessionInput is what the host does for a batch of 100 images of 3x224x224 in one session: in ordinary memory, and in AllocHost's. The
// driver is a fake that uploads nothing. Both take turns; copy/pinned is how many times as long the first takes.
func BenchmarkSessionInput(b *testing.B) {
	b.Setenv("FAKE_CUDA", "no_upload")
	ctx := context.Background()
	backend, err := New(Options{Library: trttest.Build(b, 8601), Batch: 100, CacheDir: b.TempDir()})
	require.NoError(b, err)
	s, err := backend.Open(ctx, engine.Model{Name: "m", Data: []byte("fake\ninput x 0 -1 3 224 224\noutput y 0 -1 1000\n")}, engine.Options{})
	require.NoError(b, err)
	defer s.Close()
	plain := tensor.New(100, 3, 224, 224)
	values, free, err := backend.AllocHost(len(plain.Data))
	require.NoError(b, err)
	defer func() { require.NoError(b, free()) }()
	for i := range plain.Data { // memory that was never written is one page of zeros
		plain.Data[i], values[i] = float32(i), float32(i)
	}
	var took [2]time.Duration
	out := []*tensor.Tensor{{}}
	for b.Loop() {
		for i, x := range []*tensor.Tensor{plain, {Shape: plain.Shape, Data: values}} {
			began := time.Now()
			require.NoError(b, s.Run(ctx, x, out))
			took[i] += time.Since(began)
		}
	}
	perImage := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(100*b.N) }
	b.ReportMetric(perImage(took[0]), "copy-us/image")
	b.ReportMetric(perImage(took[1]), "pinned-us/image")
	b.ReportMetric(float64(took[0])/float64(took[1]), "copy/pinned")
}
