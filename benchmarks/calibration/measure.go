package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	result "github.com/quantgate/quantgate/benchmarks/internal/bench"
	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/ort"
	"github.com/quantgate/quantgate/pipeline"
	"github.com/quantgate/quantgate/tensor"
)

// bench is what the measurements share.
type bench struct {
	shared        string
	pairs, images int
	memory        bool
	python        string
	backend       *ort.Backend
}

// cpuSeconds is the CPU time of the process so far, user and system.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // cannot fail with these arguments
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// measure prints all figures of one model.
func (b *bench) measure(ctx context.Context, n network) error {
	dir, err := os.MkdirTemp("", "quantgate-calibration-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	files, err := b.files(ctx, filepath.Join(dir, "jpeg"))
	if err != nil {
		return err
	}
	defer files.Close()
	stored, inputs, err := b.prepare(ctx, n, files, filepath.Join(dir, "tensors"))
	if err != nil {
		return err
	}
	defer stored.Close()
	passes, closePasses, err := b.passes(ctx, n)
	if err != nil {
		return err
	}
	defer closePasses()

	// Prepared tensors are read from files, which the bare pass does not do: that is taken off.
	var times [4][]float64
	var results []calib.Result
	for pair := range b.pairs*result.PerPair + 1 {
		row := [4]float64{}
		for i, s := range passes {
			if row[i], err = forward(ctx, s, inputs); err != nil {
				return err
			}
		}
		for i, d := range []*dataset.Dataset{stored, files} {
			c, err := b.calibrate(ctx, n, d, filepath.Join(dir, fmt.Sprint("out", pair, i)))
			if err != nil {
				return err
			}
			row[2+i], results = c.spent, c.results
			if d == stored {
				row[2+i] -= c.reading
			}
		}
		if pair == 0 {
			continue // warms up
		}
		for i, t := range row {
			times[i] = append(times[i], t)
		}
	}
	bare, taps, prepared, jpeg := times[0], times[1], times[2], times[3]
	for _, c := range []struct {
		metric       string
		ours, theirs []float64
		peer         string
		bar, aim     string
	}{
		{"CPU time", prepared, bare, "bare FP32 pass", n.bare, bareAim},
		{"CPU time", prepared, taps, "tapped pass, not counted", tapsBar, ""},
		{"CPU time with decoding", jpeg, bare, "bare FP32 pass", "", ""},
		{"CPU time of the tapped pass, not counted", taps, bare, "bare FP32 pass", "", ""},
	} {
		l := n.line(c.metric, "s")
		l.Peer, l.Bar, l.Goal = c.peer, c.bar, c.aim
		l.Versions = map[string]string{"ONNX Runtime": b.backend.Version()}
		l.Set(c.ours, c.theirs)
		if err := write(l); err != nil {
			return err
		}
	}
	if err := b.search(n, results); err != nil || !b.memory {
		return err
	}
	peak, err := b.peaks(ctx, n)
	if err != nil {
		return err
	}
	return b.peers(n, peak, func(i int) (float64, error) {
		c, err := b.calibrate(ctx, n, stored, filepath.Join(dir, fmt.Sprint("beside", i)))
		return c.spent, err
	})
}

// files opens a folder of the images to calibrate on and one batch more, which a job must leave to score.
func (b *bench) files(ctx context.Context, dir string) (*dataset.Dataset, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	root := filepath.Join(b.shared, "imagenet")
	labels, err := linked(dir, filepath.Join(root, "val1300"), filepath.Join(root, "val1300.txt"), b.images+batchSize)
	if err != nil {
		return nil, err
	}
	return dataset.Open(ctx, dataset.Options{Images: dir, Labels: labels})
}

// preprocess is the model's, cropped as TensorRT's reference was.
func (n network) preprocess(channels, h, _ int) (dataset.Preprocess, error) {
	p, err := dataset.Preset(n.preset, channels)
	p.InputSize, p.Channels, p.CropOffset = h, channels, &[2]int{1, 1}
	return p, err
}

// prepare writes the images of d as batch files of tensors, opens those, and returns the tensors too, one an image.
func (b *bench) prepare(ctx context.Context, n network, d *dataset.Dataset, dir string) (*dataset.Dataset, []*tensor.Tensor, error) {
	p, err := n.preprocess(3, 224, 224)
	if err != nil {
		return nil, nil, err
	}
	ids := make([]int, len(d.Items()))
	for i := range ids {
		ids[i] = i
	}
	loader := d.Load(ctx, ids, dataset.LoadOptions{Preprocess: p, BatchSize: batchSize})
	defer loader.Close()
	var inputs []*tensor.Tensor
	_, err = dataset.WriteBatches(dir, func(yield func(*dataset.Batch, error) bool) {
		for {
			batch, err := loader.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				for i := range batch.Items {
					x := tensor.New(append(tensor.Shape{1}, batch.X.Shape[1:]...)...)
					copy(x.Data, batch.X.Row(i))
					inputs = append(inputs, x)
				}
			}
			if !yield(batch, err) || err != nil {
				return
			}
			batch.Release()
		}
	})
	if err != nil {
		return nil, nil, err
	}
	stored, err := dataset.Open(ctx, dataset.Options{Images: dir, Format: dataset.Batches})
	return stored, inputs[:b.images], err
}

// passes opens the model as it is and as calibration taps it.
func (b *bench) passes(ctx context.Context, n network) (sessions []engine.Session, closeAll func(), err error) {
	closeAll = func() {
		for _, s := range sessions {
			_ = s.Close()
		}
	}
	path := filepath.Join(b.shared, "imagenet", "models", n.name+".onnx")
	bare, err := b.backend.Open(ctx, engine.Model{Path: path}, engine.Options{Threads: 1})
	if err != nil {
		return nil, closeAll, err
	}
	sessions = append(sessions, bare)
	taps, err := pipeline.OpenObserved(ctx, pipeline.Env{Backend: b.backend, Report: &stageClock{}}, pipeline.Model{Path: path, Preprocess: n.preprocess})
	if err != nil {
		return sessions, closeAll, err
	}
	return append(sessions, taps), closeAll, nil
}

// forward runs a session over the images, one at a time on every core into outputs that are reused, and returns the CPU time.
func forward(ctx context.Context, s engine.Session, inputs []*tensor.Tensor) (float64, error) {
	began := cpuSeconds()
	workers := runtime.GOMAXPROCS(0)
	g, ctx := errgroup.WithContext(ctx)
	for w := range workers {
		g.Go(func() error {
			bound := s.(engine.Binder).Bind() //nolint:errcheck // ort's sessions are
			defer bound.Close()
			for i := w; i < len(inputs); i += workers {
				if _, err := bound.Run(ctx, inputs[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return cpuSeconds() - began, err
}

// calibration is one of quantgate's.
type calibration struct {
	spent   float64 // CPU time of its stage: every image, both passes over the first batch, and the threshold search
	reading float64 // what of it went into reading and decoding images
	results []calib.Result
}

// calibrate runs quantgate's calibration of a data set.
func (b *bench) calibrate(ctx context.Context, n network, d *dataset.Dataset, out string) (calibration, error) {
	clock := &stageClock{}
	res, err := pipeline.Calibrate(ctx, pipeline.Env{Backend: b.backend, Report: clock}, pipeline.Job{
		Tool: "quantgate benchmark", Data: d, BatchSize: batchSize, CalibBatches: b.images / batchSize,
		Method: calib.Entropy, Precisions: []string{pipeline.FP32, pipeline.INT8}, Out: out, CacheVersion: "8.6.1",
		Models: []pipeline.Model{{Path: filepath.Join(b.shared, "imagenet", "models", n.name+".onnx"), Preprocess: n.preprocess}},
	})
	if err != nil {
		return calibration{}, err
	}
	c := calibration{spent: clock.spent, results: res.Models[0].Calibration.Results}
	for _, stage := range res.Manifest.Models[0].Stages {
		for _, part := range stage.Parts {
			if part.Name == "decode" {
				c.reading += part.CPUSeconds
			}
		}
	}
	if c.reading == 0 {
		return c, fmt.Errorf("%s: the run does not tell what reading its images took", n.name)
	}
	return c, nil
}

// stageClock measures the CPU time of the one stage that Calibrate reports.
type stageClock struct {
	began, spent float64
}

func (c *stageClock) Stage(string, string, int, int) pipeline.Progress {
	c.began = cpuSeconds()
	return c
}
func (c *stageClock) Add(int)              {}
func (c *stageClock) Done()                { c.spent += cpuSeconds() - c.began }
func (c *stageClock) Warnf(string, ...any) {}
func (c *stageClock) Infof(string, ...any) {}
func (c *stageClock) Debugf(string, ...any) {
}

// search times the threshold search of all tensors on one core.
func (b *bench) search(n network, results []calib.Result) error {
	l := n.line(fmt.Sprintf("threshold search of %d tensors, CPU time", len(results)), "s")
	l.Bar = searchBar
	var spent []float64
	for range b.pairs {
		began := cpuSeconds()
		for _, r := range results {
			if r.Histogram != nil {
				r.Histogram.EntropyThreshold()
			}
		}
		spent = append(spent, cpuSeconds()-began)
	}
	l.Set(spent, nil)
	return write(l)
}

// peaks compares the peak memory of whole processes at few and at many images, in turn, and returns the former's median in MiB. A process's
// peak depends on when its garbage is collected: it is 5 to 10 % off from one run to the next.
func (b *bench) peaks(ctx context.Context, n network) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	var mib [2][]float64
	for range b.pairs {
		for i, images := range []int{500, 5000} {
			cmd := exec.CommandContext(ctx, self, "-shared", b.shared, "-peak", n.name, "-images", strconv.Itoa(images)) // #nosec G204 -- this program itself
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				return 0, fmt.Errorf("peak memory at %d images: %w", images, err)
			}
			m, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
			if err != nil {
				return 0, fmt.Errorf("peak memory at %d images: %w", images, err)
			}
			mib[i] = append(mib[i], m)
		}
	}
	l := n.line("peak memory, 5,000 images", "MiB")
	l.Peer, l.Bar = "ours, 500 images", memoryBar
	l.Set(mib[1], mib[0])
	return result.Median(mib[0]), write(l)
}

// printPeak calibrates once and prints the peak memory of this process in MiB.
func (b *bench) printPeak(ctx context.Context, n network) error {
	dir, err := os.MkdirTemp("", "quantgate-calibration-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	d, err := b.files(ctx, filepath.Join(dir, "jpeg"))
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := b.calibrate(ctx, n, d, filepath.Join(dir, "out")); err != nil {
		return err
	}
	mib, err := result.PeakMemory()
	if err != nil {
		return err
	}
	fmt.Println(mib)
	return nil
}
