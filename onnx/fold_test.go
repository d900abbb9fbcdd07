package onnx

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// normParams are the four parameters of a BatchNormalization over n channels, named s, b, m and v.
func normParams(n int64) []*pb.TensorProto {
	return []*pb.TensorProto{randomTensor("s", n), randomTensor("b", n), randomTensor("m", n), positiveTensor("v", n)}
}

func TestFoldBatchNorm(t *testing.T) {
	norm := node("BatchNormalization", "before s b m v", "y", floatAttr("epsilon", 1e-3))
	for name, c := range map[string]struct {
		in, out string
		init    []*pb.TensorProto
		nodes   []*pb.NodeProto
	}{
		"conv": {
			"x 2x3x5x5", "y 2x4x3x3", append(normParams(4), randomTensor("w", 4, 3, 3, 3)),
			[]*pb.NodeProto{node("Conv", "x w", "before")},
		},
		"conv with bias": {
			"x 2x3x5x5", "y 2x4x3x3", append(normParams(4), randomTensor("w", 4, 3, 3, 3), randomTensor("c", 4)),
			[]*pb.NodeProto{node("Conv", "x w c", "before")},
		},
		"grouped conv": {
			"x 2x6x5x5", "y 2x4x3x3", append(normParams(4), randomTensor("w", 4, 3, 3, 3)),
			[]*pb.NodeProto{node("Conv", "x w", "before", intAttr("group", 2))},
		},
		"depthwise conv": {
			"x 2x6x5x5", "y 2x6x3x3", append(normParams(6), randomTensor("w", 6, 1, 3, 3)),
			[]*pb.NodeProto{node("Conv", "x w", "before", intAttr("group", 6))},
		},
		"transposed conv": {
			"x 2x4x3x3", "y 2x6x5x5", append(normParams(6), randomTensor("w", 4, 3, 3, 3), randomTensor("c", 6)),
			[]*pb.NodeProto{node("ConvTranspose", "x w c", "before", intAttr("group", 2))},
		},
		"gemm": {
			"x 2x3", "y 2x4", append(normParams(4), randomTensor("w", 3, 4), randomTensor("c", 4)),
			[]*pb.NodeProto{node("Gemm", "x w c", "before", floatAttr("alpha", 0.5), floatAttr("beta", 2))},
		},
		"gemm, weights transposed, one bias": {
			"x 2x3", "y 2x4", append(normParams(4), randomTensor("w", 4, 3), randomTensor("c", 1)),
			[]*pb.NodeProto{node("Gemm", "x w c", "before", intAttr("transB", 1))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := sketch{inputs: []string{c.in}, output: []string{c.out}, init: c.init, nodes: append(c.nodes, norm)}.model(t)
			folded, names, err := FoldBatchNorm(m)
			require.NoError(t, err)
			require.Equal(t, []string{"y"}, names)
			require.Len(t, folded.proto.Graph.Node, 1)
			require.Equal(t, []string{"y"}, folded.proto.Graph.Node[0].Output)
			require.Len(t, folded.proto.Graph.Initializer, 2)

			in, _ := m.Inputs()[0].Shape.Elems()
			require.Positive(t, in)
			x := randomInput(m.Inputs()[0].Shape...)
			want := run(t, m, x, engine.Options{NoFusion: true})[0]
			got := run(t, folded, x, engine.Options{NoFusion: true})[0]
			require.InDeltaSlice(t, want.Data, got.Data, 2e-5) // a few roundings of values up to 30
		})
	}
}

func TestFoldBatchNormLeavesOthers(t *testing.T) {
	conv := node("Conv", "x w", "before")
	norm := node("BatchNormalization", "before s b m v", "y")
	base := append(normParams(4), randomTensor("w", 4, 3, 1, 1))
	for name, c := range map[string]sketch{
		"the output is read twice": {output: []string{"y"}, init: base, nodes: []*pb.NodeProto{
			conv, node("BatchNormalization", "before s b m v", "bn"), node("Add", "bn before", "y"),
		}},
		"the output is the model's": {output: []string{"y", "before"}, init: base, nodes: []*pb.NodeProto{conv, norm}},
		"training": {output: []string{"y"}, init: base, nodes: []*pb.NodeProto{
			conv, node("BatchNormalization", "before s b m v", "y", intAttr("training_mode", 1)),
		}},
		"no conv before it": {output: []string{"y"}, init: base, nodes: []*pb.NodeProto{
			conv, node("Relu", "before", "relu"), node("BatchNormalization", "relu s b m v", "y"),
		}},
		"computed parameters": {output: []string{"y"}, init: base, nodes: []*pb.NodeProto{
			conv, node("Relu", "s", "positive"), node("BatchNormalization", "before positive b m v", "y"),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c.inputs = []string{"x 1x3x4x4"}
			m := c.model(t)
			folded, names, err := FoldBatchNorm(m)
			require.NoError(t, err)
			require.Empty(t, names)
			require.Equal(t, ops(m), ops(folded))
		})
	}

	c := sketch{inputs: []string{"x 1x3x4x4"}, output: []string{"y"}, init: base, nodes: []*pb.NodeProto{conv, norm}}
	c.init = append([]*pb.TensorProto{randomTensor("s", 3)}, base[1:]...)
	_, _, err := FoldBatchNorm(c.model(t))
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, `node "y" (BatchNormalization): its parameters differ in length`)
}

// TestFoldSharedWeights: a weight that two nodes read is folded into one of them only.
func TestFoldSharedWeights(t *testing.T) {
	m := sketch{
		inputs: []string{"x 1x4x4x4"}, output: []string{"y 1x4x4x4"}, init: append(normParams(4), randomTensor("w", 4, 4, 1, 1)),
		nodes: []*pb.NodeProto{
			node("Conv", "x w", "a"), node("BatchNormalization", "a s b m v", "bn"), node("Conv", "bn w", "y"),
		},
	}.model(t)
	folded, names, err := FoldBatchNorm(m)
	require.NoError(t, err)
	require.Equal(t, []string{"bn"}, names)
	require.Equal(t, []string{"Conv x,w_folded,bn_bias -> bn", "Conv bn,w -> y"}, ops(folded))
	x := randomInput(1, 4, 4, 4)
	require.InDeltaSlice(t, run(t, m, x, engine.Options{})[0].Data, run(t, folded, x, engine.Options{})[0].Data, 1e-4)
}
