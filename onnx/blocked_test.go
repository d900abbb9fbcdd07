package onnx

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/orttest"
	"github.com/quantgate/quantgate/onnx/internal/pb"
	"github.com/quantgate/quantgate/tensor"
)

// optimized is what ONNX Runtime makes of a model.
func optimized(t testing.TB, m *Model, o engine.Options) *Model {
	t.Helper()
	data, err := m.Bytes()
	require.NoError(t, err)
	s, data, err := orttest.Backend(t).OpenOptimized(context.Background(), engine.Model{Name: m.name, Data: data}, o)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	m, err = Parse(data, m.name)
	require.NoError(t, err)
	return m
}

// lean runs a model through ONNX Runtime's optimiser and KeepBlocked, and returns the result with the number of reorders before and after.
func lean(t testing.TB, m *Model, o engine.Options) (*Model, int, int) {
	t.Helper()
	x := optimized(t, m, o)
	kept, saved, err := KeepBlocked(x)
	require.NoError(t, err)
	before, after := countReorders(x), countReorders(kept)
	require.Equal(t, before-after, saved)
	return kept, before, after
}

func countReorders(m *Model) (n int) {
	for _, x := range m.proto.Graph.Node {
		if strings.HasPrefix(x.GetOpType(), "Reorder") {
			n++
		}
	}
	return n
}

// requireSameBits compares outputs to the bit: -0 is not 0, and a NaN equals itself.
func requireSameBits(t testing.TB, want, got []*tensor.Tensor) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, want[i].Shape, got[i].Shape)
		for k, v := range want[i].Data {
			if math.Float32bits(v) != math.Float32bits(got[i].Data[k]) {
				t.Fatalf("output %d, value %d: %g, want %g", i, k, got[i].Data[k], v)
			}
		}
	}
}

var blockedOptions = engine.Options{LiteralQDQ: true}

func TestKeepBlocked(t *testing.T) {
	conv := func(in, w, out string, attrs ...*pb.AttributeProto) *pb.NodeProto {
		return node("Conv", in+" "+w, out, append(attrs, intsAttr("pads", 1, 1, 1, 1))...)
	}
	cast := func(in, out string) []*pb.NodeProto {
		return []*pb.NodeProto{
			node("Cast", in, out+"_h", intAttr("to", int64(pb.TensorProto_FLOAT16))), node("Cast", out+"_h", out, intAttr("to", int64(pb.TensorProto_FLOAT))),
		}
	}
	list := func(parts ...any) (nodes []*pb.NodeProto) {
		for _, p := range parts {
			switch p := p.(type) {
			case *pb.NodeProto:
				nodes = append(nodes, p)
			case []*pb.NodeProto:
				nodes = append(nodes, p...)
			}
		}
		return nodes
	}
	two := intsAttr("strides", 2, 2)
	for name, c := range map[string]struct {
		nodes         []*pb.NodeProto
		outputs       []string
		before, after int // reorders
	}{
		"a rounding between convolutions": {list(conv("x", "w1", "a"), cast("a", "b"), conv("b", "w2", "y")), []string{"y"}, 3, 1},
		"a chain of operators": {
			list(conv("x", "w1", "a"), cast("a", "b"), node("LeakyRelu", "b", "c"), cast("c", "d"), node("HardSigmoid", "d", "e"), conv("e", "w2", "y")),
			[]string{"y"}, 3, 1,
		},
		"integers": {
			list(conv("x", "w1", "a"), node("QuantizeLinear", "a scale zero", "b"), node("Cast", "b", "c", intAttr("to", int64(pb.TensorProto_FLOAT))),
				conv("c", "w2", "y")), []string{"y"}, 3, 1,
		},
		"a scale per channel stays where it was": {
			list(conv("x", "w1", "a"), node("QuantizeLinear", "a scales zeros", "b", intAttr("axis", 1)),
				node("Cast", "b", "c", intAttr("to", int64(pb.TensorProto_FLOAT))), conv("c", "w2", "y")), []string{"y"}, 3, 3,
		},
		"an intermediate tensor that is an output too": {
			list(conv("x", "w1", "a"), cast("a", "b"), conv("b", "w2", "y")), []string{"y", "b"}, 3, 2,
		},
		"another reader of the integers": {
			list(conv("x", "w1", "a"), node("QuantizeLinear", "a scale zero", "b"), node("Cast", "b", "c", intAttr("to", int64(pb.TensorProto_FLOAT))),
				conv("c", "w2", "y"), node("Transpose", "b", "t", intsAttr("perm", 0, 2, 3, 1)), node("DequantizeLinear", "t scale zero", "z")),
			[]string{"y", "z"}, 3, 2,
		},
		"a residual sum": {
			list(conv("x", "w1", "a"), cast("a", "b"), conv("b", "w2", "c"), cast("c", "d"), conv("d", "w3", "e"), cast("e", "f"),
				node("Add", "f b", "g"), cast("g", "h"), conv("h", "w2", "y")), []string{"y"}, 7, 1,
		},
		"a sum that may broadcast": { // 8x8 and 1x1
			list(conv("x", "w1", "a"), cast("a", "b"), node("Conv", "a wide", "c"), cast("c", "d"), node("Mul", "b d", "e"), conv("e", "w2", "y")),
			[]string{"y"}, 4, 4,
		},
		"a sum after a stride": { // 4x4 and 4x4, but not known here
			list(conv("x", "w1", "a", two), cast("a", "b"), conv("x", "w4", "c", two), cast("c", "d"), node("Add", "b d", "e"), conv("e", "w2", "y")),
			[]string{"y"}, 4, 4,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := sketch{
				inputs: []string{"x ?x3x8x8"}, output: c.outputs, nodes: c.nodes,
				init: []*pb.TensorProto{ // 24 channels fill one and a half blocks
					randomTensor("w1", 24, 3, 3, 3), randomTensor("w2", 24, 24, 3, 3), randomTensor("w3", 24, 24, 3, 3), randomTensor("w4", 24, 3, 3, 3), randomTensor("wide", 24, 24, 8, 8),
					scalar("scale", 0.1), int8Tensor("zero", nil, []int8{0}),
					positiveTensor("scales", 24), int8Tensor("zeros", []int64{24}, make([]int8, 24)),
				},
			}.model(t)
			kept, before, after := lean(t, m, blockedOptions)
			if before == 0 {
				t.Skip("SKIPPED, this tests nothing: ONNX Runtime has no blocked layout on this processor")
			}
			require.Equal(t, []int{c.before, c.after}, []int{before, after}, ops(kept))
			x := randomInput(2, 3, 8, 8)
			requireSameBits(t, run(t, m, x, blockedOptions), run(t, kept, x, engine.Options{NoFusion: true}))
		})
	}
}

// observed runs the calibration taps of a model on x and returns max|x| by tensor.
func observed(t testing.TB, m *Model, x *tensor.Tensor) map[string]float32 {
	t.Helper()
	plan, err := Plan(m)
	require.NoError(t, err)
	names := plan.Observed()
	tapped, err := Tap(m, names)
	require.NoError(t, err)
	amax := map[string]float32{}
	for i, out := range run(t, tapped, x, engine.Options{NoFusion: true}) {
		name := tapped.Outputs()[i].Name
		for _, v := range out.Data {
			amax[name] = max(amax[name], float32(math.Abs(float64(v))))
		}
	}
	return plan.Ranges(amax)
}

// roundsEverywhere is EmulateFP16 without its thrift: every tensor is an output, and so rounded where it stands.
func roundsEverywhere(t *testing.T, m *Model) *Model {
	t.Helper()
	logits := m.Outputs()
	plan, err := Plan(m)
	require.NoError(t, err)
	tapped, err := Tap(m, plan.Observed())
	require.NoError(t, err)
	e, _, err := EmulateFP16(tapped, FP16Options{})
	require.NoError(t, err)
	p := copyModel(e.proto)
	p.Graph.Output = filter(p.Graph.Output, func(v *pb.ValueInfoProto) bool { return v.GetName() == logits[0].Name })
	d, err := m.derive(p, "test")
	require.NoError(t, err)
	return d
}

// scalesByNormalization is EmulateINT8 with its scales and biases in a BatchNormalization behind a Clip.
func scalesByNormalization(t *testing.T, m *Model) *Model {
	t.Helper()
	x, err := m.index("test")
	require.NoError(t, err)
	var nodes []*pb.NodeProto
	x.g.Initializer = append(x.g.Initializer, scalar("lowest", -math.MaxFloat32), scalar("highest", math.MaxFloat32))
	for _, n := range x.g.Node {
		w := x.constants[input(n, 1)]
		if !isOp(n, "Conv") || !strings.HasSuffix(n.GetName(), "_scaled") {
			nodes = append(nodes, n)
			continue
		}
		out := n.Output[0]
		c := w.Dims[0]
		scales, err := floats(w)
		require.NoError(t, err)
		ones := make([]float32, c)
		for i := range ones {
			ones[i] = 1
		}
		bias := input(n, 2)
		if bias == "" {
			bias = out + " zeros"
			x.g.Initializer = append(x.g.Initializer, floatTensor(bias, []int64{c}, make([]float32, c)))
		}
		x.g.Initializer = append(x.g.Initializer, floatTensor(out+" scales", []int64{c}, scales),
			floatTensor(out+" mean", []int64{c}, make([]float32, c)), floatTensor(out+" variance", []int64{c}, ones))
		nodes = append(nodes, newNode("Clip", out+" clip", []string{n.Input[0], "lowest", "highest"}, []string{out + " clipped"}),
			newNode("BatchNormalization", out+" norm", []string{out + " clipped", out + " scales", bias, out + " mean", out + " variance"}, []string{out}, floatAttr("epsilon", 0)))
	}
	x.g.Node = nodes
	x.refresh()
	x.prune()
	d, err := m.derive(x.model, "test")
	require.NoError(t, err)
	return d
}

// TestTwinsComputeTheSameBits: however the roundings of a twin are written down, the logits are the same.
func TestTwinsComputeTheSameBits(t *testing.T) {
	check := func(t *testing.T, path string) {
		m, err := Load(path)
		require.NoError(t, err)
		in := m.Inputs()[0].Shape.Clone()
		in[0] = 1
		x := randomInput(in...)
		amax := observed(t, m, x)
		folded, _, err := FoldBatchNorm(m)
		require.NoError(t, err)
		half, _, err := EmulateFP16(folded, FP16Options{})
		require.NoError(t, err)
		ints, _, err := EmulateINT8(folded, amax, QDQOptions{})
		require.NoError(t, err)
		for name, twin := range map[string][2]*Model{
			"fp16": {roundsEverywhere(t, folded), half},
			"int8": {scalesByNormalization(t, ints), ints},
		} {
			want := run(t, twin[0], x, engine.Options{})
			requireSameBits(t, want, run(t, twin[1], x, blockedOptions))
			kept, before, after := lean(t, twin[1], blockedOptions)
			t.Logf("%s: %d reorders, of which %d stay", name, before, after)
			requireSameBits(t, want, run(t, kept, x, engine.Options{NoFusion: true}))
		}
	}
	for _, name := range []string{"cnn", "resnet_bn", "dwsep_hswish"} {
		t.Run(name, func(t *testing.T) { check(t, filepath.Join("..", "testdata", "models", name+".onnx")) })
	}
	for _, name := range []string{"squeezenet1.1", "mobilenet_v1_0.75", "mobilenet_v1_0.25", "mobilenet_v2_1.0", "mobilenet_v3_small", "darknet_tiny"} {
		t.Run(name, func(t *testing.T) { check(t, shared(t, "imagenet", "models", name+".onnx")) })
	}
}
