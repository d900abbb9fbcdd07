// Command imagenet50k makes a tar of JPEGs as large as ImageNet's validation set, lets quantgate score it in three precisions, and watches
// the process's memory while it does.
//
//	go run ./benchmarks/imagenet50k              50,000 images, 2,000 batches of 25: 7 GB below out/imagenet50k, half an hour on two cores
//	go run ./benchmarks/imagenet50k -n 1000      fewer
//
// Both steps go on where an interrupted one stopped. The memory over time is in memory.csv; the results are lines of JSON on stdout.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quantgate/quantgate/benchmarks/internal/bench"
	"github.com/quantgate/quantgate/pipeline"
)

const batchSize = 25

type options struct {
	shared, out, quantgate, model string
	n                             int
	seed                          uint64
}

func main() {
	var o options
	flag.StringVar(&o.shared, "shared", "../shared", "folder of the shared images and models")
	flag.StringVar(&o.out, "out", "out/imagenet50k", "folder for the tar, the run and the samples")
	flag.StringVar(&o.quantgate, "quantgate", "bin/quantgate", "program to measure (make build)")
	flag.StringVar(&o.model, "model", "squeezenet1.1", "model of the shared ones, with ImageNet's preprocessing")
	flag.IntVar(&o.n, "n", 50000, "images")
	flag.Uint64Var(&o.seed, "seed", 1, "of the variations")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := o.measure(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "imagenet50k:", err)
		os.Exit(1)
	}
}

func (o options) measure(ctx context.Context) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	images, labels, err := o.makeTar(ctx)
	if err != nil {
		return err
	}
	run := filepath.Join(o.out, fmt.Sprintf("run-%d", o.n))
	args := []string{
		"run", "--model", filepath.Join(o.shared, "imagenet", "models", o.model+".onnx"), "--images", images, "--labels", labels,
		"--preset", "imagenet", "--resize", "256", "--batch-size", strconv.Itoa(batchSize), "--calib-batches", strconv.Itoa(o.calibBatches()),
		"--precisions", "fp32,fp16,int8", "--exit-zero", "--out", run,
	}
	resumed := false
	if _, err := os.Stat(filepath.Join(run, pipeline.JournalName)); err == nil {
		args, resumed = append(args, "--resume"), true
	}
	began := time.Now()
	samples, err := o.watch(ctx, args)
	if err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	if err := writeSamples(filepath.Join(o.out, fmt.Sprintf("memory-%d.csv", o.n)), samples); err != nil {
		return err
	}
	m, err := pipeline.ReadManifest(run)
	if err != nil {
		return err
	}
	for _, l := range lines(m.Models[0].Stages, samples, o.n, seconds, resumed) {
		if err := l.Write(os.Stdout); err != nil {
			return err
		}
	}
	return nil
}

// calibBatches is 50 of the 2,000 batches, and as large a share of fewer.
func (o options) calibBatches() int { return max(1, o.n/batchSize/40) }

// watch runs quantgate and samples its memory. An interrupt is passed on, so that quantgate leaves state to go on from.
func (o options) watch(ctx context.Context, args []string) ([]sample, error) {
	cmd := exec.CommandContext(ctx, o.quantgate, args...) //nolint:gosec // the program to measure is the user's choice
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	fmt.Fprintln(os.Stderr, "imagenet50k:", cmd)
	if err := cmd.Start(); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: run make build", err)
	} else if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	began := time.Now()
	tick := time.NewTicker(interval(o.n))
	defer tick.Stop()
	var samples []sample
	for {
		select {
		case err := <-done:
			if err == nil && len(samples) == 0 {
				err = errors.New("no sample of its memory: they come from /proc, so run this on Linux, with more images")
			}
			return samples, err
		case <-tick.C:
			if s, err := sampleOf(cmd.Process.Pid); err == nil { // it may just have ended
				s.seconds = time.Since(began).Seconds()
				samples = append(samples, s)
			}
		}
	}
}

// interval between samples: about a thousand of them.
func interval(n int) time.Duration {
	return max(20*time.Millisecond, time.Duration(n)*20*time.Microsecond)
}

// lines are the results: memory, then time by stage.
func lines(stages []pipeline.Stage, samples []sample, n int, seconds float64, resumed bool) []bench.Line {
	name := fmt.Sprintf("big/%d images", n)
	line := func(metric, unit string, ours float64) bench.Line {
		return bench.Line{Bench: name, What: "big", Metric: metric, Unit: unit, Ours: ours}
	}
	note := "resident memory, the median of the run's last quarter beside that of its second"
	if resumed {
		note += "; an interrupted run was resumed, and its last process is what was watched"
	}
	early, late := medianRSS(samples, 0.25, 0.5), medianRSS(samples, 0.75, 1)
	flat := line("memory over time", "MiB", late)
	flat.Peer, flat.Bar, flat.Note = "ours, earlier in the run", "<= 1.05", note
	flat.Set([]float64{late}, []float64{early})
	out := []bench.Line{line("peak memory", "MiB", peak(samples)), flat}

	images := 0
	var parts []bench.Line
	for _, s := range stages {
		images += s.Images
		for i, p := range s.Parts {
			l := line(s.Name+", "+p.Name, "images/s", s.PartRate(p))
			if i == 0 {
				l.Note = times(s)
			}
			parts = append(parts, l)
		}
	}
	whole := (n + batchSize - 1) / batchSize
	batches := line("batches done", fmt.Sprintf("of %d", whole), float64(images)/batchSize)
	batches.Bar = fmt.Sprintf(">= %d", whole)
	out = append(out, batches)
	if !resumed {
		out = append(out, line("whole run", "images/s", float64(images)/seconds))
	}
	return append(out, parts...)
}

// times says what a stage and its parts took.
func times(s pipeline.Stage) string {
	var parts []string
	for _, p := range s.Parts {
		parts = append(parts, fmt.Sprintf("%s %.1f s (%.1f CPU s)", p.Name, s.Share(p), p.CPUSeconds))
	}
	return fmt.Sprintf("%s took %.1f s for %d images: %s, waiting for images %.1f s; by the stage's clock, decoding beside the rest", s.Name, s.Seconds, s.Images, strings.Join(parts, ", "), s.Waited)
}
