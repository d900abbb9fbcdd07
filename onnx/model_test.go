package onnx

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/quantgate/quantgate/onnx/internal/pb"
	"github.com/quantgate/quantgate/tensor"
)

// classifier is a small model with something of everything the rewrites look at.
func classifier() sketch {
	return sketch{
		inputs: []string{"x ?x3x8x8"}, output: []string{"y ?x5"},
		init: []*pb.TensorProto{
			randomTensor("w", 4, 3, 3, 3), positiveTensor("s", 4), randomTensor("b", 4), randomTensor("m", 4), positiveTensor("v", 4),
			randomTensor("fc", 5, 4), randomTensor("fcb", 5),
		},
		nodes: []*pb.NodeProto{
			node("Conv", "x w", "conv", intsAttr("pads", 1, 1, 1, 1)),
			node("BatchNormalization", "conv s b m v", "bn"),
			node("Relu", "bn", "relu"),
			node("GlobalAveragePool", "relu", "gap"),
			node("Flatten", "gap", "flat"),
			node("Gemm", "flat fc fcb", "y", intAttr("transB", 1)),
		},
	}
}

func TestLoadSaveKeepsEverything(t *testing.T) {
	p := classifier().proto(t)
	// Fields that this package does not know, at several depths: metadata of a node (9) and a later invention.
	unknown := func(m proto.Message, field protowire.Number) {
		m.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), "kept"))
	}
	unknown(p, 20)
	unknown(p.Graph, 777)
	unknown(p.Graph.Node[0], 9)
	unknown(p.Graph.Input[0].Type, 4)
	unknown(p.Graph.Initializer[0], 16)
	data, err := marshal(p)
	require.NoError(t, err)
	dir := t.TempDir()
	path := filepath.Join(dir, "a.onnx")
	require.NoError(t, os.WriteFile(path, data, 0o600))

	m, err := Load(path)
	require.NoError(t, err)
	again, err := m.Bytes()
	require.NoError(t, err)
	require.Equal(t, data, again)
	copied, err := marshal(copyModel(m.proto))
	require.NoError(t, err)
	require.Equal(t, data, copied)

	digest, err := m.Digest()
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	require.Equal(t, hex.EncodeToString(sum[:]), digest)

	require.NoError(t, m.Save(filepath.Join(dir, "b.onnx")))
	saved, err := os.ReadFile(filepath.Join(dir, "b.onnx"))
	require.NoError(t, err)
	require.Equal(t, data, saved)
	require.Error(t, m.Save(filepath.Join(dir, "missing", "b.onnx")))

	// A rewrite keeps them too.
	tapped, err := Tap(m, []string{"y"})
	require.NoError(t, err)
	require.Equal(t, p.ProtoReflect().GetUnknown(), tapped.proto.ProtoReflect().GetUnknown())
	require.Equal(t, p.Graph.ProtoReflect().GetUnknown(), tapped.proto.Graph.ProtoReflect().GetUnknown())
	require.Equal(t, p.Graph.Node[0].ProtoReflect().GetUnknown(), tapped.proto.Graph.Node[0].ProtoReflect().GetUnknown())
}

// TestRewritesLeaveTheModelAlone: no rewrite changes the model it is given, and each gives the same bytes twice.
func TestRewritesLeaveTheModelAlone(t *testing.T) {
	m := classifier().model(t)
	before, err := m.Bytes()
	require.NoError(t, err)
	amax := map[string]float32{"x": 3, "bn": 4, "flat": 2}
	for name, rewrite := range map[string]func() (*Model, error){
		"tap":  func() (*Model, error) { return Tap(m, []string{"x", "bn", "y" + matmulSuffix}) },
		"fold": func() (*Model, error) { d, _, err := FoldBatchNorm(m); return d, err },
		"qdq":  func() (*Model, error) { d, _, err := InsertQDQ(m, amax, QDQOptions{}); return d, err },
		"int8": func() (*Model, error) {
			d, _, err := InsertQDQ(m, amax, QDQOptions{Weights: WeightsInt8})
			return d, err
		},
		"integers": func() (*Model, error) { d, _, err := EmulateINT8(m, amax, QDQOptions{}); return d, err },
		"fp16":     func() (*Model, error) { d, _, err := ToFP16(m, FP16Options{}); return d, err },
		"emulate":  func() (*Model, error) { d, _, err := EmulateFP16(m, FP16Options{}); return d, err },
	} {
		t.Run(name, func(t *testing.T) {
			first, err := rewrite()
			require.NoError(t, err)
			second, err := rewrite()
			require.NoError(t, err)
			a, err := first.Bytes()
			require.NoError(t, err)
			b, err := second.Bytes()
			require.NoError(t, err)
			require.Equal(t, a, b)
			after, err := m.Bytes()
			require.NoError(t, err)
			require.Equal(t, before, after)
		})
	}
}

func TestCorruptModels(t *testing.T) {
	good := classifier().bytes(t)
	broken := func(change func(p *pb.ModelProto)) []byte {
		p := classifier().proto(t)
		change(p)
		data, err := marshal(p)
		require.NoError(t, err)
		return data
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":          {nil, "holds no graph"},
		"a picture":      {[]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), "another format?"},
		"cut short":      {good[:len(good)/2], "cannot be decoded"},
		"no output":      {broken(func(p *pb.ModelProto) { p.Graph.Output = nil }), "no output"},
		"unmade output":  {broken(func(p *pb.ModelProto) { p.Graph.Output[0].Name = new("z") }), `output "z"`},
		"unmade input":   {broken(func(p *pb.ModelProto) { p.Graph.Node[2].Input[0] = "z" }), `node "relu" (Relu): input "z"`},
		"wrong order":    {broken(func(p *pb.ModelProto) { n := p.Graph.Node; n[0], n[1] = n[1], n[0] }), `input "conv" is made by no earlier node`},
		"name twice":     {broken(func(p *pb.ModelProto) { p.Graph.Node[3].Output[0] = "relu" }), `output "relu" is already defined`},
		"short weights":  {broken(func(p *pb.ModelProto) { p.Graph.Initializer[0].RawData = make([]byte, 7) }), `tensor "w": shape 4x3x3x3 of float32`},
		"negative dim":   {broken(func(p *pb.ModelProto) { p.Graph.Initializer[0].Dims[0] = -4 }), "negative"},
		"huge dims":      {broken(func(p *pb.ModelProto) { p.Graph.Initializer[0].Dims = []int64{1 << 40, 1 << 40} }), "more values than memory"},
		"twice an input": {broken(func(p *pb.ModelProto) { p.Graph.Input = append(p.Graph.Input, p.Graph.Input[0]) }), "stands twice"},
		"twice an initialiser": {broken(func(p *pb.ModelProto) {
			p.Graph.Initializer = append(p.Graph.Initializer, p.Graph.Initializer[0])
		}), "stands twice"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.onnx")
			require.NoError(t, os.WriteFile(path, c.data, 0o600))
			for _, read := range []func() (*Model, error){
				func() (*Model, error) { return Load(path) },
				func() (*Model, error) { return Parse(c.data, path) },
			} {
				_, err := read()
				require.ErrorIs(t, err, ErrCorrupt)
				require.ErrorContains(t, err, c.want)
				require.ErrorContains(t, err, path)
				require.NotContains(t, err.Error(), "\n")
			}
		})
	}
	_, err := Load(filepath.Join(t.TempDir(), "none.onnx"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestPorts(t *testing.T) {
	relu := []*pb.NodeProto{node("Relu", "x", "y")}
	for name, c := range map[string]struct {
		inputs []string
		elem   pb.TensorProto_DataType
		want   string // "" = accepted
	}{
		"images":          {[]string{"x ?x3x224x224"}, pb.TensorProto_FLOAT, ""},
		"grey":            {[]string{"x 1x1x28x28"}, pb.TensorProto_FLOAT, ""},
		"open size":       {[]string{"x ?x3x?x?"}, pb.TensorProto_FLOAT, ""},
		"half":            {[]string{"x ?x3x224x224"}, pb.TensorProto_FLOAT16, ""},
		"channels last":   {[]string{"x ?x224x224x3"}, pb.TensorProto_FLOAT, "channels come last"},
		"features":        {[]string{"x ?x2048"}, pb.TensorProto_FLOAT, "wanted batch x channels x height x width"},
		"unstated":        {[]string{"x"}, pb.TensorProto_FLOAT, "of unstated shape"},
		"bytes":           {[]string{"x ?x3x224x224"}, pb.TensorProto_UINT8, "wanted float32 or float16"},
		"seven channels":  {[]string{"x ?x7x224x224"}, pb.TensorProto_FLOAT, "1 or 3 channels"},
		"a second tensor": {[]string{"x ?x3x8x8", "mask ?x8"}, pb.TensorProto_FLOAT, `has 2 inputs to feed ("x" float32 ?x3x8x8, "mask" float32 ?x8)`},
	} {
		t.Run(name, func(t *testing.T) {
			p := sketch{inputs: c.inputs, output: []string{"y"}, nodes: relu}.proto(t)
			p.Graph.Input[0].Type.GetTensorType().ElemType = new(int32(c.elem))
			m, err := newModel(p, "m.onnx", "")
			require.NoError(t, err)
			got, err := m.ImageInput()
			if c.want == "" {
				require.NoError(t, err)
				require.Equal(t, "x", got.Name)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.ErrorIs(t, err, ErrUnsupported)
		})
	}

	m := classifier().model(t)
	require.Equal(t, 13, m.Opset())
	in, err := m.ImageInput()
	require.NoError(t, err)
	require.Equal(t, Port{Name: "x", DType: tensor.Float32, Shape: tensor.Shape{tensor.Dynamic, 3, 8, 8}}, in)

	// Files of before IR 4 list their weights as inputs.
	p := classifier().proto(t)
	p.Graph.Input = append(p.Graph.Input, port(t, "w 4x3x3x3"))
	m, err = newModel(p, "m.onnx", "")
	require.NoError(t, err)
	_, err = m.ImageInput()
	require.NoError(t, err)
}

func TestLogitsOutput(t *testing.T) {
	for name, c := range map[string]struct {
		outputs []string
		output  string
		want    string
	}{
		"classes":      {[]string{"y ?x1000"}, "", ""},
		"unstated":     {[]string{"y"}, "", ""},
		"spatial 1":    {[]string{"y ?x1000x1x1"}, "", ""},
		"a map":        {[]string{"y ?x1000x7x7"}, "", "is not batch x classes"},
		"a vector":     {[]string{"y 1000"}, "", "is not batch x classes"},
		"two":          {[]string{"y ?x1000", "z ?x10"}, "", "has 2 outputs"},
		"one of two":   {[]string{"z ?x10", "y ?x1000"}, "y", ""},
		"the only one": {[]string{"y ?x1000"}, "y", ""},
		"none of two":  {[]string{"y ?x1000", "z ?x10"}, "x", `has no output "x", but "y"`},
		"named map":    {[]string{"z ?x10", "y ?x10x7x7"}, "y", "is not batch x classes"},
	} {
		t.Run(name, func(t *testing.T) {
			m := sketch{
				inputs: []string{"x ?x3x8x8"}, output: c.outputs,
				nodes: []*pb.NodeProto{node("Relu", "x", "y"), node("Relu", "x", "z")},
			}.model(t)
			p, err := m.LogitsOutput(c.output)
			if c.want == "" {
				require.NoError(t, err)
				require.Equal(t, "y", p.Name)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

// FuzzParse feeds any bytes; what Parse accepts goes through every rewrite, which may refuse it and may not panic.
func FuzzParse(f *testing.F) {
	f.Add(classifier().bytes(f))
	f.Add([]byte{})
	f.Add([]byte("\x08\x07\x3a\x00"))
	f.Add(sketch{
		opset: 9, inputs: []string{"x 1x3"}, output: []string{"y"}, init: []*pb.TensorProto{randomTensor("k", 3)},
		nodes: []*pb.NodeProto{node("Clip", "x", "c", floatAttr("max", 6)), node("Mul", "c k", "d"), node("Softmax", "d", "y")},
	}.bytes(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data, "fuzz")
		if err != nil {
			return
		}
		_, _ = m.ImageInput()
		_, _ = m.LogitsOutput("")
		amax := map[string]float32{}
		if p, err := Plan(m); err == nil {
			for _, e := range p.Entries {
				amax[e.Name] = 1
			}
			if tensors := p.Observed(); len(tensors) > 0 {
				_, err := Tap(m, tensors)
				require.NoError(t, err)
			}
		}
		_, _, _ = FoldBatchNorm(m)
		_, _, _ = InsertQDQ(m, amax, QDQOptions{})
		_, _, _ = InsertQDQ(m, amax, QDQOptions{Weights: WeightsInt8})
		_, _, _ = EmulateINT8(m, amax, QDQOptions{})
		_, _, _ = ToFP16(m, FP16Options{})
		_, _, _ = EmulateFP16(m, FP16Options{})
	})
}
