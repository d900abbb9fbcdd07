package onnx

import "github.com/quantgate/quantgate/onnx/internal/pb"

// UsesQDQ reports whether the model says itself where it computes in INT8, by QuantizeLinear and DequantizeLinear nodes.
func (m *Model) UsesQDQ() bool {
	for _, n := range m.proto.GetGraph().GetNode() {
		if op := n.GetOpType(); op == "QuantizeLinear" || op == "DequantizeLinear" {
			return true
		}
	}
	return false
}

// QuantizesActivations reports whether the model has a QuantizeLinear of a value that is no constant.
func (m *Model) QuantizesActivations() bool {
	constant := map[string]bool{}
	for _, t := range m.proto.GetGraph().GetInitializer() {
		constant[t.GetName()] = true
	}
	for _, n := range m.proto.GetGraph().GetNode() {
		if constantValue(n) != nil {
			constant[n.Output[0]] = true
		}
		if isOp(n, "QuantizeLinear") && !constant[input(n, 0)] {
			return true
		}
	}
	return false
}

// UsesFloat16 reports whether the model stores weights in float16 or casts to it.
func (m *Model) UsesFloat16() bool {
	half := int32(pb.TensorProto_FLOAT16)
	for _, t := range m.proto.GetGraph().GetInitializer() {
		if t.GetDataType() == half {
			return true
		}
	}
	for _, n := range m.proto.GetGraph().GetNode() {
		if n.GetOpType() == "Cast" && attrInt(n, "to", 0) == int64(half) {
			return true
		}
	}
	return false
}
