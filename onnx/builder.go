package onnx

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math"
	"path/filepath"

	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/quantgate/quantgate/onnx/internal/pb"
	"github.com/quantgate/quantgate/tensor"
)

// Builder makes a model from nothing: inputs, weights, nodes in an order in which each reads what is there already, outputs.
// Weights are known by shape alone until the model is made or written, so that counting costs nothing and a file is written in
// bounded memory. The first mistake is kept and returned by whatever ends the building.
type Builder struct {
	name   string
	graph  *pb.GraphProto
	values map[*pb.TensorProto]iter.Seq[float32]
	known  map[string]bool
	err    error
}

// Attr is an attribute of a node.
type Attr struct{ proto *pb.AttributeProto }

// Int is an attribute of one whole number.
func Int(name string, v int64) Attr { return Attr{intAttr(name, v)} }

// Float is an attribute of one number.
func Float(name string, v float32) Attr { return Attr{floatAttr(name, v)} }

// Ints is an attribute of a list of whole numbers.
func Ints(name string, v ...int64) Attr {
	return Attr{&pb.AttributeProto{Name: &name, Type: pb.AttributeProto_INTS.Enum(), Ints: v}}
}

// NewBuilder starts a model of the operator set that quantised models need (13); name is the graph's, and what messages call it.
func NewBuilder(name string) *Builder {
	return &Builder{name: name, graph: &pb.GraphProto{Name: &name}, values: map[*pb.TensorProto]iter.Seq[float32]{}, known: map[string]bool{}}
}

// Fail keeps an error, unless an earlier one is kept already.
func (b *Builder) Fail(err error) {
	if b.err == nil && err != nil {
		b.err = fmt.Errorf("build model %s: %w", b.name, err)
	}
}

func (b *Builder) define(what, name string) string {
	if name == "" || b.known[name] {
		b.Fail(fmt.Errorf("%s %q: name is empty or stands twice: %w", what, name, ErrCorrupt))
	}
	b.known[name] = true
	return name
}

// Input declares a float32 input and returns its name.
func (b *Builder) Input(name string, shape tensor.Shape) string {
	b.graph.Input = append(b.graph.Input, floatPort(b.define("input", name), shape))
	return name
}

// Weight adds a float32 constant and returns its name. values gives its values in row-major order, the same each time.
func (b *Builder) Weight(name string, shape tensor.Shape, values iter.Seq[float32]) string {
	t := rawTensor(b.define("weight", name), pb.TensorProto_FLOAT, shape, nil)
	if _, err := elemsOf(t); err != nil {
		b.Fail(err)
	}
	b.values[t] = values
	b.graph.Initializer = append(b.graph.Initializer, t)
	return name
}

// Integers adds a constant list of whole numbers, such as a Reshape reads, and returns its name.
func (b *Builder) Integers(name string, values ...int64) string {
	b.graph.Initializer = append(b.graph.Initializer, int64Tensor(b.define("constant", name), values))
	return name
}

// Node adds a node of one output, both called name, and returns it. An input of "" is left out.
func (b *Builder) Node(op, name string, inputs []string, attrs ...Attr) string {
	for _, in := range inputs {
		if in != "" && !b.known[in] {
			b.Fail(fmt.Errorf("node %q (%s): input %q is made by no earlier node: %w", name, op, in, ErrCorrupt))
		}
	}
	n := newNode(op, name, inputs, []string{b.define("node", name)})
	for _, a := range attrs {
		n.Attribute = append(n.Attribute, a.proto)
	}
	b.graph.Node = append(b.graph.Node, n)
	return name
}

// Output makes a tensor an output of the model; shape may leave dimensions open.
func (b *Builder) Output(name string, shape tensor.Shape) {
	b.graph.Output = append(b.graph.Output, floatPort(name, shape))
}

// model is the message without the weights' values.
func (b *Builder) model() (*pb.ModelProto, error) {
	if b.err != nil {
		return nil, b.err
	}
	if err := validateGraph(b.graph, nil); err != nil {
		return nil, fmt.Errorf("build model %s: %w", b.name, err)
	}
	return &pb.ModelProto{
		IrVersion: new(int64(qdqIR)), ProducerName: new("quantgate"), Graph: b.graph,
		OpsetImport: []*pb.OperatorSetIdProto{{Domain: new(""), Version: new(int64(qdqOpset))}},
	}, nil
}

// Inputs is Model.Inputs of the model that is being built.
func (b *Builder) Inputs() []Port { return (&Model{proto: &pb.ModelProto{Graph: b.graph}}).Inputs() }

// Count is Model.Count of the model that is being built; no weight is made for it.
func (b *Builder) Count() (*Counts, error) {
	p, err := b.model()
	if err != nil {
		return nil, err
	}
	return (&Model{proto: p, name: b.name}).Count()
}

// Model makes the model with all its weights in memory.
func (b *Builder) Model() (*Model, error) {
	p, err := b.model()
	if err != nil {
		return nil, err
	}
	p = copyModel(p)
	for i, t := range p.Graph.Initializer {
		if b.values[t] == nil {
			continue
		}
		raw := make([]byte, 0, rawSize(t))
		if err := b.eachPiece(t, func(piece []byte) error {
			raw = append(raw, piece...)
			return nil
		}); err != nil {
			return nil, err
		}
		p.Graph.Initializer[i] = rawTensor(t.GetName(), pb.TensorProto_FLOAT, t.Dims, raw)
	}
	return newModel(p, b.name, "")
}

// rawSize is the length in bytes of a weight's values.
func rawSize(t *pb.TensorProto) int { return 4 * int(product(t.Dims)) }

// eachPiece makes a weight's values, some kilobytes at a time.
func (b *Builder) eachPiece(t *pb.TensorProto, f func([]byte) error) error {
	piece := make([]byte, 0, 1<<16)
	left := rawSize(t)
	for v := range b.values[t] {
		if left -= 4; left < 0 {
			break
		}
		piece = binary.LittleEndian.AppendUint32(piece, math.Float32bits(v))
		if len(piece) == cap(piece) {
			if err := f(piece); err != nil {
				return err
			}
			piece = piece[:0]
		}
	}
	if left != 0 {
		return fmt.Errorf("build model %s: weight %q: its shape %s does not fit the number of its values: %w", b.name, t.GetName(), tensor.Shape(t.Dims), ErrCorrupt)
	}
	return f(piece)
}

// Field numbers of ONNX's messages that hold weights.
const (
	modelGraph       protowire.Number = 7
	graphInitializer protowire.Number = 5
	tensorRaw        protowire.Number = 9
)

// WriteTo writes the model as one ONNX file, making each weight as it comes. The bytes are those of Model and Bytes.
func (b *Builder) WriteTo(w io.Writer) (int64, error) {
	p, err := b.model()
	if err != nil {
		return 0, err
	}
	// A message's fields may stand in any order and apart, so what lies around the weights is encoded by itself.
	type weight struct {
		tensor *pb.TensorProto
		head   []byte // the message without its values
		size   int    // of the whole message
	}
	g := b.graph
	var before, after, modelBefore, modelAfter []byte
	for dst, m := range map[*[]byte]proto.Message{
		&before:      &pb.GraphProto{Node: g.Node, Name: g.Name},
		&after:       &pb.GraphProto{Input: g.Input, Output: g.Output},
		&modelBefore: &pb.ModelProto{IrVersion: p.IrVersion, ProducerName: p.ProducerName},
		&modelAfter:  &pb.ModelProto{OpsetImport: p.OpsetImport},
	} {
		if *dst, err = (proto.MarshalOptions{Deterministic: true}).Marshal(m); err != nil {
			return 0, fmt.Errorf("encode model %s: %w", b.name, err)
		}
	}
	size := len(before) + len(after)
	weights := make([]weight, len(g.Initializer))
	for i, t := range g.Initializer {
		head, err := proto.MarshalOptions{Deterministic: true}.Marshal(t)
		if err != nil {
			return 0, fmt.Errorf("encode model %s: %w", b.name, err)
		}
		weights[i] = weight{t, head, len(head)}
		if b.values[t] != nil {
			weights[i].size += protowire.SizeTag(tensorRaw) + protowire.SizeBytes(rawSize(t))
		}
		size += protowire.SizeTag(graphInitializer) + protowire.SizeBytes(weights[i].size)
		if size > maxProtoBytes {
			return 0, fmt.Errorf("write model %s: larger than the 2 GiB one ONNX file can hold: %w", b.name, ErrUnsupported)
		}
	}
	out := &counter{w: w}
	field := func(number protowire.Number, size int) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.BytesType), uint64(size))
	}
	out.write(modelBefore, field(modelGraph, size), before)
	for _, t := range weights {
		out.write(field(graphInitializer, t.size), t.head)
		if b.values[t.tensor] == nil {
			continue
		}
		out.write(field(tensorRaw, rawSize(t.tensor)))
		if err := b.eachPiece(t.tensor, func(piece []byte) error {
			out.write(piece)
			return out.err
		}); err != nil {
			return out.n, err
		}
	}
	out.write(after, modelAfter)
	return out.n, out.err
}

// counter writes until an error and counts what was written.
type counter struct {
	w   io.Writer
	n   int64
	err error
}

func (c *counter) write(pieces ...[]byte) {
	for _, p := range pieces {
		if c.err == nil {
			n, err := c.w.Write(p)
			c.n, c.err = c.n+int64(n), err
		}
	}
}

// Save writes the model to path, whole or not at all.
func (b *Builder) Save(path string) error {
	out, err := renameio.NewPendingFile(filepath.Clean(path), renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("write model %s: %w", path, err)
	}
	defer out.Cleanup() //nolint:errcheck // after a successful replace there is nothing left to clean
	w := bufio.NewWriterSize(out, 1<<20)
	if _, err := b.WriteTo(w); err != nil {
		return fmt.Errorf("write model %s: %w", path, err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write model %s: %w", path, err)
	}
	if err := out.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write model %s: %w", path, err)
	}
	return nil
}
