package onnx

import (
	"fmt"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// Uint8Activations returns a model with Q/DQ pairs whose int8 activations are uint8 instead: zero points, and with them the integers, are
// 128 higher, and stand for the same values. Weights stay as they are. n counts the activations changed. An int8 tensor that anything but a
// DequantizeLinear or an operator that moves or selects values reads is an error that wraps ErrUnsupported.
//
// Processors have instructions that multiply uint8 by int8, so ONNX Runtime's kernels for this form are several times as fast on x86. Those
// without VNNI add pairs of products in 16 bits, where 255*127*2 saturates: IntegerProbes finds out.
func Uint8Activations(m *Model) (raised *Model, n int, err error) {
	x, err := m.index("uint8 version")
	if err != nil {
		return nil, 0, err
	}
	r := &raiser{graph: x, raised: map[string]bool{}, zeros: map[string]string{}}
	for i, node := range x.g.Node {
		if err := r.visit(node); err != nil {
			return nil, 0, fmt.Errorf("uint8 version of model %s: node %s: %w", m.name, nodeName(node, i), err)
		}
	}
	for _, v := range x.g.Output {
		if r.raised[v.GetName()] {
			return nil, 0, fmt.Errorf("uint8 version of model %s: its output %s is int8: %w", m.name, v.GetName(), ErrUnsupported)
		}
	}
	x.g.ValueInfo = filter(x.g.ValueInfo, func(v *pb.ValueInfoProto) bool { return !r.raised[v.GetName()] })
	x.refresh()
	x.prune()
	raised, err = m.derive(x.model, "uint8 activations")
	return raised, r.activations, err
}

// raiser makes int8 activations uint8.
type raiser struct {
	*graph
	raised      map[string]bool   // tensors that have become uint8
	zeros       map[string]string // zero point -> its uint8 form
	activations int
}

// moving lists the operators that hand on integers of their first input as they are; Concat those of all.
var moving = append([]string{"Concat", "Slice"}, passes...)

// visit changes one node, whose inputs have been visited.
func (r *raiser) visit(n *pb.NodeProto) error {
	reads := 0
	for _, in := range n.Input {
		if r.raised[in] {
			reads++
		}
	}
	switch {
	case isOp(n, "QuantizeLinear") && r.makesInt8(n) && r.constants[n.Input[0]] == nil:
		r.activations++
		r.raised[n.Output[0]] = true
		return r.raise(n)
	case reads == 0:
		return nil
	case isOp(n, "DequantizeLinear") && r.raised[n.Input[0]]:
		return r.raise(n)
	case isOp(n, moving...) && r.raised[n.Input[0]] && (!isOp(n, "Concat") || reads == len(n.Input)):
		r.raised[n.Output[0]] = true
		return nil
	}
	return fmt.Errorf("it reads int8 values: %w", ErrUnsupported)
}

// raise gives a QuantizeLinear or DequantizeLinear the zero point that is 128 higher.
func (r *raiser) raise(n *pb.NodeProto) error {
	key, like := input(n, 2), r.constants[input(n, 2)]
	if key == "" { // it is zero then, and has the scale's shape
		key, like = "none beside "+n.Input[1], r.constants[n.Input[1]]
	}
	if like == nil {
		return fmt.Errorf("its zero point or scale is not constant: %w", ErrUnsupported)
	}
	if r.zeros[key] == "" {
		raw := make([]byte, product(like.Dims))
		for i := range raw {
			raw[i] = 128
		}
		if input(n, 2) != "" {
			for i, v := range int8s(like) {
				raw[i] = byte(int(v) + 128)
			}
		}
		r.zeros[key] = r.fresh(n.Input[1] + "_zero_point_uint8")
		r.addInitializer(rawTensor(r.zeros[key], pb.TensorProto_UINT8, like.Dims, raw))
	}
	n.Input = append(n.Input[:2:2], r.zeros[key])
	n.Attribute = filter(n.Attribute, func(a *pb.AttributeProto) bool { return a.GetName() != "output_dtype" })
	return nil
}

// sameInteger lists the operators that ONNX Runtime computes between Q/DQ pairs by kernels whose integers do not depend on the zero point:
// int32 sums that are scaled and rounded before it is added, tables of 256 values, and copies.
var sameInteger = append([]string{"Clip", "Concat", "Conv", "ConvTranspose", "Gemm", "LeakyRelu", "MatMul", "Relu", "Sigmoid", "Slice"}, passes...)

// IntegerProducts returns a model with Q/DQ pairs that an engine cannot compute in integers but where it multiplies by weights: sums of
// activations, products of two and averages stay in float32, by a Sum of one input between them and the QuantizeLinear. ONNX
// Runtime's kernels for those fold the zero point into float32 arithmetic, so that int8 and uint8 differ at near ties.
func IntegerProducts(m *Model) (*Model, error) {
	x, err := m.index("integer version")
	if err != nil {
		return nil, err
	}
	var nodes []*pb.NodeProto
	for _, n := range x.g.Node {
		if p := x.producer[input(n, 0)]; isOp(n, "QuantizeLinear") && p != nil && !isOp(p, sameInteger...) {
			in := n.Input[0]
			n.Input[0] = x.fresh(in + "_float")
			nodes = append(nodes, newNode("Sum", n.Input[0], []string{in}, []string{n.Input[0]}))
		}
		nodes = append(nodes, n)
	}
	x.g.Node = nodes
	return m.derive(x.model, "integer products")
}

// makesInt8 reports whether a QuantizeLinear makes int8, by its zero point or, since opset 21, an attribute.
func (x *graph) makesInt8(n *pb.NodeProto) bool {
	int8Type := pb.TensorProto_INT8
	if z := input(n, 2); z != "" {
		return x.types[z] == int8Type
	}
	return attrInt(n, "output_dtype", 0) == int64(int8Type)
}

// int8s returns the values of an int8 tensor, which stand in either of two fields.
func int8s(t *pb.TensorProto) []int8 {
	values := make([]int8, max(len(t.RawData), len(t.Int32Data)))
	for i := range values {
		if len(t.RawData) > 0 {
			values[i] = int8(t.RawData[i])
		} else {
			values[i] = int8(t.Int32Data[i])
		}
	}
	return values
}
