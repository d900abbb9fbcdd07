package nvinfer

/*
#include <stdlib.h>
#include "nvinfer.h"
*/
import "C"

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/quantgate/quantgate/tensor"
)

// object is one of TensorRT's, with the table to call it by.
type object struct {
	p     unsafe.Pointer
	slots *C.qg_slots
}

// Free deletes the object; the zero value may be freed too.
func (o *object) Free() {
	C.qg_delete(o.p)
	o.p = nil
}

// null is the error for a call that returned no object; TensorRT's log says why.
func null(what string) error { return fmt.Errorf("TensorRT returned nothing from %s", what) }

// Objects of TensorRT's, each freed by its owner, in the reverse order of their making.
type (
	// Builder makes plans.
	Builder struct{ object }
	// Network is a model as TensorRT sees it.
	Network struct{ object }
	// Config says how a plan is built.
	Config struct{ object }
	// Profile is a range of input shapes.
	Profile struct{ object }
	// Parser fills a network from ONNX.
	Parser struct{ object }
	// Runtime loads plans.
	Runtime struct{ object }
	// Engine is a loaded plan.
	Engine struct{ object }
	// Context runs an engine, one batch at a time.
	Context struct{ object }
)

// Port is an input or output of a network or an engine.
type Port struct {
	Name  string
	DType tensor.DType
	Shape tensor.Shape
	Input bool

	tensor unsafe.Pointer // of a network
}

var dtypes = []tensor.DType{
	tensor.Float32, tensor.Float16, tensor.Int8, tensor.Int32, tensor.Bool, tensor.Uint8, tensor.Undefined, tensor.BFloat16, tensor.Int64,
}

func dtype(n C.int32_t) tensor.DType {
	if n < 0 || int(n) >= len(dtypes) {
		return tensor.Undefined
	}
	return dtypes[n]
}

func shape(d C.qg_dims) tensor.Shape {
	s := tensor.Shape{}
	for i := range min(int(d.n), len(d.d)) {
		s = append(s, max(int64(d.d[i]), tensor.Dynamic))
	}
	return s
}

func dims(s tensor.Shape) (C.qg_dims, error) {
	var d C.qg_dims
	if len(s) > len(d.d) {
		return d, fmt.Errorf("shape %s has more than %d dimensions", s, len(d.d))
	}
	d.n = C.int32_t(len(s))
	for i, v := range s {
		d.d[i] = C.int64_t(v)
	}
	return d, nil
}

// text lends a C string for the time of a call.
func text(s string, use func(*C.char)) {
	c := C.CString(s)
	defer C.free(unsafe.Pointer(c))
	use(c)
}

// InitPlugins registers TensorRT's own plugins, which some operators need.
func (l *Library) InitPlugins(log *Logger) {
	if l.plugins != nil {
		C.qg_init_plugins(l.plugins, log.object)
	}
}

// NewBuilder starts building; it needs a GPU.
func (l *Library) NewBuilder(log *Logger) (*Builder, error) {
	p := C.qg_create(l.builder, log.object, l.number)
	if p == nil {
		return nil, null("createInferBuilder")
	}
	return &Builder{object{p, l.slots}}, nil
}

// NewRuntime opens plans.
func (l *Library) NewRuntime(log *Logger) (*Runtime, error) {
	p := C.qg_create(l.runtime, log.object, l.number)
	if p == nil {
		return nil, null("createInferRuntime")
	}
	return &Runtime{object{p, l.slots}}, nil
}

// NewNetwork makes an empty network.
func (b *Builder) NewNetwork() (*Network, error) {
	p := C.qg_builder_network(b.slots, b.p)
	if p == nil {
		return nil, null("createNetworkV2")
	}
	return &Network{object{p, b.slots}}, nil
}

// NewConfig makes a builder's settings.
func (b *Builder) NewConfig() (*Config, error) {
	p := C.qg_builder_config(b.slots, b.p)
	if p == nil {
		return nil, null("createBuilderConfig")
	}
	return &Config{object{p, b.slots}}, nil
}

// NewProfile makes an optimisation profile, which its builder owns.
func (b *Builder) NewProfile() (*Profile, error) {
	p := C.qg_builder_profile(b.slots, b.p)
	if p == nil {
		return nil, null("createOptimizationProfile")
	}
	return &Profile{object{p, b.slots}}, nil
}

// NewParser makes a parser that fills n.
func (l *Library) NewParser(n *Network, log *Logger) (*Parser, error) {
	p := C.qg_create_parser(l.parser, n.p, log.object, l.parserN)
	if p == nil {
		return nil, null("createNvOnnxParser")
	}
	return &Parser{object{p, l.slots}}, nil
}

// Free deletes the parser. The network keeps pointers into it: free it after the network.
func (p *Parser) Free() {
	C.qg_delete_parser(p.slots, p.p)
	p.p = nil
}

// Parse fills the network from a serialised model, or from the file at path when data is nil.
func (p *Parser) Parse(data []byte, path string) error {
	var ok C.bool
	if data != nil {
		text(path, func(c *C.char) {
			if path == "" {
				c = nil
			}
			ok = C.qg_parser_parse(p.slots, p.p, unsafe.Pointer(unsafe.SliceData(data)), C.size_t(len(data)), c)
		})
		runtime.KeepAlive(data)
	} else {
		text(path, func(c *C.char) { ok = C.qg_parser_file(p.slots, p.p, c) })
	}
	if ok {
		return nil
	}
	if C.qg_parser_errors(p.slots, p.p) > 0 {
		var node C.int32_t
		if desc := C.qg_parser_error(p.slots, p.p, 0, &node); desc != nil {
			return fmt.Errorf("TensorRT's parser, at node %d: %s", int(node), strings.Join(strings.Fields(C.GoString(desc)), " "))
		}
	}
	return fmt.Errorf("TensorRT's parser refused the model")
}

// Ports lists the network's inputs, then its outputs.
func (n *Network) Ports() []Port {
	var ports []Port
	for _, outputs := range []C.bool{false, true} {
		for i := range C.qg_network_count(n.slots, n.p, outputs) {
			t := C.qg_network_tensor(n.slots, n.p, outputs, i)
			if t == nil {
				continue
			}
			ports = append(ports, Port{
				Name: C.GoString(C.qg_tensor_name(n.slots, t)), DType: dtype(C.qg_tensor_type(n.slots, t)),
				Shape: shape(C.qg_tensor_dims(n.slots, t)), Input: !bool(outputs), tensor: t,
			})
		}
	}
	return ports
}

// Drop makes an output of Ports an inner tensor, so that nothing computes what only it needs.
func (n *Network) Drop(p Port) { C.qg_network_unmark(n.slots, n.p, p.tensor) }

// SetFP16 allows FP16.
func (c *Config) SetFP16() { C.qg_config_flag(c.slots, c.p, c.slots.flag_fp16, true) }

// SetINT8 allows INT8.
func (c *Config) SetINT8() { C.qg_config_flag(c.slots, c.p, c.slots.flag_int8, true) }

// NoTF32 forbids TF32, so that float32 is computed as float32.
func (c *Config) NoTF32() { C.qg_config_flag(c.slots, c.p, c.slots.flag_tf32, false) }

// AddProfile adds an optimisation profile.
func (c *Config) AddProfile(p *Profile) error {
	if C.qg_config_add_profile(c.slots, c.p, p.p) < 0 {
		return fmt.Errorf("TensorRT refused the optimisation profile")
	}
	return nil
}

// SetCalibrationProfile says which shapes calibrate.
func (c *Config) SetCalibrationProfile(p *Profile) error {
	if !C.qg_config_calibration_profile(c.slots, c.p, p.p) {
		return fmt.Errorf("TensorRT refused the calibration profile")
	}
	return nil
}

// Detailed keeps what the engine inspector tells in the plan.
func (c *Config) Detailed() { C.qg_config_verbosity(c.slots, c.p, 2) }

// TacticSources returns the sources of kernels that are on, as a bit mask.
func (c *Config) TacticSources() uint32 { return uint32(C.qg_config_get_tactics(c.slots, c.p)) }

// SetTacticSources chooses the sources of kernels by a bit mask.
func (c *Config) SetTacticSources(mask uint32) error {
	if !C.qg_config_tactics(c.slots, c.p, C.uint32_t(mask)) {
		return fmt.Errorf("TensorRT refused the tactic sources %#x", mask)
	}
	return nil
}

// SetWorkspace limits the scratch memory, in bytes.
func (c *Config) SetWorkspace(bytes int64) { C.qg_config_workspace(c.slots, c.p, C.size_t(bytes)) }

// SetLevel chooses how long to search for kernels, 0 to 5; 8.6 and later.
func (c *Config) SetLevel(level int) { C.qg_config_level(c.slots, c.p, C.int32_t(level)) }

// ShareProfiles lets several contexts use one profile, where 8.6 must be told so; later versions do it always.
func (c *Config) ShareProfiles() {
	if f := c.slots.preview_profile_sharing; f != C.QG_ABSENT {
		C.qg_config_preview(c.slots, c.p, f, true)
	}
}

// SetCalibrator gives the build a calibrator, which must live until it ends.
func (c *Config) SetCalibrator(k *Calibrator) { C.qg_config_calibrator(c.slots, c.p, k.object) }

// SetMonitor gives the build a monitor, which must live until it ends.
func (c *Config) SetMonitor(m *Monitor) { C.qg_config_monitor(c.slots, c.p, m.object) }

// TimingCache holds what kernels took, so that a later build need not time them again.
type TimingCache struct{ object }

// SetTimingCache gives the build the timings in data, from an earlier TimingCache, or an empty cache.
func (c *Config) SetTimingCache(data []byte) (*TimingCache, error) {
	p := C.qg_config_timing_create(c.slots, c.p, unsafe.Pointer(unsafe.SliceData(data)), C.size_t(len(data)))
	if p == nil {
		return nil, null("createTimingCache")
	}
	t := &TimingCache{object{p, c.slots}}
	if !C.qg_config_timing_set(c.slots, c.p, p) {
		t.Free()
		return nil, fmt.Errorf("TensorRT refused the timing cache: it is another GPU's or another version's")
	}
	return t, nil
}

// Bytes serialises the cache.
func (t *TimingCache) Bytes() ([]byte, error) {
	return hostMemory(t.slots, C.qg_timing_serialize(t.slots, t.p), "the timing cache's serialize")
}

// SetBatch sets the smallest, best and largest shape of an input.
func (p *Profile) SetBatch(input string, smallest, best, largest tensor.Shape) error {
	for selector, s := range []tensor.Shape{smallest, best, largest} {
		d, err := dims(s)
		if err != nil {
			return err
		}
		var ok C.bool
		text(input, func(c *C.char) { ok = C.qg_profile_dims(p.slots, p.p, c, C.int32_t(selector), d) })
		if !ok {
			return fmt.Errorf("TensorRT refused the shape %s of input %q", s, input)
		}
	}
	return nil
}

// Build makes a plan. It takes minutes.
func (b *Builder) Build(n *Network, c *Config) ([]byte, error) {
	return hostMemory(b.slots, C.qg_builder_build(b.slots, b.p, n.p, c.p), "buildSerializedNetwork")
}

// hostMemory copies a block of TensorRT's and frees it.
func hostMemory(s *C.qg_slots, p unsafe.Pointer, what string) ([]byte, error) {
	if p == nil {
		return nil, null(what)
	}
	defer C.qg_delete(p)
	data, size := C.qg_memory_data(s, p), C.qg_memory_size(s, p)
	if data == nil || size == 0 {
		return nil, null(what)
	}
	return append([]byte(nil), unsafe.Slice((*byte)(data), int(size))...), nil
}

// Engine loads a plan onto the current GPU.
func (r *Runtime) Engine(plan []byte) (*Engine, error) {
	if len(plan) == 0 {
		return nil, fmt.Errorf("the plan is empty")
	}
	p := C.qg_runtime_deserialize(r.slots, r.p, unsafe.Pointer(&plan[0]), C.size_t(len(plan)))
	if p == nil {
		return nil, null("deserializeCudaEngine")
	}
	return &Engine{object{p, r.slots}}, nil
}

// Ports lists the engine's inputs and outputs.
func (e *Engine) Ports() []Port {
	var ports []Port
	for i := range C.qg_engine_tensors(e.slots, e.p) {
		name := C.qg_engine_tensor(e.slots, e.p, i)
		if name == nil {
			continue
		}
		ports = append(ports, Port{
			Name: C.GoString(name), DType: dtype(C.qg_engine_type(e.slots, e.p, name)),
			Shape: shape(C.qg_engine_shape(e.slots, e.p, name)), Input: C.qg_engine_mode(e.slots, e.p, name) == 1,
		})
	}
	return ports
}

// Inspect returns what TensorRT tells of the engine's layers, as JSON. c is one of the engine's contexts with the input's shape set:
// without it an engine with open dimensions tells no formats.
func (e *Engine) Inspect(c *Context) (string, error) {
	p := C.qg_engine_inspector(e.slots, e.p)
	if p == nil {
		return "", null("createEngineInspector")
	}
	defer C.qg_delete(p)
	if !C.qg_inspector_context(e.slots, p, c.p) {
		return "", fmt.Errorf("TensorRT's engine inspector refused the context")
	}
	text := C.qg_inspector_information(e.slots, p, 1)
	if text == nil {
		return "", null("getEngineInformation")
	}
	return C.GoString(text), nil
}

// NewContext makes room for one batch at a time.
func (e *Engine) NewContext() (*Context, error) {
	p := C.qg_engine_context(e.slots, e.p)
	if p == nil {
		return nil, null("createExecutionContext")
	}
	return &Context{object{p, e.slots}}, nil
}

// SetInputShape says what the next batches look like.
func (c *Context) SetInputShape(name string, s tensor.Shape) error {
	d, err := dims(s)
	if err != nil {
		return err
	}
	var ok C.bool
	text(name, func(t *C.char) { ok = C.qg_context_input_shape(c.slots, c.p, t, d) })
	if !ok {
		return fmt.Errorf("TensorRT refused the shape %s of input %q", s, name)
	}
	return nil
}

// Shape is a tensor's shape, given the inputs' shapes.
func (c *Context) Shape(name string) tensor.Shape {
	var d C.qg_dims
	text(name, func(t *C.char) { d = C.qg_context_shape(c.slots, c.p, t) })
	return shape(d)
}

// SetAddress says where in device memory a tensor lies.
func (c *Context) SetAddress(name string, address uint64) error {
	var ok C.bool
	text(name, func(t *C.char) { ok = C.qg_context_address(c.slots, c.p, t, C.uint64_t(address)) })
	if !ok {
		return fmt.Errorf("TensorRT refused the address of tensor %q", name)
	}
	return nil
}

// Enqueue starts a batch on a stream and returns at once.
func (c *Context) Enqueue(stream uint64) error {
	if !C.qg_context_enqueue(c.slots, c.p, C.uint64_t(stream)) {
		return fmt.Errorf("TensorRT's enqueueV3 failed")
	}
	return nil
}
