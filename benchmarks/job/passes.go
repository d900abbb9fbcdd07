package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	result "github.com/quantgate/quantgate/benchmarks/internal/bench"
	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/ort"
	"github.com/quantgate/quantgate/tensor"
)

// preloaded is the number of images that the bare passes go round, enough to leave the caches.
const preloaded = 64

// passes are the sessions to compare, and images for them.
type passes struct {
	names    []string // in the order they are printed
	sessions map[string]engine.Session
	images   []*tensor.Tensor
}

// Names of the passes that quantgate run makes.
const (
	passFP32 = "fp32"
	passFP16 = "fp16"
	passINT8 = "int8"
)

func (p *passes) close() {
	for _, s := range p.sessions {
		_ = s.Close() // nothing to lose
	}
}

// passes opens what quantgate run scores, the forms before it, and the written Q/DQ model in its forms.
func (b *bench) passes(ctx context.Context, e *ort.Backend, s set) (*passes, error) {
	p := &passes{sessions: map[string]engine.Session{}}
	if err := p.load(ctx, b, s); err != nil {
		return nil, err
	}
	m, err := onnx.Load(b.model)
	if err != nil {
		return nil, err
	}
	cache, _, err := calib.ReadFile(b.cache())
	if err != nil {
		return nil, err
	}
	plan, err := onnx.Plan(m)
	if err != nil {
		return nil, err
	}
	amax := map[string]float32{}
	for _, entry := range cache.Entries {
		amax[entry.Name] = entry.Amax
	}
	amax = plan.Ranges(amax)
	folded, _, err := onnx.FoldBatchNorm(m)
	if err != nil {
		return nil, err
	}
	half, _, err := onnx.EmulateFP16(folded, onnx.FP16Options{})
	if err != nil {
		return nil, err
	}
	twin, _, err := onnx.EmulateINT8(folded, amax, onnx.QDQOptions{})
	if err != nil {
		return nil, err
	}
	written, _, err := onnx.InsertQDQ(folded, amax, onnx.QDQOptions{})
	if err != nil {
		return nil, err
	}
	literal := engine.Options{LiteralQDQ: true}
	for _, x := range []struct {
		name  string
		model *onnx.Model
		o     engine.Options
		lean  bool
	}{
		{passFP32, m, engine.Options{}, true},
		{passFP16, half, literal, true},
		{passFP16 + ", layouts as ONNX Runtime's", half, literal, false},
		{passINT8, twin, literal, true},
		{passINT8 + ", layouts as ONNX Runtime's", twin, literal, false},
	} {
		if err := p.open(ctx, e, x.name, x.model, x.o, x.lean); err != nil {
			return nil, err
		}
	}
	if err := p.openQDQ(ctx, e, "Q/DQ", written); err != nil {
		return nil, err
	}
	if b.noPython != "" {
		return p, nil
	}
	theirs := filepath.Join(b.dir, "symmetric.onnx")
	if err := b.quantize(ctx, s, theirs, "int8", true); err != nil {
		return nil, err
	}
	static, err := onnx.Load(theirs)
	if err != nil {
		return nil, err
	}
	return p, p.openQDQ(ctx, e, "quantize_static", static)
}

// openQDQ opens a Q/DQ model with int8 activations as ONNX Runtime's default session runs it, and in the two forms that quantgate evaluate
// chooses from.
func (p *passes) openQDQ(ctx context.Context, e *ort.Backend, name string, m *onnx.Model) error {
	products, err := onnx.IntegerProducts(m)
	if err != nil {
		return err
	}
	raised, _, err := onnx.Uint8Activations(products)
	if err != nil {
		return err
	}
	integer := engine.Options{IntegerKernels: true}
	if err := p.open(ctx, e, name+" S8S8, default session", m, engine.Options{}, false); err != nil {
		return err
	}
	if err := p.open(ctx, e, name+" S8S8, integer kernels", products, integer, false); err != nil {
		return err
	}
	return p.open(ctx, e, name+" U8S8, integer kernels", raised, integer, true)
}

// open opens a model; lean takes out changes of layout as quantgate run does.
func (p *passes) open(ctx context.Context, e *ort.Backend, name string, m *onnx.Model, o engine.Options, lean bool) error {
	data, err := m.Bytes()
	if err != nil {
		return err
	}
	if lean {
		s, optimized, err := e.OpenOptimized(ctx, engine.Model{Name: name, Data: data}, o)
		if err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
		parsed, err := onnx.Parse(optimized, name)
		if err != nil {
			return err
		}
		kept, saved, err := onnx.KeepBlocked(parsed)
		if err != nil {
			return err
		}
		if saved > 0 {
			o.NoFusion = true
			if data, err = kept.Bytes(); err != nil {
				return err
			}
		}
	}
	if p.sessions[name], err = e.Open(ctx, engine.Model{Name: name, Data: data}, o); err != nil {
		return err
	}
	p.names = append(p.names, name)
	return nil
}

// load decodes the images, each a batch of its own.
func (p *passes) load(ctx context.Context, b *bench, s set) error {
	d, ids, err := b.scored(ctx, s)
	if err != nil {
		return err
	}
	defer d.Close()
	pre, err := s.preprocess()
	if err != nil {
		return err
	}
	loader := d.Load(ctx, ids[:min(preloaded, len(ids))], dataset.LoadOptions{Preprocess: pre, BatchSize: 1})
	defer loader.Close()
	for range min(preloaded, len(ids)) {
		batch, err := loader.Next(ctx)
		if err != nil {
			return err
		}
		x := tensor.New(batch.X.Shape...)
		copy(x.Data, batch.X.Data)
		p.images = append(p.images, x)
		batch.Release()
	}
	return nil
}

// preprocess is what the set's flags ask for.
func (s set) preprocess() (dataset.Preprocess, error) {
	p, err := dataset.Preset("imagenet", 3)
	p.InputSize, p.Resize, p.Interpolation = 224, s.resize, dataset.Bilinear
	if s.resize == 0 {
		p.CropOffset = &[2]int{1, 1}
	}
	return p, err
}

// pass runs n images through a session, one a call, on every core.
func (p *passes) pass(ctx context.Context, name string, n, cores int) (cost, error) {
	began, cpu := time.Now(), cpuSeconds()
	g, ctx := errgroup.WithContext(ctx)
	for w := range cores {
		g.Go(func() error {
			out := []*tensor.Tensor{{}}
			for i := w; i < n; i += cores {
				if err := p.sessions[name].Run(ctx, p.images[i%len(p.images)], out); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return cost{time.Since(began).Seconds(), cpuSeconds() - cpu}, err
}

// eachPass prints images/s of CPU time for every pass, interleaved.
func (b *bench) eachPass(ctx context.Context, p *passes) error {
	const n = 2 * preloaded
	rates := map[string][]float64{}
	for range b.pairs {
		for _, name := range p.names {
			c, err := p.pass(ctx, name, n, 1)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			rates[name] = append(rates[name], n/c.CPU)
		}
	}
	fmt.Printf("\nThe engine alone, images a second of CPU time (%d images a pass, one a call, one core)\n", n)
	for _, name := range p.names {
		l := result.Line{
			Bench: "job/passes of " + b.settings.model, What: "uint8", Metric: "images/s of CPU time, " + name, Unit: "images/s", Peer: passFP32, Versions: b.versions,
		}
		theirs := rates[passFP32]
		family, _, _ := strings.Cut(name, ",")
		switch {
		case name == passFP32:
			l.Peer, theirs = "", nil
		case family == passFP16:
			l.What = "fp16"
		case strings.HasSuffix(name, "integer kernels"):
			l.Peer = strings.Fields(name)[0] + " S8S8, default session"
			theirs = rates[l.Peer]
		}
		l.Set(rates[name], theirs)
		fmt.Printf("  %-44s %7.1f\n", name, l.Ours)
		b.lines = append(b.lines, l)
	}
	return nil
}
