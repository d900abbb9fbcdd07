package onnx

import (
	"fmt"
	"strings"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

const (
	qdqOpset = 13 // the first operator set with per-channel QuantizeLinear
	qdqIR    = 7  // the version of the file format that came with it
)

// unchanged lists the operators that mean the same in every opset from minOpset to 13, apart from attributes and types that
// were added.
var unchanged = map[string]bool{}

func init() {
	for _, op := range strings.Fields(`Abs Add And ArgMax ArgMin AveragePool Ceil Concat Constant ConstantOfShape Conv ConvTranspose
		DepthToSpace Div Elu Equal Erf Exp Expand Flatten Floor Gather Gemm GlobalAveragePool GlobalMaxPool Greater HardSigmoid
		Identity InstanceNormalization LRN LeakyRelu Less Log MatMul Max MaxPool Mean Min Mul Neg Not Or PRelu Pow Reciprocal
		ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd Relu Reshape Selu Shape Sigmoid Sign Size Softplus Softsign
		SpaceToDepth Sqrt Sub Sum Tanh ThresholdedRelu Tile Transpose Where Xor Cast GlobalLpPool LpNormalization`) {
		unchanged[op] = true
	}
}

// upgrade brings a model below opset 13 to 13: attributes that became inputs are moved, and operators whose meaning changed
// are rewritten where the result is the same. Any other operator is an error that names it.
func (x *graph) upgrade() error {
	if x.opset >= qdqOpset {
		return nil
	}
	for i, n := range x.g.Node {
		if !isONNXDomain(n.GetDomain()) || unchanged[n.GetOpType()] {
			continue
		}
		if !x.upgradeNode(n) {
			return fmt.Errorf("opset %d has no per-channel QuantizeLinear, and node %s keeps the model from opset %d: convert it with onnx.version_converter: %w",
				x.opset, nodeName(n, i), qdqOpset, ErrUnsupported)
		}
	}
	for _, o := range x.model.OpsetImport {
		if isONNXDomain(o.GetDomain()) {
			o.Version = new(int64(qdqOpset))
		}
	}
	if x.model.GetIrVersion() < qdqIR {
		x.model.IrVersion = new(int64(qdqIR))
	}
	x.opset = qdqOpset
	x.refresh()
	return nil
}

// upgradeNode rewrites one node for opset 13 and reports whether it could.
func (x *graph) upgradeNode(n *pb.NodeProto) bool {
	switch n.GetOpType() {
	case "BatchNormalization":
		if attrInt(n, "spatial", 1) != 1 {
			return false
		}
		x.dropAttrs(n, "spatial")
	case "Dropout":
		if x.opset < 12 {
			x.dropAttrs(n, "ratio")
		}
	case "Clip":
		if x.opset >= 11 {
			return true
		}
		n.Input = n.Input[:1]
		for _, bound := range []string{"min", "max"} {
			name := ""
			if a := attribute(n, bound); a != nil {
				name = x.fresh(label(n) + "_" + bound)
				x.addInitializer(floatTensor(name, nil, []float32{a.GetF()}))
			}
			n.Input = append(n.Input, name)
		}
		x.dropAttrs(n, "min", "max")
	case "Pad":
		if x.opset >= 11 {
			return true
		}
		pads := attribute(n, "pads")
		if pads == nil {
			return false
		}
		value := x.fresh(label(n) + "_value")
		x.addInitializer(floatTensor(value, nil, []float32{attrFloat(n, "value", 0)}))
		n.Input = []string{n.Input[0], x.ints(n, "pads", pads.Ints), value}
		x.dropAttrs(n, "pads", "value")
	case "Squeeze", "Unsqueeze", "ReduceSum":
		return x.attrToInput(n, "axes")
	case "Split":
		return x.attrToInput(n, "split")
	case "Slice":
		if x.opset >= 10 {
			return true
		}
		starts, ends := attribute(n, "starts"), attribute(n, "ends")
		if starts == nil || ends == nil {
			return false
		}
		n.Input = []string{n.Input[0], x.ints(n, "starts", starts.Ints), x.ints(n, "ends", ends.Ints)}
		if axes := attribute(n, "axes"); axes != nil {
			n.Input = append(n.Input, x.ints(n, "axes", axes.Ints))
		}
		x.dropAttrs(n, "starts", "ends", "axes")
	case "Softmax", "LogSoftmax":
		// Up to opset 12 all dimensions from axis on are normalised together; from 13 on, axis alone.
		axis, rank := attrInt(n, "axis", 1), int64(len(x.shapes[n.Input[0]]))
		if rank == 0 || axis != rank-1 && axis != -1 {
			return false
		}
		x.dropAttrs(n, "axis")
		n.Attribute = append(n.Attribute, intAttr("axis", -1))
	case "Resize", "TopK":
		return x.opset >= 11
	default:
		return false
	}
	return true
}

func (x *graph) dropAttrs(n *pb.NodeProto, names ...string) {
	n.Attribute = filter(n.Attribute, func(a *pb.AttributeProto) bool {
		for _, name := range names {
			if a.GetName() == name {
				return false
			}
		}
		return true
	})
}

// ints adds an initialiser for a list that was an attribute of n.
func (x *graph) ints(n *pb.NodeProto, what string, values []int64) string {
	name := x.fresh(label(n) + "_" + what)
	x.addInitializer(int64Tensor(name, values))
	return name
}

// attrToInput makes a list attribute the node's second input.
func (x *graph) attrToInput(n *pb.NodeProto, name string) bool {
	if a := attribute(n, name); a != nil {
		n.Input = []string{n.Input[0], x.ints(n, name, a.Ints)}
		x.dropAttrs(n, name)
	}
	return true
}
