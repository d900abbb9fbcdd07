package onnx

import (
	"fmt"
	"strings"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// Opsets whose operators this package knows how to read. Older ones broadcast differently; newer ones are unknown.
const (
	minOpset = 7
	maxOpset = 26
	minIR    = 4 // the version of the file format from which initialisers need not be inputs
)

// use is one reading of a tensor: input number Input of node Node.
type use struct {
	node  *pb.NodeProto
	input int
}

// graph is an index over a model that a rewrite works on. The message is the rewrite's own copy.
type graph struct {
	model     *pb.ModelProto
	g         *pb.GraphProto
	opset     int
	constants map[string]*pb.TensorProto // initialisers and the outputs of Constant nodes
	producer  map[string]*pb.NodeProto   // tensor -> the node that makes it
	uses      map[string][]use           // tensor -> its readers, in graph order
	outputs   map[string]bool            // the graph's outputs
	position  map[*pb.NodeProto]int      // node -> place in the graph
	taken     map[string]bool            // every tensor and node name
	types     map[string]pb.TensorProto_DataType
	shapes    map[string][]int64 // known shapes; -1 for a dimension that is not fixed
}

// index copies the model and prepares it for a rewrite. what names the rewrite in errors. Models that hold what no rewrite
// handles are refused: an operator set that is too old or too new, subgraphs, functions of their own, sparse initialisers.
func (m *Model) index(what string) (*graph, error) {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%s of model %s: %s: %w", what, m.name, fmt.Sprintf(format, args...), ErrUnsupported)
	}
	version := m.Opset()
	switch {
	case version == 0:
		return nil, refuse("it names no version of the ONNX operator set")
	case version < minOpset:
		return nil, refuse("opset %d is older than %d: convert the model with onnx.version_converter", version, minOpset)
	case version > maxOpset:
		return nil, refuse("opset %d is newer than %d, the latest known here: export the model with an older one", version, maxOpset)
	case len(m.proto.Functions) > 0:
		return nil, refuse("it defines functions of its own (%s): inline them before", m.proto.Functions[0].GetName())
	case len(m.proto.Graph.SparseInitializer) > 0:
		return nil, refuse("it holds sparse initialisers: make them dense before")
	}
	for i, n := range m.proto.Graph.Node {
		for _, a := range n.Attribute {
			if len(subgraphs(a)) > 0 {
				return nil, refuse("node %s holds a subgraph: export the model without control flow", nodeName(n, i))
			}
		}
	}
	x := &graph{model: copyModel(m.proto), opset: version}
	x.g = x.model.Graph
	for i, n := range x.g.Node {
		if err := checkArity(n); err != nil {
			return nil, fmt.Errorf("%s of model %s: node %s: %w", what, m.name, nodeName(n, i), err)
		}
	}
	x.ownConstants()
	x.refresh()
	return x, nil
}

// ownConstants takes initialisers off the list of inputs, where files of before 2019 must repeat them and any caller could
// replace them: a rewrite holds only for the values it saw.
func (x *graph) ownConstants() {
	constant := map[string]bool{}
	for _, t := range x.g.Initializer {
		constant[t.GetName()] = true
	}
	x.g.Input = filter(x.g.Input, func(v *pb.ValueInfoProto) bool { return !constant[v.GetName()] })
	if x.model.GetIrVersion() < minIR {
		x.model.IrVersion = new(int64(minIR))
	}
}

// fewestInputs gives, for the operators whose inputs this package reads, how many ONNX demands; 1 for all others listed.
var fewestInputs = map[string]int{
	"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "MatMul": 2, "BatchNormalization": 5,
	"Add": 2, "Sub": 2, "Mul": 2, "Div": 2, "Pow": 2, "PRelu": 2, "Where": 3, "Max": 1, "Min": 1, "Sum": 1, "Mean": 1,
	"Pad": 1, "Slice": 1, "Split": 1, "Softmax": 1, "LogSoftmax": 1, "HardSwish": 1, "ReduceSum": 1,
}

// checkArity refuses a node of ONNX's own that lacks inputs or an output this package relies on.
func checkArity(n *pb.NodeProto) error {
	if !isONNXDomain(n.GetDomain()) {
		return nil
	}
	want := fewestInputs[n.GetOpType()]
	if want == 0 && (isOp(n, passes...) || isOp(n, activations...) || isOp(n, selects...)) {
		want = 1
	}
	for i := range want {
		if input(n, i) == "" {
			return fmt.Errorf("input %d is missing: %w", i, ErrCorrupt)
		}
	}
	if want > 0 && (len(n.Output) == 0 || n.Output[0] == "") {
		return fmt.Errorf("its output is missing: %w", ErrCorrupt)
	}
	return nil
}

// refresh rebuilds the index after the graph has changed.
func (x *graph) refresh() {
	x.constants = map[string]*pb.TensorProto{}
	x.producer = map[string]*pb.NodeProto{}
	x.uses = map[string][]use{}
	x.outputs = map[string]bool{}
	x.position = map[*pb.NodeProto]int{}
	x.taken = map[string]bool{}
	for _, t := range x.g.Initializer {
		x.constants[t.GetName()] = t
		x.taken[t.GetName()] = true
	}
	for _, v := range x.g.Input {
		x.taken[v.GetName()] = true
	}
	for _, v := range x.g.Output {
		x.outputs[v.GetName()] = true
	}
	for i, n := range x.g.Node {
		x.position[n] = i
		x.taken[n.GetName()] = true
		for _, out := range n.Output {
			if out != "" {
				x.producer[out] = n
				x.taken[out] = true
			}
		}
		for j, in := range n.Input {
			if in != "" {
				x.uses[in] = append(x.uses[in], use{n, j})
			}
		}
		if t := constantValue(n); t != nil {
			x.constants[n.Output[0]] = t
		}
	}
	x.infer()
}

// constantValue returns the tensor of a Constant node that states one, nil for any other node.
func constantValue(n *pb.NodeProto) *pb.TensorProto {
	if n.GetOpType() != "Constant" || !isONNXDomain(n.GetDomain()) || len(n.Output) != 1 {
		return nil
	}
	a := n.Attribute
	if len(a) != 1 {
		return nil
	}
	switch a[0].GetName() {
	case "value":
		return a[0].T
	case "value_float":
		return floatTensor(n.Output[0], nil, []float32{a[0].GetF()})
	case "value_floats":
		return floatTensor(n.Output[0], []int64{int64(len(a[0].Floats))}, a[0].Floats)
	case "value_ints":
		return int64Tensor(n.Output[0], a[0].Ints)
	}
	return nil
}

// fresh returns a name that nothing in the graph has yet, starting from base, and reserves it.
func (x *graph) fresh(base string) string {
	name := base
	for i := 1; x.taken[name]; i++ {
		name = fmt.Sprintf("%s_%d", base, i)
	}
	x.taken[name] = true
	return name
}

// input returns the name of a node's input, "" where it is left out.
func input(n *pb.NodeProto, i int) string {
	if i < len(n.Input) {
		return n.Input[i]
	}
	return ""
}

func attribute(n *pb.NodeProto, name string) *pb.AttributeProto {
	for _, a := range n.Attribute {
		if a.GetName() == name {
			return a
		}
	}
	return nil
}

func attrInt(n *pb.NodeProto, name string, otherwise int64) int64 {
	if a := attribute(n, name); a != nil && a.I != nil {
		return *a.I
	}
	return otherwise
}

func attrFloat(n *pb.NodeProto, name string, otherwise float32) float32 {
	if a := attribute(n, name); a != nil && a.F != nil {
		return *a.F
	}
	return otherwise
}

func newNode(op, name string, inputs, outputs []string, attrs ...*pb.AttributeProto) *pb.NodeProto {
	return &pb.NodeProto{OpType: &op, Name: &name, Input: inputs, Output: outputs, Attribute: attrs}
}

func intAttr(name string, v int64) *pb.AttributeProto {
	return &pb.AttributeProto{Name: &name, Type: pb.AttributeProto_INT.Enum(), I: &v}
}

func floatAttr(name string, v float32) *pb.AttributeProto {
	return &pb.AttributeProto{Name: &name, Type: pb.AttributeProto_FLOAT.Enum(), F: &v}
}

// isOp reports whether a node is one of ONNX's own operators of those types.
func isOp(n *pb.NodeProto, types ...string) bool {
	if n == nil || !isONNXDomain(n.GetDomain()) {
		return false
	}
	for _, t := range types {
		if n.GetOpType() == t {
			return true
		}
	}
	return false
}

// onlyUse returns the single reader of a tensor that is no graph output, or a zero use.
func (x *graph) onlyUse(tensor string) use {
	if u := x.uses[tensor]; len(u) == 1 && !x.outputs[tensor] {
		return u[0]
	}
	return use{}
}

// prune removes nodes that no output needs, and initialisers, constants and notes that no node or output names any more.
func (x *graph) prune() {
	needed := map[string]bool{}
	for _, v := range x.g.Output {
		needed[v.GetName()] = true
	}
	var kept []*pb.NodeProto
	for i := len(x.g.Node) - 1; i >= 0; i-- {
		n := x.g.Node[i]
		live := false
		for _, out := range n.Output {
			live = live || needed[out]
		}
		if !live {
			continue
		}
		for _, in := range n.Input {
			needed[in] = true
		}
		kept = append(kept, n)
	}
	for i, j := 0, len(kept)-1; i < j; i, j = i+1, j-1 {
		kept[i], kept[j] = kept[j], kept[i]
	}
	x.g.Node = kept
	made := map[string]bool{}
	for _, n := range kept {
		for _, out := range n.Output {
			made[out] = true
		}
	}
	x.g.Initializer = filter(x.g.Initializer, func(t *pb.TensorProto) bool { return needed[t.GetName()] })
	initial := map[string]bool{}
	for _, t := range x.g.Initializer {
		initial[t.GetName()] = true
	}
	dropped := func(name string) bool { return x.constants[name] != nil && !initial[name] }
	x.g.Input = filter(x.g.Input, func(v *pb.ValueInfoProto) bool { return !dropped(v.GetName()) })
	x.g.ValueInfo = filter(x.g.ValueInfo, func(v *pb.ValueInfoProto) bool {
		return made[v.GetName()] && !x.outputs[v.GetName()] || initial[v.GetName()]
	})
	x.g.QuantizationAnnotation = nil
	x.refresh()
}

func filter[T any](list []T, keep func(T) bool) []T {
	var kept []T
	for _, v := range list {
		if keep(v) {
			kept = append(kept, v)
		}
	}
	return kept
}

// live marks the nodes that an output of the graph needs.
func (x *graph) live() map[*pb.NodeProto]bool {
	needed := map[string]bool{}
	for name := range x.outputs {
		needed[name] = true
	}
	alive := map[*pb.NodeProto]bool{}
	for i := len(x.g.Node) - 1; i >= 0; i-- {
		n := x.g.Node[i]
		for _, out := range n.Output {
			alive[n] = alive[n] || out != "" && needed[out]
		}
		if alive[n] {
			for _, in := range n.Input {
				needed[in] = true
			}
		}
	}
	return alive
}

// label is what reports and messages call a node: its name, else its first output.
func label(n *pb.NodeProto) string {
	if n.GetName() != "" {
		return n.GetName()
	}
	return strings.Join(n.Output, ",")
}
