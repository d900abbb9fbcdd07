// Gpu measures trt's session on a GPU: throughput of the engine without copies, and what opening and closing sessions leaves behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
	"github.com/quantgate/quantgate/trt"
)

// settings are the flags.
type settings struct {
	model, cache, plan, inspect string
	precision                   string
	sessions, batches, parallel int
	rounds                      int
	trt                         trt.Options
}

func main() {
	var f settings
	flag.StringVar(&f.model, "model", "", "ONNX file")
	flag.StringVar(&f.precision, "precision", "", "fp16, int8, or nothing for float32")
	flag.StringVar(&f.cache, "cache", "", "calibration cache for int8")
	flag.StringVar(&f.plan, "plan", "", "write TensorRT's plan to this file")
	flag.StringVar(&f.inspect, "inspect", "", "write what the engine inspector tells to this file")
	flag.IntVar(&f.sessions, "sessions", 0, "sessions to open and close")
	flag.IntVar(&f.batches, "batches", 0, "batches to run with copies")
	flag.IntVar(&f.parallel, "parallel", 3, "goroutines that run batches with copies")
	flag.IntVar(&f.rounds, "rounds", 7, "measurements without copies, of 100 batches each; 0 makes none")
	flag.IntVar(&f.trt.Level, "builderOptimizationLevel", -1, "as trtexec's; -1 is TensorRT's default")
	flag.IntVar(&f.trt.Batch, "batch", 100, "images a batch")
	flag.StringVar(&f.trt.TacticSources, "tacticSources", "-CUBLAS,-CUBLAS_LT,-CUDNN,-EDGE_MASK_CONVOLUTIONS,-JIT_CONVOLUTIONS", "as trtexec's")
	flag.Parse()
	f.trt.Leveled = f.trt.Level >= 0
	f.trt.Log = func(_ trt.Level, text string) { fmt.Fprintln(os.Stderr, text) }
	if err := f.measure(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "gpu:", err)
		os.Exit(1)
	}
}

// open loads the model as quantgate run does, so that the plan which run has kept is taken.
func (f *settings) open() (engine.Model, engine.Options, error) {
	o := engine.Options{Precision: engine.Precision(f.precision)}
	model, err := onnx.Load(f.model)
	if err != nil {
		return engine.Model{}, o, err
	}
	logits, err := model.LogitsOutput("")
	if err != nil {
		return engine.Model{}, o, err
	}
	o.Outputs = []string{logits.Name}
	if f.cache != "" {
		if o.Cache, err = os.ReadFile(f.cache); err != nil {
			return engine.Model{}, o, err
		}
	}
	data, err := model.Bytes()
	return engine.Model{Name: strings.TrimSuffix(filepath.Base(f.model), ".onnx"), Data: data}, o, err
}

func (f *settings) measure(ctx context.Context) error {
	m, o, err := f.open()
	if err != nil {
		return err
	}
	b, err := trt.New(f.trt)
	if err != nil {
		return err
	}
	opened, err := b.Open(ctx, m, o)
	if err != nil {
		return err
	}
	s, ok := opened.(*trt.Session)
	if !ok {
		return fmt.Errorf("unexpected session %T", opened)
	}
	if f.plan != "" {
		plan, err := b.Plan(m, o)
		if err != nil {
			return err
		}
		if err := os.WriteFile(f.plan, plan, 0o600); err != nil {
			return err
		}
	}
	if f.inspect != "" {
		text, err := s.Inspect()
		if err != nil {
			return err
		}
		if err := os.WriteFile(f.inspect, []byte(text), 0o600); err != nil {
			return err
		}
	}
	if f.batches > 0 {
		if err := f.withCopies(ctx, s); err != nil {
			return err
		}
	}
	if f.rounds > 0 {
		if err := f.withoutCopies(ctx, s); err != nil {
			return err
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	return f.leak(ctx, b, m, o)
}

// withoutCopies times the engine alone.
func (f *settings) withoutCopies(ctx context.Context, s *trt.Session) error {
	var speeds []float64
	for i := range f.rounds + 1 {
		began := time.Now()
		if err := s.Repeat(ctx, 100); err != nil {
			return err
		}
		if i > 0 { // the first warms up
			speeds = append(speeds, float64(100*f.trt.Batch)/time.Since(began).Seconds())
		}
	}
	slices.Sort(speeds)
	fmt.Printf("session %q batch %d: %.1f images/s, median of %d x 100\n", f.precision, f.trt.Batch, speeds[len(speeds)/2], f.rounds)
	return nil
}

// withCopies runs batches with their copies, several at a time: for compute-sanitizer, as quantgate bench measures what copies cost.
func (f *settings) withCopies(ctx context.Context, s engine.Session) error {
	g, ctx := errgroup.WithContext(ctx)
	for range f.parallel {
		g.Go(func() error {
			x := tensor.New(append([]int64{int64(f.trt.Batch)}, s.Inputs()[0].Shape[1:]...)...)
			out := []*tensor.Tensor{{}}
			for range f.batches {
				if err := s.Run(ctx, x, out); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// leak opens and closes sessions and tells what memory there was before and after.
func (f *settings) leak(ctx context.Context, b *trt.Backend, m engine.Model, o engine.Options) error {
	for i := range f.sessions {
		s, err := b.Open(ctx, m, o)
		if err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
		if n := i + 1; n == 1 || n == 10 || n == f.sessions/2 || n == f.sessions {
			free, _, err := b.Memory()
			if err != nil {
				return err
			}
			statm, err := os.ReadFile("/proc/self/statm")
			if err != nil {
				return err
			}
			fmt.Printf("after %d sessions: %d bytes of the GPU free, statm (pages) %s", n, free, statm)
		}
	}
	return nil
}
