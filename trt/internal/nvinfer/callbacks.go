package nvinfer

/*
#include <stdlib.h>
#include "nvinfer.h"
*/
import "C"

import (
	"fmt"
	"runtime/cgo"
	"unsafe"
)

// Severities of TensorRT's messages.
const (
	InternalError = 0
	Error         = 1
	Warning       = 2
	Info          = 3
	Verbose       = 4
)

// Logger receives TensorRT's messages, from any of its threads.
type Logger struct {
	object unsafe.Pointer
	handle cgo.Handle
}

// NewLogger passes on messages of severity most and worse. TensorRT keeps one logger for the life of a process.
func NewLogger(most int, log func(severity int, text string)) *Logger {
	l := &Logger{handle: cgo.NewHandle(log)}
	l.object = C.qg_new_logger(C.uintptr_t(l.handle), C.int32_t(most))
	return l
}

// Free ends the logger; TensorRT must not know it any more.
func (l *Logger) Free() {
	C.qg_free_callback(l.object)
	l.handle.Delete()
}

//export qgLog
func qgLog(handle C.uintptr_t, severity C.int32_t, text *C.char) {
	defer func() { _ = recover() }() // a message is not worth more
	if log, ok := cgo.Handle(handle).Value().(func(int, string)); ok {
		log(int(severity), C.GoString(text))
	}
}

// Algorithm is a calibrator's kind.
type Algorithm int

// TensorRT's calibrators: IInt8EntropyCalibrator2, IInt8EntropyCalibrator and IInt8MinMaxCalibrator.
const (
	Entropy2 Algorithm = iota
	LegacyEntropy
	MinMax
)

// Source feeds a calibrator. Its functions are called on the thread that builds. A function that panics ends the calibration;
// Calibrator.Err tells.
type Source struct {
	// Batch puts the next batch for the input called name into device memory and returns its address; false ends the calibration.
	Batch func(name string) (address uint64, ok bool)
	// Read returns a calibration cache to use instead of batches, or nil.
	Read func() []byte
	// Write takes the cache that TensorRT made; data is a copy.
	Write func(data []byte)
}

// Calibrator is an object that TensorRT takes batches from.
type Calibrator struct {
	object unsafe.Pointer
	handle cgo.Handle
	source Source
	cache  unsafe.Pointer // what TensorRT was given to read
	err    error
}

// NewCalibrator makes a calibrator that gives batches of the given size.
func (l *Library) NewCalibrator(a Algorithm, batch int, source Source) *Calibrator {
	c := &Calibrator{source: source}
	c.handle = cgo.NewHandle(c)
	number := l.slots.algorithm_entropy2
	switch a {
	case Entropy2:
	case LegacyEntropy:
		number = l.slots.algorithm_entropy
	case MinMax:
		number = l.slots.algorithm_minmax
	}
	c.object = C.qg_new_calibrator(l.slots, C.uintptr_t(c.handle), number, C.int32_t(batch))
	return c
}

// Err is the panic that a function of the source ended with, if any.
func (c *Calibrator) Err() error { return c.err }

// Free ends the calibrator; no build may use it any more.
func (c *Calibrator) Free() {
	C.qg_free_callback(c.object)
	C.free(c.cache)
	c.handle.Delete()
}

// guard keeps a panic from crossing into C.
func (c *Calibrator) guard() {
	if p := recover(); p != nil && c.err == nil {
		c.err = fmt.Errorf("calibration callback panicked: %v", p)
	}
}

func calibrator(handle C.uintptr_t) *Calibrator {
	c, _ := cgo.Handle(handle).Value().(*Calibrator)
	return c
}

//export qgCalibrationBatch
func qgCalibrationBatch(handle C.uintptr_t, name *C.char, address *C.uint64_t) (more C.bool) {
	c := calibrator(handle)
	defer c.guard()
	if c.err != nil {
		return false
	}
	a, ok := c.source.Batch(C.GoString(name))
	*address = C.uint64_t(a)
	return C.bool(ok)
}

//export qgReadCache
func qgReadCache(handle C.uintptr_t, data *unsafe.Pointer, length *C.size_t) {
	c := calibrator(handle)
	defer c.guard()
	if b := c.source.Read(); len(b) > 0 {
		C.free(c.cache)
		c.cache = C.CBytes(b)
		*data, *length = c.cache, C.size_t(len(b))
	}
}

//export qgWriteCache
func qgWriteCache(handle C.uintptr_t, data unsafe.Pointer, length C.size_t) {
	c := calibrator(handle)
	defer c.guard()
	if data != nil {
		c.source.Write(append([]byte(nil), unsafe.Slice((*byte)(data), int(length))...))
	}
}

// Monitor follows a build, and can end it.
type Monitor struct {
	object unsafe.Pointer
	handle cgo.Handle
	watch  Watch
}

// Watch is told of a build's progress, from any of TensorRT's threads.
type Watch struct {
	Phase func(name, parent string, steps int)
	Step  func(phase string, step int) (goOn bool)
}

// CanMonitor reports whether this version tells of a build's progress: 10 and later.
func (l *Library) CanMonitor() bool { return l.slots.config_monitor != C.QG_ABSENT }

// NewMonitor makes a monitor for a version that CanMonitor.
func (l *Library) NewMonitor(w Watch) *Monitor {
	m := &Monitor{watch: w}
	m.handle = cgo.NewHandle(m)
	m.object = C.qg_new_monitor(l.slots, C.uintptr_t(m.handle))
	return m
}

// Free ends the monitor; no build may use it any more.
func (m *Monitor) Free() {
	C.qg_free_callback(m.object)
	m.handle.Delete()
}

//export qgPhase
func qgPhase(handle C.uintptr_t, name, parent *C.char, steps C.int32_t) {
	defer func() { _ = recover() }() // progress is not worth more
	if m, ok := cgo.Handle(handle).Value().(*Monitor); ok {
		m.watch.Phase(C.GoString(name), C.GoString(parent), int(steps))
	}
}

//export qgStep
func qgStep(handle C.uintptr_t, phase *C.char, step C.int32_t) (goOn C.bool) {
	defer func() { _ = recover() }() // false: a monitor that panics ends the build
	m, ok := cgo.Handle(handle).Value().(*Monitor)
	return C.bool(ok && m.watch.Step(C.GoString(phase), int(step)))
}
