package onnx

import (
	"errors"
	"fmt"
	"math"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// WeightForm is how InsertQDQ writes a quantised weight.
type WeightForm uint8

// The forms of a quantised weight. Both hold the same integers.
const (
	// WeightsFloat keeps the float32 values, with a QuantizeLinear and a DequantizeLinear behind them. It is the form that
	// NVIDIA documents for TensorRT 8, whose constants cannot be INT8; 10 and ONNX Runtime read it too.
	WeightsFloat WeightForm = iota
	// WeightsInt8 stores the integers, with a DequantizeLinear behind them: a quarter of the size, for TensorRT 10 and ONNX Runtime.
	WeightsInt8
)

// QDQOptions tune InsertQDQ; the zero value is the default.
type QDQOptions struct {
	// Weights is the form of the quantised weights.
	Weights WeightForm
	// KeepFloat names nodes that stay in float: their name, or their first output where they have none.
	KeepFloat map[string]bool
	// FuseLeakyRelu takes every LeakyRelu to be computed by its Conv's kernel, with nothing rounded between. By default the
	// output of a Conv is rounded where TensorRT 8.6 runs the LeakyRelu as a kernel of its own (see leakyIsSeparate).
	FuseLeakyRelu bool
}

// QDQReport says what InsertQDQ did.
type QDQReport struct {
	// Nodes lists the nodes that handle float values, in graph order.
	Nodes []NodeReport
	// Warnings are sentences worth showing: tensors without a usable range, and what stays in float for it.
	Warnings []string
}

// passes lists operators that move or select values of their first input, so that its scale holds for their output.
var passes = []string{
	"DepthToSpace", "Dropout", "Flatten", "Identity", "MaxPool", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze",
}

// activations lists operators that an engine computes in the kernel of the Conv or Gemm before them.
var activations = []string{"Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Gelu", "Mish", "Softplus", "Swish"}

// quantizer collects what InsertQDQ decides before it changes the graph.
type quantizer struct {
	*graph
	amax    map[string]float32
	options QDQOptions
	report  *QDQReport
	inputs  map[use]bool // activations to quantise, at the node that reads them
	weights map[use]int  // weights to quantise, with the axis of their scales, -1 for one scale
	reasons map[*pb.NodeProto]string
	reduced map[*pb.NodeProto]bool
	warned  map[string]bool
	made    map[string]string // Q outputs, scales and zero points already made
	out     []*pb.NodeProto
}

// InsertQDQ returns an INT8 version of the model with explicit QuantizeLinear and DequantizeLinear pairs. amax holds the
// calibrated range of tensors by name, as CalibrationPlan.Ranges gives it; an activation's scale is amax/127, without zero point.
// Fold BatchNormalization first: a folded Conv takes over the range of its output.
//
// Quantised are the inputs of Conv, ConvTranspose, Gemm and MatMul, with one scale a tensor; their constant weights, with one
// scale an output channel (max|w|/127); the inputs of a residual Add but the one whose Conv computes the sum in its own
// kernel; and the input of a LeakyRelu that TensorRT does not fuse. One scale holds across MaxPool, Reshape, Transpose,
// Flatten and the like. Biases and everything else stay float32, and so do the model's outputs.
//
// A tensor has one QuantizeLinear and a DequantizeLinear for each node that reads it. A model below opset 13 is brought to
// 13, since per-channel scales need it; an operator whose meaning changed on the way, so that it cannot be, is an error that
// names it. A node without a usable range stays in float and is reported; a model in which nothing can be quantised is an error.
func InsertQDQ(m *Model, amax map[string]float32, o QDQOptions) (*Model, *QDQReport, error) {
	return m.quantize(amax, o, false)
}

// EmulateINT8 returns a float32 model that computes what an INT8 engine computes from InsertQDQ's model: the same tensors and
// weights are rounded at the same scales, but sums are taken over the integers themselves, which float32 holds exactly up to
// 2^24 (any sum of 1,040 products, and in practice larger ones), and the scales, per output channel, and the bias come after.
// A DequantizeLinear before the sum, as the model for TensorRT must have it, rounds every product instead, and ONNX Runtime's
// own integer kernels round the bias: both differ from TensorRT in more images than this does. It is for scoring only.
func EmulateINT8(m *Model, amax map[string]float32, o QDQOptions) (*Model, *QDQReport, error) {
	return m.quantize(amax, o, true)
}

func (m *Model) quantize(amax map[string]float32, o QDQOptions, emulate bool) (*Model, *QDQReport, error) {
	fail := func(err error) (*Model, *QDQReport, error) {
		return nil, nil, fmt.Errorf("quantise model %s: %w", m.name, err)
	}
	x, err := m.index("quantise")
	if err != nil {
		return nil, nil, err
	}
	for i, n := range x.g.Node {
		if isOp(n, "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger") {
			return fail(fmt.Errorf("node %s: the model is quantised already: %w", nodeName(n, i), ErrUnsupported))
		}
	}
	if err := x.upgrade(); err != nil {
		return fail(err)
	}
	q := &quantizer{
		graph: x, amax: amax, options: o, report: &QDQReport{}, inputs: map[use]bool{}, weights: map[use]int{},
		reasons: map[*pb.NodeProto]string{}, reduced: map[*pb.NodeProto]bool{}, warned: map[string]bool{}, made: map[string]string{},
	}
	for _, n := range x.g.Node {
		q.decide(n)
	}
	if len(q.reduced) == 0 {
		return fail(q.nothing())
	}
	for _, n := range x.g.Node {
		if len(n.Output) > 0 && q.isFloat(n.Output[0]) && !isOp(n, "Constant") {
			q.report.Nodes = append(q.report.Nodes, NodeReport{
				Node: label(n), Op: n.GetOpType(), Reduced: q.reduced[n], Follows: !q.reduced[n] && q.follows(n), Reason: q.reason(n),
			})
		}
	}
	rewrite, what := q.rewrite, "int8"
	if emulate {
		rewrite, what = q.emulate, "int8 emulation"
	}
	for i, n := range x.g.Node {
		if err := rewrite(n); err != nil {
			return fail(fmt.Errorf("node %s: %w", nodeName(n, i), err))
		}
	}
	x.g.Node = q.out
	x.refresh()
	x.prune()
	d, err := m.derive(x.model, what)
	return d, q.report, err
}

// nothing says why no node was quantised.
func (q *quantizer) nothing() error {
	for _, n := range q.g.Node {
		if reason := q.reasons[n]; reason != "" {
			return fmt.Errorf("no node can be quantised; node %q (%s): %s: %w", label(n), n.GetOpType(), reason, ErrUnsupported)
		}
	}
	return fmt.Errorf("it has no Conv, ConvTranspose, Gemm or MatMul to quantise: %w", ErrUnsupported)
}

// decide settles what of a node's inputs is quantised.
func (q *quantizer) decide(n *pb.NodeProto) {
	if q.options.KeepFloat[label(n)] {
		q.reasons[n] = "kept on request"
		return
	}
	var err error
	switch {
	case isOp(n, "Conv", "ConvTranspose", "Gemm", "MatMul"):
		err = q.decideCompute(n)
	case isOp(n, "Add"):
		q.decideAdd(n)
		return
	case isOp(n, "LeakyRelu"):
		if q.leakyIsSeparate(n) && q.usable(n.Input[0]) == nil {
			q.inputs[use{n, 0}] = true
			q.reduced[n] = true
			q.reasons[n] = "int8 input: a kernel of its own in TensorRT"
		}
		return
	default:
		return
	}
	if err != nil {
		q.reasons[n] = err.Error()
		return
	}
	q.reduced[n] = true
}

// decideCompute quantises a matrix product or convolution; its error says why it stays in float.
func (q *quantizer) decideCompute(n *pb.NodeProto) error {
	if q.types[n.Input[0]] != pb.TensorProto_FLOAT {
		return fmt.Errorf("its values are not float32")
	}
	if attrInt(n, "transA", 0) != 0 {
		return errors.New("transA")
	}
	if q.constants[n.Input[0]] != nil {
		return errors.New("its first input is a constant")
	}
	if err := q.usable(n.Input[0]); err != nil {
		return err
	}
	weight := q.constants[n.Input[1]]
	if weight == nil {
		if !isOp(n, "MatMul") {
			return errors.New("its weights are not constant")
		}
		if err := q.usable(n.Input[1]); err != nil {
			return err
		}
		q.inputs[use{n, 0}], q.inputs[use{n, 1}] = true, true
		q.reasons[n] = "int8 inputs"
		return nil
	}
	values, err := q.float32Constant(n.Input[1])
	if err != nil || len(values) == 0 {
		return errors.New("its weights are not float32 values")
	}
	for _, v := range values {
		if v-v != 0 { // NaN or infinite
			q.warn(n.Input[1], "weight %s holds %g: node %s (%s) stays in float", n.Input[1], v, label(n), n.GetOpType())
			return fmt.Errorf("weight %s holds %g", n.Input[1], v)
		}
	}
	q.weights[use{n, 1}] = -1
	q.reasons[n] = "int8 input, one scale for the weights"
	if a := channelAxes(n, weight.Dims); a != nil {
		q.weights[use{n, 1}] = a.axis
		q.reasons[n] = "int8 input, weights per channel"
	}
	q.inputs[use{n, 0}] = true
	return nil
}

// decideAdd quantises a residual Add: the sum of two activations, one of which a quantised Conv, Gemm or MatMul makes.
func (q *quantizer) decideAdd(n *pb.NodeProto) {
	a, b := n.Input[0], n.Input[1]
	if !q.isFloat(n.Output[0]) || q.constants[a] != nil || q.constants[b] != nil || a == b {
		return
	}
	if sa, ka := q.shapes[a]; ka {
		if sb, kb := q.shapes[b]; kb && len(sa) != len(sb) {
			q.reasons[n] = "no residual sum: its inputs differ in rank"
			return
		}
	}
	if !q.fromReduced(a) && !q.fromReduced(b) {
		q.reasons[n] = "no residual sum of a quantised node"
		return
	}
	fused := -1
	for i, in := range n.Input {
		p := q.producer[in]
		if isOp(p, "Conv") && q.reduced[p] && q.onlyUse(in).node == n && (fused < 0 || q.position[p] > q.position[q.producer[n.Input[fused]]]) {
			fused = i
		}
	}
	for i, in := range n.Input {
		if i == fused {
			continue
		}
		if err := q.usable(in); err != nil {
			q.reasons[n] = err.Error()
			return
		}
	}
	q.reasons[n] = "int8 inputs"
	for i := range n.Input {
		if i == fused {
			q.reasons[n] = fmt.Sprintf("int8 residual, summed by %s", label(q.producer[n.Input[i]]))
			continue
		}
		q.inputs[use{n, i}] = true
	}
	q.reduced[n] = true
}

// fromReduced reports whether a tensor comes from a quantised node, through activations and the like.
func (q *quantizer) fromReduced(tensor string) bool {
	for {
		p := q.producer[tensor]
		if p == nil || q.reduced[p] {
			return p != nil
		}
		if !isOp(p, activations...) && !isOp(p, passes...) {
			return false
		}
		tensor = p.Input[0]
	}
}

// leakyIsSeparate reports whether TensorRT 8.6 runs a LeakyRelu as a kernel of its own, so that the Conv before it rounds its
// output to INT8 at that tensor's own scale first. Its INT8 build of a network with 15 such pairs did so exactly behind the
// Convs that write more than twice as many channels as they read, and rounded once, after the LeakyRelu, behind the others.
func (q *quantizer) leakyIsSeparate(n *pb.NodeProto) bool {
	conv := q.producer[n.Input[0]]
	if q.options.FuseLeakyRelu || !isOp(conv, "Conv") || !q.reduced[conv] || q.onlyUse(n.Input[0]).node != n {
		return false
	}
	dims := q.constants[conv.Input[1]].Dims
	return dims[0] > 2*dims[1]*attrInt(conv, "group", 1)
}

// root follows a tensor back through operators that keep its scale, to the one whose range counts.
func (q *quantizer) root(tensor string) string {
	for isOp(q.producer[tensor], passes...) {
		tensor = q.producer[tensor].Input[0]
	}
	return tensor
}

// rangeOf returns a tensor's range: its root's, else its own.
func (q *quantizer) rangeOf(tensor string) (name string, amax float32, known bool) {
	for _, name := range []string{q.root(tensor), tensor} {
		if a, ok := q.amax[name]; ok {
			return name, a, true
		}
	}
	return "", 0, false
}

// usable says why a tensor cannot be quantised, nil if it can.
func (q *quantizer) usable(tensor string) error {
	name, a, known := q.rangeOf(tensor)
	if !known {
		q.warn(tensor, "tensor %s has no calibrated range: what reads it stays in float", tensor)
		return fmt.Errorf("its input %s has no calibrated range", tensor)
	}
	if math.IsInf(float64(a), 0) || !(a/127 > 0) {
		q.warn(name, "tensor %s has the range %g, which gives no scale: what reads it stays in float", name, a)
		return fmt.Errorf("its input %s has the range %g", tensor, a)
	}
	return nil
}

func (q *quantizer) warn(about, format string, args ...any) {
	if !q.warned[about] {
		q.warned[about] = true
		q.report.Warnings = append(q.report.Warnings, fmt.Sprintf(format, args...))
	}
}

// follows reports whether a node computes in the kernel, or holds the scale, of the one before it.
func (q *quantizer) follows(n *pb.NodeProto) bool {
	if q.reasons[n] != "" || !isONNXDomain(n.GetDomain()) {
		return false
	}
	return isOp(n, passes...) || isOp(n, activations...) && q.reduced[q.producer[n.Input[0]]]
}

// reason puts into words what becomes of a node.
func (q *quantizer) reason(n *pb.NodeProto) string {
	if r := q.reasons[n]; r != "" {
		return r
	}
	switch {
	case !isONNXDomain(n.GetDomain()):
		return fmt.Sprintf("operator %s.%s is unknown: stays in float", n.GetDomain(), n.GetOpType())
	case isOp(n, passes...):
		return "keeps the scale of its input"
	case isOp(n, activations...):
		if q.follows(n) {
			return "activation of " + label(q.producer[n.Input[0]])
		}
		return "activation in float"
	default:
		return n.GetOpType() + " stays in float"
	}
}

// rewrite appends a node to the new graph, behind the pairs its inputs need.
func (q *quantizer) rewrite(n *pb.NodeProto) error {
	for i := range n.Input {
		u := use{n, i}
		if q.inputs[u] {
			n.Input[i] = q.activation(n.Input[i])
		}
		if axis, ok := q.weights[u]; ok {
			name, err := q.weight(n.Input[i], axis)
			if err != nil {
				return err
			}
			n.Input[i] = name
		}
	}
	q.out = append(q.out, n)
	return nil
}

// quantized returns the INT8 form of a tensor, made once, with its scale and zero point.
func (q *quantizer) quantized(tensor string) (name, scale, zero string) {
	root, a, _ := q.rangeOf(tensor)
	scale = q.once("scale of "+root, func() *pb.TensorProto {
		return floatTensor(q.fresh(root+"_scale"), nil, []float32{a / 127})
	})
	zero = q.once("zero", func() *pb.TensorProto { return int8Tensor(q.fresh("zero_point"), nil, []int8{0}) })
	key := "quantized " + tensor
	if q.made[key] == "" {
		q.made[key] = q.node("QuantizeLinear", tensor+"_quantized", []string{tensor, scale, zero})
	}
	return q.made[key], scale, zero
}

// activation quantises a tensor, once, and dequantises it for one reader.
func (q *quantizer) activation(tensor string) string {
	quantized, scale, zero := q.quantized(tensor)
	return q.node("DequantizeLinear", tensor+"_dequantized", []string{quantized, scale, zero})
}

// node appends a node whose name is that of its output.
func (q *quantizer) node(op, base string, inputs []string, attrs ...*pb.AttributeProto) string {
	name := q.fresh(base)
	q.out = append(q.out, newNode(op, name, inputs, []string{name}, attrs...))
	return name
}

// once returns the name of an initialiser, made by f the first time.
func (q *quantizer) once(key string, f func() *pb.TensorProto) string {
	if q.made[key] == "" {
		t := f()
		q.addInitializer(t)
		q.made[key] = t.GetName()
	}
	return q.made[key]
}

// weight quantises a constant along axis, or with one scale where axis is negative, and returns its dequantised form.
func (q *quantizer) weight(name string, axis int) (string, error) {
	key := fmt.Sprintf("weight %d %s", axis, name)
	if q.made[key] != "" {
		return q.made[key], nil
	}
	w, err := q.integers(name, axis)
	if err != nil {
		return "", err
	}
	var dims []int64
	var attrs []*pb.AttributeProto
	if axis >= 0 {
		dims = []int64{int64(len(w.scales))}
		attrs = []*pb.AttributeProto{intAttr("axis", int64(axis))}
	}
	scale := floatTensor(q.fresh(name+"_scale"), dims, w.scales)
	q.addInitializer(scale)
	zero := q.once(fmt.Sprint("zero ", dims), func() *pb.TensorProto {
		return int8Tensor(q.fresh("zero_point"), dims, make([]int8, len(w.scales)))
	})
	quantized := ""
	if q.options.Weights == WeightsInt8 {
		quantized = q.fresh(name + "_quantized")
		q.addInitializer(int8Tensor(quantized, w.dims, w.rounded()))
	} else {
		quantized = q.node("QuantizeLinear", name+"_quantized", []string{name, scale.GetName(), zero}, attrs...)
	}
	q.made[key] = q.node("DequantizeLinear", name+"_dequantized", []string{quantized, scale.GetName(), zero}, attrs...)
	return q.made[key], nil
}

// integers is a quantised weight: what it is made of, and a scale for each step of the axis.
type integers struct {
	dims   []int64
	values []float32
	inner  int // values behind one step of the axis
	scales []float32
}

// integers finds the scales of a constant, max|w|/127.
func (q *quantizer) integers(name string, axis int) (*integers, error) {
	t := q.constants[name]
	values, err := floats(t)
	if err != nil {
		return nil, err
	}
	along, inner := 1, len(values)
	if axis >= 0 {
		along = int(t.Dims[axis])
		inner = int(product(t.Dims[axis+1:]))
	}
	w := &integers{dims: t.Dims, values: values, inner: inner, scales: make([]float32, along)}
	w.each(func(c, from, to int) {
		most := w.scales[c]
		for _, v := range values[from:to] {
			if a := float32(math.Abs(float64(v))); a > most {
				most = a
			}
		}
		w.scales[c] = most
	})
	for c := range w.scales {
		w.scales[c] /= 127
		if w.scales[c] == 0 {
			w.scales[c] = 1 // a channel of zeros; TensorRT refuses a scale of 0
		}
	}
	return w, nil
}

// each calls do for every run of values that share the scale c.
func (w *integers) each(do func(c, from, to int)) {
	for from, c := 0, 0; from < len(w.values); from, c = from+w.inner, (c+1)%len(w.scales) {
		do(c, from, from+w.inner)
	}
}

// rounded quantises the values as QuantizeLinear does: divided by their scale, rounded to nearest, ties to even.
func (w *integers) rounded() []int8 {
	out := make([]int8, len(w.values))
	w.each(func(c, from, to int) {
		scale, out := w.scales[c], out[from:to]
		for i, v := range w.values[from:to] {
			r := math.RoundToEven(float64(v / scale))
			out[i] = int8(min(max(r, -128), 127))
		}
	})
	return out
}
