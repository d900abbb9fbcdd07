package pipeline

import (
	"context"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx"
)

// candidate is a model to score under the name of its precision.
type candidate struct {
	name     string
	model    engine.Model
	twin     func() (*onnx.Model, error) // makes what model.Data lacks, when the candidate is opened; nil where it lacks nothing
	logits   string                      // the output to score
	options  engine.Options              // how the engine is to compute it
	computed string                      // what is computed in which type, where the engine does not tell by layer
	form     string                      // how a Q/DQ model is scored
}

// candidates are what one model is scored as, the base first.
type candidates []candidate

// build calibrates one model and makes everything that is scored, in the order of the asked precisions.
func (r *run) build(ctx context.Context, m *prepared) (candidates, error) {
	base, err := scored(m.name+" fp32", FP32, m.Output, m.model)
	if err != nil {
		return nil, err
	}
	if quantizer(r.Env) == nil {
		base.computed = inFloat32
	}
	out := candidates{base}
	if !r.job.needsCalibration() {
		return out, nil
	}
	if q := quantizer(r.Env); q != nil {
		return r.buildOn(ctx, m, q, base)
	}
	c, err := r.ownCalibration(ctx, m)
	if err != nil {
		return nil, err
	}
	timing := r.begin(stageRewrite)
	folded, err := r.fold(m)
	if err != nil {
		return nil, err
	}
	lowered := r.job.Precisions[1:]
	files := make([]written, len(lowered))
	var g errgroup.Group
	for i, precision := range lowered {
		g.Go(func() (err error) {
			files[i], err = r.write(m, folded, c, precision)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, precision := range lowered {
		r.note(m, files[i])
		next, err := twin(m, folded, c, precision)
		if err != nil {
			return nil, err
		}
		out = append(out, next)
	}
	r.timed(m, timing, 0)
	return out, r.manifest.write(r.job.Out)
}

// ownCalibration is calibration, noted in the result.
func (r *run) ownCalibration(ctx context.Context, m *prepared) (*Calibration, error) {
	c, err := r.calibration(ctx, m)
	if err != nil {
		return nil, err
	}
	m.result.Calibration = c
	for _, w := range c.Warnings {
		r.Report.Warnf("%s: %s", m.name, w)
	}
	return c, nil
}

func (r *run) fold(m *prepared) (*onnx.Model, error) {
	folded, names, err := onnx.FoldBatchNorm(m.model)
	if err == nil && len(names) > 0 {
		r.Report.Debugf("%s: folded %d BatchNormalization nodes into their convolutions", m.name, len(names))
	}
	return folded, err
}

// written is a model that was written, with what there is to say of it.
type written struct {
	model *onnx.Model
	path  string
	file  *ManifestFile
	fp16  *onnx.FP16Report // nil of a Q/DQ model
	qdq   *onnx.QDQReport  // nil of a float16 model
}

// write writes the model of a precision: Q/DQ or float16. It is safe for concurrent use.
func (r *run) write(m *prepared, folded *onnx.Model, c *Calibration, precision string) (w written, err error) {
	if precision == FP16 {
		w.path = filepath.Join(r.job.Out, m.name+".fp16.onnx")
		w.model, w.fp16, err = onnx.ToFP16(folded, onnx.FP16Options{Amax: c.maxima()})
	} else {
		w.path = filepath.Join(r.job.Out, m.name+".int8.onnx")
		w.model, w.qdq, err = onnx.InsertQDQ(folded, c.amax(), onnx.QDQOptions{})
	}
	if err != nil {
		return w, err
	}
	if err := w.model.Save(w.path); err != nil {
		return w, err
	}
	w.file, err = manifestFile(r.job.Out, w.path)
	return w, err
}

// note enters a written model into the manifest and the result.
func (r *run) note(m *prepared, w written) {
	r.wrote(w.path)
	if w.fp16 != nil {
		m.result.FP16, m.manifest.FP16 = w.fp16, w.file
		r.tell(m, "FP16", w.fp16.Nodes, w.fp16.Warnings)
		return
	}
	m.result.QDQ, m.manifest.INT8 = w.qdq, w.file
	r.tell(m, "INT8", w.qdq.Nodes, w.qdq.Warnings)
}

// twin is what is scored in the place of the model that write writes, in float32. INT8's computes what an INT8 engine computes from it: sums
// of integers, then scales and bias. ONNX Runtime's own INT8 kernels round the bias too, and foretell a GPU less well. FP16's rounds where the
// float16 model does: ONNX Runtime's CPU would compute the float16 model itself in float32 and lose every overflow. It is made when it is
// opened, while others are opened and images decoded.
func twin(m *prepared, folded *onnx.Model, c *Calibration, precision string) (candidate, error) {
	logits, err := folded.LogitsOutput(m.Output)
	out := candidate{
		name: precision, model: engine.Model{Name: m.name + " " + precision}, logits: logits.Name,
		options: engine.Options{LiteralQDQ: true}, computed: inTwin,
		twin: func() (*onnx.Model, error) {
			model, _, err := onnx.EmulateINT8(folded, c.amax(), onnx.QDQOptions{})
			return model, err
		},
	}
	if precision == FP16 {
		out.computed = inHalf
		out.twin = func() (*onnx.Model, error) {
			model, _, err := onnx.EmulateFP16(folded, onnx.FP16Options{Amax: c.maxima()})
			return model, err
		}
	}
	return out, err
}

// content is the model as the engine opens it.
func (c candidate) content() (engine.Model, error) {
	if c.twin == nil {
		return c.model, nil
	}
	model, err := c.twin()
	if err != nil {
		return c.model, err
	}
	c.model.Data, err = model.Bytes()
	return c.model, err
}

// scored is a model as pass B takes it: title is what messages call it, output what holds its class scores, "" where it has one alone.
func scored(title, name, output string, model *onnx.Model) (candidate, error) {
	logits, err := model.LogitsOutput(output)
	if err != nil {
		return candidate{}, err
	}
	data, err := model.Bytes()
	return candidate{name: name, model: engine.Model{Name: title, Data: data}, logits: logits.Name}, err
}

// tell passes on what a rewrite left alone.
func (r *run) tell(m *prepared, precision string, nodes []onnx.NodeReport, warnings []string) {
	for _, w := range warnings {
		r.Report.Warnf("%s %s: %s", m.name, precision, w)
	}
	left := slices.DeleteFunc(slices.Clone(nodes), func(n onnx.NodeReport) bool { return n.Reduced || n.Follows })
	for _, n := range left {
		r.Report.Debugf("%s %s: %s %s stays float32: %s", m.name, precision, n.Op, n.Node, n.Reason)
	}
	r.Report.Debugf("%s %s: %d of %d nodes stay in float", m.name, precision, len(left), len(nodes))
}
