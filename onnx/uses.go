package onnx

import "github.com/quantgate/quantgate/onnx/internal/pb"

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
