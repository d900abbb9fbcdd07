package caffe

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/quantgate/quantgate/caffe/internal/pb"
)

// net is a prototxt as it is at test time: layers of the other phase are gone, and old forms are brought to the present one.
type net struct {
	file   string
	name   string
	layers []*layer
}

// layer is one layer and where it stands.
type layer struct {
	*pb.LayerParameter
	at    string // "deploy.prototxt:12"
	index int    // in the net
}

// fail makes an error that names the layer and its line.
func (l *layer) fail(kind error, format string, args ...any) error {
	return fmt.Errorf("%s: layer %q (%s): %s: %w", l.at, l.GetName(), l.GetType(), fmt.Sprintf(format, args...), kind)
}

func (l *layer) corrupt(format string, args ...any) error { return l.fail(ErrCorrupt, format, args...) }

func (l *layer) unsupported(format string, args ...any) error {
	return l.fail(ErrUnsupported, format, args...)
}

// v1Types gives the present names of the layer types that are imported; any other keeps its old one, for messages.
var v1Types = map[pb.V1LayerParameter_LayerType]string{
	pb.V1LayerParameter_CONCAT: "Concat", pb.V1LayerParameter_CONVOLUTION: "Convolution", pb.V1LayerParameter_DROPOUT: "Dropout",
	pb.V1LayerParameter_ELTWISE: "Eltwise", pb.V1LayerParameter_FLATTEN: "Flatten", pb.V1LayerParameter_INNER_PRODUCT: "InnerProduct",
	pb.V1LayerParameter_LRN: "LRN", pb.V1LayerParameter_POOLING: "Pooling", pb.V1LayerParameter_RELU: "ReLU",
	pb.V1LayerParameter_SOFTMAX: "Softmax", pb.V1LayerParameter_SPLIT: "Split",
}

// position is where prototext's errors say they are: "(line 3:7): what".
var position = regexp.MustCompile(`\(line (\d+):\d+\):? ?(.*)`)

func parseNet(file string, text []byte) (*net, error) {
	p := &pb.NetParameter{}
	if err := (prototext.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, p); err != nil {
		if at := position.FindStringSubmatch(err.Error()); at != nil {
			return nil, fmt.Errorf("%s:%s: %s: %w", file, at[1], at[2], ErrCorrupt)
		}
		return nil, fmt.Errorf("%s: cannot be read as a prototxt (cut short, or another format?): %w", file, ErrCorrupt)
	}
	if len(p.Layer) > 0 && len(p.Layers) > 0 {
		return nil, fmt.Errorf("%s: has both layer and layers, of two versions of Caffe: keep one: %w", file, ErrCorrupt)
	}
	if len(p.Layer) == 0 && len(p.Layers) == 0 {
		return nil, fmt.Errorf("%s: describes no layer (another format?): %w", file, ErrCorrupt)
	}
	places := scan(text)
	n := &net{file: file, name: p.GetName()}
	inputs, err := legacyInputs(file, p)
	if err != nil {
		return nil, err
	}
	n.layers = inputs
	all := p.Layer
	for _, old := range p.Layers {
		if old.Layer != nil {
			return nil, fmt.Errorf("%s: is written for Caffe of before 2014: bring it up to date with Caffe's upgrade_net_proto_text: %w", file, ErrUnsupported)
		}
		all = append(all, upgradeV1(old))
	}
	for i, lp := range all {
		l := &layer{LayerParameter: lp, at: file}
		if len(places) == len(all) {
			l.at = fmt.Sprintf("%s:%d", file, places[i].line)
			if l.included(p.GetState()) && supported(lp.GetType()) && len(places[i].unknown) > 0 {
				return nil, l.unsupported("sets %s, which Caffe's own layer has not: its effect would be lost", strings.Join(places[i].unknown, ", "))
			}
		}
		if l.included(p.GetState()) {
			n.layers = append(n.layers, l)
		}
	}
	return n, nil
}

// legacyInputs makes Input layers of the net's own input fields.
func legacyInputs(file string, p *pb.NetParameter) ([]*layer, error) {
	shapes := p.InputShape
	if len(p.InputDim) > 0 {
		if len(shapes) > 0 || len(p.InputDim)%4 != 0 {
			return nil, fmt.Errorf("%s: input_dim must stand four times for each input, and not beside input_shape: %w", file, ErrCorrupt)
		}
		for dims := range slices.Chunk(p.InputDim, 4) {
			shape := &pb.BlobShape{}
			for _, d := range dims {
				shape.Dim = append(shape.Dim, int64(d))
			}
			shapes = append(shapes, shape)
		}
	}
	if len(shapes) != len(p.Input) {
		return nil, fmt.Errorf("%s: names %d inputs and gives %d shapes: %w", file, len(p.Input), len(shapes), ErrCorrupt)
	}
	var layers []*layer
	for i, name := range p.Input {
		layers = append(layers, &layer{at: file, LayerParameter: &pb.LayerParameter{
			Name: &name, Type: new("Input"), Top: []string{name}, InputParam: &pb.InputParameter{Shape: shapes[i : i+1]},
		}})
	}
	return layers, nil
}

func upgradeV1(old *pb.V1LayerParameter) *pb.LayerParameter {
	kind := v1Types[old.GetType()]
	if kind == "" {
		kind = old.GetType().String()
	}
	return &pb.LayerParameter{
		Name: old.Name, Type: &kind, Bottom: old.Bottom, Top: old.Top, Include: old.Include, Exclude: old.Exclude,
		ConcatParam: old.ConcatParam, ConvolutionParam: old.ConvolutionParam, EltwiseParam: old.EltwiseParam,
		InnerProductParam: old.InnerProductParam, LrnParam: old.LrnParam, PoolingParam: old.PoolingParam,
		ReluParam: old.ReluParam, SoftmaxParam: old.SoftmaxParam,
	}
}

// included reports whether the layer is part of the net at test time (Caffe's Net::FilterNet).
func (l *layer) included(state *pb.NetState) bool {
	met := func(r *pb.NetStateRule) bool {
		has := func(stage string) bool { return slices.Contains(state.GetStage(), stage) }
		switch level := state.GetLevel(); {
		case r.Phase != nil && r.GetPhase() != pb.Phase_TEST,
			r.MinLevel != nil && level < r.GetMinLevel(),
			r.MaxLevel != nil && level > r.GetMaxLevel(),
			slices.ContainsFunc(r.NotStage, has):
			return false
		}
		return !slices.ContainsFunc(r.Stage, func(s string) bool { return !has(s) })
	}
	if len(l.Include) > 0 {
		return slices.ContainsFunc(l.Include, met)
	}
	return !slices.ContainsFunc(l.Exclude, met)
}

// blob is a learned parameter: its values, and its shape without leading dimensions of 1, which old files have more of.
type blob struct {
	shape  []int64
	values []float32
}

// parseWeights returns the blobs of each layer by its name.
func parseWeights(file string, data []byte) (map[string][]blob, error) {
	p := &pb.Weights{}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("%s: cannot be decoded as a caffemodel (cut short, or another format?): %w", file, ErrCorrupt)
	}
	layers := map[string][]blob{}
	add := func(name string, blobs []*pb.BlobProto) error {
		if len(blobs) == 0 {
			return nil
		}
		if layers[name] != nil {
			return fmt.Errorf("%s: holds weights of layer %q twice: %w", file, name, ErrCorrupt)
		}
		for i, b := range blobs {
			v, err := readBlob(b)
			if err != nil {
				return fmt.Errorf("%s: layer %q: blob %d: %w", file, name, i, err)
			}
			layers[name] = append(layers[name], v)
		}
		return nil
	}
	for _, l := range p.Layer {
		if err := add(l.GetName(), l.Blobs); err != nil {
			return nil, err
		}
	}
	for _, l := range p.Layers {
		if err := add(l.GetName(), l.Blobs); err != nil {
			return nil, err
		}
	}
	if len(layers) == 0 {
		return nil, fmt.Errorf("%s: holds no weights (another format?): %w", file, ErrCorrupt)
	}
	return layers, nil
}

func readBlob(p *pb.BlobProto) (blob, error) {
	b := blob{values: p.Data}
	if len(p.DoubleData) > 0 {
		b.values = make([]float32, len(p.DoubleData))
		for i, v := range p.DoubleData {
			b.values[i] = float32(v)
		}
	}
	dims := p.GetShape().GetDim()
	if p.Shape == nil {
		dims = []int64{int64(p.GetNum()), int64(p.GetChannels()), int64(p.GetHeight()), int64(p.GetWidth())}
	}
	n := int64(1)
	for _, d := range dims {
		if d < 0 || d > maxDim || n*d > maxElems {
			return b, fmt.Errorf("its shape %v is out of bounds: %w", dims, ErrCorrupt)
		}
		n *= d
	}
	if n != int64(len(b.values)) {
		return b, fmt.Errorf("its shape %v does not fit its %d values: %w", dims, len(b.values), ErrCorrupt)
	}
	b.shape = trimOnes(dims)
	return b, nil
}

// trimOnes drops leading dimensions of 1.
func trimOnes(dims []int64) []int64 {
	for len(dims) > 0 && dims[0] == 1 {
		dims = dims[1:]
	}
	return dims
}
