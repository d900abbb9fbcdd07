package caffe

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/quantgate/quantgate/caffe/internal/pb"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

// Bounds of what is computed with, so that nothing overflows.
const (
	maxDim   = 1 << 28
	maxElems = math.MaxInt32
)

// value is a blob at one moment: a layer that works in place makes a new one.
type value struct {
	tensor string       // "" of an input that nothing reads
	shape  tensor.Shape // the batch dynamic
	input  bool         // of the model
	norm   *batchNorm   // a BatchNorm that waits for the Scale behind it; tensor is then what it reads
}

// batchNorm is a BatchNorm layer: y = (x - mean)/sqrt(variance + eps).
type batchNorm struct {
	mean, variance []float32
	eps            float32
}

// converter draws the ONNX model of a net.
type converter struct {
	*onnx.Builder
	net     *net
	weights map[string][]blob
	from    string // the caffemodel
	taken   map[string]bool
	readers map[version][]int // by which layers a blob is read
	batch   int64             // the batch that the prototxt was written for
}

// version is a blob as one layer made it.
type version struct{ layer, top int }

// handlers convert one layer: they are given its bottoms, at least one, and return its top.
var handlers = map[string]func(*converter, *layer, []*value) (*value, error){
	"BatchNorm": (*converter).batchNorm, "Concat": (*converter).concat, "Convolution": (*converter).convolution,
	"Dropout": (*converter).identity, "Eltwise": (*converter).eltwise, "Flatten": (*converter).flattenLayer,
	"InnerProduct": (*converter).innerProduct, "LRN": (*converter).lrn, "Pooling": (*converter).pooling, "ReLU": (*converter).relu,
	"Reshape": (*converter).reshape, "Scale": (*converter).scale, "Softmax": (*converter).softmax, "Split": (*converter).identity,
}

const inputType = "Input"

func supported(kind string) bool { return kind == inputType || handlers[kind] != nil }

// Layers lists the layer types that are imported.
func Layers() []string {
	kinds := []string{inputType}
	for kind := range handlers {
		kinds = append(kinds, kind)
	}
	sort.Strings(kinds)
	return kinds
}

// checkTypes lists every layer type that is not imported, each with the first layer of it.
func (n *net) checkTypes() error {
	count := map[string]int{}
	var first []*layer
	for _, l := range n.layers {
		if kind := l.GetType(); !supported(kind) {
			if count[kind]++; count[kind] == 1 {
				first = append(first, l)
			}
		}
	}
	if len(first) == 0 {
		return nil
	}
	listed := make([]string, len(first))
	for i, l := range first {
		listed[i] = fmt.Sprintf("%s (layer %q, %s", l.GetType(), l.GetName(), l.at)
		if more := count[l.GetType()] - 1; more > 0 {
			listed[i] += fmt.Sprintf(", and %d more", more)
		}
		listed[i] += ")"
	}
	return fmt.Errorf("%s: layer types that are not imported: %s; imported are %s (of the deploy.prototxt, not the train_val.prototxt): %w",
		n.file, strings.Join(listed, "; "), strings.Join(Layers(), ", "), ErrUnsupported)
}

func convert(n *net, caffemodel string, weights map[string][]blob) (*onnx.Builder, error) {
	if err := n.checkTypes(); err != nil {
		return nil, err
	}
	name := n.name
	if name == "" {
		name = "caffe"
	}
	c := &converter{
		Builder: onnx.NewBuilder(name), net: n, weights: weights, from: caffemodel, taken: map[string]bool{"": true}, readers: map[version][]int{},
	}
	last, err := c.findReaders()
	if err != nil {
		return nil, err
	}
	blobs := map[string]*value{}
	for _, l := range n.layers {
		if l.GetType() == inputType {
			if err := c.inputs(l, blobs); err != nil {
				return nil, err
			}
			continue
		}
		in := make([]*value, len(l.Bottom))
		for j, name := range l.Bottom {
			in[j] = blobs[name]
		}
		out, err := handlers[l.GetType()](c, l, in)
		if err != nil {
			return nil, err
		}
		for _, top := range l.Top {
			blobs[top] = out
		}
	}
	if err := c.outputs(last, blobs); err != nil {
		return nil, err
	}
	// Whatever mistake is left shows here, and not when the model is written.
	if _, err := c.Count(); err != nil {
		return nil, fmt.Errorf("%s: %w", n.file, err)
	}
	return c.Builder, nil
}

// findReaders follows the blobs through the net: which layers read what a layer makes. It returns the last version of each blob
// in the order in which the blobs appear.
func (c *converter) findReaders() ([]string, error) {
	var order []string
	current := map[string]version{}
	for i, l := range c.net.layers {
		l.index = i
		if l.GetType() != inputType {
			if len(l.Bottom) == 0 || len(l.Top) == 0 || len(l.Top) > 1 && l.GetType() != "Split" {
				return nil, l.corrupt("has %d bottoms and %d tops", len(l.Bottom), len(l.Top))
			}
			if len(l.Bottom) > 1 && l.GetType() != "Concat" && l.GetType() != "Eltwise" {
				return nil, l.unsupported("has %d bottoms, wanted one", len(l.Bottom))
			}
		}
		for _, name := range l.Bottom {
			v, known := current[name]
			if !known {
				return nil, l.corrupt("reads blob %q, which no layer before it makes", name)
			}
			c.readers[v] = append(c.readers[v], i)
		}
		for j, name := range l.Top {
			if _, known := current[name]; !known {
				order = append(order, name)
			} else if !slices.Contains(l.Bottom, name) {
				return nil, l.corrupt("makes blob %q, which another layer makes already", name)
			}
			current[name] = version{i, j}
		}
	}
	var last []string
	for _, name := range order {
		if len(c.readers[current[name]]) == 0 {
			last = append(last, name)
		}
	}
	return last, nil
}

// inputs declares the tops of an Input layer that some layer reads.
func (c *converter) inputs(l *layer, blobs map[string]*value) error {
	shapes := l.GetInputParam().GetShape()
	if len(l.Bottom) > 0 || len(shapes) != len(l.Top) && len(shapes) != 1 {
		return l.corrupt("has %d tops and %d shapes", len(l.Top), len(shapes))
	}
	for j, top := range l.Top {
		dims := shapes[min(j, len(shapes)-1)].GetDim()
		n := int64(1)
		for _, d := range dims {
			if d < 1 || d > maxDim || n*d > maxElems {
				return l.corrupt("the shape %v of %q is out of bounds", dims, top)
			}
			n *= d
		}
		if len(dims) < 2 {
			return l.unsupported("the shape %v of %q is no batch", dims, top)
		}
		shape := tensor.Shape(dims).Clone()
		shape[0] = tensor.Dynamic
		v := &value{shape: shape, input: true}
		if len(c.readers[version{l.index, j}]) > 0 {
			c.batch = dims[0]
			v.tensor = c.Input(c.unique(top), shape)
		}
		blobs[top] = v
	}
	return nil
}

// outputs declares the blobs that nothing reads. An input that goes straight out, and a blob that goes out twice, needs a node.
func (c *converter) outputs(names []string, blobs map[string]*value) error {
	out := map[string]bool{}
	for _, name := range names {
		v := blobs[name]
		t := v.tensor
		if t == "" {
			continue // an input that nothing reads
		}
		if v.input || out[t] {
			t = c.Node("Identity", c.unique(name), []string{t})
		}
		out[t] = true
		c.Output(t, v.shape)
	}
	if len(out) == 0 {
		return fmt.Errorf("%s: no blob is left unread, so the network has no output: %w", c.net.file, ErrCorrupt)
	}
	return nil
}

// unique reserves the first of the names that is free, or the last with a number.
func (c *converter) unique(names ...string) string {
	name := ""
	for _, name = range names {
		if name != "" && !c.taken[name] {
			c.taken[name] = true
			return name
		}
	}
	for i := 1; ; i++ {
		if numbered := fmt.Sprintf("%s_%d", name, i); !c.taken[numbered] {
			c.taken[numbered] = true
			return numbered
		}
	}
}

// node adds the node that makes a layer's top.
func (c *converter) node(op string, l *layer, shape tensor.Shape, inputs []string, attrs ...onnx.Attr) *value {
	return &value{tensor: c.Node(op, c.unique(l.Top[0], l.GetName()), inputs, attrs...), shape: shape}
}

// inner adds a node whose result stays within a layer.
func (c *converter) inner(op string, l *layer, suffix string, inputs []string, attrs ...onnx.Attr) string {
	return c.Node(op, c.unique(l.GetName()+suffix), inputs, attrs...)
}

// constant adds a weight.
func (c *converter) constant(l *layer, suffix string, shape tensor.Shape, values []float32) string {
	return c.Weight(c.unique(l.GetName()+suffix), shape, slices.Values(values))
}

// learned returns the layer's blobs, which must be of the shapes wanted.
func (c *converter) learned(l *layer, wanted ...tensor.Shape) ([][]float32, error) {
	blobs := c.weights[l.GetName()]
	if blobs == nil {
		return nil, l.corrupt("%s holds no weights of it (is it another network's?)", c.from)
	}
	if len(blobs) != len(wanted) {
		return nil, l.corrupt("%s holds %d blobs of it, wanted %d (is it another network's?)", c.from, len(blobs), len(wanted))
	}
	values := make([][]float32, len(blobs))
	for i, b := range blobs {
		if !slices.Equal(b.shape, trimOnes(wanted[i])) {
			return nil, l.corrupt("blob %d in %s is %s, wanted %s (is it another network's?)", i, c.from, tensor.Shape(b.shape), wanted[i])
		}
		values[i] = b.values
	}
	return values, nil
}

// withBias is a weight's shape and, where the layer has one, that of its bias.
func withBias(bias bool, weight tensor.Shape, n int64) []tensor.Shape {
	if !bias {
		return []tensor.Shape{weight}
	}
	return []tensor.Shape{weight, {n}}
}

// perImage is the number of values of one image.
func perImage(s tensor.Shape) int64 {
	n := int64(1)
	for _, d := range s[1:] {
		n *= d
	}
	return n
}

// bounded reports an error where a layer's output is larger than anything real.
func bounded(l *layer, s tensor.Shape) error {
	n := int64(1)
	for _, d := range s[1:] {
		if d < 1 || d > maxDim || n*d > maxElems {
			return l.corrupt("its output would be %s", s)
		}
		n *= d
	}
	return nil
}

// given returns a layer's parameters, empty where it has none.
func given[T any](p *T) *T {
	if p == nil {
		return new(T)
	}
	return p
}

func (c *converter) identity(_ *layer, in []*value) (*value, error) { return in[0], nil }

func (c *converter) relu(l *layer, in []*value) (*value, error) {
	if slope := l.GetReluParam().GetNegativeSlope(); slope != 0 {
		return c.node("LeakyRelu", l, in[0].shape, []string{in[0].tensor}, onnx.Float("alpha", slope)), nil
	}
	return c.node("Relu", l, in[0].shape, []string{in[0].tensor}), nil
}

func (c *converter) convolution(l *layer, in []*value) (*value, error) {
	p, shape := given(l.ConvolutionParam), in[0].shape
	if len(shape) != 4 || p.GetAxis() != 1 {
		return nil, l.unsupported("convolves %s over axis %d, wanted images and axis 1", shape, p.GetAxis())
	}
	kernel, err := l.pair("kernel", p.KernelSize, p.KernelH, p.KernelW, 0)
	if err != nil {
		return nil, err
	}
	stride, err := l.pair("stride", p.Stride, p.StrideH, p.StrideW, 1)
	if err != nil {
		return nil, err
	}
	pad, err := l.pair("pad", p.Pad, p.PadH, p.PadW, 0)
	if err != nil {
		return nil, err
	}
	dilation, err := l.pair("dilation", p.Dilation, nil, nil, 1)
	if err != nil {
		return nil, err
	}
	n, group := int64(p.GetNumOutput()), int64(p.GetGroup())
	if n < 1 || n > maxDim || group < 1 || shape[1]%group != 0 || n%group != 0 {
		return nil, l.corrupt("has %d outputs and %d inputs in %d groups", n, shape[1], group)
	}
	out := tensor.Shape{tensor.Dynamic, n, 0, 0}
	for i := range 2 {
		if kernel[i] < 1 || stride[i] < 1 || dilation[i] < 1 {
			return nil, l.corrupt("its kernel, stride or dilation is 0")
		}
		room := shape[2+i] + 2*pad[i] - (kernel[i]-1)*dilation[i] - 1
		if room < 0 {
			return nil, l.corrupt("its kernel is larger than its input %s", shape)
		}
		out[2+i] = room/stride[i] + 1
	}
	if err := bounded(l, out); err != nil {
		return nil, err
	}
	weight := tensor.Shape{n, shape[1] / group, kernel[0], kernel[1]}
	values, err := c.learned(l, withBias(p.GetBiasTerm(), weight, n)...)
	if err != nil {
		return nil, err
	}
	inputs := []string{in[0].tensor, c.constant(l, "_w", weight, values[0])}
	if len(values) > 1 {
		inputs = append(inputs, c.constant(l, "_b", tensor.Shape{n}, values[1]))
	}
	return c.node("Conv", l, out, inputs, onnx.Ints("kernel_shape", kernel[:]...), onnx.Ints("strides", stride[:]...),
		onnx.Ints("pads", pad[0], pad[1], pad[0], pad[1]), onnx.Ints("dilations", dilation[:]...), onnx.Int("group", group)), nil
}

// pair reads a parameter that is given as one number, as two, or as _h and _w.
func (l *layer) pair(what string, both []uint32, h, w *uint32, otherwise int64) ([2]int64, error) {
	var v [2]int64
	switch {
	case (h != nil || w != nil) && len(both) > 0:
		return v, l.corrupt("gives %s twice", what)
	case h != nil || w != nil:
		v = [2]int64{otherwise, otherwise}
		if h != nil {
			v[0] = int64(*h)
		}
		if w != nil {
			v[1] = int64(*w)
		}
	case len(both) == 0:
		v = [2]int64{otherwise, otherwise}
	case len(both) <= 2:
		v = [2]int64{int64(both[0]), int64(both[len(both)-1])}
	default:
		return v, l.corrupt("gives %s %d times", what, len(both))
	}
	if max(v[0], v[1]) > maxDim {
		return v, l.corrupt("%s %dx%d is out of bounds", what, v[0], v[1])
	}
	return v, nil
}

func (c *converter) innerProduct(l *layer, in []*value) (*value, error) {
	p, shape := l.GetInnerProductParam(), in[0].shape
	if axis := p.GetAxis(); axis != 1 && int(axis) != 1-len(shape) {
		return nil, l.unsupported("flattens from axis %d, wanted 1", axis)
	}
	n, k := int64(p.GetNumOutput()), perImage(shape)
	if n < 1 || n > maxDim {
		return nil, l.corrupt("has %d outputs", n)
	}
	weight, transB := tensor.Shape{n, k}, int64(1)
	if p.GetTranspose() {
		weight, transB = tensor.Shape{k, n}, 0
	}
	values, err := c.learned(l, withBias(p.GetBiasTerm(), weight, n)...)
	if err != nil {
		return nil, err
	}
	x := in[0].tensor
	if len(shape) != 2 {
		x = c.inner("Flatten", l, "_flat", []string{x}, onnx.Int("axis", 1))
	}
	inputs := []string{x, c.constant(l, "_w", weight, values[0])}
	if len(values) > 1 {
		inputs = append(inputs, c.constant(l, "_b", tensor.Shape{n}, values[1]))
	}
	return c.node("Gemm", l, tensor.Shape{tensor.Dynamic, n}, inputs, onnx.Int("transB", transB)), nil
}

func (c *converter) lrn(l *layer, in []*value) (*value, error) {
	p := l.GetLrnParam()
	if p.GetNormRegion() != pb.LRNParameter_ACROSS_CHANNELS || len(in[0].shape) != 4 {
		return nil, l.unsupported("normalises %s of %s, wanted ACROSS_CHANNELS of images", p.GetNormRegion(), in[0].shape)
	}
	if p.GetLocalSize()%2 != 1 || p.GetLocalSize() > maxDim {
		return nil, l.corrupt("local_size is %d, wanted an odd number", p.GetLocalSize())
	}
	return c.node("LRN", l, in[0].shape, []string{in[0].tensor}, onnx.Int("size", int64(p.GetLocalSize())),
		onnx.Float("alpha", p.GetAlpha()), onnx.Float("beta", p.GetBeta()), onnx.Float("bias", p.GetK())), nil
}

// axis reads the axis of a layer that may not be the batch's.
func (l *layer) axis(axis int32, shape tensor.Shape) (int, error) {
	a := int(axis)
	if a < 0 {
		a += len(shape)
	}
	if a < 1 || a >= len(shape) {
		return 0, l.unsupported("works along axis %d of %s, wanted one behind the batch", axis, shape)
	}
	return a, nil
}

func (c *converter) softmax(l *layer, in []*value) (*value, error) {
	axis, err := l.axis(l.GetSoftmaxParam().GetAxis(), in[0].shape)
	if err != nil {
		return nil, err
	}
	return c.node("Softmax", l, in[0].shape, []string{in[0].tensor}, onnx.Int("axis", int64(axis))), nil
}

func (c *converter) concat(l *layer, in []*value) (*value, error) {
	p := l.GetConcatParam()
	along := p.GetAxis()
	if p.GetConcatDim() != 1 {
		along = int32(min(p.GetConcatDim(), math.MaxInt32))
	}
	axis, err := l.axis(along, in[0].shape)
	if err != nil {
		return nil, err
	}
	out := in[0].shape.Clone()
	out[axis] = 0
	inputs := make([]string, len(in))
	for i, v := range in {
		inputs[i] = v.tensor
		if len(v.shape) != len(out) {
			return nil, l.corrupt("joins %s and %s", in[0].shape, v.shape)
		}
		for d := range out {
			if d != axis && v.shape[d] != out[d] {
				return nil, l.corrupt("joins %s and %s along axis %d", in[0].shape, v.shape, axis)
			}
		}
		out[axis] += v.shape[axis]
	}
	if err := bounded(l, out); err != nil {
		return nil, err
	}
	if len(in) == 1 {
		return in[0], nil
	}
	return c.node("Concat", l, out, inputs, onnx.Int("axis", int64(axis))), nil
}

func (c *converter) eltwise(l *layer, in []*value) (*value, error) {
	p := l.GetEltwiseParam()
	coeff := p.GetCoeff()
	if len(coeff) > 0 && (len(coeff) != len(in) || p.GetOperation() != pb.EltwiseParameter_SUM) {
		return nil, l.corrupt("has %d coefficients for %d bottoms; only SUM has any", len(coeff), len(in))
	}
	terms := make([]string, len(in))
	for i, v := range in {
		if !slices.Equal(v.shape, in[0].shape) {
			return nil, l.corrupt("combines %s and %s", in[0].shape, v.shape)
		}
		terms[i] = v.tensor
		if len(coeff) > 0 && coeff[i] != 1 {
			scalar := c.constant(l, fmt.Sprintf("_coeff%d", i), nil, coeff[i:i+1])
			terms[i] = c.inner("Mul", l, fmt.Sprintf("_term%d", i), []string{v.tensor, scalar})
		}
	}
	if len(terms) < 2 {
		return nil, l.corrupt("has one bottom, wanted two or more")
	}
	op := map[pb.EltwiseParameter_EltwiseOp]string{
		pb.EltwiseParameter_SUM: "Add", pb.EltwiseParameter_PROD: "Mul", pb.EltwiseParameter_MAX: "Max",
	}[p.GetOperation()]
	so := terms[0]
	for i := 1; i < len(terms)-1; i++ {
		so = c.inner(op, l, fmt.Sprintf("_partial%d", i), []string{so, terms[i]})
	}
	return c.node(op, l, in[0].shape, []string{so, terms[len(terms)-1]}), nil
}

func (c *converter) flattenLayer(l *layer, in []*value) (*value, error) {
	p, shape := l.GetFlattenParam(), in[0].shape
	end := int(p.GetEndAxis())
	if p.GetAxis() != 1 || end != -1 && end != len(shape)-1 {
		return nil, l.unsupported("flattens axes %d to %d, wanted all behind the batch", p.GetAxis(), end)
	}
	return c.node("Flatten", l, tensor.Shape{tensor.Dynamic, perImage(shape)}, []string{in[0].tensor}, onnx.Int("axis", 1)), nil
}

func (c *converter) reshape(l *layer, in []*value) (*value, error) {
	p, shape := l.GetReshapeParam(), in[0].shape
	dims := slices.Clone(p.GetShape().GetDim())
	if p.GetAxis() != 0 || p.GetNumAxes() != -1 || len(dims) < 1 {
		return nil, l.unsupported("reshapes from axis %d, %d axes, wanted all", p.GetAxis(), p.GetNumAxes())
	}
	if dims[0] == c.batch {
		dims[0] = 0
	}
	if dims[0] > 0 {
		return nil, l.unsupported("makes a batch of %d, wanted 0 (as it comes) or -1", dims[0])
	}
	out := tensor.Shape(dims).Clone()
	rest, open := int64(1), 0
	for i, d := range dims {
		switch {
		case i == 0:
			out[0] = tensor.Dynamic
			if d == -1 {
				open = -1
			}
		case d == 0 && i < len(shape):
			out[i] = shape[i]
		case d == -1 && open == 0:
			open = i
			continue
		case d < 1 || d > maxDim:
			return nil, l.corrupt("cannot reshape %s to %v", shape, dims)
		}
		if i > 0 {
			if rest *= out[i]; rest > maxElems {
				return nil, l.corrupt("cannot reshape %s to %v", shape, dims)
			}
		}
	}
	total := perImage(shape)
	if open > 0 && total%rest == 0 {
		out[open], rest = total/rest, total
	}
	if rest != total {
		return nil, l.corrupt("cannot reshape %s to %v and keep the batch", shape, dims)
	}
	return c.node("Reshape", l, out, []string{in[0].tensor, c.Integers(c.unique(l.GetName()+"_shape"), dims...)}), nil
}

// batchNorm converts a BatchNorm layer (batch_norm_layer.cpp): its third blob is what the sums in the first two are divided by.
func (c *converter) batchNorm(l *layer, in []*value) (*value, error) {
	p, shape := given(l.BatchNormParam), in[0].shape
	if p.UseGlobalStats != nil && !p.GetUseGlobalStats() {
		return nil, l.unsupported("normalises by the batch at hand (use_global_stats: false), so an image's scores would depend on its neighbours")
	}
	channels := shape[1]
	values, err := c.learned(l, tensor.Shape{channels}, tensor.Shape{channels}, tensor.Shape{1})
	if err != nil {
		return nil, err
	}
	factor := values[2][0]
	if factor != 0 {
		factor = 1 / factor
	}
	norm := &batchNorm{mean: make([]float32, channels), variance: make([]float32, channels), eps: p.GetEps()}
	for i := range norm.mean {
		norm.mean[i], norm.variance[i] = values[0][i]*factor, values[1][i]*factor
	}
	if readers := c.readers[version{l.index, 0}]; len(readers) == 1 {
		if next := c.net.layers[readers[0]]; next.GetType() == "Scale" && next.scalesChannels() {
			return &value{tensor: in[0].tensor, shape: shape, norm: norm}, nil
		}
	}
	return c.normalize(l, in[0], norm, slices.Repeat([]float32{1}, int(channels)), make([]float32, channels)), nil
}

func (c *converter) normalize(l *layer, in *value, norm *batchNorm, scale, shift []float32) *value {
	n := tensor.Shape{in.shape[1]}
	return c.node("BatchNormalization", l, in.shape, []string{
		in.tensor, c.constant(l, "_scale", n, scale), c.constant(l, "_bias", n, shift),
		c.constant(l, "_mean", n, norm.mean), c.constant(l, "_var", n, norm.variance),
	}, onnx.Float("epsilon", norm.eps))
}

// scalesChannels reports whether a Scale layer has a factor for each channel.
func (l *layer) scalesChannels() bool {
	return l.GetScaleParam().GetAxis() == 1 && l.GetScaleParam().GetNumAxes() == 1
}

func (c *converter) scale(l *layer, in []*value) (*value, error) {
	p, shape := l.GetScaleParam(), in[0].shape
	if !l.scalesChannels() {
		return nil, l.unsupported("scales %d axes from axis %d, wanted the channels", p.GetNumAxes(), p.GetAxis())
	}
	channels := shape[1]
	values, err := c.learned(l, withBias(p.GetBiasTerm(), tensor.Shape{channels}, channels)...)
	if err != nil {
		return nil, err
	}
	if in[0].norm != nil {
		shift := make([]float32, channels)
		if len(values) > 1 {
			shift = values[1]
		}
		return c.normalize(l, in[0], in[0].norm, values[0], shift), nil
	}
	spread := tensor.Shape{channels}
	for range shape[2:] {
		spread = append(spread, 1)
	}
	factor := c.constant(l, "_scale", spread, values[0])
	if len(values) == 1 {
		return c.node("Mul", l, shape, []string{in[0].tensor, factor}), nil
	}
	product := c.inner("Mul", l, "_product", []string{in[0].tensor, factor})
	return c.node("Add", l, shape, []string{product, c.constant(l, "_bias", spread, values[1])}), nil
}
