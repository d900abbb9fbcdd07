package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/sched"
	"github.com/quantgate/quantgate/ort"
	"github.com/quantgate/quantgate/pipeline"
)

// jobFlags are the flags that run, calibrate and evaluate share.
type jobFlags struct {
	data        dataFlags
	models      []string
	overrides   map[string]map[string]string // by model file: flag values that only it has, from a configuration file
	output      string
	classOffset int
	engine      string
	ortLibrary  string
	tensorrt    tensorrtFlags
	out         string
	workers     int
	badImages   string
	resume      bool
	profile     string
}

func (f *jobFlags) register(fs *pflag.FlagSet) {
	f.data.register(fs)
	fs.StringVar(&f.output, "output", "", "`name` of the output that holds the class scores, where a model has several")
	fs.IntVar(&f.classOffset, "class-offset", 0, "class = output - N; outputs below N are dropped before ranking (1 for models with a background class)")
	fs.StringVar(&f.engine, "engine", "ort", "inference engine: ort (ONNX Runtime on the CPU) or tensorrt (an NVIDIA GPU)")
	fs.StringVar(&f.ortLibrary, "ort-library", "", "ONNX Runtime's shared library (default: $"+ort.EnvLibrary+", the project's own, the system's)")
	f.tensorrt.register(fs)
	fs.StringVar(&f.out, "out", "quantgate-out", "folder for everything that is written")
	fs.IntVar(&f.workers, "workers", 0, "goroutines that decode, and as many that run the engine on a CPU (default: one a core)")
	fs.StringVar(&f.badImages, "bad-images", "fail", "unreadable images: fail, or skip:N to leave out at most N")
	fs.BoolVar(&f.resume, "resume", false, "continue an interrupted run in --out")
	fs.StringVar(&f.profile, "profile", "", "write a CPU and a memory profile (cpu.pprof, memory.pprof) to this `folder`, for go tool pprof")
}

// backend opens the chosen engine.
func (f *jobFlags) backend(a *app, job pipeline.Job) (engine.Backend, error) {
	switch f.engine {
	case "ort":
		if f.tensorrt.devices != "" {
			return nil, errors.New("--devices is for --engine tensorrt")
		}
		if err := sched.Batch(); err != nil {
			a.ui.Debugf("threads are scheduled as the system likes: %v", err)
		}
		return ort.New(ort.Options{Library: f.ortLibrary, Verbose: a.verbose})
	case "tensorrt":
		return f.tensorrt.backend(a, job)
	default:
		return nil, fmt.Errorf("--engine %q: unknown engine: use ort or tensorrt", f.engine)
	}
}

// job turns the flags into a job, all but its data.
func (f *jobFlags) job(a *app) (pipeline.Job, error) {
	job := pipeline.Job{
		Tool: "quantgate " + version(), Command: a.command, Images: f.data.Images, Labels: f.data.Labels,
		BatchSize: f.data.BatchSize, CalibBatches: f.data.CalibBatches,
		Out: f.out, Workers: f.workers, Resume: f.resume,
	}
	if len(f.models) == 0 {
		return job, errors.New("no model given: name one with --model FILE")
	}
	if f.workers < 0 {
		return job, fmt.Errorf("--workers %d: must be at least 1, or 0 for one a core", f.workers)
	}
	var err error
	if job.MaxBad, err = parseBadImages(f.badImages); err != nil {
		return job, err
	}
	for _, path := range f.models {
		m, err := f.model(path)
		if err != nil {
			return job, err
		}
		job.Models = append(job.Models, m)
	}
	return job, nil
}

// openData opens the job's images; the caller closes them.
func (f *jobFlags) openData(ctx context.Context, a *app, job *pipeline.Job) error {
	var err error
	job.Data, err = f.data.open(ctx, a.ui)
	return err
}

// model is one model with its own preprocessing.
func (f *jobFlags) model(path string) (pipeline.Model, error) {
	data, offset, output := f.data, f.classOffset, f.output
	own := f.overrides[path]
	for key, value := range own {
		if key == "output" {
			output = value
		} else if key == "class-offset" {
			n, err := strconv.Atoi(value)
			if err != nil {
				return pipeline.Model{}, fmt.Errorf("class-offset of model %s: %q is no number", path, value)
			}
			offset = n
		} else if err := data.override(key, value); err != nil {
			return pipeline.Model{}, fmt.Errorf("model %s: %w", path, err)
		}
	}
	if offset < 0 {
		return pipeline.Model{}, fmt.Errorf("--class-offset %d: must not be negative", offset)
	}
	return pipeline.Model{Path: path, Output: output, ClassOffset: offset, Preprocess: func(channels, h, w int) (dataset.Preprocess, error) {
		return data.preprocess(channels, h, w)
	}}, nil
}

// parseBadImages reads fail or skip:N.
func parseBadImages(s string) (int, error) {
	if s == "fail" {
		return 0, nil
	}
	if n, ok := strings.CutPrefix(s, "skip:"); ok {
		if k, err := strconv.Atoi(n); err == nil && k >= 0 {
			return k, nil
		}
	}
	return 0, fmt.Errorf("--bad-images %q: use fail, or skip:N with N the largest number to leave out", s)
}

// calibFlags are the flags of calibration.
type calibFlags struct {
	method       string
	precisions   string
	cache        string
	useCache     string
	cacheVersion string
	calibrator   string
}

// calibrators are the values of --calibrator.
var calibrators = []string{"native", "native-legacy", "quantgate"}

// methodNames are the values of --method.
func methodNames() []string {
	names := make([]string, 0, len(calib.Methods()))
	for _, m := range calib.Methods() {
		names = append(names, string(m))
	}
	return names
}

func (f *calibFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.method, "method", string(calib.Entropy), "calibration method: "+strings.Join(methodNames(), ", "))
	fs.StringVar(&f.precisions, "precisions", "fp32,fp16,int8", "precisions to make and score; fp32 is the base and always among them; with --engine tensorrt also int8-native, int8-cache, int8-qdq, fp16-model")
	fs.StringVar(&f.calibrator, "calibrator", "native", "what int8 stands on with --engine tensorrt: native (TensorRT's calibrator for --method), native-legacy (IInt8EntropyCalibrator), quantgate")
	fs.StringVar(&f.cache, "cache", "", "calibration cache to write (default: <out>/<model>.<method>.cache)")
	fs.StringVar(&f.useCache, "use-cache", "", "calibration cache to read instead of calibrating")
	fs.StringVar(&f.cacheVersion, "cache-version", "8.6.1", "TensorRT version in the written cache's first line; TensorRT ignores a cache of another version")
}

// apply adds the calibration's settings to a job.
func (f *calibFlags) apply(job *pipeline.Job) error {
	var err error
	if job.Method, err = calib.ParseMethod(f.method); err != nil {
		return fmt.Errorf("--method: %w", err)
	}
	if _, err := calib.Version(f.cacheVersion); err != nil {
		return fmt.Errorf("--cache-version: %w", err)
	}
	if f.cache != "" && f.useCache != "" {
		return errors.New("--cache writes a calibration cache and --use-cache reads one: give one of them")
	}
	job.Cache, job.UseCache, job.CacheVersion = f.cache, f.useCache, f.cacheVersion
	job.OwnCalibrator = f.calibrator == "quantgate"
	if !job.OwnCalibrator && !strings.HasPrefix(f.calibrator, "native") || !slices.Contains(calibrators, f.calibrator) {
		return fmt.Errorf("--calibrator %q: use %s", f.calibrator, strings.Join(calibrators, ", "))
	}
	job.NativeLegacy = f.calibrator == "native-legacy"
	job.Precisions, err = parsePrecisions(f.precisions)
	return err
}

// parsePrecisions reads a comma-separated list; fp32 comes first whether named or not.
func parsePrecisions(s string) ([]string, error) {
	out := []string{pipeline.FP32}
	for _, p := range strings.Split(s, ",") {
		p = strings.ToLower(strings.TrimSpace(p))
		switch p {
		case pipeline.FP32:
			continue
		case pipeline.FP16, pipeline.INT8, pipeline.INT8Native, pipeline.INT8Cache, pipeline.INT8QDQ, pipeline.FP16Model:
		default:
			return nil, fmt.Errorf("--precisions %q: unknown precision %q: use fp32, fp16, int8, and with --engine tensorrt int8-native, int8-cache, int8-qdq, fp16-model", s, p)
		}
		if slices.Contains(out, p) {
			return nil, fmt.Errorf("--precisions %q: %s is named twice", s, p)
		}
		out = append(out, p)
	}
	return out, nil
}

// completeFlags offers the values of flags that take one of a few.
func completeFlags(cmd *cobra.Command) {
	for name, values := range map[string][]string{
		"method":        methodNames(),
		"engine":        {"ort", "tensorrt"},
		"calibrator":    calibrators,
		"format":        {"auto", "list", "folders", "tar", "idx", "batches"},
		"preset":        dataset.Presets(),
		"interpolation": {"bilinear", "bicubic"},
		"channel-order": {"rgb", "bgr"},
		"rule":          {"interval", "point"},
		"target":        {"population", "set"},
		"max-loss":      {"0.5pp", "0.5%rel"},
	} {
		if cmd.Flags().Lookup(name) != nil {
			// It fails only for a flag that is missing or was given a function before; neither can be.
			_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	for name, ext := range map[string]string{"model": "onnx", "base": "onnx", "config": "yaml"} {
		if cmd.Flags().Lookup(name) != nil {
			_ = cmd.MarkFlagFilename(name, ext)
		}
	}
}
