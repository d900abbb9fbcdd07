package onnx

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx/internal/pb"
)

func TestTap(t *testing.T) {
	m := classifier().model(t)
	tapped, err := Tap(m, []string{"relu", "conv"})
	require.NoError(t, err)
	require.Equal(t, []string{"Conv x,w -> conv", "BatchNormalization conv,s,b,m,v -> bn", "Relu bn -> relu"}, ops(tapped))
	require.Len(t, tapped.proto.Graph.Initializer, 5)
	require.Equal(t, []Port{portOf(port(t, "relu ?x4x8x8")), portOf(port(t, "conv ?x4x8x8"))}, tapped.Outputs())

	// An input comes out under another name, since one tensor cannot be both.
	tapped, err = Tap(m, []string{"x", "y"})
	require.NoError(t, err)
	require.Equal(t, "x_tapped", tapped.Outputs()[0].Name)
	x := randomInput(2, 3, 8, 8)
	out := run(t, tapped, x, engine.Options{})
	require.Equal(t, x.Data, out[0].Data)
	require.Equal(t, run(t, m, x, engine.Options{})[0], out[1])

	for _, c := range []struct {
		tensors []string
		want    string
	}{
		{nil, "no tensor is asked for"},
		{[]string{"z"}, `it has no tensor "z"`},
		{[]string{"y", "y"}, `tensor "y" is asked for twice`},
		{[]string{"relu" + matmulSuffix}, "it has no tensor"},
	} {
		_, err := Tap(m, c.tensors)
		require.ErrorContains(t, err, c.want)
	}
}

// TestTapInside taps what TensorRT calibrates inside a Gemm and a HardSwish.
func TestTapInside(t *testing.T) {
	m := sketch{
		opset: 14, inputs: []string{"x 2x3"}, output: []string{"y 2x4"},
		init: []*pb.TensorProto{randomTensor("w", 4, 3), floatTensor("b", []int64{4}, []float32{1, 2, 3, 4})},
		nodes: []*pb.NodeProto{
			node("HardSwish", "x", "swish"), node("Gemm", "swish w b", "y", intAttr("transB", 1)),
		},
	}.model(t)
	p, err := Plan(m)
	require.NoError(t, err)
	tapped, err := Tap(m, p.Observed())
	require.NoError(t, err)
	x := randomInput(2, 3)
	out := map[string][]float32{}
	for i, o := range run(t, tapped, x, engine.Options{}) {
		out[p.Observed()[i]] = o.Data
	}
	for i, v := range out["y"+matmulSuffix] {
		require.InDelta(t, out["y"][i]-float32(i%4+1), v, 1e-5)
	}
	for i, v := range out["swish"+hardSigmoidSuffix] {
		require.InDelta(t, min(max(x.Data[i]/6+0.5, 0), 1), v, 1e-6)
	}
}
