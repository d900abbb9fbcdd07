package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/pipeline"
	"github.com/quantgate/quantgate/trt"
)

// tensorrtFlags are those of --engine tensorrt, in trtexec's spelling where it has them.
type tensorrtFlags struct {
	library     string
	device      int
	devices     string
	batch       int
	workspace   string
	tactics     string
	level       string
	timingCache string
	noTF32      bool
	int8fp16    bool
}

func (f *tensorrtFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.library, "tensorrt-library", "", "folder of TensorRT's libraries (default: $"+trt.EnvLibrary+", the system's)")
	fs.IntVar(&f.device, "device", 0, "with tensorrt: the GPU's number")
	fs.StringVar(&f.devices, "devices", "", "with tensorrt: GPUs that share the work: all, or numbers such as 0,1 (default: that of --device)")
	fs.IntVar(&f.batch, "engine-batch", 0, "with tensorrt: the largest batch of the engines, for which their kernels are chosen (default: --batch-size)")
	fs.StringVar(&f.workspace, "workspace", "", "with tensorrt: scratch memory in MiB, or with a unit such as 4G (default: all of the GPU's)")
	fs.StringVar(&f.tactics, "tacticSources", "", "with tensorrt: sources of kernels to turn on and off, such as -CUDNN,-CUBLAS")
	fs.StringVar(&f.level, "builderOptimizationLevel", "", "with tensorrt 8.6 and later: how long to search for kernels, 0 to 5")
	fs.StringVar(&f.timingCache, "timingCacheFile", "", "with tensorrt: file of kernel timings to read and to add to (default: in the user's cache folder)")
	fs.BoolVar(&f.noTF32, "noTF32", false, "with tensorrt: compute float32 as float32")
	fs.BoolVar(&f.int8fp16, "int8-fp16", false, "with tensorrt: layers that do not run in INT8 may run in FP16")
}

// backend opens TensorRT for a job, on one GPU or on several.
func (f *tensorrtFlags) backend(a *app, job pipeline.Job) (engine.Quantizer, error) {
	o, err := f.options(a, orInt(f.batch, job.BatchSize))
	if err != nil {
		return nil, err
	}
	switch {
	case job.NativeLegacy:
		o.Calibrator = trt.LegacyEntropy
	case job.Method == calib.MinMax:
		o.Calibrator = trt.MinMax
	}
	if native := job.Method != "" && job.Method != calib.Entropy && job.Method != calib.MinMax && !job.OwnCalibrator && job.UseCache == ""; native {
		for _, p := range job.Precisions {
			if p == pipeline.INT8 || p == pipeline.INT8Native {
				return nil, fmt.Errorf("--method %s: TensorRT's own calibrators are entropy and minmax: add --calibrator quantgate", job.Method)
			}
		}
	}
	if f.devices == "" {
		return trt.New(o)
	}
	return f.group(o)
}

// group opens TensorRT on the GPUs of --devices, or on that of --device.
func (f *tensorrtFlags) group(o trt.Options) (*trt.Group, error) {
	if f.devices == "" {
		return trt.NewGroup(o, []int{f.device})
	}
	if f.device != 0 {
		return nil, fmt.Errorf("--device %d and --devices %s exclude each other: give one", f.device, f.devices)
	}
	devices, err := trt.ParseDevices(f.devices, f.library)
	if err != nil {
		return nil, fmt.Errorf("--%w", err)
	}
	return trt.NewGroup(o, devices)
}

// options are TensorRT's, for engines that take so many images at once.
func (f *tensorrtFlags) options(a *app, batch int) (trt.Options, error) {
	o := trt.Options{
		Library: f.library, Device: f.device, Batch: batch, TacticSources: f.tactics, TimingCache: f.timingCache,
		NoTF32: f.noTF32, INT8FP16: f.int8fp16, Verbose: a.verbose,
		Log: func(l trt.Level, text string) {
			switch l {
			case trt.LevelWarn:
				a.ui.Warnf("%s", text)
			case trt.LevelInfo:
				a.ui.Infof("%s", text)
			default:
				a.ui.Debugf("%s", text)
			}
		},
	}
	var err error
	if o.Workspace, err = parseSize(f.workspace); err != nil {
		return o, fmt.Errorf("--workspace %q: %w", f.workspace, err)
	}
	if f.level != "" {
		if o.Level, err = strconv.Atoi(f.level); err != nil {
			return o, fmt.Errorf("--builderOptimizationLevel %q: use 0 to 5", f.level)
		}
		o.Leveled = true
	}
	return o, nil
}

// parseSize reads trtexec's sizes: MiB, or a number with the unit B, K, M or G.
func parseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	unit, number := int64(1<<20), s
	for suffix, u := range map[string]int64{"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30} {
		if n, ok := strings.CutSuffix(strings.ToUpper(s), suffix); ok {
			unit, number = u, n
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n > 0) || n*float64(unit) > 1<<50 {
		return 0, fmt.Errorf("use a number of MiB, or one with the unit B, K, M or G")
	}
	return int64(n * float64(unit)), nil
}
