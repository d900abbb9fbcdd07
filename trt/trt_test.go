package trt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/trttest"
	"github.com/quantgate/quantgate/tensor"
	"github.com/quantgate/quantgate/trt"
)

var versions = []int{8503, 8601, 100000, 101501}

// messages keeps what a backend says.
type messages struct {
	mu    sync.Mutex
	lines []string
}

func (m *messages) log(_ trt.Level, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, text)
}

func (m *messages) count(part string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, l := range m.lines {
		if strings.Contains(l, part) {
			n++
		}
	}
	return n
}

func open(t *testing.T, version int, change ...func(*trt.Options)) (*trt.Backend, *messages) {
	t.Helper()
	m := &messages{}
	o := trt.Options{Library: trttest.Build(t, version), Batch: 4, CacheDir: t.TempDir(), Log: m.log}
	for _, c := range change {
		c(&o)
	}
	b, err := trt.New(o)
	require.NoError(t, err)
	return b, m
}

func each(t *testing.T, test func(t *testing.T, version int)) {
	for _, v := range versions {
		t.Run(fmt.Sprint(v), func(t *testing.T) { test(t, v) })
	}
}

var model = engine.Model{Name: "m", Data: []byte(trttest.Model)}

func images(n, seed int) *tensor.Tensor {
	x := tensor.New(int64(n), 1, 2, 2)
	for i := range x.Data {
		x.Data[i] = float32((i*5+seed*3)%17 - 8)
	}
	return x
}

func twice(x []float32) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = 2 * v
	}
	return y
}

func run(t *testing.T, s engine.Session, n, seed int) {
	t.Helper()
	x, out := images(n, seed), []*tensor.Tensor{{}}
	require.NoError(t, s.Run(context.Background(), x, out))
	require.Equal(t, tensor.Shape{int64(n), 4}, out[0].Shape)
	require.Equal(t, twice(x.Data), out[0].Data)
}

func TestSession(t *testing.T) {
	each(t, func(t *testing.T, version int) {
		b, m := open(t, version)
		require.Equal(t, "tensorrt", b.Name())
		require.Contains(t, b.Version(), "Fake GPU")
		s, err := b.Open(context.Background(), model, engine.Options{Outputs: []string{"y"}})
		require.NoError(t, err)
		require.Equal(t, []engine.Port{{Name: "x", DType: tensor.Float32, Shape: tensor.Shape{tensor.Dynamic, 1, 2, 2}}}, s.Inputs())
		require.Equal(t, []engine.Port{{Name: "y", DType: tensor.Float32, Shape: tensor.Shape{tensor.Dynamic, 4}}}, s.Outputs())
		for _, n := range []int{1, 3, 4, 5, 9} { // the engine takes 4 at most
			run(t, s, n, n)
		}
		// The fake device's clock goes on by a millisecond a mark: each of the 1 + 1 + 1 + 2 + 3 pieces is copied, computed and copied back.
		copying, computing := s.(engine.Copier).Spent()
		require.Equal(t, 8*time.Millisecond, computing)
		require.GreaterOrEqual(t, copying, 16*time.Millisecond)
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 20 {
					x, out := images(1+(g+i)%6, g*100+i), []*tensor.Tensor{{}}
					if err := s.Run(context.Background(), x, out); err != nil || !equal(out[0].Data, twice(x.Data)) {
						t.Errorf("goroutine %d: %v", g, err)
						return
					}
				}
			})
		}
		wg.Wait()
		layers, err := s.(engine.Inspector).Layers()
		require.NoError(t, err)
		require.Equal(t, []engine.Layer{{Name: "conv1", Type: "CaskConvolution", Precision: "fp32"}}, layers)
		require.NoError(t, s.(*trt.Session).Fill(context.Background(), images(4, 1)))
		require.ErrorIs(t, s.(*trt.Session).Fill(context.Background(), images(3, 1)), engine.ErrShape)
		require.NoError(t, s.(*trt.Session).Repeat(context.Background(), 3))
		_, total, err := b.Memory()
		require.EqualValues(t, 8<<30, total)
		require.NoError(t, err)

		require.ErrorIs(t, s.Run(context.Background(), tensor.New(1, 3, 2, 2), []*tensor.Tensor{{}}), engine.ErrShape)
		cancelled, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, s.Run(cancelled, images(1, 0), []*tensor.Tensor{{}}), context.Canceled)
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		require.ErrorIs(t, s.Run(context.Background(), images(1, 0), []*tensor.Tensor{{}}), engine.ErrClosed)
		require.Equal(t, 1, m.count("built in"))
	})
}

func equal(a, b []float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestBindNow runs TestSession in a process whose loader resolves every symbol at the start, as hardened systems do.
func TestBindNow(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestSession$")
	cmd.Env = append(os.Environ(), "LD_BIND_NOW=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "PASS")
}

func TestModels(t *testing.T) {
	b, _ := open(t, 8601)
	ctx := context.Background()
	t.Run("fixed batch, two outputs", func(t *testing.T) {
		s, err := b.Open(ctx, engine.Model{Name: "fixed", Data: []byte("fake\ninput x 0 4 1 2 2\noutput y 0 4 4\noutput z 0 4 2 2\n")}, engine.Options{})
		require.NoError(t, err)
		defer s.Close()
		for _, n := range []int{1, 4, 7} {
			x, out := images(n, n), []*tensor.Tensor{{}, {}}
			require.NoError(t, s.Run(ctx, x, out))
			require.Equal(t, twice(x.Data), out[0].Data)
			require.Equal(t, tensor.Shape{int64(n), 2, 2}, out[1].Shape)
		}
	})
	t.Run("all outputs, in the model's order", func(t *testing.T) {
		for range 2 { // built, and from the kept plan
			s, err := b.Open(ctx, model, engine.Options{})
			require.NoError(t, err)
			require.Equal(t, "y", s.Outputs()[0].Name)
			require.Equal(t, "z", s.Outputs()[1].Name)
			require.NoError(t, s.Close())
		}
	})
	t.Run("float16", func(t *testing.T) {
		s, err := b.Open(ctx, engine.Model{Name: "half", Data: []byte("fake\ninput x 1 -1 1 2 2\noutput y 1 -1 4\n")}, engine.Options{})
		require.NoError(t, err)
		defer s.Close()
		run(t, s, 3, 1)
	})
	t.Run("a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "m.onnx")
		require.NoError(t, os.WriteFile(path, []byte(trttest.Model), 0o600))
		s, err := b.Open(ctx, engine.Model{Path: path}, engine.Options{Outputs: []string{"z"}})
		require.NoError(t, err)
		defer s.Close()
		run(t, s, 2, 1)
	})
	for name, c := range map[string]struct {
		model engine.Model
		o     engine.Options
		want  string
	}{
		"text":         {engine.Model{Name: "t", Data: []byte("<html>")}, engine.Options{}, "weights.is_weights()"},
		"empty":        {engine.Model{Name: "t", Data: []byte{}}, engine.Options{}, "empty"},
		"nothing":      {engine.Model{Name: "t"}, engine.Options{}, "neither bytes nor a path"},
		"missing":      {engine.Model{Name: "t", Path: "nosuch.onnx"}, engine.Options{}, "nosuch.onnx"},
		"two inputs":   {engine.Model{Name: "t", Data: []byte("fake\ninput a 0 1 4\ninput b 0 1 4\noutput y 0 1 4\n")}, engine.Options{}, "2 inputs"},
		"integers":     {engine.Model{Name: "t", Data: []byte("fake\ninput a 3 1 4\noutput y 0 1 4\n")}, engine.Options{}, "int32"},
		"open size":    {engine.Model{Name: "t", Data: []byte("fake\ninput a 0 -1 3 -1 4\noutput y 0 -1 4\n")}, engine.Options{}, "fix dimension 2"},
		"no output":    {model, engine.Options{Outputs: []string{"nosuch"}}, "nosuch"},
		"precision":    {model, engine.Options{Precision: "int4"}, "int4"},
		"other cache":  {model, engine.Options{Precision: engine.Int8, Cache: []byte("TRT-8503-EntropyCalibration2\nx: 3f800000\n")}, "takes only 8601"},
		"no cache":     {model, engine.Options{Precision: engine.Int8, Cache: []byte("x: 3f800000\n")}, "not TensorRT's"},
		"odd cache":    {model, engine.Options{Precision: engine.Int8, Cache: []byte("TRT-8601-Other\n")}, "Other"},
		"odd output":   {engine.Model{Name: "t", Data: []byte("fake\ninput a 0 -1 4\noutput y 0 4 -1\n")}, engine.Options{}, "depends on more than the batch"},
		"scalar input": {engine.Model{Name: "t", Data: []byte("fake\ninput a 0\noutput y 0 4\n")}, engine.Options{}, "no dimensions"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.Open(ctx, c.model, c.o)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// source gives batches of n images and then err.
func source(batches, n int, err error) func(context.Context) (*tensor.Tensor, error) {
	i := 0
	return func(context.Context) (*tensor.Tensor, error) {
		if i == batches {
			return nil, err
		}
		i++
		return images(n, i), nil
	}
}

func TestCalibrate(t *testing.T) {
	each(t, func(t *testing.T, version int) {
		for algorithm, name := range map[trt.Algorithm]string{
			trt.Entropy2: "EntropyCalibration2", trt.LegacyEntropy: "EntropyCalibration", trt.MinMax: "MinMaxCalibration",
		} {
			b, m := open(t, version, func(o *trt.Options) { o.Calibrator = algorithm })
			cache, err := b.Calibrate(context.Background(), model, engine.Calibration{Batch: 5, Next: source(4, 3, io.EOF)}) // 12 images: two batches of 5
			require.NoError(t, err)
			want := fmt.Sprintf("TRT-%d-%s\nx: %08x\n", version, name, math.Float32bits(float32(8)/127))
			require.Equal(t, want, string(cache), "the bytes are the library's own")
			require.Equal(t, 1, m.count("last 2 images are left out"))

			s, err := b.Open(context.Background(), model, engine.Options{Precision: engine.Int8, Cache: cache})
			require.NoError(t, err)
			require.Equal(t, 1, m.count("built in"), "the calibrated plan is kept")
			require.NoError(t, s.Close())
			s, err = b.Open(context.Background(), model, engine.Options{Precision: engine.Int8, Cache: append(cache, "y: 3f800000\n"...), Outputs: []string{"y"}})
			require.NoError(t, err, "a cache in place of batches")
			require.Equal(t, 1, m.count("took a calibration cache"))
			layers, err := s.(engine.Inspector).Layers()
			require.NoError(t, err)
			require.Equal(t, []engine.Layer{
				{Name: "conv1", Type: "CaskConvolution", Precision: "int8"}, {Name: "reformat", Type: "Reformat", Precision: "none"},
				{Name: "softmax", Precision: "unknown"},
			}, layers)
			require.NoError(t, s.Close())
		}
	})
}

func TestFailingCalibration(t *testing.T) {
	broken := errors.New("image 17 is unreadable")
	each(t, func(t *testing.T, version int) {
		b, _ := open(t, version)
		ctx, cancel := context.WithCancel(context.Background())
		for name, c := range map[string]struct {
			next func(context.Context) (*tensor.Tensor, error)
			want error
			text string
		}{
			"first batch": {source(0, 4, broken), broken, ""},
			"later batch": {source(3, 4, broken), broken, ""},
			"too few":     {source(1, 3, io.EOF), nil, "3 images do not fill a batch of 4"},
			"wrong shape": {func(context.Context) (*tensor.Tensor, error) { return tensor.New(4, 3, 2, 2), nil }, engine.ErrShape, ""},
			"panic":       {func(context.Context) (*tensor.Tensor, error) { panic("decoder") }, nil, "panicked: decoder"},
			"panic later": {func() func(context.Context) (*tensor.Tensor, error) {
				n := source(2, 4, nil)
				return func(c context.Context) (*tensor.Tensor, error) { x, err := n(c); _ = x.Data[0]; return x, err }
			}(), nil, "panicked"},
			"cancellation": {func(context.Context) (*tensor.Tensor, error) { cancel(); return images(4, 1), nil }, context.Canceled, ""},
		} {
			t.Run(name, func(t *testing.T) {
				use := context.Background()
				if name == "cancellation" {
					use = ctx
				}
				cache, err := b.Calibrate(use, model, engine.Calibration{Batch: 4, Next: c.next})
				require.Nil(t, cache)
				if c.want != nil {
					require.ErrorIs(t, err, c.want)
				}
				require.ErrorContains(t, err, c.text)
			})
		}
		_, err := b.Calibrate(context.Background(), model, engine.Calibration{Batch: 4, Next: source(1, 4, io.EOF)})
		require.NoError(t, err, "the backend still works")
	})
}

func TestMisbehaviour(t *testing.T) {
	ctx := context.Background()
	each(t, func(t *testing.T, version int) {
		for fault, want := range map[string]string{
			"null_builder": "createInferBuilder: CUDA initialization failure", "null_network": "createNetworkV2", "null_config": "createBuilderConfig",
			"null_profile": "createOptimizationProfile", "null_parser": "createNvOnnxParser", "null_plan": "Could not find any implementation for node conv1",
			"empty_plan": "buildSerializedNetwork", "null_runtime": "createInferRuntime", "null_engine": "magic tag does not match",
			"null_context": "createExecutionContext", "shape_fails": "refused the shape", "parse_fails": "at node 7",
		} {
			t.Run(fault, func(t *testing.T) {
				b, _ := open(t, version)
				t.Setenv("FAKE_TRT", fault)
				_, err := b.Open(ctx, model, engine.Options{})
				require.ErrorContains(t, err, want)
				require.NotContains(t, err.Error(), "\n")
				require.NoError(t, os.Unsetenv("FAKE_TRT"))
				s, err := b.Open(ctx, model, engine.Options{Outputs: []string{"y"}})
				require.NoError(t, err, "the backend still works")
				run(t, s, 2, 1)
				require.NoError(t, s.Close())
			})
		}
		t.Run("enqueue fails", func(t *testing.T) {
			b, _ := open(t, version)
			s, err := b.Open(ctx, model, engine.Options{Outputs: []string{"y"}})
			require.NoError(t, err)
			defer s.Close()
			t.Setenv("FAKE_TRT", "enqueue_fails")
			for range 5 {
				require.ErrorContains(t, s.Run(ctx, images(2, 0), []*tensor.Tensor{{}}), "illegal memory access")
			}
		})
		t.Run("inspector", func(t *testing.T) {
			b, _ := open(t, version)
			s, err := b.Open(ctx, model, engine.Options{})
			require.NoError(t, err)
			defer s.Close()
			for _, fault := range []string{"null_inspector", "no_inspection", "bad_json"} {
				t.Setenv("FAKE_TRT", fault)
				_, err := s.(engine.Inspector).Layers()
				require.ErrorContains(t, err, "nspector")
			}
		})
		t.Run("calibrator", func(t *testing.T) {
			for fault, want := range map[string]string{"wrong_name": `input "other"`, "no_cache": "without writing"} {
				b, _ := open(t, version)
				t.Setenv("FAKE_TRT", fault)
				_, err := b.Calibrate(ctx, model, engine.Calibration{Batch: 4, Next: source(2, 4, io.EOF)})
				require.ErrorContains(t, err, want)
			}
		})
		t.Run("log storm", func(t *testing.T) {
			b, m := open(t, version)
			t.Setenv("FAKE_TRT", "log_storm")
			s, err := b.Open(ctx, model, engine.Options{})
			require.NoError(t, err)
			require.NoError(t, s.Close())
			require.Equal(t, 1, m.count("INT64"), "a repeated warning is shown once")
			require.LessOrEqual(t, len(m.lines), 1100)
			require.Equal(t, 1, m.count("repeated"))
		})
	})
	t.Run("driver", func(t *testing.T) {
		for fault, want := range map[string]string{"out_of_memory": "out of memory", "no_pinned": "cuMemHostAlloc"} {
			b, _ := open(t, 8601)
			t.Setenv("FAKE_CUDA", fault)
			_, err := b.Open(ctx, model, engine.Options{})
			require.ErrorContains(t, err, want)
			_, err = b.Calibrate(ctx, model, engine.Calibration{Batch: 4, Next: source(2, 4, io.EOF)})
			require.ErrorContains(t, err, want)
		}
		t.Setenv("FAKE_CUDA", "")
		b, _ := open(t, 8601)
		s, err := b.Open(ctx, model, engine.Options{Outputs: []string{"y"}})
		require.NoError(t, err)
		t.Setenv("FAKE_CUDA", "wait_fails")
		require.ErrorContains(t, s.Run(ctx, images(1, 0), []*tensor.Tensor{{}}), "illegal memory access")
	})
}

func TestCancelledBuild(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	b, _ := open(t, 101501, func(o *trt.Options) {
		o.Log = func(_ trt.Level, text string) {
			if strings.Contains(text, "Building (3 steps)") {
				cancel()
			}
		}
	})
	_, err := b.Open(ctx, model, engine.Options{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestLoading(t *testing.T) {
	for name, c := range map[string]struct {
		dir  func(t *testing.T) string
		want string
	}{
		"9":              {func(t *testing.T) string { return rename(t, trttest.Build(t, 9300), "9", "8") }, "9.3.0 is outside of the verified versions"},
		"too new":        {func(t *testing.T) string { return trttest.Build(t, 109900) }, "10.99.0 is outside"},
		"11":             {func(t *testing.T) string { return rename(t, trttest.Build(t, 110000), "11", "10") }, "11.0.0 is outside"},
		"missing symbol": {func(t *testing.T) string { return trttest.Build(t, 8601, "-DNO_BUILDER") }, "undefined symbol: createInferBuilder_INTERNAL"},
		"no parser": {func(t *testing.T) string {
			d := trttest.Build(t, 8601)
			require.NoError(t, os.Remove(d+"/libnvonnxparser.so.8"))
			return d
		}, "libnvonnxparser.so.8: cannot open shared object file"},
		"not a library": {func(t *testing.T) string {
			d := t.TempDir()
			require.NoError(t, os.WriteFile(d+"/libnvinfer.so.8", []byte("text"), 0o600))
			return d
		}, "file too short"},
		"empty folder": {func(t *testing.T) string { return t.TempDir() }, "no libnvinfer.so.10 or libnvinfer.so.8"},
		"no device":    {func(t *testing.T) string { t.Setenv("FAKE_CUDA", "no_device"); return trttest.Build(t, 8601) }, "no CUDA-capable device is detected"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := trt.New(trt.Options{Library: c.dir(t)})
			require.ErrorIs(t, err, engine.ErrUnavailable)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	_, err := trt.New(trt.Options{Library: trttest.Build(t, 8601), Device: 3})
	require.ErrorContains(t, err, "invalid device ordinal")
	for _, o := range []trt.Options{{TacticSources: "CUDNN"}, {TacticSources: "-NOSUCH"}, {Device: -1}, {Batch: -1}, {Workspace: -1}, {Leveled: true, Level: 6}} {
		_, err := trt.New(o)
		require.Error(t, err)
		require.NotErrorIs(t, err, engine.ErrUnavailable)
	}
}

// rename makes the library of one major version lie under the name of another.
func rename(t *testing.T, dir, from, to string) string {
	t.Helper()
	for _, l := range []string{"libnvinfer", "libnvonnxparser"} {
		require.NoError(t, os.Rename(filepath.Join(dir, l+".so."+from), filepath.Join(dir, l+".so."+to)))
	}
	return dir
}

func TestProbe(t *testing.T) {
	f := trt.Probe(trttest.Build(t, 101501))
	require.NoError(t, f.Err)
	require.Len(t, f.Libraries, 4)
	require.Equal(t, "10.15.1", f.Libraries[0].Version)
	require.Equal(t, "12.4", f.Libraries[3].Version)
	require.Len(t, f.GPUs, 1)
	g := f.GPUs[0]
	require.Equal(t, "Fake GPU", g.Name)
	require.Equal(t, "9.0", g.Capability)
	require.True(t, g.FP16 && g.INT8)
	require.EqualValues(t, 8<<30, g.MemoryBytes)

	f = trt.Probe(t.TempDir())
	require.ErrorIs(t, f.Err, engine.ErrUnavailable)
	require.NotEmpty(t, f.Libraries[0].Problem)
}

func TestPlansAreKept(t *testing.T) {
	ctx := context.Background()
	lib, dir := trttest.Build(t, 8601), t.TempDir()
	m := &messages{}
	with := func(change func(*trt.Options)) *trt.Backend {
		o := trt.Options{Library: lib, Batch: 4, CacheDir: dir, Log: m.log}
		change(&o)
		b, err := trt.New(o)
		require.NoError(t, err)
		return b
	}
	builds := func(b *trt.Backend, o engine.Options, data string) int {
		before := m.count("built in")
		s, err := b.Open(ctx, engine.Model{Name: "m", Data: []byte(data)}, o)
		require.NoError(t, err)
		require.NoError(t, s.Close())
		return m.count("built in") - before
	}
	same := func(*trt.Options) {}
	require.Equal(t, 1, builds(with(same), engine.Options{}, trttest.Model))
	require.Equal(t, 0, builds(with(same), engine.Options{}, trttest.Model), "the second run builds nothing")
	for name, change := range map[string]func(*trt.Options){
		"batch": func(o *trt.Options) { o.Batch = 5 }, "tf32": func(o *trt.Options) { o.NoTF32 = true }, "workspace": func(o *trt.Options) { o.Workspace = 1 << 20 },
		"tactics": func(o *trt.Options) { o.TacticSources = "-CUDNN,+CUBLAS" }, "level": func(o *trt.Options) { o.Level, o.Leveled = 0, true },
	} {
		require.Equal(t, 1, builds(with(change), engine.Options{}, trttest.Model), name)
	}
	eight := engine.Options{Precision: engine.Int8, Cache: []byte("TRT-8601-EntropyCalibration2\nx: 3f800000\n")}
	for _, o := range []engine.Options{{Precision: engine.Half}, {Outputs: []string{"y"}}, eight} {
		require.Equal(t, 1, builds(with(same), o, trttest.Model), "%+v", o)
	}
	fallback := func(o *trt.Options) { o.INT8FP16 = true }
	require.Equal(t, 1, builds(with(fallback), eight, trttest.Model), "int8-fp16")
	require.Equal(t, 0, builds(with(fallback), engine.Options{}, trttest.Model), "int8-fp16 is INT8's alone")
	require.Equal(t, 0, builds(with(same), engine.Options{NoFusion: true}, trttest.Model), "as without TF32")
	require.Equal(t, 0, builds(with(same), engine.Options{NoTF32: true}, trttest.Model), "as without TF32")
	require.Equal(t, 1, builds(with(same), engine.Options{}, strings.Replace(trttest.Model, "z 0", "zz 0", 1)), "model")

	require.Zero(t, m.count("TensorRT: error"), "what TensorRT says of earlier timings is a detail")
	require.NotZero(t, m.count("Myelin"))
	timings, err := filepath.Glob(filepath.Join(dir, "*.timing"))
	require.NoError(t, err)
	require.Len(t, timings, 1)

	plans, err := filepath.Glob(filepath.Join(dir, "*.plan"))
	require.NoError(t, err)
	for _, p := range plans { // a torn file
		data, err := os.ReadFile(p)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(p, bytes.TrimSuffix(data, data[len(data)-3:]), 0o600))
	}
	require.Equal(t, 1, builds(with(same), engine.Options{}, trttest.Model))
	require.Equal(t, 1, m.count("damaged"))

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.Equal(t, 1, builds(with(func(o *trt.Options) { o.CacheDir = filepath.Join(file, "below") }), engine.Options{}, trttest.Model))
	require.Equal(t, 1, m.count("plans are not kept"))
}

// The timings that a plan was built with decide its kernels: where they are named, a plan is shared only by those that grew from the same.
func TestPlansStandOnNamedTimings(t *testing.T) {
	lib, dir, m := trttest.Build(t, 8601), t.TempDir(), &messages{}
	folder := t.TempDir()
	one, two := filepath.Join(folder, "one"), filepath.Join(folder, "two")
	builds := func(timings, data string) int {
		before := m.count("built in")
		b, err := trt.New(trt.Options{Library: lib, Batch: 4, CacheDir: dir, TimingCache: timings, Log: m.log})
		require.NoError(t, err)
		s, err := b.Open(context.Background(), engine.Model{Name: "m", Data: []byte(data)}, engine.Options{})
		require.NoError(t, err)
		require.NoError(t, s.Close())
		return m.count("built in") - before
	}
	other := strings.Replace(trttest.Model, "z 0", "zz 0", 1)
	copied := func(from, to string) {
		data, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, data, 0o600))
	}
	require.Equal(t, 1, builds("", trttest.Model))
	require.Equal(t, 1, builds(one, trttest.Model), "the plan of quantgate's own timings is not taken")
	require.FileExists(t, one)
	require.Equal(t, 0, builds(one, trttest.Model))
	require.Equal(t, 1, builds(one, other))
	require.Equal(t, 0, builds(one, other))
	require.Equal(t, 0, builds(one, trttest.Model), "the other model's timings were only added")

	require.NoError(t, os.WriteFile(two, []byte("times of another day"), 0o600))
	require.Equal(t, 1, builds(two, trttest.Model))
	require.Equal(t, 0, builds(two, trttest.Model))
	require.Equal(t, 0, builds(one, trttest.Model))
	require.Equal(t, 0, builds("", trttest.Model))
	copied(two, one)
	require.Equal(t, 0, builds(one, trttest.Model), "what the file is called does not matter")
	require.Equal(t, 1, builds(one, other))

	require.NoError(t, os.Remove(one))
	require.Equal(t, 1, builds(one, trttest.Model), "whoever removes the timings wants new ones")
	require.FileExists(t, one)
	require.NoError(t, os.WriteFile(one, []byte("another GPU's"), 0o600))
	require.Equal(t, 1, builds(one, trttest.Model))
	require.Equal(t, 1, m.count("refused the timing cache"))
	require.Equal(t, 0, builds(one, trttest.Model))
}

// TestNothingLeaks opens and closes sessions, calibrates and fails, and asks the fakes what was not given back.
func TestNothingLeaks(t *testing.T) {
	ctx := context.Background()
	each(t, func(t *testing.T, version int) {
		lib := trttest.Build(t, version)
		b, err := trt.New(trt.Options{Library: lib, Batch: 4, CacheDir: t.TempDir()})
		require.NoError(t, err)
		work := func() {
			s, err := b.Open(ctx, model, engine.Options{Outputs: []string{"y"}})
			require.NoError(t, err)
			run(t, s, 3, 1)
			_, err = s.(engine.Inspector).Layers()
			require.NoError(t, err)
			require.NoError(t, s.Close())
			_, err = b.Calibrate(ctx, model, engine.Calibration{Batch: 2, Next: source(2, 2, io.EOF)})
			require.NoError(t, err)
			_, err = b.Calibrate(ctx, model, engine.Calibration{Batch: 2, Next: source(2, 2, errors.New("stop"))})
			require.Error(t, err)
		}
		work()
		objects, memory := trttest.Live(t, lib)
		for range 50 {
			work()
		}
		objectsAfter, memoryAfter := trttest.Live(t, lib)
		require.Equal(t, objects, objectsAfter, "TensorRT's objects")
		require.Equal(t, memory, memoryAfter, "memory and streams")
	})
}
