package calib

import (
	"fmt"
	"math"
)

// Entry is one tensor's range.
type Entry struct {
	// Name is what TensorRT calls the tensor.
	Name string `json:"name"`
	// Amax is the largest magnitude kept, and Scale, Amax/127, the step between two INT8 values.
	Amax  float32 `json:"amax"`
	Scale float32 `json:"scale"`
}

// NewEntry returns the entry of a tensor with that amax.
func NewEntry(name string, amax float32) Entry {
	return Entry{Name: name, Amax: amax, Scale: ScaleOf(amax)}
}

// Table is an ordered list of ranges; names are unique.
type Table struct {
	Entries []Entry
}

// The calibrators that TensorRT names in a cache's first line.
const (
	CalibratorEntropy2 = "EntropyCalibration2" // IInt8EntropyCalibrator2
	CalibratorEntropy  = "EntropyCalibration"  // IInt8EntropyCalibrator, the legacy one after fusion
	CalibratorMinMax   = "MinMaxCalibration"   // IInt8MinMaxCalibrator
)

// Header is a cache's first line: TRT-<Version>-<Calibrator>. Formats without one leave it empty.
type Header struct {
	// Version is TensorRT's number, 8601 for 8.6.1: see Version.
	Version string `json:"version"`
	// Calibrator names the algorithm, CalibratorEntropy2 for one.
	Calibrator string `json:"calibrator"`
}

// Cache is a calibration cache: a table and where it came from.
type Cache struct {
	Header
	Table
}

// ScaleBits is a scale as TensorRT's caches spell it: the bits of the float32, eight hexadecimal digits.
func ScaleBits(scale float32) string { return fmt.Sprintf("%08x", math.Float32bits(scale)) }
