package onnx

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx/internal/pb"
	"github.com/quantgate/quantgate/tensor"
)

func TestCount(t *testing.T) {
	c, err := classifier().model(t).Count()
	require.NoError(t, err)
	require.Equal(t, &Counts{
		Parameters: 4*3*9 + 2*4 + 5*4 + 5, MultiplyAdds: 8*8*4*27 + 4*5,
		Nodes: []NodeCount{
			{"conv", "Conv", tensor.Shape{1, 4, 8, 8}, 4 * 3 * 9, 8 * 8 * 4 * 27},
			{"bn", "BatchNormalization", tensor.Shape{1, 4, 8, 8}, 2 * 4, 0},
			{"relu", "Relu", tensor.Shape{1, 4, 8, 8}, 0, 0},
			{"gap", "GlobalAveragePool", tensor.Shape{1, 4, 1, 1}, 0, 0},
			{"flat", "Flatten", tensor.Shape{1, 4}, 0, 0},
			{"y", "Gemm", tensor.Shape{1, 5}, 5*4 + 5, 4 * 5},
		},
	}, c)
}

func TestCountOfOperators(t *testing.T) {
	for name, c := range map[string]struct {
		sketch                   sketch
		parameters, multiplyAdds int64
	}{
		"transposed convolution": {sketch{
			inputs: []string{"x ?x4x3x5"}, output: []string{"y ?x6x?x?"}, init: []*pb.TensorProto{randomTensor("w", 4, 3, 2, 2)},
			nodes: []*pb.NodeProto{node("ConvTranspose", "x w", "y", intAttr("group", 2))},
		}, 4 * 3 * 4, 4 * 3 * 5 * 3 * 4},
		"a batch that is fixed": {sketch{
			inputs: []string{"x 3x4"}, output: []string{"y 3x5"}, init: []*pb.TensorProto{randomTensor("w", 4, 5)},
			nodes: []*pb.NodeProto{node("MatMul", "x w", "y")},
		}, 20, 3 * 20},
		"a shape that only the model tells": {sketch{
			inputs: []string{"x ?x3x8x8"}, output: []string{"y ?x2x4x4"}, infos: []string{"s ?x3x4x4"},
			init:  []*pb.TensorProto{randomTensor("w", 2, 3, 1, 1), int64Tensor("from", []int64{0, 0}), int64Tensor("to", []int64{4, 4}), int64Tensor("axes", []int64{2, 3})},
			nodes: []*pb.NodeProto{node("Slice", "x from to axes", "s"), node("Conv", "s w", "y")},
		}, 6, 4 * 4 * 6},
		"weights behind Q/DQ, each once": {sketch{
			inputs: []string{"x 1x2"}, output: []string{"y 1x2", "z 1x2"},
			init: []*pb.TensorProto{int8Tensor("q", []int64{2, 2}, []int8{1, 2, 3, 4}), scalar("s", 1), int8Tensor("zero", nil, []int8{0})},
			nodes: []*pb.NodeProto{
				node("DequantizeLinear", "q s zero", "w"), node("MatMul", "x w", "y"), node("MatMul", "x w", "z"),
			},
		}, 4, 8},
		"a scale and a shift": {sketch{
			inputs: []string{"x 1x2x1x1"}, output: []string{"y"}, init: []*pb.TensorProto{randomTensor("s", 2, 1, 1), randomTensor("t", 2, 1, 1), scalar("two", 2)},
			nodes: []*pb.NodeProto{node("Mul", "x s", "a"), node("Add", "a t", "b"), node("Mul", "b two", "y")},
		}, 4, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.sketch.model(t).Count()
			require.NoError(t, err)
			require.Equal(t, c.parameters, got.Parameters)
			require.Equal(t, c.multiplyAdds, got.MultiplyAdds)
		})
	}
	_, err := sketch{
		inputs: []string{"x ?x3x?x?"}, output: []string{"y"}, init: []*pb.TensorProto{randomTensor("w", 2, 3, 1, 1)},
		nodes: []*pb.NodeProto{node("Conv", "x w", "y")},
	}.model(t).Count()
	require.ErrorContains(t, err, `node "y" (Conv): its shape cannot be told: fix the input's size`)
	_, err = sketch{
		inputs: []string{"x 2x2"}, output: []string{"y"}, nodes: []*pb.NodeProto{node("Einsum", "x x", "y")},
	}.model(t).Count()
	require.ErrorIs(t, err, ErrUnsupported)
}

// Shapes of windows, concatenations and paddings are those that ONNX Runtime computes.
func TestInferenceAgainstEngine(t *testing.T) {
	text := func(name, v string) *pb.AttributeProto {
		return &pb.AttributeProto{Name: &name, Type: pb.AttributeProto_STRING.Enum(), S: []byte(v)}
	}
	k := intsAttr("kernel_shape", 3, 2)
	for name, n := range map[string]*pb.NodeProto{
		"plain":       node("Conv", "x w", "y"),
		"stride, pad": node("Conv", "x w", "y", intsAttr("strides", 3, 2), intsAttr("pads", 1, 0, 2, 1)),
		"dilation":    node("Conv", "x w", "y", intsAttr("dilations", 2, 3)),
		"same upper":  node("Conv", "x w", "y", text("auto_pad", "SAME_UPPER"), intsAttr("strides", 2, 3)),
		"same lower":  node("MaxPool", "x", "y", k, text("auto_pad", "SAME_LOWER"), intsAttr("strides", 2, 3)),
		"valid":       node("Conv", "x w", "y", text("auto_pad", "VALID")),
		"max pool":    node("MaxPool", "x", "y", k, intsAttr("pads", 1, 0, 0, 1)),
		"ceil":        node("MaxPool", "x", "y", k, intsAttr("strides", 2, 2), intAttr("ceil_mode", 1)),
		"average":     node("AveragePool", "x", "y", k, intsAttr("strides", 2, 3)),
		"concat":      node("Concat", "x x", "y", intAttr("axis", 1)),
		"concat last": node("Concat", "x x x", "y", intAttr("axis", -1)),
		"pad":         node("Pad", "x pads", "y"),
		"reshape":     node("Reshape", "x shape", "y"),
	} {
		t.Run(name, func(t *testing.T) {
			m := sketch{
				inputs: []string{"x ?x2x9x8"}, output: []string{"y"}, nodes: []*pb.NodeProto{n},
				init: []*pb.TensorProto{
					randomTensor("w", 5, 2, 3, 2), int64Tensor("pads", []int64{0, 0, 1, 2, 0, 0, 3, -1}), int64Tensor("shape", []int64{0, 2, -1}),
				},
			}.model(t)
			counts, err := m.Count()
			require.NoError(t, err)
			out := run(t, m, randomInput(1, 2, 9, 8), engine.Options{})
			require.Equal(t, out[0].Shape, counts.Nodes[0].Output)
		})
	}
	// ONNX's versions disagree about a last window that starts in the padding.
	c, err := sketch{inputs: []string{"x 1x1x4x4"}, output: []string{"y"}, nodes: []*pb.NodeProto{
		node("MaxPool", "x", "y", intsAttr("kernel_shape", 2, 2), intsAttr("strides", 3, 3), intsAttr("pads", 1, 1, 2, 2), intAttr("ceil_mode", 1)),
	}}.model(t).Count()
	require.NoError(t, err)
	require.Equal(t, tensor.Shape{1, 1, -1, -1}, c.Nodes[0].Output)
}

// A weight without dimensions, which only the file's word for the output's shape lets through, is an error and no panic.
func TestCountOfScalarWeight(t *testing.T) {
	m := sketch{inputs: []string{"x 1x3x8x8"}, output: []string{"y 1x4x8x8"}, init: []*pb.TensorProto{randomTensor("w")}, nodes: []*pb.NodeProto{node("Conv", "x w", "y")}}.model(t)
	_, err := m.Count()
	require.ErrorContains(t, err, "its shape cannot be told")
}

// squeezenet1_1 of torchvision: num_params 1,235,496 and _ops 0.349 (10^9 multiply-adds) in the metadata of its weights.
func TestCountOfSqueezenet(t *testing.T) {
	m, err := Load(shared(t, "imagenet", "models", "squeezenet1.1.onnx"))
	require.NoError(t, err)
	c, err := m.Count()
	require.NoError(t, err)
	require.Equal(t, int64(1_235_496), c.Parameters)
	require.InDelta(t, 0.349e9, c.MultiplyAdds, 0.0005e9)
}
