// Package pipeline orders the stages of a run and their concurrency: calibrate, write the models, score, collect.
// Engines and progress reach it as small interfaces; it knows no flags, no reports and no native library.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx"
)

// The precisions a run scores. FP32 is the base that the others are compared with.
const (
	FP32 = "fp32"
	FP16 = "fp16"
	INT8 = "int8"
)

// More precisions, for an engine that lowers precision itself: the ways to the same arithmetic, side by side. There FP16 and INT8 are the
// engine's own as well: INT8 is INT8Native, or INT8Cache where Job.OwnCalibrator or Job.UseCache asks for it.
const (
	INT8Native = "int8-native" // the engine's calibrator
	INT8Cache  = "int8-cache"  // a cache of quantgate's calibrator, read by the engine
	INT8QDQ    = "int8-qdq"    // the model with Q/DQ pairs that quantgate writes
	FP16Model  = "fp16-model"  // the float16 model that quantgate writes
)

// Reporter shows the user what a run does.
type Reporter interface {
	// Stage starts the progress of one stage over total images, done of which an earlier run has finished.
	Stage(stage, unit string, total, done int) Progress
	Warnf(format string, args ...any)
	Infof(format string, args ...any)
	Debugf(format string, args ...any)
}

// Progress counts the steps of one stage.
type Progress interface {
	Add(n int)
	Done()
}

// Env is what a run works with.
type Env struct {
	Backend engine.Backend
	Report  Reporter
}

// Model is one model to work on.
type Model struct {
	// Path is the ONNX file; it is only read.
	Path string
	// Preprocess returns how an image becomes the model's input, which has the given channels, height and width
	// (-1 where the model leaves one open).
	Preprocess func(channels, height, width int) (dataset.Preprocess, error)
	// Output names the output that holds the class scores; "" where the model has one alone.
	Output string
	// ClassOffset is the number of leading outputs that are no class: class = output - ClassOffset.
	ClassOffset int
}

// Name is the file's name without its extension: what reports and written files call the model.
func (m Model) Name() string {
	return strings.TrimSuffix(filepath.Base(m.Path), filepath.Ext(m.Path))
}

// Job describes a run.
type Job struct {
	// Tool and Command go into the manifest: the program with its version, and the command line.
	Tool    string
	Command []string

	Data   *dataset.Dataset
	Images string // the path given for the images, for the manifest
	Labels string // the path given for the labels, if any
	Models []Model

	BatchSize    int
	CalibBatches int
	Method       calib.Method
	Precisions   []string // fp32 first, then candidates

	// Candidates are models made elsewhere that Evaluate compares with the only model of Models.
	Candidates []Candidate
	// EngineDefaults makes Evaluate run Q/DQ candidates as the engine's default session does, instead of in integers wherever they say so.
	EngineDefaults bool

	Out      string // folder for everything written
	Cache    string // calibration cache to write; empty: <Out>/<name>.<method>.cache
	UseCache string // calibration cache to read instead of calibrating
	// CacheVersion is the library version in the written cache's first line, such as 8.6.1; TensorRT ignores a cache of another version.
	CacheVersion string

	// OwnCalibrator makes INT8 stand on quantgate's calibrator where the engine has one too.
	OwnCalibrator bool
	// NativeLegacy says that the engine was told to use its legacy calibrator; it is part of what a run is known by.
	NativeLegacy bool

	Workers int // goroutines that decode, and as many that run an engine which is no engine.Concurrent; 0: one a core
	MaxBad  int // unreadable images to skip before giving up
	Resume  bool
	Stop    *StopEarly // nil: every image is scored
}

// Candidate is a finished model to compare with a base.
type Candidate struct {
	Name string
	Path string
}

// Result is what a run found.
type Result struct {
	Out      string // the folder that everything was written to
	Manifest *Manifest
	Outcomes *accuracy.Outcomes // nil after Calibrate
	Models   []ModelResult
	Files    []string // written files, in the order they were finished
	Warnings []string // what whoever reads the results should know
	Stages   []Stage  // what this process took for them, over all models
}

// ModelResult is what a run found out about one model beside its outcomes.
type ModelResult struct {
	Name        string
	Calibration *Calibration // nil where nothing was calibrated
	QDQ         *onnx.QDQReport
	FP16        *onnx.FP16Report
	Layers      map[string][]engine.Layer // by precision, where the engine tells what it really runs
	Bad         []accuracy.Skip           // images left out because they could not be read
}

// run is a job under way.
type run struct {
	Env
	job      Job
	manifest *Manifest
	split    dataset.Split
	result   *Result
	probed   map[bool]string // what is wrong with the engine's integer kernels, "" nothing, by whether activations are uint8
	locked   *os.File        // the output folder, while this process works in it
}

// prepared is a model that has been loaded and checked against the images.
type prepared struct {
	Model
	name       string
	model      *onnx.Model
	input      onnx.Port
	preprocess dataset.Preprocess
	manifest   *ManifestModel
	result     *ModelResult
}

// Run calibrates every model, writes its INT8 and FP16 models, and scores the asked precisions on the images that did not calibrate.
// A cancelled context leaves state in job.Out from which the same job with Resume continues.
func Run(ctx context.Context, env Env, job Job) (*Result, error) {
	r, models, err := start(env, job)
	if err != nil {
		return nil, err
	}
	defer r.unlock()
	var built []candidates
	for _, m := range models {
		c, err := r.build(ctx, m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		built = append(built, c)
	}
	if err := r.score(ctx, models, built); err != nil {
		return nil, err
	}
	return r.result, nil
}

// Calibrate stops after the calibration cache and the INT8 and FP16 models.
func Calibrate(ctx context.Context, env Env, job Job) (*Result, error) {
	r, models, err := start(env, job)
	if err != nil {
		return nil, err
	}
	defer r.unlock()
	for _, m := range models {
		if _, err := r.build(ctx, m); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return r.result, nil
}

// start loads and checks everything that can be checked before the first image is decoded.
func start(env Env, job Job) (*run, []*prepared, error) {
	if job.Workers <= 0 {
		job.Workers = runtime.GOMAXPROCS(0)
	}
	r := &run{Env: env, job: job, result: &Result{Out: job.Out}}
	if err := job.check(quantizer(env) != nil); err != nil {
		return nil, nil, err
	}
	var err error
	if r.split, err = r.chooseSplit(); err != nil {
		return nil, nil, err
	}
	job.Stop.shuffle(r.split.Score)
	r.manifest = newManifest(env, job, r.split)
	if err := r.checkOutputs(); err != nil {
		return nil, nil, err
	}
	var models []*prepared
	for _, spec := range job.Models {
		p, err := prepare(spec, job.Data)
		if err != nil {
			return nil, nil, err
		}
		models = append(models, p)
		digest, err := p.model.Digest()
		if err != nil {
			return nil, nil, err
		}
		r.manifest.Models = append(r.manifest.Models, ManifestModel{
			Name: p.name, SHA256: digest, Preprocess: p.preprocess,
			Output: p.Output, ClassOffset: p.ClassOffset, Precisions: job.Precisions, CachePath: job.Cache,
		})
		if err := r.manifest.addCandidates(job.Candidates); err != nil {
			return nil, nil, err
		}
	}
	r.result.Models = make([]ModelResult, len(models))
	for i, p := range models {
		p.manifest, p.result = &r.manifest.Models[i], &r.result.Models[i]
		p.result.Name = p.name
	}
	if job.UseCache != "" {
		if err := r.checkUsedCache(models); err != nil {
			return nil, nil, err
		}
	}
	if err := r.openFolder(); err != nil {
		r.unlock()
		return nil, nil, err
	}
	r.result.Manifest = r.manifest
	return r, models, nil
}

// check finds what is wrong with a job by itself.
func (job *Job) check(quantizes bool) error {
	if len(job.Models) == 0 {
		return errors.New("no model given")
	}
	stems := map[string]string{}
	for _, m := range job.Models {
		if first, ok := stems[m.Name()]; ok {
			return fmt.Errorf("models %s and %s have the same stem %q, so their files would overwrite each other: rename one", first, m.Path, m.Name())
		}
		stems[m.Name()] = m.Path
	}
	if job.BatchSize < 1 {
		return fmt.Errorf("batch size %d: must be at least 1", job.BatchSize)
	}
	if job.CalibBatches < 0 || job.CalibBatches == 0 && len(job.Candidates) == 0 && job.needsCalibration() && job.UseCache == "" {
		return fmt.Errorf("%d calibration batches: INT8 and FP16 need at least one", job.CalibBatches)
	}
	if err := job.Stop.check(job); err != nil {
		return err
	}
	if len(job.Models) > 1 && (job.Cache != "" || job.UseCache != "") {
		return errors.New("a calibration cache belongs to one model: give one model with --cache or --use-cache")
	}
	if len(job.Candidates) > 0 {
		return nil
	}
	if len(job.Precisions) == 0 || job.Precisions[0] != FP32 {
		return fmt.Errorf("precisions %v: the first must be %s, the base", job.Precisions, FP32)
	}
	for _, p := range job.Precisions[1:] {
		switch p {
		case FP16, INT8:
			continue
		case INT8Native, INT8Cache, INT8QDQ, FP16Model:
			if quantizes {
				continue
			}
			return fmt.Errorf("precision %q needs an engine that lowers precision itself: use --engine tensorrt, or %s and %s", p, FP16, INT8)
		default:
			return fmt.Errorf("unknown precision %q: use %s, %s, %s", p, FP32, FP16, INT8)
		}
	}
	return nil
}

// prepare loads a model, settles its preprocessing and checks that every label has an output.
func prepare(spec Model, data *dataset.Dataset) (*prepared, error) {
	p, err := load(spec)
	if err != nil {
		return nil, err
	}
	if err := checkWidth(p.model, spec.Output, spec.ClassOffset, data.Classes()); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	return p, nil
}

// load loads a model and settles its preprocessing.
func load(spec Model) (*prepared, error) {
	m, err := onnx.Load(spec.Path)
	if err != nil {
		return nil, err
	}
	in, err := m.ImageInput()
	if err != nil {
		return nil, err
	}
	channels, height, width := int(in.Shape[1]), int(in.Shape[2]), int(in.Shape[3])
	pre, err := spec.Preprocess(channels, height, width)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spec.Name(), err)
	}
	return &prepared{Model: spec, name: spec.Name(), model: m, input: in, preprocess: pre}, nil
}

// checkWidth makes sure, where the model states how many outputs it has, that every label has one.
func checkWidth(m *onnx.Model, output string, offset, classes int) error {
	logits, err := m.LogitsOutput(output)
	if err != nil || len(logits.Shape) < 2 {
		return err
	}
	if width := logits.Shape[1]; width >= 0 && int(width)-offset < classes {
		return fmt.Errorf("%w: output %s has %d values, which with class offset %d leaves %d classes, and the labels go up to %d: check --labels and --class-offset",
			accuracy.ErrWidth, logits.Name, width, offset, int(width)-offset, classes-1)
	}
	return nil
}

func newManifest(env Env, job Job, split dataset.Split) *Manifest {
	m := &Manifest{
		Format: manifestFormat, Tool: job.Tool, Command: job.Command,
		Engine: env.Backend.Name() + " " + env.Backend.Version(),
		Images: ManifestImages{
			Path: job.Images, Format: job.Data.Format(), Count: len(job.Data.Items()),
			ListSHA256: job.Data.ListDigest(), FileSHA256: job.Data.ImagesDigest(), LabelsSHA256: job.Data.LabelsDigest(), Decoder: job.Data.Decoder(),
		},
		Calibration: ManifestCalibration{
			Method: string(job.Method), CacheVersion: job.CacheVersion, BatchSize: job.BatchSize, Batches: job.CalibBatches,
			Seed: split.Seed, Stratified: split.Stratified, IDs: split.Calib,
			OwnCalibrator: job.OwnCalibrator, NativeLegacy: job.NativeLegacy,
		},
	}
	m.StopEarly, m.EngineDefaults = job.Stop.manifest(), job.EngineDefaults
	items := job.Data.Items()
	for _, i := range split.Calib {
		m.Calibration.Paths = append(m.Calibration.Paths, items[i].Path)
	}
	return m
}

// needsCalibration reports whether any asked precision stands on activation ranges: INT8 for its scales, FP16 to know what
// float16 cannot hold.
func (job *Job) needsCalibration() bool {
	return len(job.Precisions) > 1
}

// openFolder makes the output folder and finds out whether it holds a run to continue.
func (r *run) openFolder() error {
	if err := os.MkdirAll(r.job.Out, 0o755); err != nil {
		return fmt.Errorf("make output folder: %w", err)
	}
	if err := r.lock(); err != nil {
		return err
	}
	old, err := previousManifest(r.job.Out)
	if err != nil {
		return fmt.Errorf("%w: move it away, or give another --out", err)
	}
	switch {
	case old == nil && r.job.Resume:
		r.Report.Infof("nothing to resume in %s: starting from the beginning", r.job.Out)
	case old != nil && r.job.Resume:
		if old.key() != r.manifest.key() {
			return fmt.Errorf("resume in %s: %w (%s): run without --resume to start over, or give another --out",
				r.job.Out, ErrOtherRun, strings.Join(r.manifest.differences(old), "; "))
		}
		r.manifest.keepFiles(old)
	default:
		if old != nil {
			r.manifest.remember(old, r.job.Out)
		}
		if err := os.Remove(filepath.Join(r.job.Out, JournalName)); err == nil {
			r.Report.Warnf("%s held an interrupted run; starting over (--resume would have continued it)", r.job.Out)
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the old journal: %w", err)
		}
	}
	return r.manifest.write(r.job.Out)
}

// keepFiles takes over what an earlier process of the same run has written.
func (m *Manifest) keepFiles(old *Manifest) {
	for i := range m.Models {
		if o := old.model(m.Models[i].Name); o != nil {
			n := &m.Models[i]
			n.Cache, n.Histograms, n.INT8, n.FP16, n.Native = o.Cache, o.Histograms, o.INT8, o.FP16, o.Native
			n.Calibrated, n.Skipped, n.Stages = o.Calibrated, o.Skipped, o.Stages
			n.Computed, n.Forms = o.Computed, o.Forms
		}
	}
	m.Outcomes, m.Earlier = old.Outcomes, old.Earlier
}

// warn tells the user something that belongs into the report too.
func (r *run) warn(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if !slices.Contains(r.result.Warnings, line) {
		r.Report.Warnf("%s", line)
		r.result.Warnings = append(r.result.Warnings, line)
	}
}

// wrote notes a finished file.
func (r *run) wrote(path string) {
	if !slices.Contains(r.result.Files, path) {
		r.result.Files = append(r.result.Files, path)
	}
}
