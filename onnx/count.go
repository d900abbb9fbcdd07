package onnx

import (
	"fmt"
	"slices"

	"github.com/quantgate/quantgate/onnx/internal/pb"
	"github.com/quantgate/quantgate/tensor"
)

// NodeCount is what one node costs.
type NodeCount struct {
	Name         string       `json:"name"`
	Op           string       `json:"op"`
	Output       tensor.Shape `json:"output"` // of the first output, a dynamic batch as 1; nil where it cannot be told
	Parameters   int64        `json:"parameters"`
	MultiplyAdds int64        `json:"multiply_adds"`
}

// Counts is what a model costs, in all and node by node in graph order.
type Counts struct {
	Parameters   int64       `json:"parameters"`
	MultiplyAdds int64       `json:"multiply_adds"`
	Nodes        []NodeCount `json:"nodes"`
}

// parameterInputs gives the inputs at which an operator reads what training learned. A BatchNormalization's running mean and
// variance are estimated, not learned, and published counts leave them out.
var parameterInputs = map[string][]int{
	"Conv": {1, 2}, "ConvTranspose": {1, 2}, "Gemm": {0, 1, 2}, "MatMul": {0, 1}, "BatchNormalization": {1, 2},
	"InstanceNormalization": {1, 2}, "LayerNormalization": {1, 2}, "GroupNormalization": {1, 2}, "PRelu": {1},
	"Add": {0, 1}, "Sub": {0, 1}, "Mul": {0, 1}, "Div": {0, 1}, "QuantizeLinear": {0}, "DequantizeLinear": {0},
}

// uncounted lists the operators that multiply and whose cost no rule below tells.
var uncounted = []string{
	"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "DeformConv", "Einsum", "Attention", "LSTM", "GRU", "RNN", "Loop", "Scan", "If",
}

// Count counts a model's parameters and multiply-adds. Parameters are the values of the constants that nodes use as weights,
// biases and scales, each once; scalars are not counted. Multiply-adds are those of convolutions and matrix products for one
// image where the batch is dynamic, else for the model's batch; biases, normalisation, activations and pooling are left out, as in
// published counts.
func (m *Model) Count() (*Counts, error) {
	x, err := m.index("count")
	if err != nil {
		return nil, err
	}
	stated := x.shapes
	// What the model states about its inside has an open batch, and would win over what follows from a batch of one.
	x.g.ValueInfo, x.g.Output = nil, nil
	for _, v := range x.g.Input {
		if dims := v.GetType().GetTensorType().GetShape().GetDim(); len(dims) > 0 && portOf(v).Shape[0] < 0 {
			dims[0].Value = &pb.TensorShapeProto_Dimension_DimValue{DimValue: 1}
		}
	}
	x.infer()
	shape := func(name string) tensor.Shape {
		s, known := x.shapes[name]
		if told, ok := stated[name]; ok && (!known || product(s) < 0) {
			s = slices.Clone(told)
			if len(s) > 0 && s[0] < 0 {
				s[0] = 1
			}
		}
		return s
	}
	counts := &Counts{}
	counted := map[string]bool{}
	for i, n := range x.g.Node {
		if !isONNXDomain(n.GetDomain()) || isOp(n, uncounted...) {
			return nil, fmt.Errorf("count of model %s: node %s: its multiply-adds cannot be told: %w", m.name, nodeName(n, i), ErrUnsupported)
		}
		c := NodeCount{Name: label(n), Op: n.GetOpType()}
		if len(n.Output) > 0 {
			c.Output = shape(n.Output[0])
		}
		for _, at := range parameterInputs[n.GetOpType()] {
			t := x.constants[input(n, at)]
			if t == nil || len(t.Dims) == 0 || counted[input(n, at)] {
				continue
			}
			counted[input(n, at)] = true
			c.Parameters += product(t.Dims)
		}
		if isOp(n, "Conv", "ConvTranspose", "Gemm", "MatMul") {
			if c.MultiplyAdds = multiplyAdds(n, shape); c.MultiplyAdds < 0 {
				return nil, fmt.Errorf("count of model %s: node %s: its shape cannot be told: fix the input's size, or run ONNX's shape inference over the model: %w",
					m.name, nodeName(n, i), ErrUnsupported)
			}
		}
		counts.Parameters += c.Parameters
		counts.MultiplyAdds += c.MultiplyAdds
		counts.Nodes = append(counts.Nodes, c)
	}
	return counts, nil
}

// multiplyAdds is the number of products that a Conv, ConvTranspose, Gemm or MatMul sums, -1 where a shape is open.
func multiplyAdds(n *pb.NodeProto, shape func(string) tensor.Shape) int64 {
	in, weights := shape(input(n, 0)), shape(input(n, 1))
	outer, inner := shape(n.Output[0]), []int64(nil)
	switch {
	case in == nil || len(weights) == 0 || outer == nil:
		return -1
	case isOp(n, "Conv"):
		inner = weights[1:]
	case isOp(n, "ConvTranspose"):
		outer, inner = in, weights[1:]
	case len(weights) < 2 || len(in) < 2:
		return -1
	case isOp(n, "Gemm"):
		inner = weights[:1]
		if attrInt(n, "transB", 0) != 0 {
			inner = weights[1:2]
		}
	default:
		inner = in[len(in)-1:]
	}
	p := product(append(slices.Clone(outer), inner...))
	return max(p, -1)
}
