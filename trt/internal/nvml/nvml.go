// Package nvml reads a GPU's clocks, power and temperature from NVIDIA's management library, which comes with the driver and is opened while
// the program runs. NVIDIA's own Go bindings leave 856 symbols to the lazy loader, so a binary made with them does not start where symbols
// are resolved at once (LD_BIND_NOW); the eleven functions used here are looked up by name instead.
package nvml

/*
#include <stdlib.h>

// NVML's C interface is stable; a device is a pointer, and every function but one returns 0 or an error's number. Those that OPTIONAL calls
// may be missing, and then answer as NVML does for a function that its driver lacks: NVML_ERROR_FUNCTION_NOT_FOUND.
#define OPTIONAL(f, ...) (f ? f(__VA_ARGS__) : 13)

typedef struct {
	int (*init)(void);
	const char *(*error)(int);
	int (*driver)(char *, unsigned);
	int (*device)(const char *, void **);
	int (*clock)(void *, int, unsigned *);
	int (*max_clock)(void *, int, unsigned *);
	int (*power)(void *, unsigned *);
	int (*energy)(void *, unsigned long long *);
	int (*limit)(void *, unsigned *);
	int (*temperature)(void *, int, unsigned *);
	int (*reasons)(void *, unsigned long long *);
} qg_nvml;

static int qg_init(qg_nvml *l) { return l->init(); }
static const char *qg_error(qg_nvml *l, int r) { return l->error(r); }
static int qg_driver(qg_nvml *l, char *s, unsigned n) { return OPTIONAL(l->driver, s, n); }
static int qg_device(qg_nvml *l, const char *pci, void **d) { return l->device(pci, d); }
static int qg_clock(qg_nvml *l, void *d, int kind, unsigned *v) { return l->clock(d, kind, v); }
static int qg_max_clock(qg_nvml *l, void *d, int kind, unsigned *v) { return OPTIONAL(l->max_clock, d, kind, v); }
static int qg_power(qg_nvml *l, void *d, unsigned *v) { return OPTIONAL(l->power, d, v); }
static int qg_energy(qg_nvml *l, void *d, unsigned long long *v) { return OPTIONAL(l->energy, d, v); }
static int qg_limit(qg_nvml *l, void *d, unsigned *v) { return OPTIONAL(l->limit, d, v); }
static int qg_temperature(qg_nvml *l, void *d, unsigned *v) { return OPTIONAL(l->temperature, d, 0, v); }
static int qg_reasons(qg_nvml *l, void *d, unsigned long long *v) { return OPTIONAL(l->reasons, d, v); }
*/
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/quantgate/quantgate/internal/dl"
)

// FileName is the library as the system's loader knows it.
const FileName = "libnvidia-ml.so.1"

// Library is NVML, opened and started. It is safe for concurrent use.
type Library struct {
	Driver string // the driver's version, for example 550.54; "" where NVML does not tell

	c *C.qg_nvml
}

// Open opens NVML from file name; "" means FileName. The error is the loader's text or NVML's.
func Open(name string) (*Library, error) {
	if name == "" {
		name = FileName
	}
	lib, err := dl.Open(name)
	if err != nil {
		return nil, err
	}
	l := &Library{c: (*C.qg_nvml)(C.calloc(1, C.sizeof_qg_nvml))}
	if err := lib.Symbols(map[string]unsafe.Pointer{
		"nvmlInit_v2":                      unsafe.Pointer(&l.c.init),
		"nvmlErrorString":                  unsafe.Pointer(&l.c.error),
		"nvmlDeviceGetHandleByPciBusId_v2": unsafe.Pointer(&l.c.device),
		"nvmlDeviceGetClockInfo":           unsafe.Pointer(&l.c.clock),
	}); err != nil {
		C.free(unsafe.Pointer(l.c))
		return nil, err
	}
	// Older drivers lack some of these, and later ones may drop what is deprecated: what is not there is not told.
	_ = lib.Symbols(map[string]unsafe.Pointer{
		"nvmlSystemGetDriverVersion":                unsafe.Pointer(&l.c.driver),
		"nvmlDeviceGetMaxClockInfo":                 unsafe.Pointer(&l.c.max_clock),
		"nvmlDeviceGetPowerUsage":                   unsafe.Pointer(&l.c.power),
		"nvmlDeviceGetTotalEnergyConsumption":       unsafe.Pointer(&l.c.energy),
		"nvmlDeviceGetEnforcedPowerLimit":           unsafe.Pointer(&l.c.limit),
		"nvmlDeviceGetTemperature":                  unsafe.Pointer(&l.c.temperature),
		"nvmlDeviceGetCurrentClocksThrottleReasons": unsafe.Pointer(&l.c.reasons),
	})
	if err := l.check(C.qg_init(l.c), "nvmlInit"); err != nil {
		return nil, err
	}
	var version [80]C.char
	if C.qg_driver(l.c, &version[0], C.uint(len(version))) == 0 {
		l.Driver = C.GoString(&version[0])
	}
	return l, nil
}

func (l *Library) check(r C.int, what string) error {
	if r == 0 {
		return nil
	}
	return fmt.Errorf("NVML: %s: %s (%d)", what, C.GoString(C.qg_error(l.c, r)), int(r))
}

// Device is one GPU.
type Device struct {
	l *Library
	h unsafe.Pointer
}

// Device finds the GPU with the given PCI bus id, as the CUDA driver spells it: NVML numbers GPUs in an order of its own.
func (l *Library) Device(pci string) (*Device, error) {
	name := C.CString(pci)
	defer C.free(unsafe.Pointer(name))
	d := &Device{l: l}
	if err := l.check(C.qg_device(l.c, name, &d.h), "nvmlDeviceGetHandleByPciBusId"); err != nil {
		return nil, fmt.Errorf("GPU %s: %w", pci, err)
	}
	return d, nil
}

// Reading is a GPU's state at one moment. What the GPU does not tell is 0.
type Reading struct {
	ClockMHz       int // of the multiprocessors
	MemoryClockMHz int
	PowerWatts     float64 // averaged by the GPU, over a second since Ampere
	EnergyJoules   float64 // since the driver was loaded
	TemperatureC   int
	Throttled      []string // why clocks are held down, in nvidia-smi's words
}

// Limits are a GPU's bounds; what it does not tell is 0.
type Limits struct {
	ClockMHz, MemoryClockMHz int
	PowerWatts               float64
}

// Clocks, as nvmlClockType_t counts them.
const (
	clockSM     = 1
	clockMemory = 2
)

// reasons are the bits of nvmlClocksThrottleReason that hold a busy GPU back.
var reasons = []struct {
	bit  C.ulonglong
	name string
}{
	{0x4, "SW power cap"}, {0x8, "HW slowdown"}, {0x20, "SW thermal slowdown"}, {0x40, "HW thermal slowdown"}, {0x80, "HW power brake slowdown"},
}

// Read asks for the GPU's state. A clock it must tell; what else it does not support stays 0.
func (d *Device) Read() (Reading, error) {
	var r Reading
	var sm, memory, power, temperature C.uint
	var energy, held C.ulonglong
	if err := d.l.check(C.qg_clock(d.l.c, d.h, clockSM, &sm), "nvmlDeviceGetClockInfo"); err != nil {
		return r, err
	}
	r.ClockMHz = int(sm)
	if C.qg_clock(d.l.c, d.h, clockMemory, &memory) == 0 {
		r.MemoryClockMHz = int(memory)
	}
	if C.qg_power(d.l.c, d.h, &power) == 0 {
		r.PowerWatts = float64(power) / 1e3
	}
	if C.qg_energy(d.l.c, d.h, &energy) == 0 {
		r.EnergyJoules = float64(energy) / 1e3
	}
	if C.qg_temperature(d.l.c, d.h, &temperature) == 0 {
		r.TemperatureC = int(temperature)
	}
	if C.qg_reasons(d.l.c, d.h, &held) == 0 {
		for _, x := range reasons {
			if held&x.bit != 0 {
				r.Throttled = append(r.Throttled, x.name)
			}
		}
	}
	return r, nil
}

// Limits asks for the GPU's highest clocks and the power limit in force.
func (d *Device) Limits() Limits {
	var l Limits
	var sm, memory, power C.uint
	if C.qg_max_clock(d.l.c, d.h, clockSM, &sm) == 0 {
		l.ClockMHz = int(sm)
	}
	if C.qg_max_clock(d.l.c, d.h, clockMemory, &memory) == 0 {
		l.MemoryClockMHz = int(memory)
	}
	if C.qg_limit(d.l.c, d.h, &power) == 0 {
		l.PowerWatts = float64(power) / 1e3
	}
	return l
}
