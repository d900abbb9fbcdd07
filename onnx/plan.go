package onnx

import (
	"fmt"
	"maps"
	"math"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// Entry is one line of a calibration cache: a tensor whose range is wanted.
type Entry struct {
	// Name is the entry's name in a TensorRT calibration cache.
	Name string
	// Tensor is the tensor's name in the model or what Tap knows it by, "" for a constant. A second entry of one tensor, such as that of a Softmax which is an
	// output, takes the first one's range.
	Tensor string
	// SharesScaleOf names the earlier entry whose range this one takes bit for bit, "" where it has its own.
	SharesScaleOf string
	// Const says that the model states the values: calibration observes Values, once.
	Const bool
	// ConstAmax is max|Values|. For a constant of one value c, TensorRT's entropy calibrator records |c|*2048.5/2048 and its
	// MinMax calibrator |c|, which is what observing Values gives.
	ConstAmax float32
	// Values are the constant's values in row-major order, maybe in the memory of the model itself: not to be written to.
	Values []float32
}

// CalibrationPlan lists what calibration observes, in the order of a TensorRT calibration cache.
type CalibrationPlan struct {
	Entries []Entry
	parts   parts // where else a tensor's values are; none for a tensor to tap
	bounded parts // the same without functions
}

// Observed lists the tensors with a range of their own, each once and in order: those of entries that are no constant and take no other's.
func (p *CalibrationPlan) Observed() []string {
	var tensors []string
	for _, e := range p.Entries {
		if !e.Const && e.SharesScaleOf == "" {
			tensors = append(tensors, e.Tensor)
		}
	}
	return tensors
}

// Ranges returns the ranges in byEntry, which are by entry name, with those of the plan's tensors by tensor name beside them:
// what InsertQDQ and FP16Options take, since TensorRT does not name every entry after its tensor. An entry that is missing has
// the range of the one whose scale it shares; a range in byEntry is never replaced.
func (p *CalibrationPlan) Ranges(byEntry map[string]float32) map[string]float32 {
	ranges := maps.Clone(byEntry)
	if ranges == nil {
		ranges = map[string]float32{}
	}
	for _, e := range p.Entries {
		amax, known := ranges[e.Name]
		if !known && e.SharesScaleOf != "" {
			if amax, known = ranges[e.SharesScaleOf]; known {
				ranges[e.Name] = amax
			}
		}
		if _, named := ranges[e.Tensor]; known && !named && !e.Const {
			ranges[e.Tensor] = amax
		}
	}
	return ranges
}

// Tensors that TensorRT calibrates and the ONNX graph does not have: a node that its parser splits in two has one between.
// Tap makes them.
const (
	matmulSuffix      = "@matmul"      // a Gemm before its bias is added
	hardSigmoidSuffix = "@hardsigmoid" // the gate of a HardSwish
)

// HardSwish is x HardSigmoid(x) with these parameters, by its definition.
const (
	hardSwishAlpha = float32(1) / 6
	hardSwishBeta  = float32(0.5)
)

// planner counts TensorRT's layers while it lists the entries, because constants and split nodes are named after them.
type planner struct {
	*graph
	layer     int
	entries   []Entry
	constants map[string]string // initialiser -> the entry of its Constant layer
	observed  map[string]string // tensor -> its first entry
	own       map[string]bool   // tensors with a range of their own
	parts     parts             // what tensors are made of
	bounded   parts             // the same without functions
}

// observe adds an entry of a tensor. Where the tensor has one already, or share does, the new one takes that one's range.
func (p *planner) observe(name, tensor, share string) {
	e := Entry{Name: name, Tensor: tensor, SharesScaleOf: p.observed[tensor]}
	if e.SharesScaleOf == "" {
		p.observed[tensor] = name
		e.SharesScaleOf = p.observed[share]
		p.own[tensor] = e.SharesScaleOf == ""
	}
	p.entries = append(p.entries, e)
}

// Plan lists the tensors that TensorRT's calibrators give a scale, in their order and under their names: the input, then
// every float output of every node in graph order, fused later or not. MaxPool takes the scale of its input. Weights,
// biases, bounds and BatchNormalization parameters have none, but an initialiser that is an operand of an elementwise
// operator, MatMul or Gemm is a layer of TensorRT's network and has one ("(Unnamed Layer* 12) [Constant]_output"), followed
// by a Shuffle layer where its rank is below the other operand's.
//
// Conv, BatchNormalization, Relu, Clip, LeakyRelu, HardSigmoid, Add, Mul, Concat, GlobalAveragePool, MaxPool, Flatten and
// scalar constants are checked against caches of TensorRT 8.6; Gemm and Reshape follow a published cache of 8.5. The rest
// follows the layers that the published ONNX parser of 8.6 creates, as far as they are known without shapes of the
// batch: one a node.
//
// Nodes that no output needs, and tensors that are not float, have no entry.
func Plan(m *Model) (*CalibrationPlan, error) {
	x, err := m.index("calibration plan")
	if err != nil {
		return nil, err
	}
	p := &planner{graph: x, constants: map[string]string{}, observed: map[string]string{}, own: map[string]bool{}, parts: parts{}, bounded: parts{}}
	for _, port := range m.Inputs() {
		if x.isFloat(port.Name) {
			p.observe(port.Name, port.Name, "")
		}
	}
	live := x.live()
	for i, n := range x.g.Node {
		if !live[n] {
			continue
		}
		if err := p.node(n); err != nil {
			return nil, fmt.Errorf("calibration plan of model %s: node %s: %w", m.name, nodeName(n, i), err)
		}
	}
	return &CalibrationPlan{Entries: p.entries, parts: p.parts, bounded: p.bounded}, nil
}

func (p *planner) node(n *pb.NodeProto) error {
	if p.constantOutput(n) {
		return nil
	}
	switch {
	case isOp(n, "Gemm"):
		return p.gemm(n)
	case isOp(n, "MatMul", "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "PRelu", "Where"):
		if !p.anyFloat(n) {
			break
		}
		rank := -1
		if s := p.broadcast(n.Input); s != nil {
			rank = len(s)
		}
		for _, in := range n.Input {
			if err := p.operand(in, rank); err != nil {
				return err
			}
		}
	case isOp(n, "HardSwish"):
		gate := n.Output[0] + hardSigmoidSuffix
		p.observe(p.unnamed("Activation"), gate, "")
		p.addGate(gate, n.Input[0], Func{"HardSigmoid", hardSwishAlpha, hardSwishBeta})
		p.layer++
	case isOp(n, "Flatten"):
		p.layer += p.flattenLayers(n, attrInt(n, "axis", 1))
	case isOp(n, "Softmax"):
		return p.softmax(n)
	}
	p.layer++
	for _, out := range n.Output {
		if out == "" || !p.isFloat(out) || len(p.uses[out]) == 0 && !p.outputs[out] {
			continue
		}
		share := ""
		if isOp(n, "MaxPool") {
			share = n.Input[0]
		}
		p.observe(out, out, share)
		if p.own[out] && out == n.Output[0] {
			p.derive(n)
		}
	}
	return nil
}

// constantOutput reports whether a node only states a constant, which is no layer until something uses it.
func (p *planner) constantOutput(n *pb.NodeProto) bool { return isOp(n, "Constant") }

func (p *planner) anyFloat(n *pb.NodeProto) bool {
	for _, out := range n.Output {
		if p.isFloat(out) {
			return true
		}
	}
	return false
}

func (p *planner) unnamed(kind string) string {
	return fmt.Sprintf("(Unnamed Layer* %d) [%s]_output", p.layer, kind)
}

// operand adds the layers that a constant operand becomes. rank is that of the operator's result, -1 if it is not known:
// then a constant of rank 4 is taken to need no Shuffle, any other to need one.
func (p *planner) operand(name string, rank int) error {
	t := p.graph.constants[name]
	if t == nil || !isFloat(t) {
		return nil
	}
	values, err := floats(t)
	if err != nil {
		return err
	}
	e := Entry{Const: true, Values: values}
	for _, v := range values {
		if a := float32(math.Abs(float64(v))); a > e.ConstAmax || a != a {
			e.ConstAmax = a
		}
	}
	if p.constants[name] == "" {
		e.Name = p.unnamed("Constant")
		p.constants[name] = e.Name
		p.entries = append(p.entries, e)
		p.layer++
	}
	if rank < 0 {
		rank = 4
	}
	if len(t.Dims) < rank {
		e.Name = p.unnamed("Shuffle")
		p.entries = append(p.entries, e)
		p.layer++
	}
	return nil
}

// gemm adds what TensorRT's parser makes of a Gemm: the weights as a Constant, a Matrix Multiply, and, with a bias, a
// Constant, a Shuffle and the sum that carries the node's name.
func (p *planner) gemm(n *pb.NodeProto) error {
	if err := p.operand(n.Input[0], 2); err != nil {
		return err
	}
	if err := p.operand(input(n, 1), 2); err != nil {
		return err
	}
	product := p.layer
	p.layer++
	if attrFloat(n, "alpha", 1) != 1 {
		p.layer += 3
	}
	out := n.Output[0]
	if input(n, 2) != "" {
		p.observe(fmt.Sprintf("(Unnamed Layer* %d) [Matrix Multiply]_output", product), out+matmulSuffix, "")
		if err := p.operand(n.Input[2], 2); err != nil {
			return err
		}
		if attrFloat(n, "beta", 1) != 1 {
			p.layer += 3
		}
		p.layer++
	}
	p.observe(out, out, "")
	return nil
}

// softmax: TensorRT reshapes the result to where it came from in a layer of its own, which calibration sees only when it is
// an output of the network.
func (p *planner) softmax(n *pb.NodeProto) error {
	if p.opset < 13 {
		p.layer += p.flattenLayers(n, attrInt(n, "axis", 1)) + 1
	}
	out := n.Output[0]
	p.observe(p.unnamed("Softmax"), out, "")
	p.layer++
	if s, known := p.shapes[n.Input[0]]; !known || product(s) < 0 {
		p.layer++
	}
	p.layer++
	if p.outputs[out] {
		p.observe(out, out, "")
	}
	return nil
}

// flattenLayers is the number of layers before the Shuffle that flattens: with a dynamic batch the new shape is computed by
// Shape, Constant, Gather, Constant and Concatenation.
func (p *planner) flattenLayers(n *pb.NodeProto, axis int64) int {
	s, known := p.shapes[n.Input[0]]
	switch {
	case len(s) == 2 && axis == 1 && isOp(n, "Flatten"):
		return 0
	case known && len(s) > 0 && s[0] >= 0:
		return 0
	default:
		return 5
	}
}
