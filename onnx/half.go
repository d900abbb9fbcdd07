package onnx

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// The edges of IEEE-754 binary16.
const (
	maxHalf         = 65504          // the largest finite value
	minNormalHalf   = 1. / 16384     // 2^-14: below it values lose digits
	halfOfSmallHalf = 1. / (1 << 25) // 2^-25: up to it values round to zero
)

// FP16Options tune ToFP16 and EmulateFP16; the zero value is ready for use. Both keep the same nodes in float32.
type FP16Options struct {
	// Amax is the largest magnitude calibration saw, by tensor, as CalibrationPlan.Ranges gives it. A node stays float32 when
	// what it makes or reads exceeds 65,504.
	Amax map[string]float32
	// KeepFloat32 names nodes that stay float32: their name, or their first output where they have none.
	KeepFloat32 map[string]bool
}

// NodeReport says what became of one node.
type NodeReport struct {
	// Node is the node's name, or its first output where it has none; Op is its operator.
	Node, Op string
	// Reduced says that the node computes in the lower precision.
	Reduced bool
	// Follows says of a node that is not Reduced that it costs no precision either: it is an activation in the kernel of the node
	// before it, or only moves values.
	Follows bool
	// Reason says, in a few words, why it does or does not.
	Reason string
}

// FP16Report says what ToFP16 or EmulateFP16 did.
type FP16Report struct {
	// Nodes lists the nodes that handle float values, in graph order.
	Nodes []NodeReport
	// Weights counts the weight values converted. Subnormal of them lose digits because they lie below 2^-14, Zeroed of
	// those become zero. A node with a weight beyond 65,504 is not converted.
	Weights, Subnormal, Zeroed int
	// Warnings are sentences worth showing: the nodes left in float32 for their range, and weights that become zero.
	Warnings []string
}

// noHalf lists ONNX operators that have no float16 version, or whose result float16 cannot hold usefully.
var noHalf = []string{
	"Bernoulli", "ConstantOfShape", "CumSum", "DequantizeLinear", "DynamicQuantizeLinear", "EyeLike", "Multinomial", "NonMaxSuppression",
	"QLinearConv", "QLinearMatMul", "QuantizeLinear", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range",
	"RoiAlign", "TfIdfVectorizer", "Upsample",
}

// selects lists operators whose every output value is one of their input values (or zero), so that rounded inputs give
// rounded outputs.
var selects = []string{
	"Clip", "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GlobalMaxPool", "Identity", "Max", "MaxPool", "Min", "Neg",
	"Pad", "Relu", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
}

// monotone lists those of them that also leave the order of values alone, so that rounding before or after them is the same:
// an engine can then compute them in the kernel before, and there is less to round behind a MaxPool.
var monotone = []string{"Clip", "MaxPool", "Relu"}

// halver decides, for one model, which nodes compute in float16 and converts constants.
type halver struct {
	*graph
	options FP16Options
	report  *FP16Report
	half    map[*pb.NodeProto]bool
	out     []*pb.NodeProto
	made    map[string]string // constants and casts already made: kind + tensor -> name
	zeroed  string            // the weight that loses most values, with how many
	most    int
}

func (m *Model) halver(what string, o FP16Options) (*halver, error) {
	x, err := m.index(what)
	if err != nil {
		return nil, err
	}
	h := &halver{graph: x, options: o, report: &FP16Report{}, half: map[*pb.NodeProto]bool{}, made: map[string]string{}}
	h.hoist()
	for i, n := range x.g.Node {
		reason, err := h.decide(n)
		if err != nil {
			return nil, fmt.Errorf("%s of model %s: node %s: %w", what, m.name, nodeName(n, i), err)
		}
		if reason == notFloat {
			continue
		}
		h.half[n] = reason == ""
		r := NodeReport{Node: label(n), Op: n.GetOpType(), Reduced: reason == "", Reason: reason}
		if r.Reduced {
			r.Reason = "float16"
		}
		h.report.Nodes = append(h.report.Nodes, r)
	}
	if len(h.report.Nodes) == 0 {
		return nil, fmt.Errorf("%s of model %s: it computes nothing in float32: %w", what, m.name, ErrUnsupported)
	}
	return h, nil
}

// hoist turns Constant nodes into initialisers, so that constants have one form.
func (h *halver) hoist() {
	h.g.Node = filter(h.g.Node, func(n *pb.NodeProto) bool {
		t := constantValue(n)
		if t == nil || h.outputs[n.Output[0]] {
			return true
		}
		c := proto.CloneOf(t)
		c.Name = &n.Output[0]
		h.g.Initializer = append(h.g.Initializer, c)
		return false
	})
	h.refresh()
}

// notFloat is decide's answer for a node that no float32 value goes through.
const notFloat = "not float"

// decide says why a node stays float32, "" when it becomes float16.
func (h *halver) decide(n *pb.NodeProto) (string, error) {
	touches := false
	for _, list := range [][]string{n.Input, n.Output} {
		for _, name := range list {
			touches = touches || h.types[name] == pb.TensorProto_FLOAT
		}
	}
	switch {
	case !touches || isOp(n, "Constant"):
		return notFloat, nil
	case !isONNXDomain(n.GetDomain()):
		return fmt.Sprintf("operator of domain %s: no float16 version is known", n.GetDomain()), nil
	case isOp(n, noHalf...):
		return n.GetOpType() + " has no float16 version", nil
	case h.options.KeepFloat32[label(n)]:
		return "kept on request", nil
	}
	for _, out := range n.Output {
		if a := h.options.Amax[out]; a > maxHalf || a != a {
			h.warn("node %s (%s) stays float32: its output reaches %g, beyond float16's 65504", label(n), n.GetOpType(), a)
			return fmt.Sprintf("output reaches %g, beyond 65504", a), nil
		}
	}
	for i, in := range n.Input {
		if a := h.options.Amax[in]; a > maxHalf || a != a {
			h.warn("node %s (%s) stays float32: its input %s reaches %g, beyond float16's 65504", label(n), n.GetOpType(), in, a)
			return fmt.Sprintf("input %s reaches %g, beyond 65504", in, a), nil
		}
		if !h.halfInput(n, i) || isOp(n, "Clip") {
			continue // a bound of Clip beyond the range becomes infinite, which bounds the same values
		}
		values, err := h.float32Constant(in)
		if err != nil {
			return "", err
		}
		for _, v := range values {
			if normalHalf(math.Float32bits(v)) {
				continue
			}
			if a := math.Abs(float64(v)); a > maxHalf && !math.IsInf(a, 0) {
				h.warn("node %s (%s) stays float32: its weight %s holds %g, beyond float16's 65504", label(n), n.GetOpType(), in, v)
				return fmt.Sprintf("weight %s holds %g, beyond 65504", in, v), nil
			}
		}
	}
	return "", nil
}

func (h *halver) warn(format string, args ...any) {
	h.report.Warnings = append(h.report.Warnings, fmt.Sprintf(format, args...))
}

// halfInput reports whether input i of a node is a float32 tensor that follows the node into float16: Resize's region and
// scales do not.
func (h *halver) halfInput(n *pb.NodeProto, i int) bool {
	return h.types[n.Input[i]] == pb.TensorProto_FLOAT && (i == 0 || !isOp(n, "Resize"))
}

// constant returns the float16 rounding of a float32 constant, or false if the tensor is none. as makes the initialiser.
func (h *halver) constant(name string, as func(name string, dims []int64, values []float32) *pb.TensorProto) (string, bool, error) {
	values, err := h.float32Constant(name)
	if err != nil || values == nil {
		return "", false, err
	}
	if made := h.made["constant "+name]; made != "" {
		return made, true, nil
	}
	zeroed := 0
	h.report.Weights += len(values)
	for _, v := range values {
		if normalHalf(math.Float32bits(v)) {
			continue
		}
		switch a := math.Abs(float64(v)); {
		case a == 0 || a >= minNormalHalf || a != a:
		case a <= halfOfSmallHalf:
			zeroed++
			fallthrough
		default:
			h.report.Subnormal++
		}
	}
	h.report.Zeroed += zeroed
	if zeroed > h.most {
		h.most, h.zeroed = zeroed, fmt.Sprintf("%s, %d of %d", name, zeroed, len(values))
	}
	made := h.fresh(name + "_fp16")
	h.addInitializer(as(made, h.constants[name].Dims, values))
	h.made["constant "+name] = made
	return made, true, nil
}

// cast appends a Cast of a tensor, once for each kind, and returns its output.
func (h *halver) cast(from, name string, to pb.TensorProto_DataType) string {
	key := "cast " + to.String() + " " + from
	if made := h.made[key]; made != "" {
		return made
	}
	if name == "" {
		name = h.fresh(from + map[pb.TensorProto_DataType]string{pb.TensorProto_FLOAT16: "_fp16", pb.TensorProto_FLOAT: "_fp32"}[to])
	}
	h.out = append(h.out, newNode("Cast", h.fresh(name+"_cast"), []string{from}, []string{name}, intAttr("to", int64(to))))
	h.made[key] = name
	return name
}

// finish puts the new nodes in place.
func (h *halver) finish(m *Model, what string) (*Model, *FP16Report, error) {
	h.g.Node = h.out
	h.g.ValueInfo = nil // types and names have changed; engines infer them again
	h.refresh()
	h.prune()
	if h.report.Zeroed > 0 {
		h.warn("%d of %d weight values become zero in float16, most of them in %s", h.report.Zeroed, h.report.Weights, h.zeroed)
	}
	d, err := m.derive(h.model, what)
	return d, h.report, err
}

// ToFP16 returns a version of the model that stores its weights and computes in float16. Inputs and outputs stay float32,
// with a Cast behind and before them. Nodes that cannot follow stay float32 between Casts, and the report names them.
func ToFP16(m *Model, o FP16Options) (*Model, *FP16Report, error) {
	h, err := m.halver("float16 version", o)
	if err != nil {
		return nil, nil, err
	}
	inHalf := map[string]string{} // tensor -> the name of its float16 form
	for i, n := range h.g.Node {
		for j, in := range n.Input {
			switch {
			case in == "":
			case h.half[n] && h.halfInput(n, j):
				if inHalf[in] != "" {
					n.Input[j] = inHalf[in]
					continue
				}
				name, constant, err := h.constant(in, halfTensor)
				if err != nil {
					return nil, nil, fmt.Errorf("float16 version of model %s: node %s: %w", m.name, nodeName(n, i), err)
				}
				if !constant {
					name = h.cast(in, "", pb.TensorProto_FLOAT16)
				}
				n.Input[j] = name
			case inHalf[in] != "" && !h.outputs[in]:
				n.Input[j] = h.cast(inHalf[in], "", pb.TensorProto_FLOAT)
			}
		}
		if !h.half[n] {
			h.out = append(h.out, n)
			continue
		}
		if isOp(n, "Cast") && h.types[n.Output[0]] == pb.TensorProto_FLOAT {
			n.Attribute = []*pb.AttributeProto{intAttr("to", int64(pb.TensorProto_FLOAT16))}
		}
		h.out = append(h.out, n)
		for j, out := range n.Output {
			if out == "" || h.types[out] != pb.TensorProto_FLOAT {
				continue
			}
			inHalf[out] = out
			if h.outputs[out] {
				inHalf[out] = h.fresh(out + "_fp16")
				n.Output[j] = inHalf[out]
				h.cast(inHalf[out], out, pb.TensorProto_FLOAT)
			}
		}
	}
	return h.finish(m, "float16")
}

// EmulateFP16 returns a float32 model that rounds where ToFP16's model computes in float16: weights are float16 values, and
// every node's output goes to float16 and back. It is for engines whose float16 is not float16, as on a CPU: overflow comes
// out infinite here. Nodes that only select or move values rounded before need no Casts of their own and have none, and a
// node that only a Relu, Clip, MaxPool or Concat reads is rounded behind it, which gives the same values.
func EmulateFP16(m *Model, o FP16Options) (*Model, *FP16Report, error) {
	h, err := m.halver("float16 emulation", o)
	if err != nil {
		return nil, nil, err
	}
	rounded := map[string]string{} // tensor -> the name of its rounded form, itself where that comes later
	later := map[string]bool{}     // tensors that the only node reading them rounds
	for i, n := range h.g.Node {
		if !h.half[n] {
			h.out = append(h.out, n)
			continue
		}
		exact := !isOp(n, selects...)
		for j, in := range n.Input {
			if in == "" || !h.halfInput(n, j) {
				continue
			}
			if rounded[in] == "" {
				name, constant, err := h.constant(in, roundedTensor)
				if err != nil {
					return nil, nil, fmt.Errorf("float16 emulation of model %s: node %s: %w", m.name, nodeName(n, i), err)
				}
				if constant {
					n.Input[j] = name
					continue
				}
				rounded[in] = h.round(in, h.fresh(in+"_rounded"))
			}
			n.Input[j] = rounded[in]
			exact = exact || later[in]
		}
		h.out = append(h.out, n)
		for j, out := range n.Output {
			if out == "" || h.types[out] != pb.TensorProto_FLOAT {
				continue
			}
			rounded[out] = out
			if !exact {
				continue
			}
			if next := h.onlyUse(out); h.half[next.node] && (isOp(next.node, monotone...) && next.input == 0 || isOp(next.node, "Concat")) {
				later[out] = true
				continue
			}
			n.Output[j] = h.fresh(out + "_exact")
			h.round(n.Output[j], out)
		}
	}
	return h.finish(m, "float16 emulation")
}

// round takes a tensor to float16 and back and returns the result's name, to.
func (h *halver) round(from, to string) string {
	return h.cast(h.cast(from, "", pb.TensorProto_FLOAT16), to, pb.TensorProto_FLOAT)
}
