package pipeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

// Subject is a model whose speed is measured.
type Subject struct {
	Name, SHA256 string
	model        *onnx.Model
	input        onnx.Port
	base         candidate
}

// FixedBatch is the batch that the model fixes, 0 where it does not.
func (s *Subject) FixedBatch() int { return max(0, int(s.input.Shape[0])) }

// OpenSize reports whether the model leaves the images' height or width open.
func (s *Subject) OpenSize() bool { return slices.Contains(s.input.Shape[2:], tensor.Dynamic) }

// LoadSubject loads a model from its file; output is the one to compute, "" where it has one alone.
func LoadSubject(path, output string) (*Subject, error) {
	m, err := onnx.Load(path)
	if err != nil {
		return nil, err
	}
	return NewSubject(Model{Path: path}.Name(), output, m)
}

// NewSubject is LoadSubject for a model in memory.
func NewSubject(name, output string, m *onnx.Model) (*Subject, error) {
	sum, err := m.Digest()
	if err != nil {
		return nil, err
	}
	in, err := m.ImageInput()
	if err != nil {
		return nil, err
	}
	base, err := scored(name, FP32, output, m)
	return &Subject{Name: name, SHA256: sum, model: m, input: in, base: base}, err
}

// Ranges say what a subject's INT8 stands on.
type Ranges struct {
	CacheFile string // calibration cache; "" observes random images
	Cache     []byte // its content
	// Random makes images for a model's input of the given shape.
	Random func(shape tensor.Shape) (*tensor.Tensor, error)
	// Kept is where a Quantizer's cache of random images is kept, so that its engine need not be built anew; "" keeps none.
	Kept string
}

// RandomRanges is what Basis calls ranges observed on random images: good for speed, which does not depend on them, and for nothing else.
const RandomRanges = "random images: for speed only"

// Basis says in a few words what a precision's ranges are, "" for one that has none. Equal words mean equal ranges.
func (s *Subject) Basis(precision string, r Ranges) string {
	switch {
	case precision != INT8:
		return ""
	case s.model.UsesQDQ():
		return "the model's own Q/DQ pairs"
	case r.CacheFile == "":
		return RandomRanges
	}
	sum := sha256.Sum256(r.Cache)
	return fmt.Sprintf("cache %s, sha256 %s", filepath.Base(r.CacheFile), hex.EncodeToString(sum[:6]))
}

// Lower makes what an engine opens to run the subject in fp32, fp16 or int8: on a Quantizer the model as it is with the precision to lower it
// to, else the model itself or its Q/DQ form. Options has the precision, the cache and the output.
func (s *Subject) Lower(ctx context.Context, b engine.Backend, precision string, r Ranges) (engine.Model, engine.Options, error) {
	c := s.base
	var err error
	q := quantizer(Env{Backend: b})
	switch {
	case precision == FP32 && s.model.UsesQDQ():
		err = errors.New("the model has Q/DQ pairs: it has no FP32 form; give the model it was made of, or --precisions int8")
	case precision == FP32:
	case precision == FP16 && q != nil:
		c.options.Precision = engine.Half
	case precision == FP16:
		err = errors.New("fp16: ONNX Runtime's CPU computes float16 models in float32, so their speed says nothing: leave fp16 out")
	case precision == INT8 && q != nil:
		c.options.Precision = engine.Int8
		if !s.model.UsesQDQ() {
			c.options.Cache, err = s.engineCache(ctx, q, r)
		}
	case precision == INT8:
		if !s.model.UsesQDQ() {
			c, err = s.withQDQ(ctx, b, r)
		}
	default:
		err = fmt.Errorf("unknown precision %q: use %s, %s, %s", precision, FP32, FP16, INT8)
	}
	if err != nil {
		return engine.Model{}, engine.Options{}, fmt.Errorf("%s: %w", s.Name, err)
	}
	c.model.Name = s.Name + " " + precision
	c.options.Outputs = []string{c.logits}
	return c.model, c.options, nil
}

// engineCache is the cache that a Quantizer's INT8 engine stands on.
func (s *Subject) engineCache(ctx context.Context, q engine.Quantizer, r Ranges) ([]byte, error) {
	if r.CacheFile != "" {
		return r.Cache, nil
	}
	if r.Kept != "" {
		if kept, err := os.ReadFile(r.Kept); err == nil {
			return kept, nil
		}
	}
	x, err := s.random(r)
	if err != nil {
		return nil, err
	}
	next := func(context.Context) (*tensor.Tensor, error) {
		if x == nil {
			return nil, io.EOF
		}
		out := x
		x = nil
		return out, nil
	}
	m := s.base.model
	m.Name = s.Name + " " + INT8
	cache, err := q.Calibrate(ctx, m, engine.Calibration{Batch: int(x.Shape[0]), Outputs: []string{s.base.logits}, Next: next})
	if err != nil {
		return nil, err
	}
	if r.Kept != "" {
		if err := os.MkdirAll(filepath.Dir(r.Kept), 0o755); err != nil {
			return nil, fmt.Errorf("keep the calibration cache: %w", err)
		}
		if err := writeFile(r.Kept, cache); err != nil {
			return nil, err
		}
	}
	return cache, nil
}

// randomImages is how many images ranges for speed are observed on.
const randomImages = 8

func (s *Subject) random(r Ranges) (*tensor.Tensor, error) {
	shape := s.input.Shape.Clone()
	if shape[0] == tensor.Dynamic {
		shape[0] = randomImages
	}
	return r.Random(shape)
}

// withQDQ is the model with Q/DQ pairs that quantgate writes.
func (s *Subject) withQDQ(ctx context.Context, b engine.Backend, r Ranges) (candidate, error) {
	plan, err := onnx.Plan(s.model)
	if err != nil {
		return candidate{}, err
	}
	var amax map[string]float32
	if r.CacheFile != "" {
		format, err := calib.Detect(r.Cache)
		if err != nil {
			return candidate{}, fmt.Errorf("read calibration cache %s: %w", r.CacheFile, err)
		}
		cache, err := calib.Read(bytes.NewReader(r.Cache), r.CacheFile, format)
		if err != nil {
			return candidate{}, err
		}
		amax = map[string]float32{}
		for _, e := range cache.Entries {
			amax[e.Name] = e.Amax
		}
	} else if amax, err = s.observe(ctx, b, plan, r); err != nil {
		return candidate{}, err
	}
	folded, _, err := onnx.FoldBatchNorm(s.model)
	if err != nil {
		return candidate{}, err
	}
	model, _, err := onnx.InsertQDQ(folded, plan.Ranges(amax), onnx.QDQOptions{})
	if err != nil {
		return candidate{}, err
	}
	return scored(s.Name, INT8, s.base.logits, model)
}

// observe is max|x| of every entry over random images.
func (s *Subject) observe(ctx context.Context, b engine.Backend, plan *onnx.CalibrationPlan, r Ranges) (map[string]float32, error) {
	x, err := s.random(r)
	if err != nil {
		return nil, err
	}
	sources := plan.Sources(false)
	data, err := tapped(s.model, tensorsOf(sources))
	if err != nil {
		return nil, err
	}
	session, err := b.Open(ctx, engine.Model{Name: s.Name, Data: data}, engine.Options{NoTF32: true, Batch: int(x.Shape[0])})
	if err != nil {
		return nil, err
	}
	defer session.Close()
	collector, indices, constants, err := newCollector(calib.MinMax, plan, sources)
	if err != nil {
		return nil, err
	}
	t := &tap{Binding: bind(session), shard: collector.NewShard(), sources: indices}
	defer t.Close()
	if err := observeBatch(ctx, collector, []*tap{t}, x, int(x.Shape[0]), constants); err != nil {
		return nil, fmt.Errorf("observe random images: %w", err)
	}
	results, err := collector.Results()
	if err != nil {
		return nil, err
	}
	amax := map[string]float32{}
	for _, e := range table(plan, results).Entries {
		amax[e.Name] = e.Amax
	}
	return amax, nil
}
