package ort_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/orttest"
	"github.com/quantgate/quantgate/tensor"
)

var ctx = context.Background()

func open(t testing.TB, path string, o engine.Options) engine.Session {
	t.Helper()
	s, err := orttest.Backend(t).Open(ctx, engine.Model{Path: path}, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func openOwn(t testing.TB, name string, o engine.Options) engine.Session {
	t.Helper()
	return open(t, filepath.Join("testdata", name+".onnx"), o)
}

func outputs(s engine.Session) []*tensor.Tensor {
	out := make([]*tensor.Tensor, len(s.Outputs()))
	for i := range out {
		out[i] = &tensor.Tensor{}
	}
	return out
}

func filled(values []float32, dims ...int64) *tensor.Tensor {
	return &tensor.Tensor{Shape: dims, Data: values}
}

func random(seed uint64, dims ...int64) *tensor.Tensor {
	rng := rand.New(rand.NewPCG(seed, 0))
	x := tensor.New(dims...)
	for i := range x.Data {
		x.Data[i] = float32(rng.NormFloat64())
	}
	return x
}

// TestShapesThatAreNotDeclared runs models whose outputs' shapes ONNX Runtime knows only while it runs. The second and third round meet
// the shapes that the first one has taught the session.
func TestShapesThatAreNotDeclared(t *testing.T) {
	t.Run("height and width open", func(t *testing.T) {
		s := openOwn(t, "open_shapes", engine.Options{})
		out := outputs(s)
		for round := range 3 {
			for _, d := range []tensor.Shape{{2, 1, 3, 2}, {1, 1, 4, 4}} {
				x := random(uint64(round), d...)
				require.NoError(t, s.Run(ctx, x, out))
				require.Equal(t, d, out[0].Shape)
				require.Equal(t, tensor.Shape{d[0], d[2] * d[3]}, out[1].Shape)
				for i, v := range x.Data {
					require.Equal(t, max(v, 0), out[0].Data[i])
					require.Equal(t, max(v, 0), out[1].Data[i])
				}
			}
		}
		memory := &out[0].Data[0]
		require.NoError(t, s.Run(ctx, random(9, 1, 1, 4, 4), out))
		require.Same(t, memory, &out[0].Data[0])
	})
	t.Run("declared wrongly", func(t *testing.T) {
		s := openOwn(t, "wrong_declaration", engine.Options{})
		out := outputs(s)
		for round := range 3 {
			x := random(uint64(round), 3, 1, 2, 2)
			require.NoError(t, s.Run(ctx, x, out))
			require.Equal(t, tensor.Shape{3, 4}, out[0].Shape)
			require.Equal(t, x.Data, out[0].Data)
		}
	})
	t.Run("dependent on the values", func(t *testing.T) {
		s := openOwn(t, "data_dependent", engine.Options{})
		out := outputs(s)
		for _, c := range []struct{ in, want []float32 }{
			{[]float32{1, 0, 0, 1}, []float32{0, 0, 0, 3}},
			{[]float32{1, 1, 0, 1}, []float32{0, 0, 0, 1, 0, 3}},
			{[]float32{0, 0, 5, 0}, []float32{0, 2}},
			{[]float32{0, 0, 0, 0}, []float32{}},
			{[]float32{1, 0, 0, 1}, []float32{0, 0, 0, 3}},
		} {
			require.NoError(t, s.Run(ctx, filled(c.in, 1, 4), out))
			require.Equal(t, tensor.Shape{int64(len(c.want) / 2), 2}, out[0].Shape)
			require.Equal(t, c.want, out[0].Data)
		}
	})
	t.Run("scalar", func(t *testing.T) {
		s := openOwn(t, "scalar", engine.Options{})
		out := outputs(s)
		for round := range 3 {
			require.NoError(t, s.Run(ctx, filled([]float32{1, 2, 3, float32(round)}, 1, 4), out))
			require.Empty(t, out[0].Shape)
			require.Equal(t, []float32{6 + float32(round)}, out[0].Data)
		}
	})
	t.Run("float16", func(t *testing.T) {
		_, err := orttest.Backend(t).Open(ctx, engine.Model{Path: "testdata/half_open.onnx"}, engine.Options{})
		require.EqualError(t, err, `model testdata/half_open.onnx: float16 output "y" has the shape ?x? where only the batch may be open: fix the others in the model`)
	})
}

// TestInputAsOutput: ONNX Runtime does not write into memory bound to an output that is the model's input.
func TestInputAsOutput(t *testing.T) {
	s := openOwn(t, "input_as_output", engine.Options{})
	out := outputs(s)
	for round := range 3 {
		x := random(uint64(round), 2, 4)
		require.NoError(t, s.Run(ctx, x, out))
		require.Equal(t, x.Data, out[0].Data)
		require.Equal(t, max(x.Data[0], 0), out[1].Data[0])
	}
}

// TestCastsToFloat16Round: 400 x 400 = 160,000 is beyond float16's 65,504, and 2049 lies between two float16 numbers. The Casts of a
// float32 graph must survive every optimisation, for FP16 is scored through them.
func TestCastsToFloat16Round(t *testing.T) {
	for _, o := range []engine.Options{{}, {NoFusion: true}} {
		s := openOwn(t, "cast_float16", o)
		out := outputs(s)
		require.NoError(t, s.Run(ctx, filled([]float32{400, -400, 5.1225, 1}, 4, 1), out))
		require.True(t, math.IsInf(float64(out[0].Data[0]), 1), "got %g", out[0].Data[0])
		require.True(t, math.IsInf(float64(out[0].Data[1]), -1), "got %g", out[0].Data[1])
		require.Equal(t, []float32{2048, 400}, out[0].Data[2:])
	}
}

func TestErrorsAreOneLineThatNamesTheModel(t *testing.T) {
	b := orttest.Backend(t)
	for name, want := range map[string]string{
		"unknown_operator": "No Op registered for Frobnicate",
		"opset99":          "Opset 99",
	} {
		path := filepath.Join("testdata", name+".onnx")
		_, err := b.Open(ctx, engine.Model{Path: path}, engine.Options{})
		require.ErrorContains(t, err, "model "+path+": ONNX Runtime: ")
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
		require.NotContains(t, err.Error(), "onnxruntime_src")
	}

	s := openOwn(t, "one_image_only", engine.Options{})
	out := outputs(s)
	require.NoError(t, s.Run(ctx, random(1, 1, 4), out))
	err := s.Run(ctx, random(1, 2, 4), out)
	require.ErrorContains(t, err, "one_image_only.onnx: batch 2x4: ONNX Runtime: ")
	require.ErrorContains(t, err, "Reshape")
	require.NotContains(t, err.Error(), "\n")
	require.NotContains(t, err.Error(), "onnxruntime_src")
	require.NoError(t, s.Run(ctx, random(1, 1, 4), out), "a failed run harmed the session")
}

// TestBatchSizeThreadsAndTapsChangeNoBit is what makes results independent of how the pipeline cuts up its work.
func TestBatchSizeThreadsAndTapsChangeNoBit(t *testing.T) {
	x := random(7, 10, 3, 32, 32)
	for _, noFusion := range []bool{false, true} {
		whole := openOwn(t, "convnet", engine.Options{NoFusion: noFusion})
		want := outputs(whole)
		require.NoError(t, whole.Run(ctx, x, want))
		two := openOwn(t, "convnet", engine.Options{NoFusion: noFusion, Threads: 2})
		got := outputs(two)
		require.NoError(t, two.Run(ctx, x, got))
		for i := range want {
			require.Equal(t, want[i].Data, got[i].Data, "two threads, output %d", i)
		}
		for n := range 10 {
			one := filled(x.Row(n), 1, 3, 32, 32)
			require.NoError(t, whole.Run(ctx, one, got))
			for i := range want {
				require.Equal(t, want[i].Row(n), got[i].Data, "image %d alone, output %d", n, i)
			}
		}
	}
}

// TestNoFusionComputesTheGraphAsGiven: the tapped BatchNormalization is a straight line in the tapped convolution, channel by channel, as the
// graph states it, and the logits are those of the optimised graph, both to float32 rounding.
func TestNoFusionComputesTheGraphAsGiven(t *testing.T) {
	x := random(3, 2, 3, 32, 32)
	fused := openOwn(t, "convnet", engine.Options{Outputs: []string{"logits"}})
	plain := openOwn(t, "convnet", engine.Options{NoFusion: true})
	a, b := outputs(fused), outputs(plain)
	require.NoError(t, fused.Run(ctx, x, a))
	require.NoError(t, plain.Run(ctx, x, b))
	require.InDeltaSlice(t, a[0].Data, b[0].Data, 1e-5)

	// One channel's BatchNormalization is one straight line through all its points.
	conv, bn := b[1].Row(0)[:32*32], b[2].Row(0)[:32*32]
	slope := float64(bn[1]-bn[0]) / float64(conv[1]-conv[0])
	for i := range conv {
		want := float64(bn[0]) + slope*float64(conv[i]-conv[0])
		require.InDelta(t, want, float64(bn[i]), 1e-4)
	}
}

// TestCloseWaitsForRuns closes a session under load: every run succeeds or says that the session is closed.
func TestCloseWaitsForRuns(t *testing.T) {
	s := openOwn(t, "convnet", engine.Options{})
	var wg sync.WaitGroup
	errs := make([]error, 4)
	started := make(chan struct{}, len(errs))
	for g := range errs {
		wg.Go(func() {
			out, x := outputs(s), random(uint64(g), 2, 3, 32, 32)
			for first := true; errs[g] == nil; first = false {
				errs[g] = s.Run(ctx, x, out)
				if first {
					started <- struct{}{}
				}
			}
		})
	}
	for range errs {
		<-started
	}
	require.NoError(t, s.Close())
	wg.Wait()
	for _, err := range errs {
		require.ErrorIs(t, err, engine.ErrClosed)
	}
}

// TestMemoryIsFlat runs a session 1,000 times, four at a time, with a short batch now and then. After the first fifth, the process
// may grow by 8 MiB; a leak of the input alone would be 75 MiB, of one run's outputs 800 MiB.
func TestMemoryIsFlat(t *testing.T) {
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("needs /proc/self/statm to measure memory")
	}
	s := openOwn(t, "convnet", engine.Options{})
	x := random(1, 8, 3, 32, 32)
	short := filled(x.Data[:3*3*32*32], 3, 3, 32, 32)
	outs := [][]*tensor.Tensor{outputs(s), outputs(s), outputs(s), outputs(s)}
	round := func(runs int) {
		var wg sync.WaitGroup
		for _, out := range outs {
			wg.Go(func() {
				for i := range runs {
					in := x
					if i%10 == 9 {
						in = short
					}
					if err := s.Run(ctx, in, out); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	round(50)
	before := residentKiB(t)
	round(200)
	grown := residentKiB(t) - before
	t.Logf("resident memory: %d KiB after 200 runs, %+d KiB in the next 800", before, grown)
	require.Less(t, grown, 8192)
}

// TestSessionsGiveTheirMemoryBack opens and closes the same model again and again.
func TestSessionsGiveTheirMemoryBack(t *testing.T) {
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("needs /proc/self/statm to measure memory")
	}
	b := orttest.Backend(t)
	cycle := func(n int) {
		for range n {
			s, err := b.Open(ctx, engine.Model{Path: "testdata/convnet.onnx"}, engine.Options{Threads: 2})
			require.NoError(t, err)
			require.NoError(t, s.Run(ctx, random(1, 8, 3, 32, 32), outputs(s)))
			require.NoError(t, s.Close())
		}
	}
	cycle(20)
	before := residentKiB(t)
	cycle(80)
	grown := residentKiB(t) - before
	t.Logf("resident memory: %d KiB after 20 sessions, %+d KiB in the next 80", before, grown)
	require.Less(t, grown, 8192)
}

func residentKiB(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	require.NoError(t, err)
	return pages * os.Getpagesize() / 1024
}

// TestNothingOnStderr runs the error cases in a process of its own, since ONNX Runtime writes to the file descriptor.
func TestNothingOnStderr(t *testing.T) {
	if os.Getenv("QUANTGATE_TEST_STDERR") == "1" {
		b := orttest.Backend(t)
		for _, name := range []string{"unknown_operator", "opset99"} {
			_, err := b.Open(ctx, engine.Model{Path: filepath.Join("testdata", name+".onnx")}, engine.Options{})
			require.Error(t, err)
		}
		s := openOwn(t, "one_image_only", engine.Options{})
		require.Error(t, s.Run(ctx, random(1, 2, 4), outputs(s)))
		w := openOwn(t, "wrong_declaration", engine.Options{})
		require.NoError(t, w.Run(ctx, random(1, 2, 1, 2, 2), outputs(w)))
		return
	}
	orttest.Backend(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestNothingOnStderr$", "-test.v")
	cmd.Env = append(os.Environ(), "QUANTGATE_TEST_STDERR=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "--- PASS: TestNothingOnStderr", "the cases did not run")
	require.Empty(t, stderr.String())
}

// TestRealModels compares one image at a time, and two threads, with a whole batch on the real models, where they are present.
func TestRealModels(t *testing.T) {
	shared := os.Getenv("QUANTGATE_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "shared")
	}
	for _, name := range []string{"squeezenet1.1", "mobilenet_v1_0.75", "darknet_tiny", "mobilenet_v3_small"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(shared, "imagenet", "models", name+".onnx")
			if _, err := os.Stat(path); err != nil {
				t.Skipf("SKIPPED, this tests nothing: no %s (QUANTGATE_SHARED names the folder)", path)
			}
			s := open(t, path, engine.Options{})
			x := random(5, 4, 3, 224, 224)
			whole, one := outputs(s), outputs(s)
			require.NoError(t, s.Run(ctx, x, whole))
			for n := range 4 {
				require.NoError(t, s.Run(ctx, filled(x.Row(n), 1, 3, 224, 224), one))
				require.Equal(t, whole[0].Row(n), one[0].Data, "image %d", n)
			}
			two := open(t, path, engine.Options{Threads: 2})
			require.NoError(t, two.Run(ctx, x, one))
			require.Equal(t, whole[0].Data, one[0].Data, "two threads")
		})
	}
}

func BenchmarkRun(b *testing.B) {
	for _, n := range []int64{1, 8} {
		b.Run(fmt.Sprint("convnet batch ", n), func(b *testing.B) {
			s := openOwn(b, "convnet", engine.Options{})
			x, out := random(1, n, 3, 32, 32), outputs(s)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Run(ctx, x, out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "images/s")
		})
	}
}
