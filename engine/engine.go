// Package engine defines what an inference engine is to quantgate: a Backend opens models, a Session runs batches.
package engine

import (
	"context"
	"errors"
	"time"

	"github.com/quantgate/quantgate/tensor"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrUnavailable says that the engine's library, or the hardware it needs, is missing; the message says how to get it.
	ErrUnavailable = errors.New("engine unavailable")
	// ErrClosed is returned by a call on a closed session.
	ErrClosed = errors.New("session closed")
	// ErrShape says that an input's shape does not fit the model's.
	ErrShape = errors.New("shape mismatch")
)

// Port describes one input or output of a model. Dynamic dimensions are tensor.Dynamic.
type Port struct {
	Name  string
	DType tensor.DType
	Shape tensor.Shape
}

// Model is a serialised ONNX model: Data, or the file at Path when Data is nil. A model with weights outside its file needs Path alone.
type Model struct {
	// Name is what messages call the model.
	Name string
	Data []byte
	Path string
}

// Options tune one session. The zero value is ready for use.
type Options struct {
	// Threads is the number of threads one Run may use; 0 means 1. Throughput comes from concurrent calls of Run.
	Threads int
	// Batch is the most images that Run will be given, where it is known: an engine that sets memory aside for its largest batch needs no
	// more. 0 leaves it to the engine; Run takes larger batches all the same.
	Batch int
	// Outputs names the outputs that Run returns, in order; nil means all of the model's.
	Outputs []string
	// NoFusion turns graph optimisation off, so that every tensor is computed as the graph states. Without it a BatchNormalization may be
	// folded or a convolution computed in another layout, which changes results by float32 rounding.
	NoFusion bool
	// NoTF32 computes float32 as float32 where the engine would round products to TF32: for calibration.
	NoTF32 bool
	// LiteralQDQ computes QuantizeLinear and DequantizeLinear nodes where the model has them, instead of moving them or fusing them with
	// what stands between: for models that emulate integers in float32.
	LiteralQDQ bool
	// IntegerKernels computes what stands between DequantizeLinear and QuantizeLinear nodes of int8 in integers, as between those of
	// uint8, where the engine's default would leave it in float32.
	IntegerKernels bool
	// Precision asks a Quantizer to lower a model's arithmetic itself; other backends refuse all but the empty one, which
	// computes as the model states.
	Precision Precision
	// Cache is a calibration cache in TensorRT's format: the ranges that Int8 stands on in a model without
	// QuantizeLinear/DequantizeLinear pairs of its own.
	Cache []byte
}

// Precision is the arithmetic that a Quantizer may use beside float32.
type Precision string

// The precisions of Options.
const (
	AsStated Precision = ""
	Half     Precision = "fp16"
	Int8     Precision = "int8"
)

// Calibration feeds a native calibrator.
type Calibration struct {
	// Batch is the number of images TensorRT is given at once, where the model does not fix it.
	Batch int
	// Outputs names the outputs to keep, as in Options: the engine that calibration builds is the one that Open asks for.
	Outputs []string
	// Next returns the next images, any number of them; io.EOF ends the calibration, any other error ends the build with that error.
	// The tensor is the caller's again at the next call.
	Next func(ctx context.Context) (*tensor.Tensor, error)
}

// Quantizer is a Backend that lowers precision and calibrates by itself.
type Quantizer interface {
	Backend
	// Calibrate runs the engine's own calibrator over a model and returns the calibration cache exactly as the engine wrote it.
	Calibrate(ctx context.Context, m Model, c Calibration) ([]byte, error)
}

// Layer is one layer of an engine as it really runs.
type Layer struct {
	Name      string `json:"name"`
	Type      string `json:"type,omitempty"`
	Precision string `json:"precision"` // of its arithmetic: int8, fp16, fp32, ..., NoArithmetic, or unknown
	Kernel    string `json:"kernel,omitempty"`
}

// NoArithmetic is the precision of a layer that only moves or converts values.
const NoArithmetic = "none"

// Computes reports whether the layer does arithmetic.
func (l Layer) Computes() bool { return l.Precision != NoArithmetic }

// Inspector is a Session that tells which layers it really runs.
type Inspector interface {
	Session
	Layers() ([]Layer, error)
}

// Copier is a Session that tells what its runs so far took for copies between host and device, and for computing. A run that waits for
// another is longer than both.
type Copier interface {
	Session
	Spent() (copying, computing time.Duration)
}

// Int8WithHalf is the option in a Quantizer's Version that lets layers of INT8 engines run in FP16 where INT8 is not to be had or slower. It
// leaves engines of other precisions as they are.
const Int8WithHalf = "INT8 with FP16"

// Optimizer is a Backend that rewrites a model before it runs it, and shows what it made of it.
type Optimizer interface {
	Backend
	// OpenOptimized is Open, and returns the model, in ONNX's format, that the session runs; opened with NoFusion it gives the same bits.
	// It may hold operators of the engine's own and is for this machine and this version of the engine only.
	OpenOptimized(ctx context.Context, m Model, o Options) (Session, []byte, error)
}

// HostMemory is a Backend whose sessions copy an input to the device straight from memory that it allocates, where the model takes
// float32; any other input goes through memory of the session's own.
type HostMemory interface {
	Backend
	// AllocHost returns memory for n values, of unspecified content, and what frees it; a second call of free does nothing. It serves every
	// session of the backend, and outlives them. No call of Run may use the memory when it is freed.
	AllocHost(n int) (values []float32, free func() error, err error)
}

// Concurrent is a Backend that tells how many calls of Run keep one of its sessions busy. More only wait, each with a batch in its hands.
type Concurrent interface {
	Backend
	Concurrency() int
}

// Backend opens sessions on one inference engine. It is safe for concurrent use.
type Backend interface {
	// Name is the engine's short name as the --engine flag spells it, for example "ort".
	Name() string
	// Version is the version of the engine's library, with the options that change arithmetic, such as Int8WithHalf, behind commas.
	Version() string
	// Open loads a model. The error names the model and wraps ErrUnavailable where the engine cannot run at all.
	Open(ctx context.Context, m Model, o Options) (Session, error)
}

// Session runs one model. Run may be called from many goroutines at once; Close may not overlap with Run.
type Session interface {
	// Inputs lists the model's inputs. Run feeds the only one; a model with several is refused by Open.
	Inputs() []Port
	// Outputs lists the outputs that Run fills, in order.
	Outputs() []Port
	// Run computes one batch. in has the batch as its outermost dimension; float32 values are converted where the
	// model's input is float16. out has one tensor an output; each is resized as needed, its memory reused.
	// A model that fixes the batch runs any number of images, in pieces of its own size. Images do not influence one another, but
	// for the rounding of an engine that computes other batches in another way. Tensors that do not fit give an error that wraps ErrShape.
	// A cancelled context returns its error, before the batch starts or after it ends.
	Run(ctx context.Context, in *tensor.Tensor, out []*tensor.Tensor) error
	// Close frees the session; a second call does nothing.
	Close() error
}

// Binder is a Session that can run into memory of the engine's own, which spares copies and the binding of outputs at every call.
type Binder interface {
	Session
	// Bind returns a Binding for one goroutine. It must be closed before the session.
	Bind() Binding
}

// Binding runs a session over and over into the same memory.
type Binding interface {
	// Run is Session.Run; the outputs are valid until the next call, and may not be changed.
	Run(ctx context.Context, in *tensor.Tensor) ([]*tensor.Tensor, error)
	// Close frees the memory; a second call does nothing.
	Close() error
}
