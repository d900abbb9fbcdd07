package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	result "github.com/quantgate/quantgate/benchmarks/internal/bench"
	"github.com/quantgate/quantgate/dataset"
)

// ours are the precisions of the whole job, and of the one that Python does too.
const (
	all = "fp32,fp16,int8"
	two = "fp32,int8"
)

// jobs measures the whole job on one set: against the engine's bare passes and the decoder alone, and against Python.
func (b *bench) jobs(ctx context.Context, p *passes, s set) error {
	d, ids, err := b.scored(ctx, s)
	if err != nil {
		return err
	}
	defer d.Close()
	n := len(ids)
	peers := map[string]string{}
	if b.noPython == "" {
		for _, activations := range []string{"int8", "uint8"} {
			peers[activations] = filepath.Join(b.dir, activations+".onnx")
			if err := b.quantize(ctx, s, peers[activations], activations, false); err != nil {
				return err
			}
		}
	}
	alone, err := b.withoutCalibration(s, d, ids)
	if err != nil {
		return err
	}
	costs := map[string][]cost{}
	note := func(side string, c cost, err error) error {
		costs[side] = append(costs[side], c)
		return err
	}
	side := func(name string, measure func() (cost, error)) func() error {
		return func() error {
			c, err := measure()
			return note(name, c, err)
		}
	}
	err = result.InTurn(b.pairs*result.PerPair,
		side("bare passes", func() (cost, error) { return b.barePasses(ctx, p, n) }),
		side(all, func() (cost, error) { return b.run(ctx, s, all) }),
		side("decode", func() (cost, error) { return b.decode(ctx, d, ids, s) }),
	)
	if err != nil {
		return err
	}
	for range b.pairs {
		c, err := b.run(ctx, s, two)
		if err := note(two, c, err); err != nil {
			return err
		}
		for activations, model := range peers {
			c, err := b.pythonScore(ctx, s, model)
			if err := note("python "+activations, c, err); err != nil {
				return err
			}
			c, err = b.evaluate(ctx, alone, model)
			if err := note("evaluate "+activations, c, err); err != nil {
				return err
			}
		}
	}

	fmt.Printf("\n%s, %d images scored\n", s.name, n)
	line := func(metric, unit string) result.Line {
		return result.Line{
			Bench: fmt.Sprintf("job/%s, %s", b.settings.model, s.name), What: "job", Metric: metric, Unit: unit,
			Note: fmt.Sprintf("%d images scored", n), Versions: b.versions,
		}
	}
	for _, side := range []string{"bare passes", "decode", all, two, "python int8", "python uint8", "evaluate int8", "evaluate uint8"} {
		var rates []float64
		for _, c := range costs[side] {
			rates = append(rates, float64(n)/c.Wall)
		}
		if len(rates) > 0 {
			l := line("images/s, "+side, "images/s")
			l.Set(rates, nil)
			fmt.Printf("  %-68s %6.1f images/s\n", side, l.Ours)
			b.lines = append(b.lines, l)
		}
	}
	// compare adds the ratio of wall times, which the bar is for, and that of CPU times.
	compare := func(ours, peer, ratioOf, bar string, theirs func(i int) cost) {
		sides := map[string][2][]float64{}
		for i, c := range costs[ours] {
			t := theirs(i)
			sides["wall time"] = [2][]float64{append(sides["wall time"][0], c.Wall), append(sides["wall time"][1], t.Wall)}
			sides["CPU time"] = [2][]float64{append(sides["CPU time"][0], c.CPU), append(sides["CPU time"][1], t.CPU)}
		}
		for _, metric := range []string{"wall time", "CPU time"} {
			l := line(metric+" of "+ours, "s")
			l.Peer, l.RatioOf, l.Bar = peer, ratioOf, bar
			l.Set(sides[metric][0], sides[metric][1])
			fmt.Printf("  %-68s %6.3f (%.3f to %.3f)\n", metric+" of "+ours+", "+ratioOf+": "+peer, *l.Ratio, *l.Low, *l.High)
			b.lines, bar = append(b.lines, l), ""
		}
	}
	compare(all, "the three bare passes", result.OursOfTheirs, s.passesBar, func(i int) cost { return costs["bare passes"][i] })
	compare(all, "the three bare passes + decoding / cores", result.OursOfTheirs, s.decodeBar, func(i int) cost {
		bare, decode := costs["bare passes"][i], costs["decode"][i]
		return cost{bare.Wall + decode.CPU/float64(b.cores), bare.CPU + decode.CPU}
	})
	for _, activations := range []string{"int8", "uint8"} {
		peer, bar := "Python, FP32 and INT8 with "+activations+" activations", ">= 1.5"
		if activations == "uint8" {
			bar = "" // not what run computes
		}
		if peers[activations] == "" {
			l := line("wall time of "+two, "s")
			l.Peer, l.RatioOf, l.Bar, l.Absent = peer, result.TheirsOfOurs, bar, b.noPython
			var walls []float64
			for _, c := range costs[two] {
				walls = append(walls, c.Wall)
			}
			l.Set(walls, nil)
			b.lines = append(b.lines, l)
			continue
		}
		theirs := func(i int) cost { return costs["python "+activations][i] }
		compare(two, peer, result.TheirsOfOurs, bar, theirs)
		compare("evaluate "+activations, "Python on the same two models", result.TheirsOfOurs, ">= 1.5", theirs)
	}
	return nil
}

// barePasses measures the three passes that run makes, one after the other.
func (b *bench) barePasses(ctx context.Context, p *passes, n int) (all cost, err error) {
	for _, name := range []string{passFP32, passFP16, passINT8} {
		c, err := p.pass(ctx, name, n, b.cores)
		if err != nil {
			return all, err
		}
		all.Wall, all.CPU = all.Wall+c.Wall, all.CPU+c.CPU
	}
	return all, nil
}

// withoutCalibration is a set of the images that are scored alone.
func (b *bench) withoutCalibration(s set, d *dataset.Dataset, ids []int) (alone set, err error) {
	images := make([]result.Image, len(ids))
	for i, id := range ids {
		item := d.Items()[id]
		images[i] = result.Image{File: filepath.Join(s.images, item.Path), Name: item.Path, Class: fmt.Sprint(item.Label)}
	}
	s.images = filepath.Join(b.dir, "scored-"+s.name)
	if err := os.Mkdir(s.images, 0o755); err != nil {
		return s, err
	}
	s.labels, err = result.LinkImages(s.images, images)
	return s, err
}

// evaluate measures quantgate evaluate, process and all, of the models that the job in Python scores.
func (b *bench) evaluate(ctx context.Context, s set, candidate string) (cost, error) {
	args := append([]string{"evaluate", "--quiet", "--exit-zero", "--base", b.model, "--candidate", "int8=" + candidate, "--preset", "imagenet",
		"--images", s.images, "--labels", s.labels, "--batch-size", fmt.Sprint(batchSize)}, s.flags...)
	return b.quantgate(ctx, args)
}

// decode measures the loader alone, on every core.
func (b *bench) decode(ctx context.Context, d *dataset.Dataset, ids []int, s set) (cost, error) {
	pre, err := s.preprocess()
	if err != nil {
		return cost{}, err
	}
	began, cpu := time.Now(), cpuSeconds()
	loader := d.Load(ctx, ids, dataset.LoadOptions{Preprocess: pre, BatchSize: batchSize, Workers: b.cores})
	defer loader.Close()
	for {
		batch, err := loader.Next(ctx)
		if errors.Is(err, io.EOF) {
			return cost{time.Since(began).Seconds(), cpuSeconds() - cpu}, nil
		}
		if err != nil {
			return cost{}, err
		}
		batch.Release()
	}
}

func (s set) peer() []string {
	return []string{"--images", s.images, "--labels", s.labels, "--resize", fmt.Sprint(s.resize)}
}

// quantize makes ONNX Runtime's own INT8 model, once; the job is measured without it.
func (b *bench) quantize(ctx context.Context, s set, out, activations string, symmetric bool) error {
	args := append([]string{"benchmarks/job/job.py", "quantize", "--model", b.model, "--out", out, "--activations", activations,
		"--limit", fmt.Sprint(calibBatches * batchSize)}, s.peer()...)
	if symmetric {
		args = append(args, "--symmetric")
	}
	if err := b.command(ctx, b.python, args...).Run(); err != nil {
		return fmt.Errorf("quantize_static: %w", err)
	}
	return nil
}

// pythonScore measures the job in Python: its own clock, without interpreter and imports, and the CPU time of all.
func (b *bench) pythonScore(ctx context.Context, s set, candidate string) (cost, error) {
	cmd := b.command(ctx, b.python, append([]string{"benchmarks/job/job.py", "score", "--model", b.model, "--candidate", candidate,
		"--skip", fmt.Sprint(calibBatches * batchSize), "--limit", fmt.Sprint(max(0, s.limit-calibBatches*batchSize)), "--threads", fmt.Sprint(b.cores)}, s.peer()...)...)
	out, err := cmd.Output()
	if err != nil {
		return cost{}, fmt.Errorf("python: %w", err)
	}
	var answer struct{ Seconds float64 }
	if err := json.Unmarshal(out, &answer); err != nil {
		return cost{}, fmt.Errorf("python: %w", err)
	}
	return cost{answer.Seconds, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}, nil
}
