package ort

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/x448/float16"
	onnxruntime "github.com/yalue/onnxruntime_go"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
)

// session is one loaded model.
type session struct {
	model   string
	input   engine.Port
	outputs []engine.Port

	mu  sync.RWMutex // held for reading by Run, for writing by Close
	ort *onnxruntime.DynamicAdvancedSession

	pieces sync.Pool // *engine.Pieces

	learnedMu sync.Mutex
	learned   map[string][]tensor.Shape // by input shape: the outputs' shapes that a run with it gave
}

// sessionOptions says how ONNX Runtime computes: the given number of threads, none of which spins while it waits, one operator at a time.
func sessionOptions(o engine.Options) (*onnxruntime.SessionOptions, error) {
	opts, err := onnxruntime.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	level := onnxruntime.GraphOptimizationLevel(onnxruntime.GraphOptimizationLevelEnableAll)
	if o.NoFusion {
		level = onnxruntime.GraphOptimizationLevelDisableAll
	}
	config := map[string]string{
		"session.intra_op.allow_spinning": "0",
		"session.inter_op.allow_spinning": "0",
		"session.use_env_allocators":      "1",
	}
	if o.LiteralQDQ {
		config["session.disable_quant_qdq"] = "1"
	}
	if o.IntegerKernels {
		config["session.qdqisint8allowed"] = "1" // the default on ARM, and not on x86
	}
	err = errors.Join(
		opts.SetIntraOpNumThreads(max(o.Threads, 1)),
		opts.SetInterOpNumThreads(1),
		opts.SetExecutionMode(onnxruntime.ExecutionModeSequential),
		opts.SetGraphOptimizationLevel(level),
	)
	for key, value := range config {
		err = errors.Join(err, opts.AddSessionConfigEntry(key, value))
	}
	if err != nil {
		_ = opts.Destroy()
		return nil, ortError(err)
	}
	return opts, nil
}

// load creates ONNX Runtime's session; its form of the model goes to the file optimized, unless that is "".
func (s *session) load(m engine.Model, o engine.Options, optimized string) error {
	opts, err := sessionOptions(o)
	if err != nil {
		return err
	}
	defer func() { _ = opts.Destroy() }()
	if optimized != "" {
		if err := opts.SetOptimizedModelFilePath(optimized); err != nil {
			return ortError(err)
		}
	}
	outs := make([]string, len(s.outputs))
	for i, p := range s.outputs {
		outs[i] = p.Name
	}
	ins := []string{s.input.Name}
	if m.Data != nil {
		s.ort, err = onnxruntime.NewDynamicAdvancedSessionWithONNXData(m.Data, ins, outs, opts)
	} else {
		s.ort, err = onnxruntime.NewDynamicAdvancedSession(m.Path, ins, outs, opts)
	}
	if err != nil {
		return ortError(err)
	}
	return nil
}

func (s *session) Inputs() []engine.Port { return clonePorts([]engine.Port{s.input}) }

func (s *session) Outputs() []engine.Port { return clonePorts(s.outputs) }

func clonePorts(ps []engine.Port) []engine.Port {
	out := make([]engine.Port, len(ps))
	for i, p := range ps {
		p.Shape = p.Shape.Clone()
		out[i] = p
	}
	return out
}

// Close frees the model. It waits for calls of Run to end.
func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ort == nil {
		return nil
	}
	err := s.ort.Destroy()
	s.ort = nil
	return err
}

// Run computes one batch. Output memory is the caller's: ONNX Runtime writes into it wherever it can foretell an output's shape, which it
// can from the model's own declaration or from an earlier run with the same input shape.
func (s *session) Run(ctx context.Context, in *tensor.Tensor, out []*tensor.Tensor) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ort == nil {
		return fmt.Errorf("model %s: %w", s.model, engine.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := engine.CheckRun(s.input, len(s.outputs), in, out)
	if err == nil {
		err = s.runBatch(ctx, in, out)
	}
	if err != nil {
		return fmt.Errorf("model %s: %w", s.model, err)
	}
	return nil
}

// runBatch runs a batch whose tensors have been checked, cut to the model's size where the model fixes one.
func (s *session) runBatch(ctx context.Context, in *tensor.Tensor, out []*tensor.Tensor) error {
	size := s.input.Shape[0]
	if size == tensor.Dynamic || size == in.Shape[0] {
		if err := s.runOnce(in, out); err != nil {
			return fmt.Errorf("batch %s: %w", in.Shape, err)
		}
		return nil
	}
	p, _ := s.pieces.Get().(*engine.Pieces)
	if p == nil {
		p = &engine.Pieces{}
	}
	defer s.pieces.Put(p)
	return p.RunPieces(ctx, size, s.outputs, in, out, s.runOnce)
}

// runOnce makes one call into ONNX Runtime, with outputs bound to the caller's memory as far as their shapes are known. Where the
// guess was wrong the call fails and is made again with ONNX Runtime allocating; the shapes are then known for the next time.
func (s *session) runOnce(in *tensor.Tensor, out []*tensor.Tensor) error {
	key := in.Shape.String()
	shapes, known := s.recall(key)
	if !known {
		shapes = s.declared(in.Shape[0])
	}
	err := s.call(in, out, shapes)
	if open := s.unbind(shapes); err != nil && open != nil {
		known = false
		err = s.call(in, out, open)
	}
	if err == nil && !known {
		s.learn(key, out)
	}
	return err
}

// recall returns the outputs' shapes that an earlier run with the same input shape gave.
func (s *session) recall(key string) ([]tensor.Shape, bool) {
	s.learnedMu.Lock()
	defer s.learnedMu.Unlock()
	shapes, ok := s.learned[key]
	return shapes, ok
}

// learn keeps the outputs' shapes of a run. An output that is the model's input stays open: ONNX Runtime leaves memory bound to it as it was.
func (s *session) learn(key string, out []*tensor.Tensor) {
	shapes := make([]tensor.Shape, len(out))
	for i, t := range out {
		if s.outputs[i].Name != s.input.Name {
			shapes[i] = append(tensor.Shape{}, t.Shape...)
		}
	}
	s.learnedMu.Lock()
	defer s.learnedMu.Unlock()
	if s.learned == nil {
		s.learned = make(map[string][]tensor.Shape)
	}
	s.learned[key] = shapes
}

// declared foretells the outputs' shapes for a batch of n from the model's declaration; nil where that leaves a dimension open, and for
// an output that is the model's input (see learn).
func (s *session) declared(n int64) []tensor.Shape {
	shapes := make([]tensor.Shape, len(s.outputs))
	for i, p := range s.outputs {
		shape := p.Shape.Clone()
		if len(shape) > 0 && shape[0] == tensor.Dynamic {
			shape[0] = n
		}
		if _, err := shape.Elems(); err == nil && p.Name != s.input.Name {
			shapes[i] = shape
		}
	}
	return shapes
}

// unbind leaves the shapes of float32 outputs open, so that ONNX Runtime allocates them. It returns nil when all were open before.
func (s *session) unbind(shapes []tensor.Shape) []tensor.Shape {
	var open []tensor.Shape
	for i, shape := range shapes {
		if shape != nil && s.outputs[i].DType != tensor.Float16 {
			if open == nil {
				open = slices.Clone(shapes)
			}
			open[i] = nil
		}
	}
	return open
}

// call runs the model once. An output with a shape is written into the caller's tensor; one without is allocated by ONNX Runtime and copied.
func (s *session) call(in *tensor.Tensor, out []*tensor.Tensor, shapes []tensor.Shape) error {
	var pinned runtime.Pinner // ONNX Runtime keeps the buffers' addresses between the calls that make up this run
	defer pinned.Unpin()

	x, err := s.bindInput(in, &pinned)
	if err != nil {
		return ortError(err)
	}
	defer destroy([]onnxruntime.Value{x})
	bound := make([]onnxruntime.Value, len(out))
	defer func() { destroy(bound) }()
	for i, shape := range shapes {
		if shape == nil {
			continue
		}
		if bound[i], err = bindOutput(s.outputs[i].DType, shape, out[i], &pinned); err != nil {
			return fmt.Errorf("output %q: %w", s.outputs[i].Name, ortError(err))
		}
	}
	values := slices.Clone(bound)
	if err := s.ort.Run([]onnxruntime.Value{x}, values); err != nil {
		return ortError(err) // what the binding left in values may be a nil pointer in an interface, so only bound is freed
	}
	bound = values
	for i, v := range values {
		if err := fetch(v, out[i]); err != nil {
			return fmt.Errorf("output %q: %w", s.outputs[i].Name, err)
		}
	}
	return nil
}

func destroy(values []onnxruntime.Value) {
	for _, v := range values {
		if v != nil {
			_ = v.Destroy()
		}
	}
}

// bindInput wraps the batch for ONNX Runtime: in place for float32, as a converted copy for float16.
func (s *session) bindInput(in *tensor.Tensor, pinned *runtime.Pinner) (onnxruntime.Value, error) {
	if s.input.DType == tensor.Float16 {
		b := make([]byte, 2*len(in.Data))
		for i, v := range in.Data {
			binary.NativeEndian.PutUint16(b[2*i:], float16.Fromfloat32(v).Bits())
		}
		pinned.Pin(&b[0])
		return asValue(onnxruntime.NewCustomDataTensor(onnxruntime.Shape(in.Shape), b, onnxruntime.TensorElementDataTypeFloat16))
	}
	pinned.Pin(&in.Data[0])
	return asValue(onnxruntime.NewTensor(onnxruntime.Shape(in.Shape), in.Data))
}

// bindOutput makes the value that ONNX Runtime writes an output of the given shape into: t's own memory for float32.
func bindOutput(d tensor.DType, shape tensor.Shape, t *tensor.Tensor, pinned *runtime.Pinner) (onnxruntime.Value, error) {
	t.Resize(shape...)
	switch {
	case len(t.Data) == 0:
		return nil, nil // nothing to write into: ONNX Runtime makes the empty value
	case d == tensor.Float16:
		b := make([]byte, 2*len(t.Data))
		pinned.Pin(&b[0])
		return asValue(onnxruntime.NewCustomDataTensor(onnxruntime.Shape(shape), b, onnxruntime.TensorElementDataTypeFloat16))
	case len(shape) == 0:
		return asValue(onnxruntime.NewEmptyScalar[float32]())
	default:
		pinned.Pin(&t.Data[0])
		return asValue(onnxruntime.NewTensor(onnxruntime.Shape(shape), t.Data))
	}
}

// asValue keeps a nil pointer from becoming a non-nil interface.
func asValue[V onnxruntime.Value](v V, err error) (onnxruntime.Value, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// fetch brings an output into the caller's tensor, where it is not there already.
func fetch(v onnxruntime.Value, t *tensor.Tensor) error {
	switch v := v.(type) {
	case *onnxruntime.Tensor[float32]:
		data := v.GetData()
		if len(t.Data) > 0 && len(data) > 0 && &t.Data[0] == &data[0] {
			return nil
		}
		t.Resize(v.GetShape()...)
		copy(t.Data, data)
	case *onnxruntime.Scalar[float32]:
		t.Resize()
		t.Data[0] = v.GetData()
	case *onnxruntime.CustomDataTensor:
		t.Resize(v.GetShape()...)
		b := v.GetData()
		if len(b) != 2*len(t.Data) {
			return fmt.Errorf("%d bytes for the float16 shape %s", len(b), t.Shape)
		}
		for i := range t.Data {
			t.Data[i] = float16.Frombits(binary.NativeEndian.Uint16(b[2*i:])).Float32()
		}
	default:
		return fmt.Errorf("unexpected value of type %T", v)
	}
	return nil
}

// source matches the place in ONNX Runtime's sources that its messages begin with: file, line and C++ signature.
var source = regexp.MustCompile(`\S*onnxruntime_src/\S+:\d+ .*?\)(?: const)?(?: \[with [^\]]*\])? `)

// ortError squeezes ONNX Runtime's message into one line, without the binding's prefixes and the place in the C++ sources; nil stays nil.
func ortError(err error) error {
	if err == nil {
		return nil
	}
	msg := source.ReplaceAllString(oneLine(err.Error()), "")
	for _, prefix := range []string{
		"Error loading temporary session: ", "Error creating temporary session: ",
		"Error creating C session from file: ", "Error creating C session: ", "Error running network: ",
	} {
		msg = strings.TrimPrefix(msg, prefix)
	}
	return fmt.Errorf("ONNX Runtime: %s", msg)
}
