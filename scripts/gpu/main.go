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

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
	"github.com/quantgate/quantgate/trt"
)

func main() {
	var o trt.Options
	model := flag.String("model", "", "ONNX file")
	precision := flag.String("precision", "", "fp16, int8, or nothing for float32")
	cache := flag.String("cache", "", "calibration cache for int8")
	sessions := flag.Int("sessions", 0, "sessions to open and close")
	batches := flag.Int("batches", 0, "batches to run with copies")
	flag.StringVar(&o.CacheDir, "plans", "", "folder for plans")
	flag.IntVar(&o.Batch, "batch", 100, "images a batch")
	flag.StringVar(&o.TacticSources, "tacticSources", "-CUBLAS,-CUBLAS_LT,-CUDNN", "as trtexec's")
	flag.Parse()
	o.Log = func(_ trt.Level, text string) { fmt.Fprintln(os.Stderr, text) }
	if err := measure(o, *model, engine.Precision(*precision), *cache, *sessions, *batches); err != nil {
		fmt.Fprintln(os.Stderr, "gpu:", err)
		os.Exit(1)
	}
}

func measure(o trt.Options, path string, precision engine.Precision, cachePath string, sessions, batches int) error {
	ctx := context.Background()
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	options := engine.Options{Precision: precision}
	if cachePath != "" {
		if options.Cache, err = os.ReadFile(cachePath); err != nil {
			return err
		}
	}
	b, err := trt.New(o)
	if err != nil {
		return err
	}
	m := engine.Model{Name: strings.TrimSuffix(filepath.Base(path), ".onnx"), Data: data}
	s, err := b.Open(ctx, m, options)
	if err != nil {
		return err
	}
	if err := run(ctx, s, o.Batch, batches); err != nil {
		return err
	}
	ts, ok := s.(*trt.Session)
	if !ok {
		return fmt.Errorf("unexpected session %T", s)
	}
	if _, err := ts.Throughput(ctx, 100); err != nil { // warm up
		return err
	}
	var speeds []float64
	for range 7 {
		v, err := ts.Throughput(ctx, 100)
		if err != nil {
			return err
		}
		speeds = append(speeds, v)
	}
	slices.Sort(speeds)
	fmt.Printf("session %s %q batch %d: %.1f images/s, median of 7 x 100\n", m.Name, precision, o.Batch, speeds[3])
	if err := s.Close(); err != nil {
		return err
	}
	return leak(ctx, b, m, options, sessions)
}

// run times batches with their copies.
func run(ctx context.Context, s engine.Session, batch, batches int) error {
	if batches == 0 {
		return nil
	}
	x := tensor.New(append([]int64{int64(batch)}, s.Inputs()[0].Shape[1:]...)...)
	var out []*tensor.Tensor
	for range s.Outputs() {
		out = append(out, &tensor.Tensor{})
	}
	began := time.Now()
	for range batches {
		if err := s.Run(ctx, x, out); err != nil {
			return err
		}
	}
	fmt.Printf("with copies, one batch after another: %.1f images/s\n", float64(batches*batch)/time.Since(began).Seconds())
	return nil
}

// leak opens and closes sessions and tells what memory there was before and after.
func leak(ctx context.Context, b *trt.Backend, m engine.Model, o engine.Options, n int) error {
	for i := range n + 1 {
		s, err := b.Open(ctx, m, o)
		if err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
		if n > 0 && (i == 0 || i == n) {
			free, _, err := b.Memory()
			if err != nil {
				return err
			}
			statm, err := os.ReadFile("/proc/self/statm")
			if err != nil {
				return err
			}
			fmt.Printf("after %d sessions: %d bytes of the GPU free, statm %s", i+1, free, statm)
		}
	}
	return nil
}
