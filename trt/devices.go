package trt

import (
	"errors"
	"fmt"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/trt/internal/cuda"
	"github.com/quantgate/quantgate/trt/internal/nvml"
)

// Device is what a GPU can do, and its state.
type Device struct {
	GPU
	SMs        int    // streaming multiprocessors
	PCI        string // bus id
	TF32, FP8  bool   // its tensor cores take them
	Limits     Limits // 0 where NVML does not tell
	State      Reading
	CUDADriver string // CUDA's version of the driver
	Driver     string // NVIDIA's version of the driver, "" without NVML
	Problem    error  // why clocks, power and temperature are not known
}

// Limits are a GPU's highest clocks and the power limit in force.
type Limits nvml.Limits

// Reading is a GPU's clocks, power and temperature at one moment.
type Reading nvml.Reading

// Devices lists the GPUs; TensorRT is not needed. library is the folder of the libraries, as in Options.
func Devices(library string) ([]Device, error) {
	folder := Options{Library: library}.folder()
	driver, err := cuda.Open(driverFile(folder))
	if err != nil {
		return nil, fmt.Errorf("no GPU is usable: %s: %w", oneLine(err), engine.ErrUnavailable)
	}
	gpus, err := driver.GPUs()
	if err != nil {
		return nil, err
	}
	lib, problem := nvml.Open(fileIn(folder, nvml.FileName))
	var out []Device
	for _, g := range gpus {
		d := Device{GPU: describe(g), SMs: g.SMs, PCI: g.PCI, TF32: g.TF32(), FP8: g.FP8(), CUDADriver: driver.Version, Problem: problem}
		if problem == nil {
			d.Driver = lib.Driver
			d.Problem = d.ask(lib)
		}
		out = append(out, d)
	}
	return out, nil
}

func (d *Device) ask(lib *nvml.Library) error {
	n, err := lib.Device(d.PCI)
	if err != nil {
		return err
	}
	d.Limits = Limits(n.Limits())
	r, err := n.Read()
	d.State = Reading(r)
	return err
}

func describe(g cuda.GPU) GPU {
	return GPU{
		Index: g.Index, Name: g.Name, Capability: fmt.Sprintf("%d.%d", g.Major, g.Minor), MemoryBytes: g.Memory,
		FP16: g.FastFP16(), INT8: g.FastINT8(),
	}
}

// Sensor reads one GPU's state.
type Sensor struct{ d *nvml.Device }

// Read asks the GPU.
func (s Sensor) Read() (Reading, error) {
	r, err := s.d.Read()
	return Reading(r), err
}

// Sensors returns one sensor a GPU, in the group's order.
func (g *Group) Sensors() ([]Sensor, error) {
	lib, err := nvml.Open(fileIn(g.all[0].opts.folder(), nvml.FileName))
	if err != nil {
		return nil, errors.New(oneLine(err))
	}
	var out []Sensor
	for _, b := range g.all {
		d, err := lib.Device(b.device.PCI)
		if err != nil {
			return nil, err
		}
		out = append(out, Sensor{d})
	}
	return out, nil
}
