package onnx

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx/internal/pb"
	"github.com/quantgate/quantgate/tensor"
)

var integerKernels = engine.Options{IntegerKernels: true}

// exact reports whether every integer kernel gives what float32 gives for the probes, with int8 or uint8 activations.
func exact(t testing.TB, uint8s bool) error {
	t.Helper()
	probes, err := IntegerProbes()
	require.NoError(t, err)
	for _, p := range probes {
		m := p.Model
		if uint8s {
			var n int
			m, n, err = Uint8Activations(m)
			require.NoError(t, err)
			require.Equal(t, 2, n)
		}
		x := tensor.New(p.Shape...)
		for i := range x.Data {
			x.Data[i] = p.Value
		}
		right, got := run(t, p.Model, x, engine.Options{NoFusion: true})[0], run(t, m, x, integerKernels)[0]
		distinct := map[float32]bool{}
		for i, v := range right.Data {
			distinct[v] = true
			if got.Data[i] != v {
				return fmt.Errorf("%s gives %g where %g is right", p.Name, got.Data[i], v)
			}
		}
		require.NotContains(t, distinct, float32(0), p.Name)
	}
	return nil
}

// TestIntegerProbes: int8 activations are exact on every processor, uint8 ones unless their kernels saturate.
func TestIntegerProbes(t *testing.T) {
	require.NoError(t, exact(t, false))
	if err := exact(t, true); err != nil {
		t.Logf("this processor saturates: %v", err)
	}
	probes, err := IntegerProbes()
	require.NoError(t, err)
	for _, p := range probes { // or they would test float32 kernels
		counts := countOps(optimized(t, p.Model, integerKernels))
		require.Equal(t, 1, counts["QLinearConv"]+counts["QLinearMatMul"], "%s: %v", p.Name, counts)
	}
}

func countOps(m *Model) map[string]int {
	counts := map[string]int{}
	for _, n := range m.proto.Graph.Node {
		counts[n.GetOpType()]++
	}
	return counts
}

// saturating is what vpmaddubsw, the instruction that stands in for VNNI, gives for two products: their sum in 16 bits.
func saturating(a0, a1 uint8, w0, w1 int8) int32 {
	return min(max(int32(a0)*int32(w0)+int32(a1)*int32(w1), -1<<15), 1<<15-1)
}

// TestProbesWouldSaturate: the integers of every probe's uint8 form hold pairs of neighbours along the sum that 16 bits cannot, so a processor
// that adds in 16 bits gives another answer, by more than the output's scale.
func TestProbesWouldSaturate(t *testing.T) {
	probes, err := IntegerProbes()
	require.NoError(t, err)
	for _, p := range probes {
		var w *pb.TensorProto
		scale := float32(0)
		for _, i := range p.Model.proto.Graph.Initializer {
			switch i.GetName() {
			case "weights":
				w = i
			case "scale":
				values, err := floats(i)
				require.NoError(t, err)
				scale = values[0]
			}
		}
		v := int8s(w)
		stride, length := 1, len(v)/int(w.Dims[0]) // along the sum of output 0
		if len(w.Dims) == 2 {
			stride, length = int(w.Dims[1]), int(w.Dims[0])
		}
		off := int32(0)
		for k := 0; k+1 < length; k += 2 {
			a, b := v[k*stride], v[(k+1)*stride]
			off += saturating(255, 255, a, b) - 255*(int32(a)+int32(b))
		}
		require.Greater(t, max(off, -off), int32(scale), p.Name)
	}
}

// TestUint8SameLogits: uint8 activations give the very logits of int8 ones, where both compute in integers and nothing saturates.
func TestUint8SameLogits(t *testing.T) {
	if err := exact(t, true); err != nil {
		t.Skipf("SKIPPED, this tests nothing: this processor saturates: %v", err)
	}
	check := func(t *testing.T, path string) {
		m, err := Load(path)
		require.NoError(t, err)
		in := m.Inputs()[0].Shape.Clone()
		in[0] = 4
		x := randomInput(in...)
		folded, _, err := FoldBatchNorm(m)
		require.NoError(t, err)
		q, _, err := InsertQDQ(folded, observed(t, m, x), QDQOptions{})
		require.NoError(t, err)
		for name, m := range map[string]*Model{"for TensorRT": q, "pairs everywhere": roundsBehindAll(t, q)} {
			m, err := IntegerProducts(m)
			require.NoError(t, err)
			u, n, err := Uint8Activations(m)
			require.NoError(t, err)
			require.Positive(t, n, name)
			require.True(t, m.QuantizesActivations())
			requireSameBits(t, run(t, m, x, integerKernels), run(t, u, x, integerKernels))
			for _, m := range []*Model{m, u} {
				counts := countOps(optimized(t, m, integerKernels))
				require.Zero(t, counts["QLinearAdd"]+counts["QLinearMul"]+counts["QLinearGlobalAveragePool"])
				if name == "pairs everywhere" {
					require.Greater(t, counts["QLinearConv"], counts["FusedConv"]+counts["Conv"], counts)
				}
			}
		}
	}
	for _, name := range []string{"cnn", "resnet_bn", "dwsep_hswish"} {
		t.Run(name, func(t *testing.T) { check(t, filepath.Join("..", "testdata", "models", name+".onnx")) })
	}
	for _, name := range []string{"squeezenet1.1", "mobilenet_v1_0.75", "mobilenet_v1_0.25", "mobilenet_v2_1.0", "mobilenet_v3_small", "darknet_tiny"} {
		t.Run(name, func(t *testing.T) { check(t, shared(t, "imagenet", "models", name+".onnx")) })
	}
}

// roundsBehindAll puts a pair, of scale 1/16, behind every convolution of a Q/DQ model, as ONNX Runtime's own quantize_static does: then
// every convolution computes in integers.
func roundsBehindAll(t *testing.T, m *Model) *Model {
	t.Helper()
	x, err := m.index("test")
	require.NoError(t, err)
	x.g.Initializer = append(x.g.Initializer, scalar("every scale", 1./16), int8Tensor("every zero", nil, []int8{0}))
	var nodes []*pb.NodeProto
	for _, n := range x.g.Node {
		nodes = append(nodes, n)
		if !isOp(n, "Conv") {
			continue
		}
		out := n.Output[0]
		n.Output = []string{out + " sum"}
		nodes = append(nodes, newNode("QuantizeLinear", out+" q", []string{out + " sum", "every scale", "every zero"}, []string{out + " q"}),
			newNode("DequantizeLinear", out+" dq", []string{out + " q", "every scale", "every zero"}, []string{out}))
	}
	x.g.Node = nodes
	x.refresh()
	d, err := m.derive(x.model, "test")
	require.NoError(t, err)
	return d
}

func TestUint8Activations(t *testing.T) {
	init := func() []*pb.TensorProto {
		elsewhere := int8Tensor("minus3", nil, nil) // as Python's onnx.helper stores it
		elsewhere.RawData, elsewhere.Int32Data = nil, []int32{-3}
		return []*pb.TensorProto{scalar("s", 0.5), int8Tensor("zero", nil, []int8{0}), elsewhere, int8Tensor("w", []int64{2, 1, 1, 1}, []int8{1, 2})}
	}
	s := sketch{inputs: []string{"x 1x1x4x4"}, output: []string{"y"}, init: init(), nodes: []*pb.NodeProto{
		node("QuantizeLinear", "x s zero", "q"),
		node("MaxPool", "q", "pool", intsAttr("kernel_shape", 2, 2)),
		node("DequantizeLinear", "pool s zero", "a"),
		node("QuantizeLinear", "x s minus3", "r"),
		node("DequantizeLinear", "r s minus3", "b"),
		node("DequantizeLinear", "w s zero", "v"), // weights stay int8
		node("Conv", "a v", "y"),
	}}
	m := s.model(t)
	u, n, err := Uint8Activations(m)
	require.NoError(t, err)
	require.Equal(t, 2, n) // with r, which nothing needs
	require.Equal(t, []string{
		"QuantizeLinear x,s,s_zero_point_uint8 -> q",
		"MaxPool q -> pool",
		"DequantizeLinear pool,s,s_zero_point_uint8 -> a",
		"DequantizeLinear w,s,zero -> v",
		"Conv a,v -> y",
	}, ops(u))
	x := randomInput(1, 1, 4, 4)
	requireSameBits(t, run(t, m, x, engine.Options{NoFusion: true}), run(t, u, x, engine.Options{NoFusion: true}))

	s.output = []string{"b"}
	u, n, err = Uint8Activations(s.model(t))
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, []byte{125}, u.proto.Graph.Initializer[len(u.proto.Graph.Initializer)-1].RawData)
	requireSameBits(t, run(t, s.model(t), x, engine.Options{NoFusion: true}), run(t, u, x, engine.Options{NoFusion: true}))

	s.output = []string{"f"}
	s.nodes = append(s.nodes, node("Cast", "q", "f", intAttr("to", int64(pb.TensorProto_FLOAT))))
	_, _, err = Uint8Activations(s.model(t))
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorContains(t, err, `node "f" (Cast): it reads int8 values`)

	_, n, err = Uint8Activations(classifier().model(t))
	require.NoError(t, err)
	require.Zero(t, n)
	require.False(t, classifier().model(t).QuantizesActivations())
}
