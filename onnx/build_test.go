package onnx

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/orttest"
	"github.com/quantgate/quantgate/onnx/internal/pb"
	"github.com/quantgate/quantgate/tensor"
)

// sketch is a model in a test's words: ports as "name 1x3x4x4" (? for a dynamic dimension), and nodes.
type sketch struct {
	opset  int64 // 13 if 0
	ir     int64 // 7 if 0
	inputs []string
	output []string
	init   []*pb.TensorProto
	nodes  []*pb.NodeProto
	infos  []string
}

func port(t testing.TB, s string) *pb.ValueInfoProto {
	t.Helper()
	name, dims, shaped := strings.Cut(s, " ")
	if !shaped {
		return floatPort(name, nil)
	}
	shape := []int64{}
	for _, d := range strings.Split(dims, "x") {
		n := int64(-1)
		if d != "?" {
			_, err := fmt.Sscan(d, &n)
			require.NoError(t, err)
		}
		shape = append(shape, n)
	}
	return floatPort(name, shape)
}

func (s sketch) proto(t testing.TB) *pb.ModelProto {
	t.Helper()
	if s.opset == 0 {
		s.opset = 13
	}
	if s.ir == 0 {
		s.ir = 7
	}
	g := &pb.GraphProto{Name: new("test"), Node: s.nodes, Initializer: s.init}
	for _, p := range s.inputs {
		g.Input = append(g.Input, port(t, p))
	}
	for _, p := range s.output {
		g.Output = append(g.Output, port(t, p))
	}
	for _, p := range s.infos {
		g.ValueInfo = append(g.ValueInfo, port(t, p))
	}
	return &pb.ModelProto{
		IrVersion: &s.ir, OpsetImport: []*pb.OperatorSetIdProto{{Domain: new(""), Version: &s.opset}}, Graph: g,
	}
}

func (s sketch) bytes(t testing.TB) []byte {
	t.Helper()
	data, err := marshal(s.proto(t))
	require.NoError(t, err)
	return data
}

func (s sketch) model(t testing.TB) *Model {
	t.Helper()
	m, err := Parse(s.bytes(t), "test.onnx")
	require.NoError(t, err)
	return m
}

// node makes a node named like its first output: node("Conv", "x w b", "y", attrs...); a dash is an input left out.
func node(op, inputs, outputs string, attrs ...*pb.AttributeProto) *pb.NodeProto {
	in := strings.Fields(inputs)
	for i := range in {
		if in[i] == "-" {
			in[i] = ""
		}
	}
	out := strings.Fields(outputs)
	return newNode(op, out[0], in, out, attrs...)
}

func intsAttr(name string, v ...int64) *pb.AttributeProto {
	return &pb.AttributeProto{Name: &name, Type: pb.AttributeProto_INTS.Enum(), Ints: v}
}

// randomTensor makes a float32 initialiser of normal values, the same in every run.
func randomTensor(name string, dims ...int64) *pb.TensorProto {
	rng := rand.New(rand.NewPCG(uint64(len(name)), uint64(name[0])))
	v := make([]float32, product(dims))
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return floatTensor(name, dims, v)
}

// positiveTensor is randomTensor with values in 0.5..1.5, as a variance needs.
func positiveTensor(name string, dims ...int64) *pb.TensorProto {
	rng := rand.New(rand.NewPCG(uint64(len(name)), uint64(name[0])))
	v := make([]float32, product(dims))
	for i := range v {
		v[i] = 0.5 + rng.Float32()
	}
	return floatTensor(name, dims, v)
}

func scalar(name string, v float32) *pb.TensorProto { return floatTensor(name, nil, []float32{v}) }

// ops lists a model's nodes as "Op input,input -> output".
func ops(m *Model) []string {
	var list []string
	for _, n := range m.proto.Graph.Node {
		list = append(list, fmt.Sprintf("%s %s -> %s", n.GetOpType(), strings.Join(n.Input, ","), strings.Join(n.Output, ",")))
	}
	return list
}

// run computes a model's outputs in ONNX Runtime, or skips the test where there is none.
func run(t testing.TB, m *Model, x *tensor.Tensor, o engine.Options) []*tensor.Tensor {
	t.Helper()
	data, err := m.Bytes()
	require.NoError(t, err)
	return runModel(t, engine.Model{Name: m.name, Data: data}, x, o)
}

func runModel(t testing.TB, m engine.Model, x *tensor.Tensor, o engine.Options) []*tensor.Tensor {
	t.Helper()
	ctx := context.Background()
	s, err := orttest.Backend(t).Open(ctx, m, o)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	out := make([]*tensor.Tensor, len(s.Outputs()))
	for i := range out {
		out[i] = &tensor.Tensor{}
	}
	require.NoError(t, s.Run(ctx, x, out))
	return out
}

func randomInput(dims ...int64) *tensor.Tensor {
	rng := rand.New(rand.NewPCG(1, 2))
	x := tensor.New(dims...)
	for i := range x.Data {
		x.Data[i] = float32(rng.NormFloat64())
	}
	return x
}

// shared returns the path of a file of the measuring material, or skips the test where there is none.
func shared(t testing.TB, parts ...string) string {
	t.Helper()
	dir := os.Getenv("QUANTGATE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared")
	}
	path := filepath.Join(append([]string{dir}, parts...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("SKIPPED, this compares with nothing: %v", err)
	}
	return path
}
