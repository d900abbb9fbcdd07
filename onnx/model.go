// Package onnx loads, rewrites and saves ONNX models: it lists the tensors that calibration observes, folds
// BatchNormalization, inserts QuantizeLinear/DequantizeLinear pairs and makes float16 versions.
//
// A rewrite returns a new Model; the one it was given, and the file that came from, stay as they are.
package onnx

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/proto"

	"github.com/quantgate/quantgate/onnx/internal/pb"
	"github.com/quantgate/quantgate/tensor"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrCorrupt says that bytes are not an ONNX model, or one that contradicts itself.
	ErrCorrupt = errors.New("not a valid ONNX model")
	// ErrUnsupported says that the model is valid but holds something this package does not handle.
	ErrUnsupported = errors.New("unsupported model")
	// ErrOutside says that a model names a weights file that lies outside its own folder.
	ErrOutside = errors.New("weights file outside the model's folder")
)

// maxProtoBytes is the size from which a model cannot be one protobuf message any more (2 GiB, less a little for the
// message's own head).
const maxProtoBytes = math.MaxInt32 - 1024

// Model is an ONNX model in memory, weights included. It is immutable: concurrent use is safe.
type Model struct {
	proto  *pb.ModelProto
	name   string
	digest string
}

// Port describes one input or output of a model. Dynamic dimensions are tensor.Dynamic; a nil Shape means that the model
// does not state one.
type Port struct {
	Name  string
	DType tensor.DType
	Shape tensor.Shape
}

// Load reads the model at path and the weights files it names, which must lie in the model's folder: a path or symbolic
// link that leaves it wraps ErrOutside. A file that is no ONNX model wraps ErrCorrupt.
func Load(path string) (*Model, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	p, err := decode(data, path)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	sum.Write(data)
	if err := loadExternal(p, path, sum); err != nil {
		return nil, err
	}
	return newModel(p, path, hex.EncodeToString(sum.Sum(nil)))
}

// Parse reads a model from memory; name is what messages call it. A model with weights outside its file is refused: Load
// finds them.
func Parse(data []byte, name string) (*Model, error) {
	p, err := decode(data, name)
	if err != nil {
		return nil, err
	}
	if t := firstExternal(p); t != nil {
		return nil, fmt.Errorf("model %s: tensor %q has its values in another file: load the model from its path: %w", name, t.GetName(), ErrUnsupported)
	}
	sum := sha256.Sum256(data)
	return newModel(p, name, hex.EncodeToString(sum[:]))
}

func decode(data []byte, name string) (*pb.ModelProto, error) {
	p := &pb.ModelProto{}
	if err := proto.Unmarshal(data, p); err != nil {
		// protobuf's own text varies on purpose between builds, so it is left out.
		return nil, fmt.Errorf("model %s: cannot be decoded as an ONNX file (cut short, or another format?): %w", name, ErrCorrupt)
	}
	if p.Graph == nil {
		return nil, fmt.Errorf("model %s: holds no graph (an empty file, or another format?): %w", name, ErrCorrupt)
	}
	return p, nil
}

func newModel(p *pb.ModelProto, name, digest string) (*Model, error) {
	if err := validate(p); err != nil {
		return nil, fmt.Errorf("model %s: %w", name, err)
	}
	return &Model{proto: p, name: name, digest: digest}, nil
}

// Bytes returns the model as the content of one ONNX file; the same model gives the same bytes. A model of 2 GiB or more
// does not fit one file: Save splits it.
func (m *Model) Bytes() ([]byte, error) {
	if proto.Size(m.proto) > maxProtoBytes {
		return nil, fmt.Errorf("model %s: larger than the 2 GiB one ONNX file can hold: save it to a path, which keeps weights in a second file: %w", m.name, ErrUnsupported)
	}
	data, err := marshal(m.proto)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", m.name, err)
	}
	return data, nil
}

func marshal(p *pb.ModelProto) ([]byte, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode model: %w", err)
	}
	return data, nil
}

// Save writes the model to path, whole or not at all. A model of 2 GiB or more keeps its large weights in a second file
// beside it, named like it with .data at the end.
func (m *Model) Save(path string) error { return m.save(path, maxProtoBytes) }

func (m *Model) save(path string, limit int) error {
	p := m.proto
	if proto.Size(p) > limit {
		var err error
		if p, err = saveExternal(p, path); err != nil {
			return err
		}
	}
	data, err := marshal(p)
	if err != nil {
		return fmt.Errorf("model %s: %w", path, err)
	}
	if err := renameio.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("write model %s: %w", path, err)
	}
	return nil
}

// copyModel copies everything that a rewrite may change: nodes, ports, lists. Initialisers are shared, since a rewrite
// replaces them and never writes into one.
func copyModel(p *pb.ModelProto) *pb.ModelProto {
	g := p.Graph
	shared := g.Initializer
	g0 := &pb.GraphProto{
		Node: g.Node, Name: g.Name, DocString: g.DocString, Input: g.Input, Output: g.Output, ValueInfo: g.ValueInfo,
		QuantizationAnnotation: g.QuantizationAnnotation, SparseInitializer: g.SparseInitializer,
	}
	g0.ProtoReflect().SetUnknown(g.ProtoReflect().GetUnknown())
	p0 := &pb.ModelProto{
		IrVersion: p.IrVersion, ProducerName: p.ProducerName, ProducerVersion: p.ProducerVersion, Domain: p.Domain,
		ModelVersion: p.ModelVersion, DocString: p.DocString, Graph: g0, OpsetImport: p.OpsetImport,
		MetadataProps: p.MetadataProps, Functions: p.Functions,
	}
	p0.ProtoReflect().SetUnknown(p.ProtoReflect().GetUnknown())
	c := proto.CloneOf(p0)
	c.Graph.Initializer = append([]*pb.TensorProto(nil), shared...)
	return c
}

// derive makes a model of a rewritten message; the name keeps the source's, with what was done.
func (m *Model) derive(p *pb.ModelProto, what string) (*Model, error) {
	d, err := newModel(p, m.name+" ("+what+")", "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return d, nil
}

// Digest returns the SHA-256, in hexadecimal, of the file the model came from; where weights lie in other files, their
// contents follow in the order the model names them first. For a rewritten model it is that of Bytes.
func (m *Model) Digest() (string, error) {
	if m.digest != "" {
		return m.digest, nil
	}
	data, err := m.Bytes()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// Opset returns the version of ONNX's own operator set that the model uses, 0 if it names none.
func (m *Model) Opset() int { return opset(m.proto) }

func opset(p *pb.ModelProto) int {
	for _, o := range p.OpsetImport {
		if isONNXDomain(o.GetDomain()) {
			return int(o.GetVersion())
		}
	}
	return 0
}

func isONNXDomain(domain string) bool { return domain == "" || domain == "ai.onnx" }

// Inputs lists the inputs that a caller must feed: those without an initialiser.
func (m *Model) Inputs() []Port {
	constant := map[string]bool{}
	for _, t := range m.proto.Graph.Initializer {
		constant[t.GetName()] = true
	}
	var ports []Port
	for _, v := range m.proto.Graph.Input {
		if !constant[v.GetName()] {
			ports = append(ports, portOf(v))
		}
	}
	return ports
}

// Outputs lists the outputs in the model's order.
func (m *Model) Outputs() []Port {
	ports := make([]Port, len(m.proto.Graph.Output))
	for i, v := range m.proto.Graph.Output {
		ports[i] = portOf(v)
	}
	return ports
}

func portOf(v *pb.ValueInfoProto) Port {
	t := v.GetType().GetTensorType()
	p := Port{Name: v.GetName(), DType: dtypeOf(t.GetElemType())}
	if t.GetShape() == nil {
		return p
	}
	p.Shape = make(tensor.Shape, len(t.Shape.Dim))
	for i, d := range t.Shape.Dim {
		p.Shape[i] = tensor.Dynamic
		if _, fixed := d.Value.(*pb.TensorShapeProto_Dimension_DimValue); fixed && d.GetDimValue() >= 0 {
			p.Shape[i] = d.GetDimValue()
		}
	}
	return p
}

// String names a port with its type and shape: "data float32 ?x3x224x224".
func (p Port) String() string {
	shape := "of unstated shape"
	if p.Shape != nil {
		shape = p.Shape.String()
	}
	return fmt.Sprintf("%q %s %s", p.Name, p.DType, shape)
}

// ImageInput returns the model's input when it is one batch of images: float32 or float16, N x C x H x W with C 1 or 3.
// Any other model is an error that lists its inputs.
func (m *Model) ImageInput() (Port, error) {
	inputs := m.Inputs()
	listed := make([]string, len(inputs))
	for i, p := range inputs {
		listed[i] = p.String()
	}
	if len(inputs) != 1 {
		return Port{}, fmt.Errorf("model %s: has %d inputs to feed (%s), wanted one batch of images: %w", m.name, len(inputs), strings.Join(listed, ", "), ErrUnsupported)
	}
	p := inputs[0]
	fail := func(why string) (Port, error) {
		return Port{}, fmt.Errorf("model %s: input %s is not shaped like images, %s: %w", m.name, p, why, ErrUnsupported)
	}
	switch {
	case p.DType != tensor.Float32 && p.DType != tensor.Float16:
		return fail("wanted float32 or float16 values")
	case len(p.Shape) != 4:
		return fail("wanted batch x channels x height x width")
	case isChannels(p.Shape[1]):
		return p, nil
	case isChannels(p.Shape[3]) && p.Shape[3] != tensor.Dynamic:
		return fail("channels come last; transpose the model's input to batch x channels x height x width")
	default:
		return fail("wanted 1 or 3 channels as the second dimension")
	}
}

func isChannels(d int64) bool { return d == 1 || d == 3 || d == tensor.Dynamic }

// LogitsOutput returns the output that scores read: the named one, or the only one where name is empty. It is float32 or float16 and of
// rank 2 (batch x classes), or a longer shape that ends in ones.
func (m *Model) LogitsOutput(name string) (Port, error) {
	outputs := m.Outputs()
	listed := make([]string, len(outputs))
	for i, p := range outputs {
		listed[i] = p.String()
	}
	at := slices.IndexFunc(outputs, func(p Port) bool { return p.Name == name })
	switch {
	case name == "" && len(outputs) == 1:
		at = 0
	case name == "":
		return Port{}, fmt.Errorf("model %s: has %d outputs (%s): say which one holds the class scores (--output): %w", m.name, len(outputs), strings.Join(listed, ", "), ErrUnsupported)
	case at < 0:
		return Port{}, fmt.Errorf("model %s: has no output %q, but %s: %w", m.name, name, strings.Join(listed, ", "), ErrUnsupported)
	}
	p := outputs[at]
	if p.DType != tensor.Float32 && p.DType != tensor.Float16 {
		return Port{}, fmt.Errorf("model %s: output %s does not hold float scores: %w", m.name, p, ErrUnsupported)
	}
	if p.Shape == nil {
		return p, nil
	}
	if len(p.Shape) < 2 {
		return Port{}, fmt.Errorf("model %s: output %s is not batch x classes: %w", m.name, p, ErrUnsupported)
	}
	for _, d := range p.Shape[2:] {
		if d != 1 && d != tensor.Dynamic {
			return Port{}, fmt.Errorf("model %s: output %s is not batch x classes: %w", m.name, p, ErrUnsupported)
		}
	}
	return p, nil
}
