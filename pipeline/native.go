package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

// quantizer is the engine, where it lowers precision itself; else nil.
func quantizer(env Env) engine.Quantizer {
	q, _ := env.Backend.(engine.Quantizer)
	return q
}

// buildOn makes what is scored on an engine that lowers precision itself: the model as it is, with the precision to lower it to, or the
// models that quantgate writes. What several precisions stand on is made once.
func (r *run) buildOn(ctx context.Context, m *prepared, q engine.Quantizer, base candidate) (candidates, error) {
	var own *Calibration
	var folded *onnx.Model
	ours := func() error {
		if own != nil {
			return nil
		}
		var err error
		if own, err = r.ownCalibration(ctx, m); err != nil {
			return err
		}
		folded, err = r.fold(m)
		return err
	}
	var native []byte
	out := candidates{base}
	for _, precision := range r.job.Precisions[1:] {
		next := base
		next.name, next.model.Name = precision, m.name+" "+precision
		way := precision
		if way == INT8 {
			way = INT8Native
			if r.job.OwnCalibrator || r.job.UseCache != "" {
				way = INT8Cache
			}
		}
		var err error
		switch way {
		case FP16:
			next.options.Precision = engine.Half
		case INT8Native:
			if native == nil {
				native, err = r.nativeCalibration(ctx, m, q, base)
			}
			next.options = engine.Options{Precision: engine.Int8, Cache: native}
		case INT8Cache:
			if err = ours(); err == nil {
				var b bytes.Buffer
				err = calib.WriteTensorRT(&b, own.Cache)
				next.options = engine.Options{Precision: engine.Int8, Cache: b.Bytes()}
			}
		case INT8QDQ, FP16Model:
			if err = ours(); err == nil {
				next, err = r.lowered(m, folded, own, precision)
			}
		}
		if err != nil {
			return nil, err
		}
		out = append(out, next)
	}
	return out, r.manifest.write(r.job.Out)
}

// lowered is one of the models that quantgate writes, as the engine runs it.
func (r *run) lowered(m *prepared, folded *onnx.Model, c *Calibration, precision string) (candidate, error) {
	lower, kind := engine.Int8, INT8
	if precision == FP16Model {
		lower, kind = engine.Half, FP16
	}
	w, err := r.write(m, folded, c, kind)
	if err != nil {
		return candidate{}, err
	}
	r.note(m, w)
	next, err := scored(m.name+" "+precision, precision, m.Output, w.model)
	next.options.Precision = lower
	return next, err
}

// nativeCalibration feeds the calibration images to the engine's own calibrator and keeps the cache, byte for byte. A cache that an interrupted
// run left is taken instead.
func (r *run) nativeCalibration(ctx context.Context, m *prepared, q engine.Quantizer, base candidate) ([]byte, error) {
	path := filepath.Join(r.job.Out, m.name+".native.cache")
	if m.manifest.Native.intact(r.job.Out) {
		cache, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read cache: %w", err)
		}
		r.Report.Infof("%s: the engine's calibration kept from the interrupted run (%s)", m.name, path)
		r.wrote(path)
		return cache, nil
	}
	timing := r.begin(stageNative)
	loader := r.job.Data.Load(ctx, r.split.Calib, r.loadOptions(m))
	defer loader.Close()
	timing.decode(loader, 1)
	progress := r.Report.Stage("calibrate "+m.name+" on the engine", "images", len(r.split.Calib), 0)
	defer progress.Done()
	var batch *dataset.Batch
	images, batches := 0, 0
	next := func(ctx context.Context) (*tensor.Tensor, error) {
		if batch != nil {
			batch.Release()
			batch = nil
		}
		for {
			waited := timing.wait()
			b, err := loader.Next(ctx)
			waited()
			if err != nil {
				return nil, err
			}
			r.noteBad(m, b.Bad)
			progress.Add(len(b.Items) + len(b.Bad))
			if len(b.Items) == 0 {
				b.Release()
				continue
			}
			batch = b
			images, batches = images+len(b.Items), batches+1
			return b.X, nil
		}
	}
	cache, err := q.Calibrate(ctx, base.model, engine.Calibration{Batch: r.job.BatchSize, Outputs: []string{base.logits}, Next: next})
	if err != nil {
		return nil, err
	}
	r.timed(m, timing, images)
	if err := writeFile(path, cache); err != nil {
		return nil, err
	}
	r.wrote(path)
	if m.manifest.Native, err = manifestFile(r.job.Out, path); err != nil {
		return nil, err
	}
	parsed, err := calib.ReadTensorRT(bytes.NewReader(cache), path)
	if err != nil {
		return nil, err
	}
	if m.result.Calibration == nil {
		m.result.Calibration = &Calibration{Cache: parsed, Images: images, Batches: batches}
	}
	return cache, r.manifest.write(r.job.Out)
}

// layers asks the sessions what they really run, and tells of an INT8 engine that is not one.
func (r *run) layers(m *prepared, built candidates, sessions []engine.Session) error {
	for i, s := range sessions {
		inspector, ok := s.(engine.Inspector)
		if !ok {
			return nil
		}
		layers, err := inspector.Layers()
		if err != nil {
			return fmt.Errorf("%s: %w", built[i].name, err)
		}
		if m.result.Layers == nil {
			m.result.Layers = map[string][]engine.Layer{}
		}
		m.result.Layers[built[i].name] = layers
		low := slices.ContainsFunc(layers, func(l engine.Layer) bool { return l.Precision == string(built[i].options.Precision) })
		if built[i].options.Precision != engine.AsStated && !low {
			r.Report.Warnf("%s: none of the %d layers of %s runs in %s", m.name, len(layers), built[i].name, built[i].options.Precision)
		}
	}
	return nil
}
