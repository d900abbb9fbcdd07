package onnx

import (
	"fmt"
	"slices"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// Uint8Activations returns a model with Q/DQ pairs whose int8 activations are uint8 instead: zero points, and with them the integers, are
// 128 higher, and stand for the same values. Weights stay as they are. n counts the activations changed. An int8 tensor that anything but a
// DequantizeLinear or an operator that moves or selects values reads is an error that wraps ErrUnsupported.
//
// Processors have instructions that multiply uint8 by int8, so ONNX Runtime's kernels for this form are several times as fast on x86. Those
// without VNNI add pairs of products in 16 bits, where 255*127*2 saturates: IntegerProbes finds out.
func Uint8Activations(m *Model) (u *Model, n int, err error) {
	x, err := m.index("uint8 version")
	if err != nil {
		return nil, 0, err
	}
	moves := append(slices.Clone(passes), "Concat", "Slice")
	raised := map[string]bool{}  // tensors that become uint8
	zeros := map[string]string{} // zero point, or the scale where there is none -> its uint8 form
	raise := func(n *pb.NodeProto) error {
		key, like := input(n, 2), x.constants[input(n, 2)]
		if key == "" {
			key, like = "none beside "+n.Input[1], x.constants[n.Input[1]]
		}
		if like == nil {
			return fmt.Errorf("its zero point or scale is not constant: %w", ErrUnsupported)
		}
		if zeros[key] == "" {
			raw := make([]byte, product(like.Dims))
			for i := range raw {
				raw[i] = 128
			}
			if input(n, 2) != "" {
				for i, v := range int8s(like) {
					raw[i] = byte(int(v) + 128)
				}
			}
			zeros[key] = x.fresh(n.Input[1] + "_zero_point_uint8")
			x.addInitializer(rawTensor(zeros[key], pb.TensorProto_UINT8, like.Dims, raw))
		}
		n.Input = append(n.Input[:2:2], zeros[key])
		n.Attribute = filter(n.Attribute, func(a *pb.AttributeProto) bool { return a.GetName() != "output_dtype" })
		return nil
	}
	fail := func(n *pb.NodeProto, i int, err error) (*Model, int, error) {
		return nil, 0, fmt.Errorf("uint8 version of model %s: node %s: %w", m.name, nodeName(n, i), err)
	}
	for i, node := range x.g.Node {
		reads := slices.ContainsFunc(node.Input, func(t string) bool { return raised[t] })
		switch {
		case isOp(node, "QuantizeLinear") && x.makesInt8(node) && x.constants[node.Input[0]] == nil:
			if err := raise(node); err != nil {
				return fail(node, i, err)
			}
			raised[node.Output[0]] = true
			n++
		case !reads:
		case isOp(node, "DequantizeLinear") && raised[node.Input[0]]:
			if err := raise(node); err != nil {
				return fail(node, i, err)
			}
		case isOp(node, moves...) && raised[node.Input[0]] && (!isOp(node, "Concat") || !slices.ContainsFunc(node.Input, func(t string) bool { return !raised[t] })):
			raised[node.Output[0]] = true
		default:
			return fail(node, i, fmt.Errorf("it reads int8 values: %w", ErrUnsupported))
		}
	}
	for _, v := range x.g.Output {
		if raised[v.GetName()] {
			return nil, 0, fmt.Errorf("uint8 version of model %s: its output %s is int8: %w", m.name, v.GetName(), ErrUnsupported)
		}
	}
	x.g.ValueInfo = filter(x.g.ValueInfo, func(v *pb.ValueInfoProto) bool { return !raised[v.GetName()] })
	x.refresh()
	x.prune()
	u, err = m.derive(x.model, "uint8 activations")
	return u, n, err
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

// Probe is a small model of one INT8 kernel, with an input that drives its sums to their ends.
type Probe struct {
	Name  string
	Model *Model // Q/DQ with int8 activations and weights; scales are powers of two, so that float32 computes the right answer too
	Shape []int64
	Value float32 // of every element of the input
}

// IntegerProbes returns a model for each kind of kernel that an engine may compute in integers. A kernel that saturates on the way, as
// those for uint8 activations do on x86 without VNNI, gives an answer far from that of the same model computed in float32.
func IntegerProbes() ([]Probe, error) {
	const channels, size = 64, 8
	var probes []Probe
	for _, p := range []struct {
		op      string
		dims    []int64
		scale   float32 // of the output
		in, out []int64
		attrs   []*pb.AttributeProto
	}{
		{"Conv", []int64{channels, channels, 1, 1}, 1 << 14, []int64{1, channels, size, size}, []int64{1, channels, size, size}, nil},
		{"Conv", []int64{channels, channels, 3, 3}, 1 << 17, []int64{1, channels, size, size}, []int64{1, channels, size - 2, size - 2}, nil},
		{"Conv", []int64{channels, 1, 3, 3}, 1 << 11, []int64{1, channels, size, size}, []int64{1, channels, size - 2, size - 2}, []*pb.AttributeProto{intAttr("group", channels)}},
		{"MatMul", []int64{channels, channels}, 1 << 14, []int64{1, channels}, []int64{1, channels}, nil},
		{"MatMul", []int64{channels, channels}, 1 << 14, []int64{size, channels}, []int64{size, channels}, nil},
	} {
		values := make([]int8, product(p.dims))
		for i := range values {
			values[i] = 127
			if i/4%3 == 2 { // sums of both signs, and pairs of one
				values[i] = -128
			}
		}
		pair := func(in, scale, out string) []*pb.NodeProto {
			return []*pb.NodeProto{
				newNode("QuantizeLinear", out+"_quantized", []string{in, scale, "zero"}, []string{out + "_quantized"}),
				newNode("DequantizeLinear", out, []string{out + "_quantized", scale, "zero"}, []string{out}),
			}
		}
		nodes := append(pair("x", "one", "a"),
			newNode("DequantizeLinear", "w", []string{"weights", "one", "zero"}, []string{"w"}),
			newNode(p.op, "sum", []string{"a", "w"}, []string{"sum"}, p.attrs...))
		g := &pb.GraphProto{
			Name: new("probe"), Node: append(nodes, pair("sum", "scale", "y")...),
			Initializer: []*pb.TensorProto{
				int8Tensor("weights", p.dims, values), int8Tensor("zero", nil, []int8{0}),
				scalarTensor("one", 1), scalarTensor("scale", p.scale),
			},
			Input: []*pb.ValueInfoProto{floatPort("x", p.in)}, Output: []*pb.ValueInfoProto{floatPort("y", p.out)},
		}
		name := fmt.Sprintf("integer %s probe %v", p.op, p.dims)
		m, err := newModel(&pb.ModelProto{
			IrVersion: new(int64(qdqIR)), Graph: g, OpsetImport: []*pb.OperatorSetIdProto{{Domain: new(""), Version: new(int64(qdqOpset))}},
		}, name, "")
		if err != nil {
			return nil, err
		}
		probes = append(probes, Probe{Name: name, Model: m, Shape: p.in, Value: 127})
	}
	return probes, nil
}
