// Package trt is the engine.Backend on TensorRT, with TensorRT's own calibrators. The libraries are opened at run time: a binary made
// without them serves machines that have none, and machines with TensorRT 8.5, 8.6 or 10.0 to 10.16.
package trt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/quantgate/quantgate/trt/internal/nvinfer"
)

// EnvLibrary is the environment variable that names the folder of TensorRT's libraries.
const EnvLibrary = "QUANTGATE_TENSORRT_LIB"

// Algorithm is one of TensorRT's calibrators.
type Algorithm = nvinfer.Algorithm

// TensorRT's calibrators: IInt8EntropyCalibrator2, IInt8EntropyCalibrator and IInt8MinMaxCalibrator.
const (
	Entropy2      = nvinfer.Entropy2
	LegacyEntropy = nvinfer.LegacyEntropy
	MinMax        = nvinfer.MinMax
)

// Options choose the libraries and how engines are built. Names are trtexec's.
type Options struct {
	// Library is the folder of libnvinfer and libnvonnxparser; "" means $QUANTGATE_TENSORRT_LIB, then the system's loader.
	Library string
	// Device is the GPU's index.
	Device int
	// Batch is the largest batch that engines of models with an open batch take at once, and the one they are tuned for; 0 means 1.
	Batch int
	// Calibrator is the algorithm of Calibrate.
	Calibrator Algorithm
	// Workspace limits scratch memory, in bytes; 0 leaves TensorRT's default, all of the GPU's.
	Workspace int64
	// TacticSources turns sources of kernels on and off, as "-CUDNN,-CUBLAS,+EDGE_MASK_CONVOLUTIONS"; "" leaves TensorRT's default.
	TacticSources string
	// Level is how long to search for kernels, 0 to 5, where Leveled; TensorRT 8.6 and later.
	Level   int
	Leveled bool
	// TimingCache is a file of kernel timings to use and to add to; "" keeps one under the user's cache folder.
	TimingCache string
	// NoTF32 computes float32 as float32.
	NoTF32 bool
	// INT8FP16 lets layers that do not run in INT8 run in FP16.
	INT8FP16 bool
	// CacheDir is where plans and timings are kept; "" means quantgate/tensorrt in the user's cache folder.
	CacheDir string
	// Verbose passes on TensorRT's informational messages too.
	Verbose bool
	// Log receives TensorRT's messages and notes on what is built, each one line; nil drops them.
	Log func(level Level, text string)
}

// Level is a message's weight.
type Level int

// The levels of Options.Log.
const (
	LevelDebug Level = iota
	LevelInfo
	LevelWarn
)

// folder is where the libraries are looked for; "" means where the system's loader looks.
func (o Options) folder() string {
	if o.Library != "" {
		return o.Library
	}
	return os.Getenv(EnvLibrary)
}

// cacheDir is where plans and timings are kept.
func (o Options) cacheDir() (string, error) {
	if o.CacheDir != "" {
		return o.CacheDir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "quantgate", "tensorrt"), nil
}

// tacticBits are the sources of kernels, in trtexec's spelling and TensorRT's order.
var tacticBits = []string{"CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"}

// tactics applies a list such as "-CUDNN,+CUBLAS" to a mask.
func tactics(list string, mask uint32) (uint32, error) {
	if list == "" {
		return mask, nil
	}
	for _, item := range strings.Split(list, ",") {
		sign, name, found := byte(0), "", false
		if len(item) > 1 {
			sign, name = item[0], strings.ToUpper(item[1:])
		}
		for bit, known := range tacticBits {
			if name != known {
				continue
			}
			switch sign {
			case '+':
				mask, found = mask|1<<bit, true
			case '-':
				mask, found = mask&^(1<<bit), true
			}
		}
		if !found {
			return 0, fmt.Errorf("tactic sources %q: %q is not + or - before one of %s", list, item, strings.Join(tacticBits, ", "))
		}
	}
	return mask, nil
}

// check finds what is wrong with the options by themselves.
func (o Options) check() error {
	_, err := tactics(o.TacticSources, 0)
	switch {
	case err != nil:
		return err
	case o.Device < 0:
		return fmt.Errorf("device %d: must not be negative", o.Device)
	case o.Batch < 0:
		return fmt.Errorf("batch %d: must not be negative", o.Batch)
	case o.Workspace < 0:
		return errors.New("workspace: must not be negative")
	case o.Leveled && (o.Level < 0 || o.Level > 5):
		return fmt.Errorf("builder optimisation level %d: use 0 to 5", o.Level)
	}
	return nil
}
