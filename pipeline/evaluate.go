package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx"
)

// Evaluate scores job.Candidates against the only model of job.Models, all as they are given. Images that calibrated one of the
// candidates, as the manifest beside it tells, are left out of the score.
func Evaluate(ctx context.Context, env Env, job Job) (*Result, error) {
	if len(job.Candidates) == 0 {
		return nil, errors.New("no candidate given")
	}
	job.Precisions = []string{"base"}
	job.Method, job.UseCache, job.CalibBatches = "", "", 0
	for _, c := range job.Candidates {
		for _, name := range job.Precisions {
			if name == c.Name {
				return nil, fmt.Errorf("two models are called %q: name each candidate differently, and none base", name)
			}
		}
		job.Precisions = append(job.Precisions, c.Name)
	}
	r, models, err := start(env, job)
	if err != nil {
		return nil, err
	}
	defer r.unlock()
	base := models[0]
	built, err := r.evaluated(ctx, base)
	if err != nil {
		return nil, err
	}
	if err := r.score(ctx, models, []candidates{built}); err != nil {
		return nil, err
	}
	return r.result, nil
}

// evaluated loads the candidates and makes sure that they take what the base takes.
func (r *run) evaluated(ctx context.Context, base *prepared) (candidates, error) {
	first, err := scored(base.name, "base", base.Output, base.model)
	if err != nil {
		return nil, err
	}
	out := candidates{r.asStated(first, base.model)}
	for _, c := range r.job.Candidates {
		model, err := onnx.Load(c.Path)
		if err != nil {
			return nil, err
		}
		in, err := model.ImageInput()
		if err != nil {
			return nil, err
		}
		for d := 1; d < 4; d++ {
			if b := base.input.Shape[d]; b != in.Shape[d] && b > 0 && in.Shape[d] > 0 {
				return nil, fmt.Errorf("%s: input %s does not fit the base's %s: compare models that take the same images", c.Path, in.Shape, base.input.Shape)
			}
		}
		output := base.Output
		if _, err := model.LogitsOutput(output); err != nil && len(model.Outputs()) == 1 {
			output = "" // its only one may be called otherwise
		}
		next, err := scored(c.Path, c.Name, output, model)
		if err != nil {
			return nil, err
		}
		next = r.asStated(next, model)
		switch {
		case quantizer(r.Env) != nil && model.UsesQDQ():
			next.options.Precision = engine.Int8
		case quantizer(r.Env) != nil && model.UsesFloat16():
			next.options.Precision = engine.Half
		case model.UsesQDQ() && !r.job.EngineDefaults:
			if next, err = r.integers(ctx, next, model); err != nil {
				return nil, err
			}
		case model.UsesFloat16():
			r.warn("%s computes in float16, which ONNX Runtime's CPU does in float32: values beyond 65,504 survive here that overflow on a GPU; quantgate run scores FP16 with its roundings", c.Path)
		}
		out = append(out, next)
	}
	return out, nil
}

// asStated notes that a model is computed as it states.
func (r *run) asStated(c candidate, model *onnx.Model) candidate {
	switch {
	case quantizer(r.Env) != nil:
	case model.UsesQDQ() || model.UsesFloat16():
		c.computed = inStated
	default:
		c.computed = inFloat32
	}
	return c
}

// evaluationSplit leaves out of the score what calibrated a candidate.
func (r *run) evaluationSplit() (dataset.Split, error) {
	var runs []*Manifest
	var what []string
	for _, c := range r.job.Candidates {
		m, err := r.source(c.Path)
		if err != nil {
			return dataset.Split{}, err
		}
		if m != nil && !slices.Contains(runs, m) {
			runs, what = append(runs, m), append(what, c.Path)
		}
	}
	return r.withhold(runs, strings.Join(what, " and "))
}
