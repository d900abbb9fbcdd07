package onnx

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx/internal/pb"
	"github.com/quantgate/quantgate/tensor"
)

func reasonOf(r *QDQReport, name string) string {
	for _, n := range r.Nodes {
		if n.Node == name {
			return n.Reason
		}
	}
	return "not listed"
}

func TestInsertQDQ(t *testing.T) {
	m := classifier().model(t)
	folded, _, err := FoldBatchNorm(m)
	require.NoError(t, err)
	q, report, err := InsertQDQ(folded, map[string]float32{"x": 1.27, "bn": 9, "relu": 9, "gap": 2.54, "flat": 5}, QDQOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{
		"QuantizeLinear x,x_scale,zero_point -> x_quantized",
		"DequantizeLinear x_quantized,x_scale,zero_point -> x_dequantized",
		"QuantizeLinear w_folded,w_folded_scale,zero_point_1 -> w_folded_quantized",
		"DequantizeLinear w_folded_quantized,w_folded_scale,zero_point_1 -> w_folded_dequantized",
		"Conv x_dequantized,w_folded_dequantized,bn_bias -> bn",
		"Relu bn -> relu",
		"GlobalAveragePool relu -> gap",
		"Flatten gap -> flat",
		"QuantizeLinear flat,gap_scale,zero_point -> flat_quantized", // Flatten keeps the scale of what it reads
		"DequantizeLinear flat_quantized,gap_scale,zero_point -> flat_dequantized",
		"QuantizeLinear fc,fc_scale,zero_point_2 -> fc_quantized",
		"DequantizeLinear fc_quantized,fc_scale,zero_point_2 -> fc_dequantized",
		"Gemm flat_dequantized,fc_dequantized,fcb -> y", // the logits stay float
	}, ops(q))
	require.Equal(t, []NodeReport{
		{"conv", "Conv", true, false, "int8 input, weights per channel"},
		{"relu", "Relu", false, true, "activation of conv"},
		{"gap", "GlobalAveragePool", false, false, "GlobalAveragePool stays in float"},
		{"flat", "Flatten", false, true, "keeps the scale of its input"},
		{"y", "Gemm", true, false, "int8 input, weights per channel"},
	}, report.Nodes)
	require.Empty(t, report.Warnings)

	byName := map[string]*pb.TensorProto{}
	for _, i := range q.proto.Graph.Initializer {
		byName[i.GetName()] = i
	}
	scale, err := floats(byName["x_scale"])
	require.NoError(t, err)
	require.Equal(t, []float32{float32(1.27) / 127}, scale)
	require.Empty(t, byName["x_scale"].Dims)
	require.Equal(t, []int64{4}, byName["w_folded_scale"].Dims)
	require.Equal(t, []int64{5}, byName["fc_scale"].Dims)
	require.Equal(t, pb.TensorProto_DataType(byName["bn_bias"].GetDataType()), pb.TensorProto_FLOAT)
	require.Equal(t, pb.TensorProto_DataType(byName["zero_point"].GetDataType()), pb.TensorProto_INT8)
}

// TestWeightFormsAgree: float weights that the engine quantises, integers made here, and the integer twin are one model.
func TestWeightFormsAgree(t *testing.T) {
	for name, c := range map[string]struct {
		in, out string
		nodes   []*pb.NodeProto
		init    []*pb.TensorProto
	}{
		"conv":             {"x 2x3x6x6", "y ?x8x4x4", []*pb.NodeProto{node("Conv", "x w b", "y")}, []*pb.TensorProto{randomTensor("w", 8, 3, 3, 3), randomTensor("b", 8)}},
		"conv, no bias":    {"x 2x3x6x6", "y ?x8x4x4", []*pb.NodeProto{node("Conv", "x w", "y")}, []*pb.TensorProto{randomTensor("w", 8, 3, 3, 3)}},
		"depthwise":        {"x 2x3x6x6", "y ?x3x4x4", []*pb.NodeProto{node("Conv", "x w", "y", intAttr("group", 3))}, []*pb.TensorProto{randomTensor("w", 3, 1, 3, 3)}},
		"transposed":       {"x 2x4x6x6", "y ?x6x8x8", []*pb.NodeProto{node("ConvTranspose", "x w b", "y", intAttr("group", 2))}, []*pb.TensorProto{randomTensor("w", 4, 3, 3, 3), randomTensor("b", 6)}},
		"gemm":             {"x 2x9", "y ?x4", []*pb.NodeProto{node("Gemm", "x w b", "y", floatAttr("alpha", 0.5), floatAttr("beta", 2))}, []*pb.TensorProto{randomTensor("w", 9, 4), randomTensor("b", 4)}},
		"gemm transposed":  {"x 2x9", "y ?x4", []*pb.NodeProto{node("Gemm", "x w", "y", intAttr("transB", 1))}, []*pb.TensorProto{randomTensor("w", 4, 9)}},
		"matmul":           {"x 2x5x9", "y ?x5x4", []*pb.NodeProto{node("MatMul", "x w", "y")}, []*pb.TensorProto{randomTensor("w", 9, 4)}},
		"matmul of rank 3": {"x 2x5x9", "y ?x5x4", []*pb.NodeProto{node("MatMul", "x w", "y")}, []*pb.TensorProto{randomTensor("w", 2, 9, 4)}},
	} {
		t.Run(name, func(t *testing.T) {
			m := sketch{inputs: []string{c.in}, output: []string{c.out}, init: c.init, nodes: c.nodes}.model(t)
			amax := map[string]float32{"x": 4} // no value of randomInput is larger
			x := randomInput(m.Inputs()[0].Shape...)
			var results [][]float32
			for _, form := range []WeightForm{WeightsFloat, WeightsInt8} {
				q, _, err := InsertQDQ(m, amax, QDQOptions{Weights: form})
				require.NoError(t, err)
				results = append(results, run(t, q, x, engine.Options{NoFusion: true})[0].Data)
			}
			require.Equal(t, results[0], results[1])
			e, report, err := EmulateINT8(m, amax, QDQOptions{})
			require.NoError(t, err)
			require.True(t, report.Nodes[0].Reduced)
			require.InDeltaSlice(t, results[0], run(t, e, x, engine.Options{})[0].Data, 2e-5)

			// Close to the float model, but not it: 8 bits were lost.
			want := run(t, m, x, engine.Options{})[0].Data
			require.InDeltaSlice(t, want, results[0], 0.5)
			require.NotEqual(t, want, results[0])
		})
	}
}

// TestEmulateINT8Exact compares the twin, fusions on, with sums taken in Go over integers: no more than the rounding of the
// scale and the bias may lie between them. Scales folded into the weights are several times further off.
func TestEmulateINT8Exact(t *testing.T) {
	const channels, out, size = 512, 7, 6
	w, b := randomTensor("w", out, channels, 1, 1), randomTensor("b", out)
	m := sketch{
		inputs: []string{"x 1x512x6x6"}, output: []string{"y 1x7x6x6"}, init: []*pb.TensorProto{w, b},
		nodes: []*pb.NodeProto{node("Conv", "x w b", "conv"), node("Relu", "conv", "y")},
	}.model(t)
	const amax = float32(1.9)
	e, _, err := EmulateINT8(m, map[string]float32{"x": amax}, QDQOptions{})
	require.NoError(t, err)
	x := randomInput(1, channels, size, size)
	got := run(t, e, x, engine.Options{})[0].Data

	weights, err := floats(w)
	require.NoError(t, err)
	bias, err := floats(b)
	require.NoError(t, err)
	quantise := func(v, scale float32) int {
		return int(min(max(math.RoundToEven(float64(v/scale)), -128), 127))
	}
	for o := range out {
		largest := float32(0)
		for _, v := range weights[o*channels : (o+1)*channels] {
			largest = max(largest, float32(math.Abs(float64(v))))
		}
		for p := range size * size {
			sum := 0
			for c := range channels {
				sum += quantise(x.Data[c*size*size+p], amax/127) * quantise(weights[o*channels+c], largest/127)
			}
			scale := (amax / 127) * (largest / 127)
			scaled := float64(sum) * float64(scale)
			exact := max(scaled+float64(bias[o]), 0)
			require.InDelta(t, exact, got[o*size*size+p], (math.Abs(scaled)+math.Abs(exact))/(1<<24), "channel %d, position %d", o, p)
		}
	}
}

func TestResidualAdd(t *testing.T) {
	// conv2's kernel computes the sum, so only the other input is rounded; conv1's output has one Q for both its readers.
	m := sketch{
		inputs: []string{"x 1x4x4x4"}, output: []string{"y 1x4x4x4"},
		init: []*pb.TensorProto{randomTensor("w", 4, 4, 1, 1), randomTensor("w2", 4, 4, 1, 1), randomTensor("w3", 4, 4, 1, 1)},
		nodes: []*pb.NodeProto{
			node("Conv", "x w", "a"), node("Relu", "a", "ra"), node("Conv", "ra w2", "b"), node("Add", "b ra", "sum"), node("Conv", "sum w3", "y"),
		},
	}
	q, report, err := InsertQDQ(m.model(t), map[string]float32{"x": 1, "a": 1, "ra": 2, "b": 3, "sum": 4}, QDQOptions{})
	require.NoError(t, err)
	require.Equal(t, "int8 residual, summed by b", reasonOf(report, "sum"))
	list := strings.Join(ops(q), "\n")
	require.Contains(t, list, "Add b,ra_dequantized_1 -> sum")
	require.Contains(t, list, "Conv ra_dequantized,w2_dequantized -> b")
	require.Equal(t, 1, strings.Count(list, " -> ra_quantized\n"))

	// Two activated branches: no kernel computes the sum, both are rounded.
	m.nodes = []*pb.NodeProto{
		node("Conv", "x w", "a"), node("Relu", "a", "ra"), node("Conv", "x w2", "b"), node("Relu", "b", "rb"), node("Add", "ra rb", "sum"), node("Conv", "sum w3", "y"),
	}
	q, report, err = InsertQDQ(m.model(t), map[string]float32{"x": 1, "ra": 2, "rb": 3, "sum": 4}, QDQOptions{})
	require.NoError(t, err)
	require.Equal(t, "int8 inputs", reasonOf(report, "sum"))
	require.Contains(t, strings.Join(ops(q), "\n"), "Add ra_dequantized,rb_dequantized -> sum")

	// A constant is no residual.
	m.init = append(m.init, scalar("c", 3))
	m.nodes = []*pb.NodeProto{node("Conv", "x w", "a"), node("Add", "a c", "sum"), node("Conv", "sum w3", "y")}
	q, _, err = InsertQDQ(m.model(t), map[string]float32{"x": 1, "a": 2, "sum": 4}, QDQOptions{})
	require.NoError(t, err)
	require.Contains(t, strings.Join(ops(q), "\n"), "Add a,c -> sum")
}

// TestOneScale: pooling, reshaping and transposing keep the scale of what they read, whatever calibration said of them.
func TestOneScale(t *testing.T) {
	m := sketch{
		inputs: []string{"x 1x3x4x4"}, output: []string{"y 1x16"},
		init: []*pb.TensorProto{
			randomTensor("w", 4, 3, 1, 1), randomTensor("w2", 4, 4, 1, 1), randomTensor("fc", 16, 16), int64Tensor("shape", []int64{1, 16}),
		},
		nodes: []*pb.NodeProto{
			node("Conv", "x w", "a"), node("Relu", "a", "ra"),
			node("MaxPool", "ra", "pool", intsAttr("kernel_shape", 2, 2), intsAttr("strides", 2, 2)),
			node("Conv", "pool w2", "b"), node("Conv", "ra w2", "c"),
			node("MaxPool", "c", "poolc", intsAttr("kernel_shape", 2, 2), intsAttr("strides", 2, 2)),
			node("Add", "b poolc", "sum"),
			node("Transpose", "pool", "turned", intsAttr("perm", 0, 2, 3, 1)), node("Reshape", "turned shape", "flat"), node("MatMul", "flat fc", "m"),
			node("Reshape", "sum shape", "flatsum"), node("Add", "m flatsum", "y"),
		},
	}.model(t)
	amax := map[string]float32{"x": 1, "a": 9, "ra": 2, "pool": 3, "turned": 4, "flat": 5, "c": 6, "poolc": 7, "sum": 8, "flatsum": 9, "m": 9, "b": 9}
	q, _, err := InsertQDQ(m, amax, QDQOptions{})
	require.NoError(t, err)
	for _, tensor := range []string{"ra", "pool", "flat"} {
		require.Contains(t, ops(q), fmt.Sprintf("QuantizeLinear %s,ra_scale,zero_point -> %s_quantized", tensor, tensor))
	}
	require.Contains(t, ops(q), "QuantizeLinear poolc,c_scale,zero_point -> poolc_quantized")
	run(t, q, randomInput(1, 3, 4, 4), engine.Options{})
}

// TestLeakyRelu: rounded before, where TensorRT was seen to leave it out of the Conv's kernel (more than twice as many
// channels written as read), and nowhere else; other activations never.
func TestLeakyRelu(t *testing.T) {
	for _, c := range []struct {
		op                string
		in, out, group    int64
		separate, fuseAll bool
	}{
		{"LeakyRelu", 3, 16, 1, true, false}, {"LeakyRelu", 16, 32, 1, false, false}, {"LeakyRelu", 16, 128, 1, true, false},
		{"LeakyRelu", 128, 16, 1, false, false}, {"LeakyRelu", 512, 128, 1, false, false}, {"LeakyRelu", 64, 512, 1, true, false},
		{"LeakyRelu", 32, 32, 32, false, false}, {"LeakyRelu", 16, 128, 1, false, true}, {"Relu", 16, 128, 1, false, false}, {"Clip", 3, 16, 1, false, false},
	} {
		m := sketch{
			inputs: []string{fmt.Sprintf("x 1x%dx2x2", c.in)}, output: []string{"y"}, init: []*pb.TensorProto{randomTensor("w", c.out, c.in/c.group, 1, 1)},
			nodes: []*pb.NodeProto{node("Conv", "x w", "conv", intAttr("group", c.group)), node(c.op, "conv", "y")},
		}.model(t)
		q, report, err := InsertQDQ(m, map[string]float32{"x": 1, "conv": 2, "y": 3}, QDQOptions{FuseLeakyRelu: c.fuseAll})
		require.NoError(t, err)
		require.Equal(t, c.separate, report.Nodes[1].Reduced, "%+v", c)
		require.Equal(t, c.separate, strings.Contains(strings.Join(ops(q), "\n"), c.op+" conv_dequantized -> y"), "%+v", c)
	}
}

func TestStaysInFloat(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	conv2 := func(op string, inputs string, attrs ...*pb.AttributeProto) sketch {
		return sketch{
			inputs: []string{"x 1x4x4x4"}, output: []string{"y"},
			init:  []*pb.TensorProto{randomTensor("w", 4, 4, 1, 1), randomTensor("k", 4, 4), floatTensor("bad", []int64{1, 4, 1, 1}, []float32{1, nan, 2, 3})},
			nodes: []*pb.NodeProto{node("Conv", "x w", "a"), node(op, inputs, "y", attrs...)},
		}
	}
	for name, c := range map[string]struct {
		model   sketch
		amax    map[string]float32
		keep    string
		reason  string
		warning string
	}{
		"no range":        {conv2("Conv", "a w"), map[string]float32{"x": 1}, "", "its input a has no calibrated range", "tensor a has no calibrated range"},
		"zero range":      {conv2("Conv", "a w"), map[string]float32{"x": 1, "a": 0}, "", "its input a has the range 0", "tensor a has the range 0"},
		"range NaN":       {conv2("Conv", "a w"), map[string]float32{"x": 1, "a": nan}, "", "its input a has the range NaN", "tensor a has the range NaN"},
		"range infinite":  {conv2("Conv", "a w"), map[string]float32{"x": 1, "a": inf}, "", "its input a has the range +Inf", "tensor a has the range +Inf"},
		"range too small": {conv2("Conv", "a w"), map[string]float32{"x": 1, "a": 1e-45}, "", "its input a has the range 1e-45", "tensor a has"},
		"weight NaN":      {conv2("Conv", "a bad"), map[string]float32{"x": 1, "a": 1}, "", "weight bad holds NaN", "weight bad holds NaN"},
		"kept":            {conv2("Conv", "a w"), map[string]float32{"x": 1, "a": 1}, "y", "kept on request", ""},
		"computed weight": {conv2("Conv", "a a"), map[string]float32{"x": 1, "a": 1}, "", "its weights are not constant", ""},
		"softmax":         {conv2("Softmax", "a"), map[string]float32{"x": 1, "a": 1}, "", "Softmax stays in float", ""},
		"constant first":  {conv2("MatMul", "k a"), map[string]float32{"x": 1, "a": 1}, "", "its first input is a constant", ""},
	} {
		t.Run(name, func(t *testing.T) {
			q, report, err := InsertQDQ(c.model.model(t), c.amax, QDQOptions{KeepFloat: map[string]bool{c.keep: true}})
			require.NoError(t, err)
			require.Equal(t, c.reason, reasonOf(report, "y"))
			require.Equal(t, "int8 input, weights per channel", reasonOf(report, "a"))
			last := q.proto.Graph.Node[len(q.proto.Graph.Node)-1]
			for _, in := range last.Input {
				require.NotContains(t, in, "quantized")
			}
			if c.warning == "" {
				require.Empty(t, report.Warnings)
				return
			}
			require.Len(t, report.Warnings, 1)
			require.Contains(t, report.Warnings[0], c.warning)
		})
	}
}

func TestUnknownOperator(t *testing.T) {
	custom := node("Strange", "a", "b")
	custom.Domain = new("com.example")
	m := sketch{
		inputs: []string{"x 1x4x4x4"}, output: []string{"y"}, init: []*pb.TensorProto{randomTensor("w", 4, 4, 1, 1)},
		nodes: []*pb.NodeProto{node("Conv", "x w", "a"), custom, node("Conv", "b w", "y")},
		infos: []string{"b 1x4x4x4"},
	}.model(t)
	_, report, err := InsertQDQ(m, map[string]float32{"x": 1, "a": 1, "b": 1}, QDQOptions{})
	require.NoError(t, err)
	require.Equal(t, "operator com.example.Strange is unknown: stays in float", reasonOf(report, "b"))
	require.Equal(t, "int8 input, weights per channel", reasonOf(report, "y"))
}

func TestQuantiseRefusals(t *testing.T) {
	m := classifier().model(t)
	q, _, err := InsertQDQ(m, map[string]float32{"x": 1}, QDQOptions{})
	require.NoError(t, err)
	_, _, err = InsertQDQ(q, map[string]float32{"x": 1}, QDQOptions{})
	require.ErrorContains(t, err, "the model is quantised already")
	_, _, err = InsertQDQ(m, nil, QDQOptions{})
	require.ErrorContains(t, err, `no node can be quantised; node "conv" (Conv): its input x has no calibrated range`)
	relu := sketch{inputs: []string{"x 1x3"}, output: []string{"y"}, nodes: []*pb.NodeProto{node("Relu", "x", "y")}}.model(t)
	_, _, err = InsertQDQ(relu, map[string]float32{"x": 1}, QDQOptions{})
	require.ErrorContains(t, err, "it has no Conv, ConvTranspose, Gemm or MatMul to quantise")
	require.ErrorIs(t, err, ErrUnsupported)
}

// TestUpgrade brings models of old operator sets to 13: the quantised model must run, and stay close to the float one.
func TestUpgrade(t *testing.T) {
	conv := node("Conv", "x w", "a")
	for name, c := range map[string]struct {
		opset int64
		nodes []*pb.NodeProto
	}{
		"clip":      {9, []*pb.NodeProto{node("Clip", "a", "y", floatAttr("min", -0.5), floatAttr("max", 1))}},
		"half clip": {7, []*pb.NodeProto{node("Clip", "a", "y", floatAttr("max", 1))}},
		"dropout":   {7, []*pb.NodeProto{node("Dropout", "a", "y", floatAttr("ratio", 0.3))}},
		"pad":       {9, []*pb.NodeProto{node("Pad", "a", "y", intsAttr("pads", 0, 0, 1, 1, 0, 0, 2, 2), floatAttr("value", 3))}},
		"squeeze":   {11, []*pb.NodeProto{node("GlobalAveragePool", "a", "g"), node("Squeeze", "g", "y", intsAttr("axes", 2, 3))}},
		"unsqueeze": {11, []*pb.NodeProto{node("Unsqueeze", "a", "y", intsAttr("axes", 0))}},
		"reducesum": {11, []*pb.NodeProto{node("ReduceSum", "a", "y", intsAttr("axes", 1))}},
		"split":     {11, []*pb.NodeProto{node("Split", "a", "y rest", intAttr("axis", 1), intsAttr("split", 1, 3))}},
		"slice":     {9, []*pb.NodeProto{node("Slice", "a", "y", intsAttr("axes", 2), intsAttr("starts", 1), intsAttr("ends", 3))}},
		"softmax":   {11, []*pb.NodeProto{node("Flatten", "a", "f"), node("Softmax", "f", "y")}},
		"norm":      {8, []*pb.NodeProto{node("BatchNormalization", "a s b m v", "y")}},
	} {
		t.Run(name, func(t *testing.T) {
			m := sketch{
				opset: c.opset, ir: 3, inputs: []string{"x 1x3x4x4", "w 4x3x1x1", "s 4", "b 4", "m 4", "v 4"}, output: []string{"y"},
				init: append(normParams(4), randomTensor("w", 4, 3, 1, 1)), nodes: append([]*pb.NodeProto{conv}, c.nodes...),
			}.model(t)
			q, _, err := InsertQDQ(m, map[string]float32{"x": 4}, QDQOptions{})
			require.NoError(t, err)
			require.Equal(t, 13, q.Opset())
			require.Equal(t, int64(7), q.proto.GetIrVersion())
			require.Len(t, q.Inputs(), 1)
			require.Len(t, q.proto.Graph.Input, 1)
			x := randomInput(1, 3, 4, 4)
			folded, _, err := FoldBatchNorm(m) // the float model, with its initialisers off the list of inputs
			require.NoError(t, err)
			want, got := run(t, folded, x, engine.Options{})[0], run(t, q, x, engine.Options{})[0]
			require.Equal(t, want.Shape, got.Shape)
			require.InDeltaSlice(t, want.Data, got.Data, 0.15)
		})
	}

	for name, c := range map[string]struct {
		opset int64
		nodes []*pb.NodeProto
		want  string
	}{
		"softmax over several": {11, []*pb.NodeProto{node("Softmax", "a", "y", intAttr("axis", 1))}, `node "y" (Softmax) keeps the model from opset 13`},
		"unknown":              {9, []*pb.NodeProto{node("Upsample", "a w", "y")}, `opset 9 has no per-channel QuantizeLinear, and node "y" (Upsample)`},
		"resize 10":            {10, []*pb.NodeProto{node("Resize", "a w", "y")}, `node "y" (Resize)`},
	} {
		t.Run(name, func(t *testing.T) {
			m := sketch{
				opset: c.opset, inputs: []string{"x 1x3x4x4"}, output: []string{"y"}, init: []*pb.TensorProto{randomTensor("w", 4, 3, 1, 1)},
				nodes: append([]*pb.NodeProto{conv}, c.nodes...),
			}.model(t)
			_, _, err := InsertQDQ(m, map[string]float32{"x": 1}, QDQOptions{})
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "onnx.version_converter")
			require.ErrorIs(t, err, ErrUnsupported)
		})
	}
}

// TestMatMulOfActivations: both factors of an attention's product are rounded.
func TestMatMulOfActivations(t *testing.T) {
	m := sketch{
		inputs: []string{"x 1x4x4"}, output: []string{"y 1x4x4"},
		nodes: []*pb.NodeProto{node("Transpose", "x", "t", intsAttr("perm", 0, 2, 1)), node("MatMul", "x t", "y")},
	}.model(t)
	for _, quantise := range []func(*Model, map[string]float32, QDQOptions) (*Model, *QDQReport, error){InsertQDQ, EmulateINT8} {
		q, _, err := quantise(m, map[string]float32{"x": 4, "t": 4}, QDQOptions{})
		require.NoError(t, err)
		require.Contains(t, ops(q), "MatMul x_dequantized,t_dequantized -> y")
		x := &tensor.Tensor{Shape: tensor.Shape{1, 4, 4}, Data: randomInput(1, 4, 4).Data}
		require.InDeltaSlice(t, run(t, m, x, engine.Options{})[0].Data, run(t, q, x, engine.Options{})[0].Data, 0.2)
	}
}
