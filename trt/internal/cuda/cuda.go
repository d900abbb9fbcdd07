// Package cuda calls CUDA's driver, libcuda, which every machine with an NVIDIA GPU has: it is opened while the program runs, and no
// CUDA toolkit is needed. Work happens in the device's primary context, the one that TensorRT uses too.
package cuda

/*
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// The driver's functions; their C interface is stable. Handles are addresses or small integers.
typedef struct {
	int (*init)(unsigned);
	int (*driver)(int *);
	int (*count)(int *);
	int (*device)(int *, int);
	int (*name)(char *, int, int);
	int (*memory)(size_t *, int);
	int (*attribute)(int *, int, int);
	int (*retain)(void **, int);
	int (*current)(void *);
	int (*alloc)(uint64_t *, size_t);
	int (*free)(uint64_t);
	int (*host_alloc)(void **, size_t, unsigned);
	int (*host_free)(void *);
	int (*to_device)(uint64_t, const void *, size_t, void *);
	int (*to_host)(void *, uint64_t, size_t, void *);
	int (*stream)(void **, unsigned);
	int (*stream_free)(void *);
	int (*wait)(void *);
	int (*event)(void **, unsigned);
	int (*event_free)(void *);
	int (*record)(void *, void *);
	int (*between)(float *, void *, void *);
	int (*error)(int, const char **);
	int (*info)(size_t *, size_t *);
	int (*pci)(char *, int, int);
} qg_cuda;

static int qg_init(qg_cuda *c) { return c->init(0); }
static int qg_driver(qg_cuda *c, int *v) { return c->driver(v); }
static int qg_count(qg_cuda *c, int *v) { return c->count(v); }
static int qg_device(qg_cuda *c, int *v, int i) { return c->device(v, i); }
static int qg_name(qg_cuda *c, char *s, int n, int d) { return c->name(s, n, d); }
static int qg_memory(qg_cuda *c, size_t *n, int d) { return c->memory(n, d); }
static int qg_pci(qg_cuda *c, char *s, int n, int d) { return c->pci(s, n, d); }
static int qg_attribute(qg_cuda *c, int *v, int a, int d) { return c->attribute(v, a, d); }
static int qg_retain(qg_cuda *c, uintptr_t *x, int d) { void *p = 0; int r = c->retain(&p, d); *x = (uintptr_t)p; return r; }
static int qg_current(qg_cuda *c, uintptr_t x) { return c->current((void *)x); }

// The current context is the thread's, and Go changes threads between calls: each call below sets it.
#define IN(x) int r = c->current((void *)x); if (r) return r

static int qg_alloc(qg_cuda *c, uintptr_t x, uint64_t *p, size_t n) { IN(x); return c->alloc(p, n); }
static int qg_free(qg_cuda *c, uintptr_t x, uint64_t p) { IN(x); return c->free(p); }
static int qg_host_alloc(qg_cuda *c, uintptr_t x, void **p, size_t n) { IN(x); return c->host_alloc(p, n, 1); } // portable: pinned for every device
static int qg_host_free(qg_cuda *c, uintptr_t x, void *p) { IN(x); return c->host_free(p); }
static int qg_to_device(qg_cuda *c, uintptr_t x, uint64_t to, const void *from, size_t n, uint64_t s) { IN(x); return c->to_device(to, from, n, (void *)(uintptr_t)s); }
static int qg_to_host(qg_cuda *c, uintptr_t x, void *to, uint64_t from, size_t n, uint64_t s) { IN(x); return c->to_host(to, from, n, (void *)(uintptr_t)s); }
static int qg_stream(qg_cuda *c, uintptr_t x, uint64_t *s) { IN(x); void *p = 0; r = c->stream(&p, 1); *s = (uintptr_t)p; return r; }
static int qg_stream_free(qg_cuda *c, uintptr_t x, uint64_t s) { IN(x); return c->stream_free((void *)(uintptr_t)s); }
static int qg_wait(qg_cuda *c, uintptr_t x, uint64_t s) { IN(x); return c->wait((void *)(uintptr_t)s); }
static int qg_event(qg_cuda *c, uintptr_t x, uint64_t *e) { IN(x); void *p = 0; r = c->event(&p, 0); *e = (uintptr_t)p; return r; }
static int qg_event_free(qg_cuda *c, uintptr_t x, uint64_t e) { IN(x); return c->event_free((void *)(uintptr_t)e); }
static int qg_record(qg_cuda *c, uintptr_t x, uint64_t e, uint64_t s) { IN(x); return c->record((void *)(uintptr_t)e, (void *)(uintptr_t)s); }
static int qg_between(qg_cuda *c, uintptr_t x, float *ms, uint64_t a, uint64_t b) { IN(x); return c->between(ms, (void *)(uintptr_t)a, (void *)(uintptr_t)b); }
static int qg_info(qg_cuda *c, uintptr_t x, size_t *free, size_t *total) { IN(x); return c->info(free, total); }
static const char *qg_error(qg_cuda *c, int r) { const char *s = 0; return c->error(r, &s) == 0 ? s : 0; }
*/
import "C"

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/quantgate/quantgate/internal/dl"
)

// Driver is libcuda, opened and started.
type Driver struct {
	Path    string
	Version string // of CUDA, for example 12.4

	c *C.qg_cuda
}

// FileName is the driver's library as the system's loader knows it.
const FileName = "libcuda.so.1"

// Open opens the driver from file name; "" means FileName. The error is the loader's text or the driver's.
func Open(name string) (*Driver, error) {
	if name == "" {
		name = FileName
	}
	lib, err := dl.Open(name)
	if err != nil {
		return nil, err
	}
	d := &Driver{c: (*C.qg_cuda)(C.malloc(C.sizeof_qg_cuda))}
	if err := lib.Symbols(map[string]unsafe.Pointer{
		"cuInit":                   unsafe.Pointer(&d.c.init),
		"cuDriverGetVersion":       unsafe.Pointer(&d.c.driver),
		"cuDeviceGetCount":         unsafe.Pointer(&d.c.count),
		"cuDeviceGet":              unsafe.Pointer(&d.c.device),
		"cuDeviceGetName":          unsafe.Pointer(&d.c.name),
		"cuDeviceTotalMem_v2":      unsafe.Pointer(&d.c.memory),
		"cuDeviceGetAttribute":     unsafe.Pointer(&d.c.attribute),
		"cuDevicePrimaryCtxRetain": unsafe.Pointer(&d.c.retain),
		"cuCtxSetCurrent":          unsafe.Pointer(&d.c.current),
		"cuMemAlloc_v2":            unsafe.Pointer(&d.c.alloc),
		"cuMemFree_v2":             unsafe.Pointer(&d.c.free),
		"cuMemHostAlloc":           unsafe.Pointer(&d.c.host_alloc),
		"cuMemFreeHost":            unsafe.Pointer(&d.c.host_free),
		"cuMemcpyHtoDAsync_v2":     unsafe.Pointer(&d.c.to_device),
		"cuMemcpyDtoHAsync_v2":     unsafe.Pointer(&d.c.to_host),
		"cuStreamCreate":           unsafe.Pointer(&d.c.stream),
		"cuStreamDestroy_v2":       unsafe.Pointer(&d.c.stream_free),
		"cuStreamSynchronize":      unsafe.Pointer(&d.c.wait),
		"cuEventCreate":            unsafe.Pointer(&d.c.event),
		"cuEventDestroy_v2":        unsafe.Pointer(&d.c.event_free),
		"cuEventRecord":            unsafe.Pointer(&d.c.record),
		"cuEventElapsedTime":       unsafe.Pointer(&d.c.between),
		"cuGetErrorString":         unsafe.Pointer(&d.c.error),
		"cuMemGetInfo_v2":          unsafe.Pointer(&d.c.info),
		"cuDeviceGetPCIBusId":      unsafe.Pointer(&d.c.pci),
	}); err != nil {
		C.free(unsafe.Pointer(d.c))
		return nil, err
	}
	d.Path = dl.PathOf(unsafe.Pointer(d.c.init))
	if err := d.check(C.qg_init(d.c), "cuInit"); err != nil {
		return nil, err
	}
	var v C.int
	if err := d.check(C.qg_driver(d.c, &v), "cuDriverGetVersion"); err != nil {
		return nil, err
	}
	d.Version = fmt.Sprintf("%d.%d", int(v)/1000, int(v)%1000/10)
	return d, nil
}

// check turns a driver's result into an error in its own words.
func (d *Driver) check(r C.int, what string) error {
	if r == 0 {
		return nil
	}
	if s := C.qg_error(d.c, r); s != nil {
		return fmt.Errorf("CUDA: %s: %s (%d)", what, C.GoString(s), int(r))
	}
	return fmt.Errorf("CUDA: %s: error %d", what, int(r))
}

// GPU describes one device.
type GPU struct {
	Index        int
	Name         string
	Major, Minor int // compute capability
	Memory       uint64
	SMs          int    // streaming multiprocessors
	PCI          string // domain:bus:device.function, by which NVML knows the GPU too
}

// TF32 says whether tensor cores take TensorFloat-32: since Ampere.
func (g GPU) TF32() bool { return g.Major >= 8 }

// FP8 says whether tensor cores take FP8: since Ada Lovelace (8.9) and Hopper.
func (g GPU) FP8() bool { return g.Major == 8 && g.Minor >= 9 || g.Major >= 9 }

// FastFP16 and FastINT8 say whether TensorRT has fast arithmetic of that kind for the compute capability, by NVIDIA's support matrix.
func (g GPU) FastFP16() bool {
	return g.Major == 5 && g.Minor == 3 || g.Major == 6 && g.Minor != 1 || g.Major >= 7
}

// FastINT8 is FastFP16 for INT8.
func (g GPU) FastINT8() bool {
	return g.Major == 6 && g.Minor == 1 || g.Major == 7 && g.Minor >= 2 || g.Major >= 8
}

// GPUs lists the machine's devices.
func (d *Driver) GPUs() ([]GPU, error) {
	var n C.int
	if err := d.check(C.qg_count(d.c, &n), "cuDeviceGetCount"); err != nil {
		return nil, err
	}
	var gpus []GPU
	for i := range int(n) {
		g, _, err := d.gpu(i)
		if err != nil {
			return nil, err
		}
		gpus = append(gpus, g)
	}
	return gpus, nil
}

// Attributes of a device: its number of multiprocessors and the compute capability.
const (
	attributeSMs   = 16
	attributeMajor = 75
	attributeMinor = 76
)

func (d *Driver) gpu(i int) (GPU, C.int, error) {
	var device, major, minor, sms C.int
	var memory C.size_t
	var name [256]C.char
	var pci [32]C.char
	for _, r := range []struct {
		code C.int
		what string
	}{
		{C.qg_device(d.c, &device, C.int(i)), "cuDeviceGet"},
		{C.qg_name(d.c, &name[0], C.int(len(name)), device), "cuDeviceGetName"},
		{C.qg_memory(d.c, &memory, device), "cuDeviceTotalMem"},
		{C.qg_attribute(d.c, &major, attributeMajor, device), "cuDeviceGetAttribute"},
		{C.qg_attribute(d.c, &minor, attributeMinor, device), "cuDeviceGetAttribute"},
		{C.qg_attribute(d.c, &sms, attributeSMs, device), "cuDeviceGetAttribute"},
		{C.qg_pci(d.c, &pci[0], C.int(len(pci)), device), "cuDeviceGetPCIBusId"},
	} {
		if err := d.check(r.code, r.what); err != nil {
			return GPU{}, 0, fmt.Errorf("GPU %d: %w", i, err)
		}
	}
	return GPU{
		Index: i, Name: C.GoString(&name[0]), Major: int(major), Minor: int(minor), Memory: uint64(memory),
		SMs: int(sms), PCI: C.GoString(&pci[0]),
	}, device, nil
}

// Device is a GPU in use: its primary context.
type Device struct {
	GPU
	d       *Driver
	context C.uintptr_t
}

// Use takes the GPU of the given index into use, for the life of the process.
func (d *Driver) Use(index int) (*Device, error) {
	g, id, err := d.gpu(index)
	if err != nil {
		return nil, err
	}
	v := &Device{GPU: g, d: d}
	if err := d.check(C.qg_retain(d.c, &v.context, id), "cuDevicePrimaryCtxRetain"); err != nil {
		return nil, fmt.Errorf("GPU %d: %w", index, err)
	}
	return v, nil
}

// Bind makes the device current for the calling thread; the caller holds runtime.LockOSThread.
func (v *Device) Bind() error {
	return v.d.check(C.qg_current(v.d.c, v.context), "cuCtxSetCurrent")
}

// Free memory of the device, and all of it, in bytes.
func (v *Device) Free() (free, total uint64, err error) {
	var f, t C.size_t
	err = v.d.check(C.qg_info(v.d.c, v.context, &f, &t), "cuMemGetInfo")
	return uint64(f), uint64(t), err
}

// NewHost allocates n bytes of pinned host memory, which every device copies from and to.
func (v *Device) NewHost(n int) (unsafe.Pointer, error) {
	var p unsafe.Pointer
	if err := v.d.check(C.qg_host_alloc(v.d.c, v.context, &p, C.size_t(n)), "cuMemHostAlloc"); err != nil {
		return nil, fmt.Errorf("%d bytes: %w", n, err)
	}
	return p, nil
}

// FreeHost gives memory of NewHost back.
func (v *Device) FreeHost(p unsafe.Pointer) error {
	return v.d.check(C.qg_host_free(v.d.c, v.context, p), "cuMemFreeHost")
}

// Buffer is device memory, with pinned host memory of the same size beside it once that is asked for.
type Buffer struct {
	Address uint64 // on the device
	Size    int    // in bytes
	v       *Device
	host    unsafe.Pointer
}

// NewBuffer allocates n bytes on the device.
func (v *Device) NewBuffer(n int) (*Buffer, error) {
	var p C.uint64_t
	if err := v.d.check(C.qg_alloc(v.d.c, v.context, &p, C.size_t(n)), "cuMemAlloc"); err != nil {
		return nil, fmt.Errorf("%d bytes: %w", n, err)
	}
	return &Buffer{v: v, Size: n, Address: uint64(p)}, nil
}

// Host allocates the host side, unless it is there.
func (b *Buffer) Host() error {
	if b.host != nil {
		return nil
	}
	var err error
	b.host, err = b.v.NewHost(b.Size)
	return err
}

// Floats is the host side as float32 values.
func (b *Buffer) Floats() []float32 { return unsafe.Slice((*float32)(b.host), b.Size/4) }

// Halves is the host side as the bits of float16 values.
func (b *Buffer) Halves() []uint16 { return unsafe.Slice((*uint16)(b.host), b.Size/2) }

// Upload starts copying the first n bytes of the host side to the device.
func (b *Buffer) Upload(n int, s Stream) error { return b.UploadFrom(b.host, n, s) }

// UploadFrom starts copying n bytes of other pinned memory to the device, which must stay as it is until the stream has been waited for.
func (b *Buffer) UploadFrom(host unsafe.Pointer, n int, s Stream) error {
	return b.v.d.check(C.qg_to_device(b.v.d.c, b.v.context, C.uint64_t(b.Address), host, C.size_t(n), C.uint64_t(s)), "cuMemcpyHtoDAsync")
}

// Download starts copying the first n bytes from the device.
func (b *Buffer) Download(n int, s Stream) error {
	return b.v.d.check(C.qg_to_host(b.v.d.c, b.v.context, b.host, C.uint64_t(b.Address), C.size_t(n), C.uint64_t(s)), "cuMemcpyDtoHAsync")
}

// Free gives back what there is of both sides; a second call does nothing.
func (b *Buffer) Free() error {
	var err error
	if b.Address != 0 {
		err = b.v.d.check(C.qg_free(b.v.d.c, b.v.context, C.uint64_t(b.Address)), "cuMemFree")
	}
	if b.host != nil {
		err = errors.Join(err, b.v.FreeHost(b.host))
	}
	b.Address, b.host = 0, nil
	return err
}

// Stream is a queue of work on the device.
type Stream uint64

// NewStream makes a stream that does not wait for the default one.
func (v *Device) NewStream() (Stream, error) {
	var s C.uint64_t
	err := v.d.check(C.qg_stream(v.d.c, v.context, &s), "cuStreamCreate")
	return Stream(s), err
}

// Wait returns when all work of the stream is done; an error may come from earlier work.
func (v *Device) Wait(s Stream) error {
	return v.d.check(C.qg_wait(v.d.c, v.context, C.uint64_t(s)), "cuStreamSynchronize")
}

// FreeStream ends a stream.
func (v *Device) FreeStream(s Stream) error {
	return v.d.check(C.qg_stream_free(v.d.c, v.context, C.uint64_t(s)), "cuStreamDestroy")
}

// Event is a moment in a stream's work.
type Event uint64

// NewEvent makes an event that keeps the time.
func (v *Device) NewEvent() (Event, error) {
	var e C.uint64_t
	err := v.d.check(C.qg_event(v.d.c, v.context, &e), "cuEventCreate")
	return Event(e), err
}

// Record makes e the moment at which all work queued so far is done.
func (v *Device) Record(e Event, s Stream) error {
	return v.d.check(C.qg_record(v.d.c, v.context, C.uint64_t(e), C.uint64_t(s)), "cuEventRecord")
}

// Between is the time from one moment to a later one, once both are past; known to about half a microsecond.
func (v *Device) Between(from, to Event) (time.Duration, error) {
	var ms C.float
	err := v.d.check(C.qg_between(v.d.c, v.context, &ms, C.uint64_t(from), C.uint64_t(to)), "cuEventElapsedTime")
	return time.Duration(float64(ms) * float64(time.Millisecond)), err
}

// FreeEvent gives an event back.
func (v *Device) FreeEvent(e Event) error {
	return v.d.check(C.qg_event_free(v.d.c, v.context, C.uint64_t(e)), "cuEventDestroy")
}
