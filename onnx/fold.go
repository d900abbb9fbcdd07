package onnx

import (
	"fmt"
	"math"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// FoldBatchNorm folds every BatchNormalization into the Conv, ConvTranspose or Gemm before it, where nothing else reads what
// is between them, and returns the new model with the names of the nodes that are gone. The folded node keeps its name and
// takes over the BatchNormalization's output, so that ranges calibrated on the graph as given still fit.
//
// The arithmetic is float32 in TensorRT's order: s = scale/sqrt(var+epsilon), W' = W*s, b' = b*s + (bias - mean*s).
func FoldBatchNorm(m *Model) (*Model, []string, error) {
	x, err := m.index("fold BatchNormalization")
	if err != nil {
		return nil, nil, err
	}
	gone := map[*pb.NodeProto]bool{}
	var folded []string
	for i, n := range x.g.Node {
		if !isOp(n, "BatchNormalization") {
			continue
		}
		done, err := x.foldInto(n)
		if err != nil {
			return nil, nil, fmt.Errorf("fold BatchNormalization of model %s: node %s: %w", m.name, nodeName(n, i), err)
		}
		if done {
			gone[n] = true
			folded = append(folded, label(n))
		}
	}
	x.g.Node = filter(x.g.Node, func(n *pb.NodeProto) bool { return !gone[n] })
	x.prune()
	d, err := m.derive(x.model, "BatchNormalization folded")
	return d, folded, err
}

// foldInto folds one BatchNormalization into its producer and reports whether it could.
func (x *graph) foldInto(bn *pb.NodeProto) (bool, error) {
	if len(bn.Input) != 5 || attrInt(bn, "training_mode", 0) != 0 {
		return false, nil
	}
	for _, out := range bn.Output[1:] {
		if out != "" {
			return false, nil
		}
	}
	from := x.producer[bn.Input[0]]
	if !isOp(from, "Conv", "ConvTranspose", "Gemm") || x.onlyUse(bn.Input[0]).node != bn {
		return false, nil
	}
	var params [4][]float32
	for i := range params {
		v, err := x.float32Constant(bn.Input[i+1])
		if err != nil || v == nil {
			return false, err
		}
		params[i] = v
	}
	channels := len(params[0])
	for _, p := range params {
		if len(p) != channels {
			return false, fmt.Errorf("its parameters differ in length: %w", ErrCorrupt)
		}
	}
	epsilon := attrFloat(bn, "epsilon", 1e-5)
	scale, shift := make([]float32, channels), make([]float32, channels)
	for c := range scale {
		scale[c] = params[0][c] / float32(math.Sqrt(float64(params[3][c]+epsilon)))
		shift[c] = params[1][c] - params[2][c]*scale[c]
	}

	weight := x.constants[input(from, 1)]
	w, err := x.float32Constant(input(from, 1))
	if err != nil || w == nil {
		return false, err
	}
	axes := channelAxes(from, weight.Dims)
	if axes == nil || axes.channels != channels {
		return false, nil
	}
	bias := make([]float32, channels)
	if name := input(from, 2); name != "" {
		b, err := x.float32Constant(name)
		if err != nil || b == nil || len(b) != channels && len(b) != 1 {
			return false, err
		}
		beta := float32(1)
		if isOp(from, "Gemm") {
			beta = attrFloat(from, "beta", 1)
		}
		for c := range bias {
			bias[c] = beta * b[c%len(b)]
		}
	}
	folded := make([]float32, len(w))
	for i, v := range w {
		folded[i] = v * scale[axes.channel(i)]
	}
	for c := range bias {
		bias[c] = bias[c]*scale[c] + shift[c]
	}
	names := [2]string{x.fresh(from.Input[1] + "_folded"), x.fresh(bn.Output[0] + "_bias")}
	x.addInitializer(floatTensor(names[0], weight.Dims, folded))
	x.addInitializer(floatTensor(names[1], []int64{int64(channels)}, bias))
	from.Input = []string{from.Input[0], names[0], names[1]}
	from.Attribute = filter(from.Attribute, func(a *pb.AttributeProto) bool { return a.GetName() != "beta" })
	from.Output = []string{bn.Output[0]}
	x.producer[bn.Output[0]] = from
	return true, nil
}

func (x *graph) addInitializer(t *pb.TensorProto) {
	x.g.Initializer = append(x.g.Initializer, t)
	x.constants[t.GetName()] = t
	x.types[t.GetName()] = pb.TensorProto_DataType(t.GetDataType())
	x.shapes[t.GetName()] = t.Dims
}

// float32Constant returns the values of a float32 constant, nil where the tensor is none.
func (x *graph) float32Constant(name string) ([]float32, error) {
	t := x.constants[name]
	if t == nil || pb.TensorProto_DataType(t.GetDataType()) != pb.TensorProto_FLOAT {
		return nil, nil
	}
	return floats(t)
}

// weightAxes says which output channel each value of a weight belongs to.
type weightAxes struct {
	channels int
	axis     int // the dimension that holds the channels, for ConvTranspose those of one group
	inner    int // number of values behind one step of axis
	along    int // length of axis
	outer    int // values of one group of a ConvTranspose; 0 for the others
}

func (a *weightAxes) channel(i int) int {
	c := i / a.inner % a.along
	if a.outer > 0 {
		c += i / a.outer * a.along
	}
	return c
}

// channelAxes finds the output channels in the weight of a Conv, ConvTranspose, Gemm or MatMul; nil where it has none.
func channelAxes(n *pb.NodeProto, dims []int64) *weightAxes {
	a := &weightAxes{inner: 1}
	switch {
	case isOp(n, "Conv") && len(dims) >= 2:
	case isOp(n, "ConvTranspose") && len(dims) >= 2:
		a.axis = 1
	case isOp(n, "Gemm") && len(dims) == 2:
		a.axis = 1 - int(attrInt(n, "transB", 0))
	case isOp(n, "MatMul") && len(dims) == 2:
		a.axis = 1
	default:
		return nil
	}
	if a.axis < 0 {
		return nil
	}
	total := int(product(dims))
	if total == 0 {
		return nil
	}
	a.along = int(dims[a.axis])
	for _, d := range dims[a.axis+1:] {
		a.inner *= int(d)
	}
	a.channels = a.along
	if isOp(n, "ConvTranspose") {
		group := int(attrInt(n, "group", 1))
		if group < 1 || int(dims[0])%group != 0 {
			return nil
		}
		a.outer = total / group
		a.channels = a.along * group
	}
	return a
}
