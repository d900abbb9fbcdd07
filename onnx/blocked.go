package onnx

import (
	"math"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// nchwcDomain is the domain of ONNX Runtime's operators on channels in blocks (N x C/b x H x W x b, b floats being a vector register):
// Conv, pooling, and ReorderInput and ReorderOutput, which bring a tensor into that layout and back.
const nchwcDomain = "com.microsoft.nchwc"

// elementwise lists operators of one activation that compute every value from one value, wherever it lies, and make a finite value
// of the zero that fills a block up. The next convolution multiplies that value by zero.
var elementwise = []string{"Cast", "Clip", "DequantizeLinear", "HardSigmoid", "LeakyRelu", "QuantizeLinear", "Relu", "Sigmoid"}

// KeepBlocked takes a model that ONNX Runtime has optimised, and lets values stay in its blocked layout between two convolutions where
// only elementwise operators stand between: ONNX Runtime brings them into the plain layout for any operator that is not its own,
// as the roundings of EmulateINT8 and EmulateFP16 are, and back. The result computes the same bits with fewer passes; saved is the
// number of changes of layout that are gone, and 0 where the model has none to save.
func KeepBlocked(m *Model) (kept *Model, saved int, err error) {
	x, err := m.index("blocked version")
	if err != nil {
		return nil, 0, err
	}
	b := &blocker{graph: x, form: map[string]string{}, channels: map[string]int64{}, plain: map[string]bool{}, wanted: map[string]bool{}}
	before := b.reorders()
	b.want()
	for _, n := range x.g.Node {
		b.place(n)
	}
	for _, v := range x.g.Output {
		b.needPlain(v.GetName())
	}
	x.g.Node, x.g.ValueInfo = b.out, nil
	x.refresh()
	x.prune()
	kept, err = m.derive(x.model, "blocked")
	return kept, before - b.reorders(), err
}

// BlockedOutputs is KeepBlocked for a model of which only the values of its outputs matter, not their order: outputs too stay in the blocked layout
// where their channels fill whole blocks, so that they hold the same values and no others. Their names change, their order and sizes do not.
func BlockedOutputs(m *Model) (kept *Model, saved int, err error) {
	if kept, saved, err = KeepBlocked(m); err != nil {
		return nil, 0, err
	}
	x, err := kept.index("blocked outputs")
	if err != nil {
		return nil, 0, err
	}
	taken := map[string]bool{}
	for _, v := range x.g.Output {
		taken[v.GetName()] = true
	}
	for _, v := range x.g.Output {
		r := x.producer[v.GetName()]
		if !isReorder(r, "ReorderOutput") || taken[r.Input[0]] || x.paddedChannels(r.Input[0]) != attrInt(r, "channels", 0) {
			continue
		}
		taken[r.Input[0]] = true
		v.Name = new(r.Input[0])
		saved++
	}
	x.refresh()
	x.prune()
	kept, err = kept.derive(x.model, "blocked outputs")
	return kept, saved, err
}

// paddedChannels is the number of channels of a tensor in blocks, with those that fill the last block up; 0 where it is not known.
func (x *graph) paddedChannels(tensor string) int64 {
	for {
		n := x.producer[tensor]
		switch {
		case n == nil:
			return 0
		case n.GetDomain() == nchwcDomain && n.GetOpType() == "Conv":
			if w := x.constants[input(n, 1)]; w != nil && len(w.Dims) == 4 {
				return w.Dims[0]
			}
			return 0
		case n.GetDomain() == nchwcDomain && strings.HasSuffix(n.GetOpType(), "Pool"), isOp(n, elementwise...):
			tensor = n.Input[0]
		default:
			return 0
		}
	}
}

type blocker struct {
	*graph
	form     map[string]string // tensor -> the name of its blocked form
	channels map[string]int64  // of tensors that have a blocked form
	plain    map[string]bool   // tensors with a blocked form that have been made in the plain layout too
	wanted   map[string]bool   // tensors that an elementwise path leads from into a ReorderInput
	out      []*pb.NodeProto
}

func isReorder(n *pb.NodeProto, op string) bool {
	return n != nil && n.GetDomain() == nchwcDomain && n.GetOpType() == op && attrInt(n, "channels_last", 0) == 0
}

func (b *blocker) reorders() (n int) {
	for _, x := range b.g.Node {
		if isReorder(x, "ReorderInput") || isReorder(x, "ReorderOutput") {
			n++
		}
	}
	return n
}

// want marks, from the last node to the first, what is worth computing in blocks.
func (b *blocker) want() {
	for i := len(b.g.Node) - 1; i >= 0; i-- {
		n := b.g.Node[i]
		if isReorder(n, "ReorderInput") || len(n.Output) == 1 && b.wanted[n.Output[0]] {
			for _, in := range b.activations(n) {
				b.wanted[in] = true
			}
		}
	}
}

// activations lists the inputs of a node that must be in blocks for its output to be; none where the node cannot compute in blocks.
func (b *blocker) activations(n *pb.NodeProto) []string {
	switch {
	case isReorder(n, "ReorderInput"):
		return n.Input[:1]
	case isOp(n, "Add", "Mul"):
		return n.Input[:2]
	case !isOp(n, elementwise...):
		return nil
	}
	for _, in := range n.Input[1:] { // bounds, scales and zero points: one for the whole tensor
		if t := b.constants[in]; in != "" && (t == nil || product(t.Dims) != 1) {
			return nil
		}
	}
	return n.Input[:1]
}

// place appends a node to the new graph, in blocks where that is possible and wanted.
func (b *blocker) place(n *pb.NodeProto) {
	in := b.activations(n)
	ready := len(in) > 0
	for _, t := range in {
		ready = ready && b.form[t] != ""
	}
	switch {
	case isReorder(n, "ReorderOutput"):
		b.form[n.Output[0]] = b.blocked(n.Input[0])
		b.channels[n.Output[0]] = attrInt(n, "channels", 0)
	case isReorder(n, "ReorderInput") && ready:
		b.form[n.Output[0]] = b.form[in[0]]
	case ready && b.wanted[n.Output[0]] && b.alike(in):
		c := proto.CloneOf(n)
		for i := range in {
			c.Input[i] = b.form[in[i]]
		}
		c.Output[0] = b.fresh(n.Output[0] + "_blocked")
		c.Name = new(b.fresh(label(n) + "_blocked"))
		b.out = append(b.out, c)
		b.form[n.Output[0]], b.channels[n.Output[0]] = c.Output[0], b.channels[in[0]]
	default:
		c := proto.CloneOf(n) // the index still describes the old graph
		for i, t := range n.Input {
			b.needPlain(t)
			c.Input[i] = b.blocked(t)
		}
		b.out = append(b.out, c)
	}
}

// blocked is the name under which the new graph has a tensor that was in blocks in the old one.
func (b *blocker) blocked(tensor string) string {
	if isReorder(b.producer[tensor], "ReorderInput") && b.form[tensor] != "" {
		return b.form[tensor]
	}
	return tensor
}

// needPlain makes a tensor that the new graph has in blocks in the plain layout too, once: from its blocked form where that is float32,
// which is all that ReorderOutput takes, and else as the old graph made it.
func (b *blocker) needPlain(tensor string) {
	if b.form[tensor] == "" || b.plain[tensor] || isReorder(b.producer[tensor], "ReorderInput") {
		return
	}
	b.plain[tensor] = true
	n := b.producer[tensor]
	if !isReorder(n, "ReorderOutput") && b.types[tensor] != pb.TensorProto_FLOAT {
		for _, in := range n.Input {
			b.needPlain(in)
		}
		b.out = append(b.out, n)
		return
	}
	r := newNode("ReorderOutput", b.fresh(tensor+"_plain"), []string{b.form[tensor]}, []string{tensor},
		intAttr("channels", b.channels[tensor]), intAttr("channels_last", 0))
	r.Domain = new(nchwcDomain)
	b.out = append(b.out, r)
}

// alike reports whether tensors have one shape, so that an operator on two of them broadcasts nothing. Shapes are not known here; what
// is known is that elementwise operators and convolutions with stride 1 and full padding keep height and width.
func (b *blocker) alike(tensors []string) bool {
	for _, t := range tensors[1:] {
		if b.channels[t] != b.channels[tensors[0]] || b.origin(t) != b.origin(tensors[0]) {
			return false
		}
	}
	return true
}

// origin follows a tensor back to the first one of the same height and width.
func (b *blocker) origin(tensor string) string {
	for {
		n := b.producer[tensor]
		same := isReorder(n, "ReorderInput") || isReorder(n, "ReorderOutput") || isOp(n, elementwise...) || b.keepsSize(n) ||
			isOp(n, "Add", "Mul") && b.form[n.Output[0]] != "" // alike was true of its inputs
		if !same {
			return tensor
		}
		tensor = n.Input[0]
	}
}

// keepsSize reports whether a node is a convolution whose output is as high and wide as its input.
func (b *blocker) keepsSize(n *pb.NodeProto) bool {
	if n == nil || n.GetOpType() != "Conv" || n.GetDomain() != nchwcDomain {
		return false
	}
	ints := func(name string, i int, otherwise int64) int64 {
		if a := attribute(n, name); a != nil && i < len(a.Ints) {
			return a.Ints[i]
		}
		return otherwise
	}
	if a := attribute(n, "auto_pad"); a != nil && string(a.S) != "" && string(a.S) != "NOTSET" {
		return false
	}
	for d := range 2 {
		kernel := ints("kernel_shape", d, math.MaxInt32)
		if attribute(n, "kernel_shape") == nil {
			if w := b.constants[input(n, 1)]; w != nil && len(w.Dims) == 4 {
				kernel = w.Dims[2+d]
			}
		}
		if ints("strides", d, 1) != 1 || ints("pads", d, 0)+ints("pads", d+2, 0) != ints("dilations", d, 1)*(kernel-1) {
			return false
		}
	}
	return true
}
