package onnx

import (
	"fmt"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

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
