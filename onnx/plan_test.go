package onnx

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// cacheNames reads the names of a TensorRT calibration cache, in order.
func cacheNames(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	var names []string
	lines := bufio.NewScanner(f)
	for first := true; lines.Scan(); first = false {
		if i := strings.LastIndex(lines.Text(), ":"); !first && i >= 0 {
			names = append(names, lines.Text()[:i])
		}
	}
	require.NoError(t, lines.Err())
	return names
}

func entryNames(t *testing.T, m *Model) []string {
	t.Helper()
	p, err := Plan(m)
	require.NoError(t, err)
	var names []string
	for _, e := range p.Entries {
		names = append(names, e.Name)
	}
	return names
}

// TestPlanOfRealCaches compares names and order with caches that TensorRT 8.6.1 wrote.
func TestPlanOfRealCaches(t *testing.T) {
	dir := shared(t, "tensorrt", "caches")
	files, err := filepath.Glob(filepath.Join(dir, "*.cache"))
	require.NoError(t, err)
	compared := 0
	for _, file := range files {
		model, method, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".cache"), ".")
		for !fileExists(filepath.Join(dir, "..", "..", "imagenet", "models", model+".onnx")) {
			more, rest, ok := strings.Cut(method, ".")
			require.True(t, ok, file)
			model, method = model+"."+more, rest
		}
		if method == "legacy" {
			continue // the legacy calibrator observes the graph after fusion
		}
		t.Run(model+"."+method, func(t *testing.T) {
			m, err := Load(filepath.Join(dir, "..", "..", "imagenet", "models", model+".onnx"))
			require.NoError(t, err)
			require.Equal(t, cacheNames(t, file), entryNames(t, m))
		})
		compared++
	}
	require.GreaterOrEqual(t, compared, 9)
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestPlanOfPublishedCache rebuilds a classifier whose cache of TensorRT 8.5.1 is published (a PyTorch export with a dynamic
// batch: conv, relu, bn, pool, conv, relu, pool, reshape, fc, relu, fc, softmax, argmax): how Gemm, Reshape and Softmax are named.
func TestPlanOfPublishedCache(t *testing.T) {
	kernel := []*pb.AttributeProto{intsAttr("kernel_shape", 3, 3), intsAttr("pads", 1, 1, 1, 1)}
	pool := []*pb.AttributeProto{intsAttr("kernel_shape", 2, 2), intsAttr("strides", 2, 2)}
	m := sketch{
		opset:  11,
		inputs: []string{"x ?x1x28x28"}, output: []string{"y ?x10", "am"},
		init: []*pb.TensorProto{
			randomTensor("w1", 32, 1, 3, 3), randomTensor("b1", 32), randomTensor("s", 32), randomTensor("b", 32), randomTensor("m", 32),
			positiveTensor("v", 32), randomTensor("w2", 64, 32, 3, 3), randomTensor("b2", 64), int64Tensor("shape", []int64{-1, 64 * 7 * 7}),
			randomTensor("w3", 64, 64*7*7), randomTensor("b3", 64), randomTensor("w4", 10, 64), randomTensor("b4", 10),
		},
		nodes: []*pb.NodeProto{
			node("Conv", "x w1 b1", "/conv1/Conv_output_0", kernel...),
			node("Relu", "/conv1/Conv_output_0", "/relu1/Relu_output_0"),
			node("BatchNormalization", "/relu1/Relu_output_0 s b m v", "/bn1/BatchNormalization_output_0"),
			node("MaxPool", "/bn1/BatchNormalization_output_0", "/mp1/MaxPool_output_0", pool...),
			node("Conv", "/mp1/MaxPool_output_0 w2 b2", "/conv2/Conv_output_0", kernel...),
			node("Relu", "/conv2/Conv_output_0", "/relu2/Relu_output_0"),
			node("MaxPool", "/relu2/Relu_output_0", "/mp2/MaxPool_output_0", pool...),
			node("Reshape", "/mp2/MaxPool_output_0 shape", "/Reshape_output_0"),
			node("Gemm", "/Reshape_output_0 w3 b3", "/fc1/Gemm_output_0", intAttr("transB", 1)),
			node("Relu", "/fc1/Gemm_output_0", "/relu3/Relu_output_0"),
			node("Gemm", "/relu3/Relu_output_0 w4 b4", "y", intAttr("transB", 1)),
			node("Softmax", "y", "z", intAttr("axis", 1)),
			node("ArgMax", "z", "am", intAttr("axis", 1)),
		},
	}
	m1 := m.proto(t)
	m1.Graph.Output[1].Type.GetTensorType().ElemType = new(int32(pb.TensorProto_INT64))
	model, err := newModel(m1, "published", "")
	require.NoError(t, err)
	// The cache's last line, the values output of TensorRT's own TopK, has no tensor in the ONNX graph and is left out.
	want := []string{
		"x", "/conv1/Conv_output_0", "/relu1/Relu_output_0", "/bn1/BatchNormalization_output_0", "/mp1/MaxPool_output_0",
		"/conv2/Conv_output_0", "/relu2/Relu_output_0", "/mp2/MaxPool_output_0", "/Reshape_output_0",
		"(Unnamed Layer* 8) [Constant]_output", "(Unnamed Layer* 9) [Matrix Multiply]_output",
		"(Unnamed Layer* 10) [Constant]_output", "(Unnamed Layer* 11) [Shuffle]_output", "/fc1/Gemm_output_0", "/relu3/Relu_output_0",
		"(Unnamed Layer* 14) [Constant]_output", "(Unnamed Layer* 15) [Matrix Multiply]_output",
		"(Unnamed Layer* 16) [Constant]_output", "(Unnamed Layer* 17) [Shuffle]_output", "y", "(Unnamed Layer* 25) [Softmax]_output",
	}
	require.Equal(t, want, entryNames(t, model))

	p, err := Plan(model)
	require.NoError(t, err)
	byName := map[string]Entry{}
	for _, e := range p.Entries {
		byName[e.Name] = e
	}
	require.Equal(t, "/bn1/BatchNormalization_output_0", byName["/mp1/MaxPool_output_0"].SharesScaleOf)
	require.Equal(t, "/relu2/Relu_output_0", byName["/mp2/MaxPool_output_0"].SharesScaleOf)
	require.Empty(t, byName["/Reshape_output_0"].SharesScaleOf) // 3f6fc9d8 there, and 3f553ff1 for the pool before it
	require.NotContains(t, p.Observed(), "/mp1/MaxPool_output_0")
	require.NotContains(t, p.Observed(), "")
}

// TestPlanConstants: the layers that constants become, counted as tensorrt's caches of networks with squeeze-excite show them.
func TestPlanConstants(t *testing.T) {
	m := sketch{
		inputs: []string{"x ?x3x8x8"}, output: []string{"y ?x4x8x8", "int"},
		init: []*pb.TensorProto{
			randomTensor("w", 4, 3, 1, 1), scalar("three", -3), floatTensor("full", []int64{1, 4, 1, 1}, []float32{1, -7, 2, 3}),
			scalar("lo", 0), scalar("hi", 6), int64Tensor("one", []int64{1}),
		},
		nodes: []*pb.NodeProto{
			node("Conv", "x w", "conv"),
			node("Constant", "", "half", &pb.AttributeProto{Name: new("value"), Type: pb.AttributeProto_TENSOR.Enum(), T: scalar("", 0.5)}),
			node("Add", "conv three", "add"),   // layers 1 Constant, 2 Shuffle, 3
			node("Clip", "add lo hi", "clip"),  // 4: bounds are no layers
			node("Mul", "clip half", "mul"),    // 5 Constant, 6 Shuffle, 7
			node("Mul", "mul full", "scaled"),  // 8 Constant of the full rank, 9
			node("Add", "scaled three", "sum"), // the Constant of before, 10 Shuffle, 11
			node("Shape", "sum", "shape"),      // not float
			node("Add", "shape one", "int"),    // not float either
			node("Relu", "sum", "dead"),        // no output needs it
			node("Identity", "sum", "y"),
		},
	}.proto(t)
	m.Graph.Output[1] = &pb.ValueInfoProto{Name: new("int"), Type: &pb.TypeProto{Value: &pb.TypeProto_TensorType{
		TensorType: &pb.TypeProto_Tensor{ElemType: new(int32(pb.TensorProto_INT64))},
	}}}
	model, err := newModel(m, "constants", "")
	require.NoError(t, err)
	require.Equal(t, []string{
		"x", "conv", "(Unnamed Layer* 1) [Constant]_output", "(Unnamed Layer* 2) [Shuffle]_output", "add", "clip",
		"(Unnamed Layer* 5) [Constant]_output", "(Unnamed Layer* 6) [Shuffle]_output", "mul",
		"(Unnamed Layer* 8) [Constant]_output", "scaled", "(Unnamed Layer* 10) [Shuffle]_output", "sum", "y",
	}, entryNames(t, model))
	p, err := Plan(model)
	require.NoError(t, err)
	for _, e := range p.Entries {
		require.Equal(t, strings.HasPrefix(e.Name, "(Unnamed"), e.Const, e.Name)
	}
	require.Equal(t, float32(3), p.Entries[2].ConstAmax)
	require.Equal(t, []float32{-3}, p.Entries[2].Values)
	require.Equal(t, float32(7), p.Entries[9].ConstAmax)
}

func TestPlanSplitNodes(t *testing.T) {
	model := sketch{
		opset: 14, inputs: []string{"x 1x4"}, output: []string{"y 1x2"},
		init: []*pb.TensorProto{randomTensor("w", 4, 2)},
		nodes: []*pb.NodeProto{
			node("HardSwish", "x", "swish"),
			node("Gemm", "swish w", "y"), // without a bias there is no tensor inside
		},
	}.model(t)
	require.Equal(t, []string{
		"x", "(Unnamed Layer* 0) [Activation]_output", "swish", "(Unnamed Layer* 2) [Constant]_output", "y",
	}, entryNames(t, model))
}

func TestPlanRefusals(t *testing.T) {
	relu := []*pb.NodeProto{node("Relu", "x", "y")}
	for name, c := range map[string]struct {
		model sketch
		want  string
	}{
		"old opset":  {sketch{opset: 6, nodes: relu}, "opset 6 is older than 7"},
		"new opset":  {sketch{opset: 99, nodes: relu}, "opset 99 is newer than"},
		"subgraph":   {sketch{nodes: []*pb.NodeProto{node("If", "x", "y", &pb.AttributeProto{Name: new("then_branch"), G: &pb.GraphProto{Node: []*pb.NodeProto{node("Relu", "x", "z")}, Output: []*pb.ValueInfoProto{{Name: new("z")}}}})}}, `node "y" (If) holds a subgraph`},
		"few inputs": {sketch{nodes: []*pb.NodeProto{node("Conv", "x", "y")}}, `node "y" (Conv): input 1 is missing`},
	} {
		t.Run(name, func(t *testing.T) {
			c.model.inputs, c.model.output = []string{"x 1x3"}, []string{"y 1x3"}
			_, err := Plan(c.model.model(t))
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "test.onnx")
		})
	}
}

// TestPlanObservesATensorOnce: a collector and the tapped model are lined up by position, so of two entries of one tensor the
// second must take the first one's range, and what a range is shared with must be an entry.
func TestPlanObservesATensorOnce(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "testdata", "models", "*", "*.onnx"))
	require.NoError(t, err)
	more, err := filepath.Glob(filepath.Join("..", "testdata", "models", "*.onnx"))
	require.NoError(t, err)
	planned := 0
	for _, file := range append(files, more...) {
		m, err := Load(file)
		if err != nil {
			continue // those that must be refused are tested elsewhere
		}
		p, err := Plan(m)
		if err != nil {
			continue
		}
		planned++
		var own []string
		entries := map[string]bool{}
		tensors := map[string]bool{}
		for _, e := range p.Entries {
			require.False(t, entries[e.Name], "%s: entry %s is there twice", file, e.Name)
			if e.SharesScaleOf != "" {
				require.True(t, entries[e.SharesScaleOf], "%s: entry %s takes the range of %q", file, e.Name, e.SharesScaleOf)
			} else if !e.Const {
				require.False(t, tensors[e.Tensor], "%s: tensor %s has two ranges", file, e.Tensor)
				tensors[e.Tensor] = true
				own = append(own, e.Tensor)
			}
			entries[e.Name] = true
		}
		require.Equal(t, own, p.Observed(), file)
		tapped, err := Tap(m, p.Observed())
		require.NoError(t, err, file)
		require.Len(t, tapped.Outputs(), len(own), file)
	}
	require.GreaterOrEqual(t, planned, 20)
}

func TestPlanOfFinalSoftmax(t *testing.T) {
	// Layers 0 Conv, 1 Relu, 2-7 Flatten, 8-12 Gemm; below opset 13 the flattening before a Softmax is 6 more.
	for name, softmax := range map[string]string{"softmax": "(Unnamed Layer* 13) [Softmax]_output", "softmax_opset8": "(Unnamed Layer* 19) [Softmax]_output"} {
		m, err := Load(filepath.Join("..", "testdata", "models", "tiny", name+".onnx"))
		require.NoError(t, err)
		p, err := Plan(m)
		require.NoError(t, err)
		last := p.Entries[len(p.Entries)-2:]
		require.Equal(t, []Entry{
			{Name: softmax, Tensor: "probabilities"}, {Name: "probabilities", Tensor: "probabilities", SharesScaleOf: softmax},
		}, last, name)
	}
	pooled := sketch{
		inputs: []string{"x ?x1x4x4"}, output: []string{"y ?x1x1x1"},
		nodes: []*pb.NodeProto{
			node("Softmax", "x", "s"), node("MaxPool", "s", "p", intsAttr("kernel_shape", 2, 2)), node("MaxPool", "p", "y", intsAttr("kernel_shape", 3, 3)),
		},
	}.model(t)
	p, err := Plan(pooled)
	require.NoError(t, err)
	require.Equal(t, []Entry{
		{Name: "x", Tensor: "x"}, {Name: "(Unnamed Layer* 0) [Softmax]_output", Tensor: "s"},
		{Name: "p", Tensor: "p", SharesScaleOf: "(Unnamed Layer* 0) [Softmax]_output"}, {Name: "y", Tensor: "y", SharesScaleOf: "p"},
	}, p.Entries)
	require.Equal(t, []string{"x", "s"}, p.Observed())
}

// TestRangesByTensor: in an attention block the second MatMul reads a Softmax, whose entry is not named after its tensor.
func TestRangesByTensor(t *testing.T) {
	m := sketch{
		inputs: []string{"x ?x1x4x4"}, output: []string{"y ?x1x4x4"},
		nodes: []*pb.NodeProto{
			node("MatMul", "x x", "scores"), node("Softmax", "scores", "s", intAttr("axis", -1)), node("MatMul", "s x", "y"),
		},
	}.model(t)
	p, err := Plan(m)
	require.NoError(t, err)
	softmax := p.Entries[2].Name
	require.Contains(t, softmax, "[Softmax]")
	byEntry := map[string]float32{"x": 3, "scores": 9, softmax: 1, "y": 3}
	_, report, err := InsertQDQ(m, byEntry, QDQOptions{})
	require.NoError(t, err)
	require.Equal(t, "its input s has no calibrated range", reasonOf(report, "y"))
	ranges := p.Ranges(byEntry)
	_, report, err = InsertQDQ(m, ranges, QDQOptions{})
	require.NoError(t, err)
	require.Equal(t, "int8 inputs", reasonOf(report, "y"))
	require.Equal(t, map[string]float32{"x": 3, "scores": 9, softmax: 1, "s": 1, "y": 3}, ranges)
	require.Len(t, byEntry, 4, "the argument is left alone")

	p = &CalibrationPlan{Entries: []Entry{
		{Name: "a", Tensor: "a"}, {Name: "pool", Tensor: "pool", SharesScaleOf: "a"}, {Name: "c", Const: true}, {Name: "unnamed", Tensor: "t"},
		{Name: "t", Tensor: "t", SharesScaleOf: "unnamed"}, {Name: "none", Tensor: "none"},
	}}
	require.Equal(t, map[string]float32{"a": 2, "pool": 2, "c": 5, "unnamed": 4, "t": 4}, p.Ranges(map[string]float32{"a": 2, "c": 5, "unnamed": 4}))
	require.Equal(t, map[string]float32{"a": 2, "pool": 7, "unnamed": 4, "t": 6}, p.Ranges(map[string]float32{"a": 2, "pool": 7, "unnamed": 4, "t": 6}))
	require.Empty(t, p.Ranges(nil))
}
