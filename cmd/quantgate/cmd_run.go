package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/ui"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/pipeline"
	"github.com/quantgate/quantgate/reports"
)

func newRunCmd(a *app) *cobra.Command {
	var (
		job      jobFlags
		calib    calibFlags
		policy   policyFlags
		stop     stopFlags
		page     pageFlags
		config   string
		asJSON   bool
		exitZero bool
	)
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Calibrate, score every precision, and decide: the whole pipeline",
		Long: `run calibrates each model on the first --calib-batches batches, writes its calibration cache and its INT8 (explicit
Q/DQ) and FP16 ONNX models, scores FP32, FP16 and INT8 on all the other images, prints the accuracy table and decides
whether the loss is within --max-loss.

Everything is written to --out. An interrupted run continues with the same command and --resume. The model files given
are only read.

A configuration file (-c) holds the same settings under the flags' names; flags win over it. Its model list may give a
model settings of its own:

    images: /data/ILSVRC2012_img_val
    labels: val.txt
    preset: imagenet
    model:
      - resnet50.onnx
      - file: mobilenet_v2.onnx
        preset: tf
        class-offset: 1`,
		Example: `  # the ImageNet validation set, straight from its tar; 50 batches of 25 calibrate, 48,750 images are scored
  quantgate run --model resnet50.onnx --images ILSVRC2012_img_val.tar --labels val.txt --preset imagenet --resize 256

  # a model with a background class, inputs in -1..1, images of the right size already; a stricter gate
  quantgate run --model mobilenet.onnx --images val/ --labels val.txt --preset tf --resize none --class-offset 1 --max-loss 0.3pp

  # continue after an interruption
  quantgate run -c quantgate.yaml --resume`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := job.useConfig(config, cmd.Flags()); err != nil {
				return err
			}
			p, err := policy.policy()
			if err != nil {
				return err
			}
			if err := page.load(); err != nil {
				return err
			}
			return a.profiled(job.profile, func() error {
				result, err := work(cmd.Context(), a, &job, stop.apply(p, decidable(p, calib.apply)), page.pictured(p, pipeline.Run))
				if err != nil {
					return err
				}
				return conclude(a, result, p, &page, asJSON, exitZero)
			})
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&job.models, "model", nil, "ONNX model to work on (repeatable)")
	fs.StringVarP(&config, "config", "c", "", "YAML file with these settings; flags win over it")
	fs.BoolVar(&asJSON, "json", false, "print report.json instead of the table")
	fs.BoolVar(&exitZero, "exit-zero", false, "exit 0 whatever the verdict; errors still exit 1")
	job.register(fs)
	calib.register(fs)
	policy.register(fs)
	stop.register(fs)
	page.register(fs)
	completeFlags(cmd)
	return cmd
}

// pipelineFunc is one of the pipeline's jobs.
type pipelineFunc func(context.Context, pipeline.Env, pipeline.Job) (*pipeline.Result, error)

// work runs one of the pipeline's jobs as the flags describe it.
func work(ctx context.Context, a *app, f *jobFlags, apply func(*pipeline.Job) error, do pipelineFunc) (*pipeline.Result, error) {
	job, err := f.job(a)
	if err != nil {
		return nil, err
	}
	if err := apply(&job); err != nil {
		return nil, err
	}
	backend, err := f.backend(a, job)
	if err != nil {
		return nil, err
	}
	if t, ok := backend.(interface{ LibraryVersion() string }); ok {
		job.CacheVersion = t.LibraryVersion() // TensorRT takes no cache of another version
	}
	if err := f.openData(ctx, a, &job); err != nil {
		return nil, err
	}
	defer job.Data.Close()
	a.ui.SetLevel(a.quiet, a.verbose) // a configuration file may have set them
	result, err := do(ctx, pipeline.Env{Backend: backend, Report: reporter{a.ui}}, job)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil, fmt.Errorf("state is kept in %s; the same command with --resume continues: %w", job.Out, context.Canceled)
	}
	return result, err
}

// conclude judges a run, writes its reports beside its outcomes and prints the result.
func conclude(a *app, result *pipeline.Result, p accuracy.Policy, page *pageFlags, asJSON, exitZero bool) error {
	summary, err := accuracy.Evaluate(result.Outcomes, p)
	if err != nil {
		return err
	}
	r := reports.New(summary)
	for _, w := range r.Warnings { // the run's own were told when they arose
		a.ui.Warnf("%s", w)
	}
	describe(r, result)
	if err := page.addSpeeds(r, result.Manifest); err != nil {
		a.ui.Warnf("the report lacks throughput: %v", err)
	}
	if err := page.fill(r, result.Out, result.Manifest); err != nil {
		a.ui.Warnf("report.html lacks thresholds: %v", err)
	}
	files := result.Files
	for _, f := range []struct {
		name   string
		format reports.Format
	}{{"report.json", reports.FormatJSON}, {"report.md", reports.FormatMarkdown}, {"report.csv", reports.FormatCSV}, {"report.html", reports.FormatHTML}} {
		var b bytes.Buffer
		if err := reports.Write(&b, r, f.format); err != nil {
			return err
		}
		path := filepath.Join(result.Out, f.name)
		if err := renameio.WriteFile(path, b.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		files = append(files, path)
	}
	files = append(files, filepath.Join(result.Out, pipeline.ManifestName))
	format := reports.FormatText
	if asJSON {
		format = reports.FormatJSON
	}
	if err := reports.Write(a.stdout, r, format); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	a.wrote(files)
	a.took(result)
	return verdictError(r.Verdict, exitZero)
}

// wrote tells the user which files there are now.
func (a *app) wrote(files []string) {
	a.ui.Infof("wrote:")
	for _, f := range files {
		size := ""
		if info, err := os.Stat(f); err == nil {
			size = fmt.Sprintf("  (%s)", byteSize(info.Size()))
		}
		a.ui.Infof("  %s%s", f, size)
	}
}

func byteSize(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

// describe adds to a report what the run knows beside its outcomes. Nothing in it depends on when, where or in how many goes
// the run was made.
func describe(r *reports.Report, result *pipeline.Result) {
	m := result.Manifest
	r.Tool = m.Tool
	r.Manifest = &reports.File{Path: pipeline.ManifestName}
	r.Dataset = &reports.Dataset{
		Source: m.Images.Path, Format: string(m.Images.Format), Images: m.Images.Count,
		Decoder: m.Images.Decoder, Calibration: len(m.Calibration.IDs),
	}
	r.Warnings = append(slices.Clone(result.Warnings), r.Warnings...)
	if m.Calibration.Stratified {
		r.Dataset.SplitSeed = &m.Calibration.Seed
	}
	for i := range r.Models {
		found, entry, out := &result.Models[i], &m.Models[i], &r.Models[i]
		describeTypes(out, entry)
		r.Dataset.Scored = out.N
		r.Dataset.Skipped = len(found.Bad)
		r.Dataset.Calibration = len(m.Calibration.IDs)
		for _, bad := range found.Bad {
			if slices.Contains(m.Calibration.IDs, bad.ID) {
				r.Dataset.Calibration--
			}
		}
		r.Dataset.Preprocessing = entry.Preprocess.String()
		if c := found.Calibration; c != nil {
			out.Calibration = &reports.Calibration{
				Method: m.Calibration.Method, Images: c.Images, Batches: c.Batches, BatchSize: m.Calibration.BatchSize,
				Tensors: len(c.Cache.Table.Entries), FromCache: c.FromCache != "", Cache: c.FromCache, Warnings: c.Warnings,
			}
			if entry.Cache != nil {
				out.Calibration.Cache = entry.Cache.File
			}
		}
		for _, precision := range entry.Precisions {
			if layers := found.Layers[precision]; len(layers) > 0 {
				out.Layers = append(out.Layers, engineLayers(precision, layers))
			}
		}
		if q := found.FP16; q != nil {
			out.Quantization = append(out.Quantization, quantization(pipeline.FP16, entry.FP16, q.Nodes, q.Warnings))
		}
		if q := found.QDQ; q != nil {
			out.Quantization = append(out.Quantization, quantization(pipeline.INT8, entry.INT8, q.Nodes, q.Warnings))
		}
	}
}

// describeTypes adds what was computed in which type.
func describeTypes(r *reports.Model, m *pipeline.ManifestModel) {
	for i := range r.Precisions {
		r.Precisions[i].Computed = m.Computed[r.Precisions[i].Name]
	}
}

func engineLayers(precision string, layers []engine.Layer) reports.Layers {
	l := reports.Layers{Precision: precision, Counts: map[string]int{}}
	for _, x := range layers {
		if x.Computes() {
			l.Counts[x.Precision]++
		}
		l.Layers = append(l.Layers, reports.Layer(x))
	}
	return l
}

func quantization(precision string, file *pipeline.ManifestFile, nodes []onnx.NodeReport, warnings []string) reports.Quantization {
	q := reports.Quantization{Precision: precision, Float: []reports.FloatNode{}, Warnings: warnings}
	if file != nil {
		q.File = file.File
	}
	for _, n := range nodes {
		switch {
		case n.Reduced:
			q.Rewritten++
		case n.Follows:
			q.Following++
		default:
			q.Float = append(q.Float, reports.FloatNode{Node: n.Node, Op: n.Op, Reason: n.Reason})
		}
	}
	return q
}

// reporter adapts the user interface to what the pipeline wants.
type reporter struct{ *ui.UI }

func (r reporter) Stage(stage, unit string, total, done int) pipeline.Progress {
	return r.UI.Stage(stage, unit, total, done)
}
