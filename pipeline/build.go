package pipeline

import (
	"cmp"
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
	logits   string         // the output to score
	options  engine.Options // how the engine is to compute it
	computed string         // what is computed in which type, where the engine does not tell by layer
	form     string         // how a Q/DQ model is scored
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
	// What is scored is made while what is written is.
	lowered := r.job.Precisions[1:]
	twins := make([]candidate, len(lowered))
	var g errgroup.Group
	for i, precision := range lowered {
		g.Go(func() (err error) {
			twins[i], err = twin(m, folded, c, precision)
			return err
		})
	}
	for _, precision := range lowered {
		if _, err = r.write(m, folded, c, precision); err != nil {
			break
		}
	}
	if err := cmp.Or(err, g.Wait()); err != nil {
		return nil, err
	}
	out = append(out, twins...)
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

// write writes the model of a precision.
func (r *run) write(m *prepared, folded *onnx.Model, c *Calibration, precision string) (*onnx.Model, error) {
	if precision == FP16 {
		return r.writeFP16(m, folded, onnx.FP16Options{Amax: c.maxima()})
	}
	return r.writeINT8(m, folded, c)
}

// twin is what is scored in the place of the model that write writes, in float32. INT8's computes what an INT8 engine computes from it: sums
// of integers, then scales and bias. ONNX Runtime's own INT8 kernels round the bias too, and foretell a GPU less well. FP16's rounds where the
// float16 model does: ONNX Runtime's CPU would compute the float16 model itself in float32 and lose every overflow.
func twin(m *prepared, folded *onnx.Model, c *Calibration, precision string) (candidate, error) {
	title, computed := m.name+" "+precision, inTwin
	var model *onnx.Model
	var err error
	if precision == FP16 {
		computed = inHalf
		model, _, err = onnx.EmulateFP16(folded, onnx.FP16Options{Amax: c.maxima()})
	} else {
		model, _, err = onnx.EmulateINT8(folded, c.amax(), onnx.QDQOptions{})
	}
	if err != nil {
		return candidate{}, err
	}
	return scoredTwin(title, precision, m.Output, computed, model)
}

// writeINT8 writes the Q/DQ model.
func (r *run) writeINT8(m *prepared, folded *onnx.Model, c *Calibration) (*onnx.Model, error) {
	model, report, err := onnx.InsertQDQ(folded, c.amax(), onnx.QDQOptions{})
	if err != nil {
		return nil, err
	}
	m.result.QDQ = report
	r.tell(m, "INT8", report.Nodes, report.Warnings)
	m.manifest.INT8, err = r.save(model, filepath.Join(r.job.Out, m.name+".int8.onnx"))
	return model, err
}

// writeFP16 writes the float16 model.
func (r *run) writeFP16(m *prepared, folded *onnx.Model, o onnx.FP16Options) (*onnx.Model, error) {
	model, report, err := onnx.ToFP16(folded, o)
	if err != nil {
		return nil, err
	}
	m.result.FP16 = report
	r.tell(m, "FP16", report.Nodes, report.Warnings)
	m.manifest.FP16, err = r.save(model, filepath.Join(r.job.Out, m.name+".fp16.onnx"))
	return model, err
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

// scoredTwin is scored for a model that emulates another type in float32.
func scoredTwin(title, name, output, computed string, model *onnx.Model) (candidate, error) {
	c, err := scored(title, name, output, model)
	c.options.LiteralQDQ, c.computed = true, computed
	return c, err
}

// save writes a rewritten model and describes it for the manifest.
func (r *run) save(model *onnx.Model, path string) (*ManifestFile, error) {
	if err := model.Save(path); err != nil {
		return nil, err
	}
	r.wrote(path)
	return manifestFile(r.job.Out, path)
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
