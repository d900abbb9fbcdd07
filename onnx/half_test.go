package onnx

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/x448/float16"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx/internal/pb"
	"github.com/quantgate/quantgate/tensor"
)

func reducedNodes(r *FP16Report) map[string]bool {
	m := map[string]bool{}
	for _, n := range r.Nodes {
		m[n.Node] = n.Reduced
	}
	return m
}

func TestToFP16(t *testing.T) {
	m := classifier().model(t)
	h, report, err := ToFP16(m, FP16Options{})
	require.NoError(t, err)
	require.Equal(t, []string{
		"Cast x -> x_fp16",
		"Conv x_fp16,w_fp16 -> conv",
		"BatchNormalization conv,s_fp16,b_fp16,m_fp16,v_fp16 -> bn",
		"Relu bn -> relu",
		"GlobalAveragePool relu -> gap",
		"Flatten gap -> flat",
		"Gemm flat,fc_fp16,fcb_fp16 -> y_fp16",
		"Cast y_fp16 -> y",
	}, ops(h))
	require.Equal(t, m.Inputs(), h.Inputs())
	require.Equal(t, m.Outputs(), h.Outputs())
	for _, i := range h.proto.Graph.Initializer {
		require.Equal(t, pb.TensorProto_FLOAT16, pb.TensorProto_DataType(i.GetDataType()), i.GetName())
	}
	require.Len(t, report.Nodes, 6)
	require.Equal(t, 4*3*9+4*4+5*4+5, report.Weights)
	require.Empty(t, report.Warnings)

	x := randomInput(2, 3, 8, 8)
	want := run(t, m, x, engine.Options{})[0].Data
	got := run(t, h, x, engine.Options{})[0].Data
	require.InDeltaSlice(t, want, got, 0.02)
	require.NotEqual(t, want, got)
}

func TestEmulateFP16(t *testing.T) {
	m := classifier().model(t)
	e, report, err := EmulateFP16(m, FP16Options{})
	require.NoError(t, err)
	require.Equal(t, []string{
		"Cast x -> x_fp16",
		"Cast x_fp16 -> x_rounded",
		"Conv x_rounded,w_fp16 -> conv_exact",
		"Cast conv_exact -> conv_exact_fp16",
		"Cast conv_exact_fp16 -> conv",
		"BatchNormalization conv,s_fp16,b_fp16,m_fp16,v_fp16 -> bn", // rounded behind the Relu, which is the same
		"Relu bn -> relu_exact",
		"Cast relu_exact -> relu_exact_fp16",
		"Cast relu_exact_fp16 -> relu",
		"GlobalAveragePool relu -> gap_exact",
		"Cast gap_exact -> gap_exact_fp16",
		"Cast gap_exact_fp16 -> gap",
		"Flatten gap -> flat", // moves rounded values: nothing to round
		"Gemm flat,fc_fp16,fcb_fp16 -> y_exact",
		"Cast y_exact -> y_exact_fp16",
		"Cast y_exact_fp16 -> y",
	}, ops(e))
	_, same, err := ToFP16(m, FP16Options{})
	require.NoError(t, err)
	require.Equal(t, same, report)
	for _, v := range run(t, e, randomInput(2, 3, 8, 8), engine.Options{})[0].Data {
		require.Equal(t, float16.Fromfloat32(v).Float32(), v)
	}
}

// TestRoundingLater: rounding behind a Relu, Clip or MaxPool gives the values that rounding before it gives.
func TestRoundingLater(t *testing.T) {
	s := sketch{
		inputs: []string{"x 1x3x8x8"}, output: []string{"y"}, init: []*pb.TensorProto{randomTensor("w", 4, 3, 3, 3), scalar("lo", -0.3), scalar("hi", 70000)},
		nodes: []*pb.NodeProto{
			node("Conv", "x w", "conv"), node("Clip", "conv lo hi", "clip"), node("MaxPool", "clip", "y", intsAttr("kernel_shape", 2, 2)),
		},
	}
	e, _, err := EmulateFP16(s.model(t), FP16Options{})
	require.NoError(t, err)
	require.Equal(t, "MaxPool clip -> y_exact", ops(e)[4])
	s.output = []string{"y", "conv", "clip"} // as outputs of the model, each must be rounded where it stands
	each, _, err := EmulateFP16(s.model(t), FP16Options{})
	require.NoError(t, err)
	x := randomInput(1, 3, 8, 8)
	for i := range x.Data {
		x.Data[i] *= 20000 // some sums exceed 65,504
	}
	want := run(t, each, x, engine.Options{})[0].Data
	require.Contains(t, want, float32(math.Inf(1)))
	require.Equal(t, want, run(t, e, x, engine.Options{})[0].Data)
}

// large is a MatMul that reaches 160,000 from inputs and weights of 200, with a MatMul behind that brings it down to 16.
func large() sketch {
	wide, narrow := make([]float32, 16), make([]float32, 4)
	for i := range wide {
		wide[i] = 200
	}
	for i := range narrow {
		narrow[i] = 1. / 40000
	}
	return sketch{
		inputs: []string{"x 1x4"}, output: []string{"y 1x1", "big 1x4"},
		init:  []*pb.TensorProto{floatTensor("w", []int64{4, 4}, wide), floatTensor("v", []int64{4, 1}, narrow)},
		nodes: []*pb.NodeProto{node("MatMul", "x w", "big"), node("Relu", "big", "act"), node("MatMul", "act v", "y")},
	}
}

// TestOverflow: 4 x 200 x 200 is infinite in float16 and must come out so, though ONNX Runtime's CPU computes in float32.
func TestOverflow(t *testing.T) {
	m := large().model(t)
	x := &tensor.Tensor{Shape: tensor.Shape{1, 4}, Data: []float32{200, 200, 200, 200}}
	inf := float32(math.Inf(1))
	for _, o := range []engine.Options{{}, {NoFusion: true}} {
		require.Equal(t, []float32{160000, 160000, 160000, 160000}, run(t, m, x, o)[1].Data)

		e, _, err := EmulateFP16(m, FP16Options{})
		require.NoError(t, err)
		out := run(t, e, x, o)
		require.Equal(t, []float32{inf, inf, inf, inf}, out[1].Data)
		require.Equal(t, []float32{inf}, out[0].Data)

		// With the range known, what makes it and what reads it stay float32, and all is finite.
		options := FP16Options{Amax: map[string]float32{"x": 200, "big": 160000, "act": 160000, "y": 16}}
		for _, rewrite := range []func(*Model, FP16Options) (*Model, *FP16Report, error){EmulateFP16, ToFP16} {
			h, report, err := rewrite(m, options)
			require.NoError(t, err)
			require.Equal(t, map[string]bool{"big": false, "act": false, "y": false}, reducedNodes(report))
			require.Len(t, report.Warnings, 3)
			require.Contains(t, report.Warnings[0], "node big (MatMul) stays float32: its output reaches 160000, beyond float16's 65504")
			require.Contains(t, report.Warnings[2], "node y (MatMul) stays float32: its input act reaches 160000")
			out := run(t, h, x, o)
			require.Equal(t, []float32{160000, 160000, 160000, 160000}, out[1].Data)
			require.InDelta(t, 16, out[0].Data[0], 0.01)
		}
	}
}

// TestMixedPrecision: Casts stand where a float32 node meets float16 ones, once a tensor, in both versions.
func TestMixedPrecision(t *testing.T) {
	m := classifier().model(t)
	options := FP16Options{KeepFloat32: map[string]bool{"relu": true, "gap": true}}
	h, report, err := ToFP16(m, options)
	require.NoError(t, err)
	require.False(t, reducedNodes(report)["relu"])
	require.Equal(t, "kept on request", report.Nodes[2].Reason)
	require.Contains(t, ops(h), "Cast bn -> bn_fp32")
	require.Contains(t, ops(h), "Relu bn_fp32 -> relu")
	require.Contains(t, ops(h), "GlobalAveragePool relu -> gap")
	require.Contains(t, ops(h), "Cast gap -> gap_fp16")
	require.Contains(t, ops(h), "Flatten gap_fp16 -> flat")
	e, same, err := EmulateFP16(m, options)
	require.NoError(t, err)
	require.Equal(t, report, same)
	require.Contains(t, ops(e), "GlobalAveragePool relu -> gap")
	require.Contains(t, ops(e), "Cast gap -> gap_fp16")
	require.Contains(t, ops(e), "Flatten gap_rounded -> flat")
	x := randomInput(2, 3, 8, 8)
	require.InDeltaSlice(t, run(t, h, x, engine.Options{})[0].Data, run(t, e, x, engine.Options{})[0].Data, 0.02)
}

func TestHalfWeights(t *testing.T) {
	m := sketch{
		inputs: []string{"x 1x4"}, output: []string{"y 1x4", "z 1x4"},
		init: []*pb.TensorProto{
			floatTensor("small", []int64{4}, []float32{1e-9, 3e-8, 1e-5, 1}), // zero, subnormal, subnormal, normal
			floatTensor("big", []int64{4}, []float32{1, 70000, 2, 3}), scalar("low", -math.MaxFloat32), scalar("high", math.MaxFloat32),
		},
		nodes: []*pb.NodeProto{
			node("Mul", "x small", "a"), node("Clip", "a low high", "y"), node("Mul", "y big", "z"),
		},
	}.model(t)
	h, report, err := ToFP16(m, FP16Options{})
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"a": true, "y": true, "z": false}, reducedNodes(report))
	require.Equal(t, 6, report.Weights)
	require.Equal(t, 3, report.Subnormal)
	require.Equal(t, 1, report.Zeroed)
	require.Equal(t, []string{
		"node z (Mul) stays float32: its weight big holds 70000, beyond float16's 65504",
		"1 of 6 weight values become zero in float16, most of them in small, 1 of 4",
	}, report.Warnings)
	x := &tensor.Tensor{Shape: tensor.Shape{1, 4}, Data: []float32{1, 1, 1, 1}}
	e, _, err := EmulateFP16(m, FP16Options{})
	require.NoError(t, err)
	for _, version := range []*Model{h, e} {
		out := run(t, version, x, engine.Options{})
		require.Zero(t, out[0].Data[0])
		require.Equal(t, float16.Fromfloat32(3e-8).Float32(), out[0].Data[1])
		require.Equal(t, out[0].Data[1]*70000, out[1].Data[1])
	}
}

// TestHalfOddities: operators without a float16 version, float inputs that must stay float32, constants as nodes, values that
// are no floats.
func TestHalfOddities(t *testing.T) {
	half := &pb.AttributeProto{Name: new("value"), Type: pb.AttributeProto_TENSOR.Enum(), T: scalar("", 0.1)}
	m := sketch{
		inputs: []string{"x 1x2x4x4"}, output: []string{"y", "float"},
		init: []*pb.TensorProto{floatTensor("scales", []int64{4}, []float32{1, 1, 2, 2}), scalar("from", 0), scalar("to", 4), scalar("step", 1)},
		nodes: []*pb.NodeProto{
			node("Constant", "", "tenth", half),
			node("Mul", "x tenth", "scaled"),
			node("Resize", "scaled - scales", "large", &pb.AttributeProto{Name: new("mode"), Type: pb.AttributeProto_STRING.Enum(), S: []byte("nearest")}),
			node("Shape", "large", "shape"),
			node("Cast", "shape", "float", intAttr("to", int64(pb.TensorProto_FLOAT))),
			node("Range", "from to step", "counted"),
			node("MaxPool", "large", "pooled", intsAttr("kernel_shape", 2, 2), intsAttr("strides", 2, 2)),
			node("Add", "pooled counted", "y"),
		},
	}.model(t)
	h, report, err := ToFP16(m, FP16Options{})
	require.NoError(t, err)
	require.Equal(t, map[string]bool{
		"scaled": true, "large": true, "shape": true, "float": true, "counted": false, "pooled": true, "y": true,
	}, reducedNodes(report))
	require.Contains(t, ops(h), "Resize scaled,,scales -> large")
	require.Contains(t, ops(h), "Cast counted -> counted_fp16")
	x := randomInput(1, 2, 4, 4)
	want := run(t, m, x, engine.Options{})
	got := run(t, h, x, engine.Options{})
	e, _, err := EmulateFP16(m, FP16Options{})
	require.NoError(t, err)
	emulated := run(t, e, x, engine.Options{})
	for i := range want {
		require.InDeltaSlice(t, want[i].Data, got[i].Data, 0.01)
		require.InDeltaSlice(t, want[i].Data, emulated[i].Data, 0.01)
	}

	integers := sketch{inputs: []string{"x 1x4"}, output: []string{"y"}, nodes: []*pb.NodeProto{node("Not", "x", "y")}}.proto(t)
	integers.Graph.Input[0].Type.GetTensorType().ElemType = new(int32(pb.TensorProto_BOOL))
	integers.Graph.Output[0].Type.GetTensorType().ElemType = new(int32(pb.TensorProto_BOOL))
	none, err := newModel(integers, "bools", "")
	require.NoError(t, err)
	_, _, err = ToFP16(none, FP16Options{})
	require.ErrorContains(t, err, "it computes nothing in float32")
}
