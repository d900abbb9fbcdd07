// Package enginetest holds the conformance table that every engine.Backend passes, with the small models that it runs.
package enginetest

import (
	"context"
	"embed"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
)

//go:embed testdata/*.onnx
var files embed.FS

// Names of the table's models; testdata/make_models.py defines them.
const (
	Linear    = "linear"     // x ?x1x2x2 -> scaled ?x4 = 2x, logits ?x3
	Fixed4    = "fixed4"     // the same for batches of 4 only
	Labels    = "labels"     // the same with a third output, class, of int64
	Total4    = "total4"     // x 4x1x2x2 -> total 1x4: the output does not divide by image
	Half      = "half"       // x ?x1x2x2 float16 -> y float16 = 2x
	TwoInputs = "two_inputs" // left, right
	Integers  = "integers"   // x ?x1x2x2 uint8
)

// Model returns one of the table's models as a backend is given it: named, as bytes.
func Model(t testing.TB, name string) engine.Model {
	t.Helper()
	data, err := files.ReadFile("testdata/" + name + ".onnx")
	require.NoError(t, err)
	return engine.Model{Name: name, Data: data}
}

// weights and biases of linear's logits, as make_models.py has them.
var (
	weights = [4][3]float32{{1, 0, -1}, {2, 1, 0}, {0, -2, 1}, {1, 1, 1}}
	biases  = [3]float32{0.5, 0, -0.5}
)

// Scaled computes linear's output "scaled" for one image.
func Scaled(image, out []float32) {
	for i, v := range image {
		out[i] = 2 * v
	}
}

// Logits computes linear's output "logits" for one image.
func Logits(image, out []float32) {
	for k := range out {
		out[k] = biases[k]
		for j, v := range image {
			out[k] += 2 * v * weights[j][k]
		}
	}
}

// batch returns n images of small integers and halves, other ones for every seed; all results on them are exact in float32 and float16.
func batch(n, seed int) *tensor.Tensor {
	x := tensor.New(int64(n), 1, 2, 2)
	for i := range x.Data {
		x.Data[i] = float32((i*5+seed*3)%17-8) / 2
	}
	return x
}

// expect applies one image's function to every image of a batch.
func expect(x *tensor.Tensor, width int, compute func(image, out []float32)) []float32 {
	n := int(x.Shape[0])
	y := make([]float32, n*width)
	for r := range n {
		compute(x.Row(r), y[r*width:(r+1)*width])
	}
	return y
}

func outputs(n int) []*tensor.Tensor {
	out := make([]*tensor.Tensor, n)
	for i := range out {
		out[i] = &tensor.Tensor{}
	}
	return out
}

// Test runs the table on a backend.
func Test(t *testing.T, b engine.Backend) {
	ctx := context.Background()
	open := func(t *testing.T, name string, o engine.Options) engine.Session {
		t.Helper()
		s, err := b.Open(ctx, Model(t, name), o)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	}
	// run checks a two-output session of linear's kind on n images.
	run := func(t *testing.T, s engine.Session, n, seed int, out []*tensor.Tensor) {
		t.Helper()
		x := batch(n, seed)
		require.NoError(t, s.Run(ctx, x, out))
		require.Equal(t, batch(n, seed).Data, x.Data, "Run changed its input")
		require.Equal(t, tensor.Shape{int64(n), 4}, out[0].Shape)
		require.Equal(t, expect(x, 4, Scaled), out[0].Data)
		require.Equal(t, tensor.Shape{int64(n), 3}, out[1].Shape)
		require.Equal(t, expect(x, 3, Logits), out[1].Data)
	}

	t.Run("name and version", func(t *testing.T) {
		require.NotEmpty(t, b.Name())
		require.NotContains(t, b.Name(), " ")
		require.NotEmpty(t, b.Version())
	})

	t.Run("ports", func(t *testing.T) {
		s := open(t, Linear, engine.Options{})
		wantIn := []engine.Port{{Name: "x", DType: tensor.Float32, Shape: tensor.Shape{tensor.Dynamic, 1, 2, 2}}}
		wantOut := []engine.Port{
			{Name: "scaled", DType: tensor.Float32, Shape: tensor.Shape{tensor.Dynamic, 4}},
			{Name: "logits", DType: tensor.Float32, Shape: tensor.Shape{tensor.Dynamic, 3}},
		}
		require.Equal(t, wantIn, s.Inputs())
		require.Equal(t, wantOut, s.Outputs())
		s.Inputs()[0].Shape[1], s.Outputs()[0].Shape[1] = 99, 99
		require.Equal(t, wantIn, s.Inputs(), "the answer shares memory with the session")
		require.Equal(t, wantOut, s.Outputs(), "the answer shares memory with the session")
	})

	t.Run("values", func(t *testing.T) {
		for _, o := range []engine.Options{{}, {Threads: 2}, {NoFusion: true}} {
			s := open(t, Linear, o)
			for _, n := range []int{1, 3, 25} {
				t.Run(fmt.Sprintf("%+v batch %d", o, n), func(t *testing.T) { run(t, s, n, n, outputs(2)) })
			}
		}
	})

	t.Run("bound outputs", func(t *testing.T) {
		s := open(t, Linear, engine.Options{})
		binder, ok := s.(engine.Binder)
		if !ok {
			t.Skip("this engine has no memory of its own to run into")
		}
		bound := binder.Bind()
		defer bound.Close()
		for i, n := range []int{3, 3, 5, 1, 3} {
			x := batch(n, i)
			out, err := bound.Run(ctx, x)
			require.NoError(t, err)
			require.Len(t, out, 2)
			require.Equal(t, tensor.Shape{int64(n), 4}, out[0].Shape)
			require.Equal(t, expect(x, 4, Scaled), out[0].Data)
			require.Equal(t, expect(x, 3, Logits), out[1].Data)
		}
		_, err := bound.Run(ctx, tensor.New(3, 1, 2, 3))
		require.ErrorIs(t, err, engine.ErrShape)
		require.NoError(t, bound.Close())
		require.NoError(t, bound.Close())
		require.NoError(t, s.Close())
		_, err = bound.Run(ctx, batch(3, 0))
		require.ErrorIs(t, err, engine.ErrClosed)
	})

	t.Run("memory of the engine's", func(t *testing.T) {
		h, ok := b.(engine.HostMemory)
		if !ok {
			t.Skip("this engine reads batches from any memory alike")
		}
		x := batch(30, 0)
		values, free, err := h.AllocHost(len(x.Data))
		require.NoError(t, err)
		require.Len(t, values, len(x.Data))
		copy(values, x.Data)
		for _, name := range []string{Linear, Fixed4, Half} {
			s := open(t, name, engine.Options{})
			for _, r := range [][2]int{{0, 30}, {0, 4}, {7, 8}, {9, 22}} { // whole and in part
				part := &tensor.Tensor{Shape: tensor.Shape{int64(r[1] - r[0]), 1, 2, 2}, Data: values[4*r[0] : 4*r[1]]}
				out := outputs(len(s.Outputs()))
				require.NoError(t, s.Run(ctx, part, out))
				require.Equal(t, x.Data[4*r[0]:4*r[1]], part.Data, "Run changed its input")
				require.Equal(t, expect(part, 4, Scaled), out[0].Data, "%s, images %d to %d", name, r[0], r[1])
			}
			require.NoError(t, s.Close())
		}
		require.NoError(t, free())
		require.NoError(t, free())
	})

	t.Run("an optimised model gives the same bits", func(t *testing.T) {
		optimizer, ok := b.(engine.Optimizer)
		if !ok {
			t.Skip("the engine does not show what it makes of a model")
		}
		first, data, err := optimizer.OpenOptimized(ctx, Model(t, Linear), engine.Options{})
		require.NoError(t, err)
		defer func() { require.NoError(t, first.Close()) }()
		run(t, first, 3, 0, outputs(2))
		s, err := b.Open(ctx, engine.Model{Name: "optimised", Data: data}, engine.Options{NoFusion: true})
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		run(t, s, 3, 0, outputs(2))
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		_, _, err = optimizer.OpenOptimized(cancelled, Model(t, Linear), engine.Options{})
		require.ErrorIs(t, err, context.Canceled)
		_, _, err = optimizer.OpenOptimized(ctx, Model(t, TwoInputs), engine.Options{})
		requireMessage(t, err, TwoInputs, "2 inputs")
	})

	t.Run("a model from a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file.onnx")
		require.NoError(t, os.WriteFile(path, Model(t, Linear).Data, 0o600))
		s, err := b.Open(ctx, engine.Model{Name: Linear, Path: path}, engine.Options{})
		require.NoError(t, err)
		defer s.Close()
		run(t, s, 3, 0, outputs(2))
	})

	t.Run("chosen outputs", func(t *testing.T) {
		for _, names := range [][]string{{"logits"}, {"logits", "scaled"}} {
			s := open(t, Linear, engine.Options{Outputs: names})
			require.Len(t, s.Outputs(), len(names))
			out := outputs(len(names))
			x := batch(5, 0)
			require.NoError(t, s.Run(ctx, x, out))
			require.Equal(t, "logits", s.Outputs()[0].Name)
			require.Equal(t, expect(x, 3, Logits), out[0].Data)
			if len(names) > 1 {
				require.Equal(t, expect(x, 4, Scaled), out[1].Data)
			}
		}
		t.Run("an integer output that was not chosen does no harm", func(t *testing.T) {
			s := open(t, Labels, engine.Options{Outputs: []string{"scaled", "logits"}})
			run(t, s, 3, 0, outputs(2))
		})
	})

	t.Run("output memory is reused", func(t *testing.T) {
		s := open(t, Linear, engine.Options{})
		out := outputs(2)
		run(t, s, 25, 1, out)
		first := [2]*float32{&out[0].Data[0], &out[1].Data[0]}
		for seed, n := range []int{25, 3, 25} { // a short batch between
			run(t, s, n, seed+2, out)
			require.Same(t, first[0], &out[0].Data[0])
			require.Same(t, first[1], &out[1].Data[0])
		}
	})

	t.Run("concurrent runs give the same bits", func(t *testing.T) {
		s := open(t, Linear, engine.Options{})
		var wg sync.WaitGroup
		errs := make(chan error, 8)
		for g := range 8 {
			wg.Go(func() {
				out := outputs(2)
				for i := range 30 {
					x := batch(1+(g+i)%7, g*100+i)
					if err := s.Run(ctx, x, out); err != nil {
						errs <- err
						return
					}
					want := expect(x, 3, Logits)
					for j, v := range out[1].Data {
						if v != want[j] {
							errs <- fmt.Errorf("goroutine %d, run %d: logit %d is %g, want %g", g, i, j, v, want[j])
							return
						}
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		require.NoError(t, <-errs)
	})

	t.Run("NaN and Inf go through", func(t *testing.T) {
		s := open(t, Linear, engine.Options{Outputs: []string{"scaled"}})
		out := outputs(1)
		x := batch(1, 0)
		x.Data[1], x.Data[2] = float32(math.NaN()), float32(math.Inf(-1))
		require.NoError(t, s.Run(ctx, x, out))
		require.True(t, math.IsNaN(float64(out[0].Data[1])))
		require.True(t, math.IsInf(float64(out[0].Data[2]), -1))
		require.Equal(t, 2*x.Data[0], out[0].Data[0])
	})

	t.Run("a fixed batch", func(t *testing.T) {
		s := open(t, Fixed4, engine.Options{})
		require.Equal(t, tensor.Shape{4, 1, 2, 2}, s.Inputs()[0].Shape)
		out := outputs(2)
		for _, n := range []int{4, 1, 3, 5, 8, 9} {
			t.Run(fmt.Sprint("batch ", n), func(t *testing.T) { run(t, s, n, n, out) })
		}
	})

	t.Run("a fixed batch whose output does not divide by image", func(t *testing.T) {
		s := open(t, Total4, engine.Options{})
		out := outputs(1)
		require.NoError(t, s.Run(ctx, batch(4, 0), out))
		require.Equal(t, tensor.Shape{1, 4}, out[0].Shape)
		err := s.Run(ctx, batch(3, 0), out)
		require.ErrorIs(t, err, engine.ErrShape)
		requireMessage(t, err, Total4, "total", "1x4", "batches of 4")
	})

	t.Run("float16 ports are converted", func(t *testing.T) {
		s := open(t, Half, engine.Options{})
		require.Equal(t, tensor.Float16, s.Inputs()[0].DType)
		require.Equal(t, tensor.Float16, s.Outputs()[0].DType)
		x := batch(2, 0)
		x.Data[0], x.Data[1], x.Data[2] = 1.0/3, 40000, 70000 // 70000 is Inf as float16, and so is 2 x 40000
		out := outputs(1)
		require.NoError(t, s.Run(ctx, x, out))
		require.Equal(t, x.Shape, out[0].Shape)
		require.Equal(t, float32(0x0.AAAp0), out[0].Data[0], "the float16 nearest to 1/3 is 1365/4096")
		require.True(t, math.IsInf(float64(out[0].Data[1]), 1))
		require.True(t, math.IsInf(float64(out[0].Data[2]), 1))
		require.Equal(t, 2*x.Data[3], out[0].Data[3])
		memory := &out[0].Data[0]
		require.NoError(t, s.Run(ctx, x, out))
		require.Same(t, memory, &out[0].Data[0])
	})

	t.Run("shapes that do not fit", func(t *testing.T) {
		s := open(t, Linear, engine.Options{})
		x := func(dims ...int64) *tensor.Tensor { return tensor.New(dims...) }
		for _, c := range []struct {
			name string
			in   *tensor.Tensor
			out  int
			want []string
		}{
			{"channels", x(2, 3, 2, 2), 2, []string{`"x"`, "?x1x2x2", "2x3x2x2"}},
			{"size", x(2, 1, 2, 4), 2, []string{`"x"`, "?x1x2x2", "2x1x2x4"}},
			{"rank", x(2, 4), 2, []string{`"x"`, "?x1x2x2", "2x4"}},
			{"scalar", x(), 2, []string{`"x"`, "scalar"}},
			{"no images", x(0, 1, 2, 2), 2, []string{`"x"`, "0x1x2x2"}},
			{"too few values", &tensor.Tensor{Shape: tensor.Shape{2, 1, 2, 2}, Data: make([]float32, 7)}, 2, []string{`"x"`, "7 values", "2x1x2x2"}},
			{"no values", &tensor.Tensor{Shape: tensor.Shape{2, 1, 2, 2}}, 2, []string{`"x"`, "0 values"}},
			{"outputs", x(2, 1, 2, 2), 1, []string{"1 output tensors", "2 outputs"}},
		} {
			t.Run(c.name, func(t *testing.T) {
				err := s.Run(ctx, c.in, outputs(c.out))
				require.ErrorIs(t, err, engine.ErrShape)
				requireMessage(t, err, append(c.want, Linear)...)
			})
		}
		run(t, s, 3, 0, outputs(2)) // the session still works
	})

	t.Run("models that are refused", func(t *testing.T) {
		linear := Model(t, Linear).Data
		for _, c := range []struct {
			name  string
			model engine.Model
			opts  engine.Options
			want  []string
		}{
			{"two inputs", Model(t, TwoInputs), engine.Options{}, []string{"2 inputs", "left", "right"}},
			{"integer input", Model(t, Integers), engine.Options{}, []string{`"x"`, "uint8"}},
			{"integer output", Model(t, Labels), engine.Options{}, []string{`"class"`, "int"}}, // TensorRT 8 has no int64 and makes it int32
			{"unknown output", Model(t, Linear), engine.Options{Outputs: []string{"nosuch"}}, []string{`"nosuch"`, "scaled", "logits"}},
			{"output twice", Model(t, Linear), engine.Options{Outputs: []string{"logits", "logits"}}, []string{`"logits"`, "twice"}},
			{"no output", Model(t, Linear), engine.Options{Outputs: []string{}}, []string{"no output"}},
			{"text", engine.Model{Name: "text", Data: []byte("<html>not a model</html>\n")}, engine.Options{}, nil},
			{"truncated", engine.Model{Name: "truncated", Data: linear[:len(linear)/2]}, engine.Options{}, nil},
			{"empty", engine.Model{Name: "empty", Data: []byte{}}, engine.Options{}, nil},
			{"nothing", engine.Model{Name: "nothing"}, engine.Options{}, nil},
			{"missing file", engine.Model{Name: "missing", Path: filepath.Join(t.TempDir(), "nosuch.onnx")}, engine.Options{}, nil},
		} {
			t.Run(c.name, func(t *testing.T) {
				_, err := b.Open(ctx, c.model, c.opts)
				requireMessage(t, err, append(c.want, c.model.Name)...)
				require.NotErrorIs(t, err, engine.ErrUnavailable)
			})
		}
	})

	t.Run("a cancelled context", func(t *testing.T) {
		s := open(t, Linear, engine.Options{})
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorIs(t, s.Run(cancelled, batch(1, 0), outputs(2)), context.Canceled)
		_, err := b.Open(cancelled, Model(t, Linear), engine.Options{})
		require.ErrorIs(t, err, context.Canceled)
		late, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
		defer cancel()
		require.ErrorIs(t, s.Run(late, batch(1, 0), outputs(2)), context.DeadlineExceeded)
		run(t, s, 3, 0, outputs(2)) // the session still works
	})

	t.Run("a closed session", func(t *testing.T) {
		s, err := b.Open(ctx, Model(t, Linear), engine.Options{})
		require.NoError(t, err)
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		err = s.Run(ctx, batch(1, 0), outputs(2))
		require.ErrorIs(t, err, engine.ErrClosed)
		requireMessage(t, err, Linear)
		require.Equal(t, "x", s.Inputs()[0].Name)
		require.Len(t, s.Outputs(), 2)
	})

	t.Run("sessions do not disturb one another", func(t *testing.T) {
		a, other := open(t, Linear, engine.Options{}), open(t, Fixed4, engine.Options{})
		again, err := b.Open(ctx, Model(t, Linear), engine.Options{})
		require.NoError(t, err)
		run(t, again, 2, 0, outputs(2))
		require.NoError(t, again.Close())
		run(t, a, 2, 0, outputs(2))
		run(t, other, 2, 0, outputs(2))
	})
}

// requireMessage checks that err is one line that holds all the parts.
func requireMessage(t *testing.T, err error, parts ...string) {
	t.Helper()
	require.Error(t, err)
	require.NotContains(t, strings.TrimSpace(err.Error()), "\n", "an error is one line")
	for _, p := range parts {
		require.ErrorContains(t, err, p)
	}
}
