package onnx

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx/internal/pb"
	"github.com/quantgate/quantgate/tensor"
)

func seen(entry string, low, high float32) View { return View{Entry: entry, Low: low, High: high} }

func through(entry, op string, alpha, beta float32) View {
	v := seen(entry, float32(math.Inf(-1)), float32(math.Inf(1)))
	v.Func = Func{op, alpha, beta}
	return v
}

func TestSources(t *testing.T) {
	inf := float32(math.Inf(1))
	scalars := []*pb.TensorProto{
		floatTensor("zero", nil, []float32{0}), floatTensor("six", nil, []float32{6}), floatTensor("one", nil, []float32{1}),
		floatTensor("row", []int64{1, 4}, []float32{1, 2, 3, 4}),
	}
	openClip := node("Clip", "x x six", "y")
	openClip.Input[1] = ""
	for name, c := range map[string]struct {
		opset int
		nodes []*pb.NodeProto
		want  []Source
	}{
		"relu": {13, []*pb.NodeProto{node("Exp", "x", "e"), node("Relu", "e", "y")}, []Source{
			{"x", []View{seen("x", -inf, inf)}}, {"e", []View{seen("e", -inf, inf), seen("y", 0, inf)}},
		}},
		"of the input":         {13, []*pb.NodeProto{node("Relu", "x", "y")}, []Source{{"x", []View{seen("x", -inf, inf), seen("y", 0, inf)}}}},
		"clip":                 {13, []*pb.NodeProto{node("Clip", "x zero six", "y")}, []Source{{"x", []View{seen("x", -inf, inf), seen("y", 0, 6)}}}},
		"clip without a bound": {13, []*pb.NodeProto{openClip}, []Source{{"x", []View{seen("x", -inf, inf), seen("y", -inf, 6)}}}},
		"clip of opset 10": {10, []*pb.NodeProto{node("Clip", "x", "y", floatAttr("min", -1), floatAttr("max", 2))}, []Source{
			{"x", []View{seen("x", -inf, inf), seen("y", -1, 2)}},
		}},
		"clip away from zero": {13, []*pb.NodeProto{node("Clip", "x one six", "y")}, []Source{
			{"x", []View{seen("x", -inf, inf)}}, {"y", []View{seen("y", -inf, inf)}},
		}},
		"clip to a computed bound": {13, []*pb.NodeProto{node("ReduceMax", "x", "m", intAttr("keepdims", 0)), node("Clip", "x zero m", "y")}, []Source{
			{"x", []View{seen("x", -inf, inf)}}, {"m", []View{seen("m", -inf, inf)}}, {"y", []View{seen("y", -inf, inf)}},
		}},
		"a chain": {13, []*pb.NodeProto{node("Relu", "x", "r"), node("Flatten", "r", "f"), node("Clip", "f zero six", "y")}, []Source{
			{"x", []View{seen("x", -inf, inf), seen("r", 0, inf), seen("f", 0, inf), seen("y", 0, 6)}},
		}},
		"concat": {13, []*pb.NodeProto{node("Exp", "x", "e"), node("Relu", "x", "r"), node("Concat", "e r r", "y", intAttr("axis", 1))}, []Source{
			{"x", []View{seen("x", -inf, inf), seen("r", 0, inf), seen("y", 0, inf), seen("y", 0, inf)}}, {"e", []View{seen("e", -inf, inf), seen("y", -inf, inf)}},
		}},
		"a hard-swish": {14, []*pb.NodeProto{node("Exp", "x", "e"), node("HardSwish", "e", "y")}, []Source{
			{"x", []View{seen("x", -inf, inf)}}, {"e", []View{
				seen("e", -inf, inf), through("(Unnamed Layer* 1) [Activation]_output", "HardSigmoid", 1./6, 0.5), through("y", "HardSwish", 1./6, 0.5),
			}},
		}},
		"a hard-swish in two nodes": {13, []*pb.NodeProto{node("HardSigmoid", "x", "g", floatAttr("alpha", 0.25)), node("Mul", "g x", "y")}, []Source{
			{"x", []View{seen("x", -inf, inf), through("g", "HardSigmoid", 0.25, 0.5), through("y", "HardSwish", 0.25, 0.5)}},
		}},
		"a product with another's gate": {13, []*pb.NodeProto{node("Exp", "x", "e"), node("HardSigmoid", "e", "g"), node("Mul", "g x", "y")}, []Source{
			{"x", []View{seen("x", -inf, inf)}}, {"e", []View{seen("e", -inf, inf), through("g", "HardSigmoid", 0.2, 0.5)}},
			{"y", []View{seen("y", -inf, inf)}},
		}},
		"a gate of a Relu": {13, []*pb.NodeProto{node("Relu", "x", "r"), node("HardSigmoid", "r", "y")}, []Source{
			{"x", []View{seen("x", -inf, inf), seen("r", 0, inf)}}, {"y", []View{seen("y", -inf, inf)}},
		}},
		"a Clip of a hard-swish": {14, []*pb.NodeProto{node("HardSwish", "x", "h"), node("Clip", "h zero six", "y")}, []Source{
			{"x", []View{
				seen("x", -inf, inf), through("(Unnamed Layer* 0) [Activation]_output", "HardSigmoid", 1./6, 0.5), through("h", "HardSwish", 1./6, 0.5),
				{"y", 0, 6, Func{"HardSwish", 1. / 6, 0.5}},
			}},
		}},
		"concat with a constant": {13, []*pb.NodeProto{node("Concat", "x row", "y", intAttr("axis", 0))}, []Source{
			{"x", []View{seen("x", -inf, inf)}}, {"y", []View{seen("y", -inf, inf)}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := sketch{opset: int64(c.opset), inputs: []string{"x 2x4"}, output: []string{"y"}, init: scalars, nodes: c.nodes}.model(t)
			p, err := Plan(m)
			require.NoError(t, err)
			require.Equal(t, c.want, p.Sources(true))
			if !slices.ContainsFunc(c.want, func(s Source) bool {
				return slices.ContainsFunc(s.Views, func(v View) bool { return v.Func != Func{} })
			}) {
				require.Equal(t, c.want, p.Sources(false))
			}
		})
	}
}

// apply computes a function as ONNX Runtime does, with a rounding after each operation.
func apply(f Func, x float32) float32 {
	gate := min(max(float32(f.Alpha*x)+f.Beta, 0), 1)
	switch f.Op {
	case "HardSigmoid":
		return gate
	case "HardSwish":
		return x * gate
	default:
		return x
	}
}

// TestSourcesHoldTheirViews: on every model here, an entry's tensor holds exactly the values that its views show.
func TestSourcesHoldTheirViews(t *testing.T) {
	derived := 0
	for _, dir := range []string{"", "tiny"} {
		files, err := filepath.Glob(filepath.Join("..", "testdata", "models", dir, "*.onnx"))
		require.NoError(t, err)
		for _, file := range files {
			m, err := Load(file)
			if err != nil {
				continue
			}
			p, err := Plan(m)
			in, errIn := m.ImageInput()
			if err != nil || errIn != nil || filepath.Base(file) == "custom_op.onnx" { // an operator that no engine has
				continue
			}
			for i := range in.Shape {
				if in.Shape[i] < 0 {
					in.Shape[i] = []int64{1, 1, 28, 28}[i]
				}
			}
			tapped, err := Tap(m, p.Observed())
			require.NoError(t, err, file)
			values := map[string][]float32{}
			for i, out := range run(t, tapped, randomInput(in.Shape...), engine.Options{NoFusion: true}) {
				values[p.Observed()[i]] = slices.Clone(out.Data)
			}
			shown := map[string][]float32{}
			tensors := map[string]string{}
			for _, e := range p.Entries {
				tensors[e.Name] = e.Tensor
			}
			for _, s := range p.Sources(true) {
				for _, v := range s.Views {
					for _, x := range values[s.Tensor] {
						shown[v.Entry] = append(shown[v.Entry], min(max(apply(v.Func, x), v.Low), v.High))
					}
				}
				derived += len(s.Views) - 1
			}
			for entry, want := range shown {
				got := values[tensors[entry]]
				slices.Sort(got)
				slices.Sort(want)
				require.True(t, slices.EqualFunc(want, got, func(a, b float32) bool { return a == b || a != a && b != b }), "%s: %s", file, entry)
			}
		}
	}
	require.Greater(t, derived, 60, "the models here derive N entries")
}

// TestNaNBehindBounds: ONNX Runtime hands a NaN on, as the views of a source do.
func TestNaNBehindBounds(t *testing.T) {
	m := sketch{
		opset: 13, inputs: []string{"x 1x20"}, output: []string{"r", "c"},
		init:  []*pb.TensorProto{floatTensor("zero", nil, []float32{0}), floatTensor("six", nil, []float32{6})},
		nodes: []*pb.NodeProto{node("Relu", "x", "r"), node("Clip", "x zero six", "c")},
	}.model(t)
	x := tensor.New(1, 20)
	for i := range x.Data {
		x.Data[i] = float32(math.NaN())
	}
	out := run(t, m, x, engine.Options{NoFusion: true})
	for _, o := range out {
		for _, v := range o.Data {
			require.True(t, v != v, "%v", o.Data)
		}
	}
}
