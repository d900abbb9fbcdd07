package onnx

import (
	"encoding/binary"
	"slices"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// infer fills in element types and, where a few rules reach, shapes. A tensor it cannot type is UNDEFINED; one whose rank it
// cannot tell has no shape. Types and shapes that the model states win.
func (x *graph) infer() {
	x.types = map[string]pb.TensorProto_DataType{}
	x.shapes = map[string][]int64{}
	for name, t := range x.constants {
		x.types[name] = pb.TensorProto_DataType(t.GetDataType())
		x.shapes[name] = append([]int64{}, t.Dims...)
	}
	for _, list := range [][]*pb.ValueInfoProto{x.g.ValueInfo, x.g.Output, x.g.Input} {
		for _, v := range list {
			t := v.GetType().GetTensorType()
			if t == nil || t.GetElemType() == 0 {
				continue
			}
			x.types[v.GetName()] = pb.TensorProto_DataType(t.GetElemType())
			if p := portOf(v); p.Shape != nil {
				x.shapes[v.GetName()] = p.Shape
			}
		}
	}
	for _, n := range x.g.Node {
		for i, out := range n.Output {
			if out == "" {
				continue
			}
			if _, stated := x.types[out]; !stated {
				x.types[out] = x.outputType(n, i)
			}
			if _, stated := x.shapes[out]; !stated && i == 0 {
				if s := x.outputShape(n); s != nil {
					x.shapes[out] = s
				}
			}
		}
	}
}

func (x *graph) outputType(n *pb.NodeProto, i int) pb.TensorProto_DataType {
	if !isONNXDomain(n.GetDomain()) {
		return pb.TensorProto_UNDEFINED
	}
	switch n.GetOpType() {
	case "Shape", "Size", "ArgMax", "ArgMin", "NonZero", "NonMaxSuppression":
		return pb.TensorProto_INT64
	case "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor", "IsNaN", "IsInf":
		return pb.TensorProto_BOOL
	case "Cast":
		return pb.TensorProto_DataType(attrInt(n, "to", 0))
	case "Constant":
		if attribute(n, "value_int") != nil {
			return pb.TensorProto_INT64
		}
		return pb.TensorProto_UNDEFINED
	case "ConstantOfShape":
		if a := attribute(n, "value"); a != nil {
			return pb.TensorProto_DataType(a.GetT().GetDataType())
		}
		return pb.TensorProto_FLOAT
	case "RandomNormal", "RandomUniform":
		return pb.TensorProto_DataType(attrInt(n, "dtype", int64(pb.TensorProto_FLOAT)))
	case "Where":
		return x.types[input(n, 1)]
	case "MaxPool", "TopK", "Unique":
		if i > 0 {
			return pb.TensorProto_INT64
		}
	case "Dropout":
		if i > 0 {
			return pb.TensorProto_BOOL
		}
	case "QuantizeLinear":
		if zero := input(n, 2); zero != "" {
			return x.types[zero]
		}
		return pb.TensorProto_UINT8
	case "DequantizeLinear":
		return x.types[input(n, 1)]
	case "ConvInteger", "MatMulInteger":
		return pb.TensorProto_INT32
	case "QLinearConv", "QLinearMatMul":
		return x.types[input(n, 7)]
	}
	return x.types[input(n, 0)]
}

// isFloat reports whether a tensor holds float values.
func (x *graph) isFloat(name string) bool {
	switch x.types[name] {
	case pb.TensorProto_FLOAT, pb.TensorProto_FLOAT16, pb.TensorProto_BFLOAT16, pb.TensorProto_DOUBLE:
		return true
	}
	return false
}

func unknownDims(rank int) []int64 {
	s := make([]int64, rank)
	for i := range s {
		s[i] = -1
	}
	return s
}

// outputShape tells the shape of a node's first output: at least its rank and batch dimension, which is what the rewrites ask
// for, and every dimension where the operator's rule is one of those below. A dimension that it cannot tell is -1.
func (x *graph) outputShape(n *pb.NodeProto) []int64 {
	in, known := x.shapes[input(n, 0)]
	if !isONNXDomain(n.GetDomain()) {
		return nil
	}
	weights := x.shapes[input(n, 1)]
	switch n.GetOpType() {
	case "Conv", "ConvTranspose":
		if !known || len(in) < 2 || len(weights) != len(in) {
			return nil
		}
		out := unknownDims(len(in))
		out[0] = in[0]
		if n.GetOpType() == "ConvTranspose" {
			out[1] = weights[1] * attrInt(n, "group", 1)
			return out
		}
		out[1] = weights[0]
		slide(n, in[2:], weights[2:], out[2:])
		return out
	case "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "Resize", "Upsample":
		if !known || len(in) < 2 {
			return nil
		}
		out := unknownDims(len(in))
		copy(out, in[:2])
		if isOp(n, "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool") {
			for i := 2; i < len(out); i++ {
				out[i] = 1
			}
		}
		if isOp(n, "MaxPool", "AveragePool", "LpPool") {
			slide(n, in[2:], attribute(n, "kernel_shape").GetInts(), out[2:])
		}
		return out
	case "Flatten":
		if !known {
			return unknownDims(2)
		}
		axis := attrInt(n, "axis", 1)
		if axis < 0 {
			axis += int64(len(in))
		}
		if axis < 0 || axis > int64(len(in)) {
			return nil
		}
		return []int64{product(in[:axis]), product(in[axis:])}
	case "Gemm":
		out := unknownDims(2)
		if known && len(in) == 2 && attrInt(n, "transA", 0) == 0 {
			out[0] = in[0]
		}
		if len(weights) == 2 {
			out[1] = weights[1-int(attrInt(n, "transB", 0))]
		}
		return out
	case "MatMul":
		if !known || len(in) < 2 || len(weights) != 2 {
			return nil
		}
		return append(append([]int64{}, in[:len(in)-1]...), weights[1])
	case "Reshape":
		t := x.constants[input(n, 1)]
		if t == nil {
			return nil
		}
		dims, ok := int64s(t)
		if !ok {
			return nil
		}
		for i, d := range dims {
			if d == 0 && attrInt(n, "allowzero", 0) == 0 {
				dims[i] = -1
				if known && i < len(in) {
					dims[i] = in[i]
				}
			}
		}
		if open := slices.Index(dims, -1); known && open >= 0 {
			rest := append(append([]int64{}, dims[:open]...), dims[open+1:]...)
			if total, others := product(in), product(rest); total >= 0 && others > 0 && total%others == 0 {
				dims[open] = total / others
			}
		}
		return dims
	case "Transpose":
		a := attribute(n, "perm")
		if !known || a == nil || len(a.Ints) != len(in) {
			return nil
		}
		out := make([]int64, len(in))
		for i, p := range a.Ints {
			if p < 0 || p >= int64(len(in)) {
				return nil
			}
			out[i] = in[p]
		}
		return out
	case "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "PRelu":
		return x.broadcast(n.Input)
	case "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin":
		if known && attrInt(n, "keepdims", 1) != 0 {
			return unknownDims(len(in))
		}
		return nil
	case "Concat":
		return x.concatenated(n)
	case "Pad":
		if !known {
			return nil
		}
		return x.padded(n, in)
	case "Slice", "Tile", "DepthToSpace", "SpaceToDepth", "Split":
		if !known {
			return nil
		}
		out := unknownDims(len(in))
		if isOp(n, "DepthToSpace", "SpaceToDepth") {
			out[0] = in[0]
		}
		return out
	case "Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Selu", "Celu", "Gelu", "Mish", "Softplus",
		"Softsign", "ThresholdedRelu", "Swish", "Exp", "Log", "Sqrt", "Abs", "Neg", "Erf", "Softmax", "LogSoftmax", "BatchNormalization",
		"InstanceNormalization", "LayerNormalization", "GroupNormalization", "LRN", "LpNormalization", "Identity", "Dropout", "Cast",
		"QuantizeLinear", "DequantizeLinear":
		if known {
			return append([]int64{}, in...)
		}
	}
	return nil
}

// maxDim bounds the dimensions, strides and paddings that are computed with, so that nothing overflows.
const maxDim = 1 << 31

// slide sets out to the number of places that a window of Conv or of a pooling takes along each spatial dimension, and leaves
// those open that it cannot tell.
func slide(n *pb.NodeProto, in, kernel, out []int64) {
	rank := len(in)
	ints := func(name string, length int, otherwise int64) []int64 {
		v := attribute(n, name).GetInts()
		if len(v) != length {
			v = make([]int64, length)
			for i := range v {
				v[i] = otherwise
			}
		}
		return v
	}
	if len(kernel) != rank {
		return
	}
	strides, dilations, pads := ints("strides", rank, 1), ints("dilations", rank, 1), ints("pads", 2*rank, 0)
	auto := string(attribute(n, "auto_pad").GetS())
	for i := range rank {
		begin, end := pads[i], pads[rank+i]
		if auto == "VALID" {
			begin, end = 0, 0
		}
		sane := true
		for _, v := range []int64{in[i], kernel[i], strides[i], dilations[i], begin, end} {
			sane = sane && v >= 0 && v < maxDim
		}
		if !sane || in[i] == 0 || kernel[i] == 0 || strides[i] == 0 || kernel[i]*dilations[i] > maxDim {
			continue
		}
		room := in[i] + begin + end - (kernel[i]-1)*dilations[i] - 1
		switch ceil := attrInt(n, "ceil_mode", 0) != 0; {
		case auto == "SAME_UPPER" || auto == "SAME_LOWER":
			out[i] = (in[i] + strides[i] - 1) / strides[i]
		case room < 0:
		case !ceil:
			out[i] = room/strides[i] + 1
		default:
			// Whether a last window that starts in the padding counts differs from version to version: left open.
			if last := (room + strides[i] - 1) / strides[i]; last*strides[i] < in[i]+begin {
				out[i] = last + 1
			}
		}
	}
}

// concatenated is the shape of a Concat: sizes add up along its axis and agree elsewhere.
func (x *graph) concatenated(n *pb.NodeProto) []int64 {
	first, known := x.shapes[input(n, 0)]
	if !known {
		return nil
	}
	axis := attrInt(n, "axis", -1)
	if axis < 0 {
		axis += int64(len(first))
	}
	out := append([]int64{}, first...)
	for i, name := range n.Input {
		s, known := x.shapes[name]
		if !known || len(s) != len(out) || axis < 0 || axis >= int64(len(out)) {
			out = unknownDims(len(first))
			if axis > 0 {
				out[0] = first[0]
			}
			return out
		}
		for d := range out {
			switch {
			case i == 0:
			case int64(d) != axis && out[d] < 0:
				out[d] = s[d]
			case int64(d) != axis:
			case out[d] < 0 || s[d] < 0:
				out[d] = -1
			default:
				out[d] += s[d]
			}
		}
	}
	return out
}

// padded is the shape of a Pad whose paddings are an attribute or a constant for all axes.
func (x *graph) padded(n *pb.NodeProto, in []int64) []int64 {
	out := unknownDims(len(in))
	pads := attribute(n, "pads").GetInts()
	if t := x.constants[input(n, 1)]; t != nil && input(n, 3) == "" {
		pads, _ = int64s(t)
	}
	if len(pads) != 2*len(in) {
		return out
	}
	for i := range in {
		if begin, end := pads[i], pads[len(in)+i]; in[i] >= 0 && max(in[i], begin, -begin, end, -end) < maxDim && in[i]+begin+end >= 0 {
			out[i] = in[i] + begin + end
		}
	}
	return out
}

func product(dims []int64) int64 {
	p := int64(1)
	for _, d := range dims {
		if d < 0 {
			return -1
		}
		p *= d
	}
	return p
}

// broadcast is the shape that the inputs of an elementwise operator spread to, nil where one is unknown.
func (x *graph) broadcast(inputs []string) []int64 {
	var out []int64
	for _, name := range inputs {
		s, known := x.shapes[name]
		if !known {
			return nil
		}
		for len(out) < len(s) {
			out = append([]int64{1}, out...)
		}
		for i := range s {
			j := len(out) - len(s) + i
			switch {
			case out[j] == 1:
				out[j] = s[i]
			case s[i] > 1:
				out[j] = s[i]
			}
		}
	}
	return out
}

// int64s returns the values of an INT64 tensor.
func int64s(t *pb.TensorProto) ([]int64, bool) {
	if pb.TensorProto_DataType(t.GetDataType()) != pb.TensorProto_INT64 || validateTensor(t) != nil {
		return nil, false
	}
	if t.RawData == nil {
		return append([]int64{}, t.Int64Data...), true
	}
	out := make([]int64, len(t.RawData)/8)
	for i := range out {
		out[i] = int64(binary.LittleEndian.Uint64(t.RawData[8*i:]))
	}
	return out, true
}
