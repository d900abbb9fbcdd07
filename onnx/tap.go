package onnx

import (
	"fmt"
	"slices"
	"strings"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// Tap returns a model whose outputs are the named tensors, in that order and as float32, and nothing else; nodes that none
// of them needs are left out. A name may be an input of the model, or one that Plan made up for a tensor inside a node.
func Tap(m *Model, tensors []string) (*Model, error) {
	x, err := m.index("tap")
	if err != nil {
		return nil, err
	}
	if len(tensors) == 0 {
		return nil, fmt.Errorf("tap of model %s: no tensor is asked for", m.name)
	}
	inputs := map[string]bool{}
	for _, v := range x.g.Input {
		inputs[v.GetName()] = true
	}
	outputs := make([]*pb.ValueInfoProto, 0, len(tensors))
	seen := map[string]bool{}
	for _, name := range tensors {
		if seen[name] {
			return nil, fmt.Errorf("tap of model %s: tensor %q is asked for twice", m.name, name)
		}
		seen[name] = true
		if x.producer[name] == nil && !inputs[name] && !x.inner(name) {
			return nil, fmt.Errorf("tap of model %s: it has no tensor %q", m.name, name)
		}
		source := name
		if inputs[name] || x.types[name] != pb.TensorProto_FLOAT {
			// An input cannot be an output as well, and only float32 comes out.
			source = x.fresh(name + "_tapped")
			op := newNode("Cast", source, []string{name}, []string{source}, intAttr("to", int64(pb.TensorProto_FLOAT)))
			x.g.Node = append(x.g.Node, op)
		}
		outputs = append(outputs, floatPort(source, x.shapes[name]))
	}
	x.g.Output = outputs
	x.outputs = map[string]bool{}
	for _, v := range outputs {
		x.outputs[v.GetName()] = true
	}
	x.prune()
	return m.derive(x.model, "tapped")
}

// inner makes a tensor that Plan named and the graph lacks, and reports whether there is one of that name.
func (x *graph) inner(name string) bool {
	if out, ok := strings.CutSuffix(name, matmulSuffix); ok && isOp(x.producer[out], "Gemm") {
		n := x.producer[out]
		in := slices.Clone(n.Input[:2])
		if x.opset < 11 { // the bias became optional there
			zero := x.fresh(name + "_bias")
			x.addInitializer(floatTensor(zero, nil, []float32{0}))
			in = append(in, zero)
		}
		x.g.Node = append(x.g.Node, &pb.NodeProto{
			OpType: n.OpType, Name: &name, Input: in, Output: []string{name}, Attribute: n.Attribute, Domain: n.Domain,
		})
		x.types[name], x.shapes[name] = x.types[out], x.shapes[out]
		return true
	}
	if out, ok := strings.CutSuffix(name, hardSigmoidSuffix); ok && isOp(x.producer[out], "HardSwish") {
		n := x.producer[out]
		x.g.Node = append(x.g.Node, newNode("HardSigmoid", name, n.Input[:1], []string{name}, floatAttr("alpha", hardSwishAlpha), floatAttr("beta", hardSwishBeta)))
		x.types[name], x.shapes[name] = x.types[out], x.shapes[out]
		return true
	}
	return false
}

// floatPort declares a float32 output; dimensions that are not fixed stay open.
func floatPort(name string, shape []int64) *pb.ValueInfoProto {
	t := &pb.TypeProto_Tensor{ElemType: new(int32(pb.TensorProto_FLOAT))}
	if shape != nil {
		t.Shape = &pb.TensorShapeProto{}
		for _, d := range shape {
			dim := &pb.TensorShapeProto_Dimension{}
			if d >= 0 {
				dim.Value = &pb.TensorShapeProto_Dimension_DimValue{DimValue: d}
			}
			t.Shape.Dim = append(t.Shape.Dim, dim)
		}
	}
	return &pb.ValueInfoProto{Name: &name, Type: &pb.TypeProto{Value: &pb.TypeProto_TensorType{TensorType: t}}}
}
