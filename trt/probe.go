package trt

import (
	"fmt"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/trt/internal/cuda"
	"github.com/quantgate/quantgate/trt/internal/nvinfer"
)

// Facts is what a machine has of TensorRT.
type Facts struct {
	Libraries []Library
	GPUs      []GPU
	Version   string // TensorRT's
	Path      string // libnvinfer's
	Err       error  // why it is not usable, with the remedy; wraps engine.ErrUnavailable
}

// Library is one library and what was found of it.
type Library struct {
	Name, Path, Version string
	Problem             string // the loader's own text, "" when it was opened
}

// GPU describes a device.
type GPU struct {
	Index       int
	Name        string
	Capability  string // of its arithmetic, for example 9.0
	MemoryBytes uint64
	FP16, INT8  bool // fast arithmetic of that kind
}

// Probe opens the libraries, from the folder given or as New does, and asks the driver for its GPUs; nothing is built.
func Probe(library string) Facts {
	folder := Options{Library: library}.folder()
	var f Facts
	lib, found, err := nvinfer.Open(folder)
	for _, l := range found {
		f.Libraries = append(f.Libraries, Library(l))
	}
	if err == nil {
		f.Version, f.Path = lib.Version.String(), lib.Path
	}
	gpu := Library{Name: "libcuda"}
	driver, errDriver := cuda.Open(driverFile(folder))
	if errDriver == nil {
		gpu.Path, gpu.Version = driver.Path, driver.Version
		var all []cuda.GPU
		if all, errDriver = driver.GPUs(); errDriver == nil && len(all) == 0 {
			errDriver = fmt.Errorf("the driver lists no GPU")
		}
		for _, g := range all {
			f.GPUs = append(f.GPUs, describe(g))
		}
	}
	if errDriver != nil {
		gpu.Problem = oneLine(errDriver)
	}
	f.Libraries = append(f.Libraries, gpu)
	if err == nil {
		err = errDriver
	}
	if err != nil {
		f.Err = fmt.Errorf("TensorRT is not usable: %s; %s: %w", oneLine(err), Remedy, engine.ErrUnavailable)
	}
	return f
}
