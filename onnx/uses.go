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
