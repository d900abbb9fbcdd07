package caffe

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/quantgate/quantgate/caffe/internal/pb"
)

// caffemodel makes a file of weights: the blobs of each layer, all values 1.
func caffemodel(t testing.TB, layers map[string][][]int64) []byte {
	t.Helper()
	w := &pb.Weights{}
	for name, shapes := range layers {
		l := &pb.LayerWeights{Name: &name}
		for _, dims := range shapes {
			n := int64(1)
			for _, d := range dims {
				n *= d
			}
			b := &pb.BlobProto{Shape: &pb.BlobShape{Dim: dims}}
			for range n {
				b.Data = append(b.Data, 1)
			}
			l.Blobs = append(l.Blobs, b)
		}
		w.Layer = append(w.Layer, l)
	}
	data, err := proto.Marshal(w)
	require.NoError(t, err)
	return data
}

const data3x8x8 = `layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 10 dim: 3 dim: 8 dim: 8 } } }
`

// nodes imports a network and lists its nodes as "Op name shape", and its outputs.
func nodes(t testing.TB, text string, layers map[string][][]int64) []string {
	t.Helper()
	if layers == nil {
		layers = map[string][][]int64{"none": {{1}}}
	}
	b, err := Import("net.prototxt", []byte(text), "net.caffemodel", caffemodel(t, layers))
	require.NoError(t, err)
	m, err := b.Model()
	require.NoError(t, err)
	counts, err := m.Count()
	require.NoError(t, err)
	var list []string
	for _, n := range counts.Nodes {
		list = append(list, fmt.Sprintf("%s %s %s", n.Op, n.Name, n.Output))
	}
	for _, p := range m.Outputs() {
		list = append(list, "-> "+p.Name)
	}
	return list
}

func TestNames(t *testing.T) {
	// In place, a tensor has its layer's name. BatchNorm and Scale are one node; Dropout none.
	require.Equal(t, []string{
		"Conv conv1 1x4x8x8", "BatchNormalization scale1 1x4x8x8", "Relu relu1 1x4x8x8",
		"Flatten fc_flat 1x256", "Gemm fc 1x2", "Softmax prob 1x2", "-> prob",
	}, nodes(t, data3x8x8+`
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param { num_output: 4 kernel_size: 1 bias_term: false } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "drop" type: "Dropout" bottom: "conv1" top: "conv1" }
layer { name: "fc" type: "InnerProduct" bottom: "conv1" top: "fc" inner_product_param { num_output: 2 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }`, map[string][][]int64{
		"conv1": {{4, 3, 1, 1}}, "bn1": {{4}, {4}, {1}}, "scale1": {{4}, {4}}, "fc": {{2, 256}, {2}},
	}))
	// Names that are taken, an input that goes straight out, one that nothing reads, and a blob that goes out twice.
	require.Equal(t, []string{
		"Relu a 1x3x8x8", "Relu data_1 1x3x8x8", "Relu unread 1x3x8x8", "Identity b 1x3x8x8", "Identity other 1x3x8x8",
		"Identity c 1x3x8x8", "-> unread", "-> b", "-> other", "-> c",
	}, nodes(t, `input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 } input: "unread" input_shape { dim: 1 dim: 3 }
layer { name: "data" type: "ReLU" bottom: "data" top: "a" }
layer { name: "data" type: "ReLU" bottom: "a" top: "a" }
layer { name: "s" type: "Split" bottom: "data" top: "b" top: "other" top: "c" }
layer { name: "t" type: "Split" bottom: "b" top: "b" }
layer { name: "unread" type: "ReLU" bottom: "a" top: "a" }`, nil))
}

func TestPhases(t *testing.T) {
	const text = data3x8x8 + `
layer { name: "train" type: "Data" top: "x" include { phase: TRAIN } }
layer { name: "a" type: "ReLU" bottom: "data" top: "a" exclude { phase: TRAIN } }
layer { name: "b" type: "Python" bottom: "a" top: "b" exclude { phase: TEST } }
layer { name: "c" type: "Python" bottom: "a" top: "c" include { stage: "deploy" } }
layer { name: "d" type: "Python" bottom: "a" top: "d" include { min_level: 1 } }
layer { name: "e" type: "ReLU" bottom: "a" top: "e" include { not_stage: "deploy" phase: TEST } include { min_level: 7 } }
layer { name: "f" type: "ReLU" bottom: "a" top: "f" exclude { max_level: -1 } }`
	require.Equal(t, []string{"Relu a 1x3x8x8", "Relu e 1x3x8x8", "Relu f 1x3x8x8", "-> e", "-> f"}, nodes(t, text, nil))
	_, err := Import("net.prototxt", []byte("state { stage: 'deploy' }"+text), "w", caffemodel(t, map[string][][]int64{"none": {{1}}}))
	require.ErrorContains(t, err, `layer types that are not imported: Python (layer "c", net.prototxt:6)`)
}

// Caffe's pooled sizes by hand (pooling_layer.cpp): ceil((size + 2 pad - kernel)/stride) + 1, less one where padding is set and the last
// window would start at size + pad or beyond.
func TestSlide(t *testing.T) {
	for _, c := range []struct {
		size, kernel, stride, pad int64
		ceil                      bool
		want                      window
	}{
		{112, 3, 2, 0, true, window{out: 56, end: 1, beyond: 1}},        // GoogLeNet pool1: ceil(109/2) + 1
		{55, 3, 2, 0, true, window{out: 27}},                            // AlexNet pool1: exact
		{28, 3, 1, 1, true, window{out: 28, begin: 1, end: 1}},          // inception
		{7, 7, 1, 0, true, window{out: 1}},                              // pool5
		{6, 2, 2, 1, true, window{out: 4, begin: 1, end: 1}},            // ceil(6/2) + 1; the last starts at 6 < 7
		{7, 2, 2, 1, true, window{out: 4, begin: 1}},                    // ceil(7/2) + 1 = 5, of which the last would start at 8 = 7 + 1
		{2, 3, 2, 0, true, window{out: 1, end: 1, beyond: 1}},           // ceil(-1/2) + 1
		{7, 5, 3, 2, true, window{out: 3, begin: 2, end: 2}},            // exact
		{6, 5, 3, 2, true, window{out: 3, begin: 2, end: 3, beyond: 1}}, // ceil(5/3) + 1
		{6, 3, 2, 0, false, window{out: 2}},                             // floor(3/2) + 1
		{2, 3, 2, 0, false, window{out: 0, end: 0}},                     // nothing
		{10, 1, 3, 0, true, window{out: 4}},                             // exact
		{11, 1, 3, 0, true, window{out: 5, end: 2, beyond: 2}},          // Caffe's last window is outside
	} {
		require.Equal(t, c.want, slide(c.size, c.kernel, c.stride, c.pad, c.ceil, c.pad > 0), "%+v", c)
	}
}

func TestErrors(t *testing.T) {
	conv := func(params string) string {
		return data3x8x8 + `layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { ` + params + " } }"
	}
	pool := func(params string) string {
		return data3x8x8 + `layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { ` + params + " } }"
	}
	of := func(kind, params string) string {
		return data3x8x8 + fmt.Sprintf(`layer { name: "l" type: "%s" bottom: "data" top: "l" %s }`, kind, params)
	}
	weights := caffemodel(t, map[string][][]int64{"c": {{4, 3, 3, 3}, {4}}, "l": {{3}, {3}, {1}}})
	for name, c := range map[string]struct {
		text string
		kind error
		want string
	}{
		"no prototxt":  {"{", ErrCorrupt, "net.prototxt:1: "},
		"unknown enum": {pool("pool: MEDIAN"), ErrCorrupt, "net.prototxt:2: "},
		"no layer":     {`name: "x"`, ErrCorrupt, "describes no layer"},
		"both forms":   {data3x8x8 + `layers { name: "x" }`, ErrCorrupt, "has both layer and layers"},
		"before 2014":  {`layers { layer { name: "x" type: "conv" } bottom: "data" }`, ErrUnsupported, "upgrade_net_proto_text"},
		"unsupported types": {
			data3x8x8 + "\n" + `layer { name: "u" type: "Deconvolution" bottom: "data" top: "u" }
layer { name: "v" type: "Deconvolution" bottom: "data" top: "v" }
layer { name: "s" type: "SoftmaxWithLoss" bottom: "data" }`, ErrUnsupported,
			`layer types that are not imported: Deconvolution (layer "u", net.prototxt:3, and 1 more); SoftmaxWithLoss (layer "s", net.prototxt:5); imported are BatchNorm, Concat,`,
		},
		"unsupported old type": {`input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8 layers { name: "m" type: MVN bottom: "data" top: "m" }`, ErrUnsupported,
			`MVN (layer "m", net.prototxt:1)`},
		"input dims":      {`input: "data" input_dim: 1 input_dim: 3 ` + `layer { name: "r" type: "ReLU" bottom: "data" top: "r" }`, ErrCorrupt, "input_dim must stand four times"},
		"inputs, shapes":  {`input: "data" layer { name: "r" type: "ReLU" bottom: "data" top: "r" }`, ErrCorrupt, "names 1 inputs and gives 0 shapes"},
		"input of zero":   {strings.ReplaceAll(of("ReLU", ""), "dim: 8", "dim: 0"), ErrCorrupt, `net.prototxt:1: layer "data" (Input): the shape [10 3 0 0] of "data" is out of bounds`},
		"input of rank 1": {`input: "data" input_shape { dim: 3 } layer { name: "r" type: "ReLU" bottom: "data" top: "r" }`, ErrUnsupported, "is no batch"},
		"unknown blob":    {data3x8x8 + `layer { name: "r" type: "ReLU" bottom: "nothing" top: "r" }`, ErrCorrupt, `net.prototxt:2: layer "r" (ReLU): reads blob "nothing", which no layer before it makes`},
		"blob twice":      {data3x8x8 + `layer { name: "r" type: "ReLU" bottom: "data" top: "r" } layer { name: "s" type: "ReLU" bottom: "data" top: "r" }`, ErrCorrupt, `makes blob "r", which another layer makes already`},
		"no bottom":       {data3x8x8 + `layer { name: "r" type: "ReLU" top: "r" }`, ErrCorrupt, "has 0 bottoms and 1 tops"},
		"two bottoms":     {data3x8x8 + `layer { name: "r" type: "Scale" bottom: "data" bottom: "data" top: "r" }`, ErrUnsupported, "has 2 bottoms, wanted one"},
		"no output":       {`input: "data" input_shape { dim: 1 dim: 3 } layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 } } }`, ErrCorrupt, "the network has no output"},
		"fork's field":    {pool("kernel_size: 3\n ceil_mode: false"), ErrUnsupported, `net.prototxt:2: layer "p" (Pooling): sets pooling_param.ceil_mode (line 3), which Caffe's own layer has not`},

		"no weights":      {data3x8x8 + `layer { name: "d" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }`, ErrCorrupt, `layer "d" (Convolution): net.caffemodel holds no weights of it`},
		"other weights":   {conv("num_output: 4 kernel_size: 5"), ErrCorrupt, "blob 0 in net.caffemodel is 4x3x3x3, wanted 4x3x5x5"},
		"blob too many":   {conv("num_output: 4 kernel_size: 3 bias_term: false"), ErrCorrupt, "holds 2 blobs of it, wanted 1"},
		"no kernel":       {conv("num_output: 4"), ErrCorrupt, "kernel, stride or dilation is 0"},
		"kernel twice":    {conv("num_output: 4 kernel_size: 3 kernel_h: 3"), ErrCorrupt, "gives kernel twice"},
		"3-d kernel":      {conv("num_output: 4 kernel_size: 3 kernel_size: 3 kernel_size: 3"), ErrCorrupt, "gives kernel 3 times"},
		"huge kernel":     {conv("num_output: 4 kernel_size: 4294967295"), ErrCorrupt, "out of bounds"},
		"kernel too wide": {conv("num_output: 4 kernel_size: 3 dilation: 5"), ErrCorrupt, "its kernel is larger than its input ?x3x8x8"},
		"groups":          {conv("num_output: 4 kernel_size: 3 group: 2"), ErrCorrupt, "has 4 outputs and 3 inputs in 2 groups"},
		"axis":            {conv("num_output: 4 kernel_size: 3 axis: 2"), ErrUnsupported, "over axis 2"},

		"stochastic":        {pool("pool: STOCHASTIC kernel_size: 2"), ErrUnsupported, "pools by STOCHASTIC"},
		"pad too wide":      {pool("kernel_size: 2 pad: 2"), ErrCorrupt, "kernel 2x2, stride 1x1 and padding 2x2 do not fit its input ?x3x8x8"},
		"window outside":    {pool("kernel_size: 1 stride: 4"), ErrUnsupported, "its last window lies outside"},
		"global and kernel": {pool("global_pooling: true kernel_size: 2"), ErrCorrupt, "global_pooling goes with no kernel"},

		"lrn within":   {of("LRN", "lrn_param { norm_region: WITHIN_CHANNEL }"), ErrUnsupported, "WITHIN_CHANNEL"},
		"lrn even":     {of("LRN", "lrn_param { local_size: 4 }"), ErrCorrupt, "local_size is 4"},
		"fc axis":      {of("InnerProduct", "inner_product_param { num_output: 3 axis: 2 }"), ErrUnsupported, "flattens from axis 2"},
		"softmax axis": {of("Softmax", "softmax_param { axis: 0 }"), ErrUnsupported, "works along axis 0 of ?x3x8x8"},
		"concat axis":  {of("Concat", "concat_param { axis: -4 }"), ErrUnsupported, "works along axis -4"},
		"one term":     {of("Eltwise", ""), ErrCorrupt, "has one bottom"},
		"coefficients": {of("Eltwise", "eltwise_param { operation: MAX coeff: 1 }"), ErrCorrupt, "has 1 coefficients for 1 bottoms; only SUM has any"},
		"flatten":      {of("Flatten", "flatten_param { axis: 2 }"), ErrUnsupported, "flattens axes 2 to -1"},
		"reshape":      {of("Reshape", "reshape_param { shape { dim: 0 dim: 7 dim: -1 } }"), ErrCorrupt, "cannot reshape ?x3x8x8 to [0 7 -1]"},
		"batch":        {of("Reshape", "reshape_param { shape { dim: 5 dim: -1 } }"), ErrUnsupported, "makes a batch of 5"},
		"batch stats":  {of("BatchNorm", "batch_norm_param { use_global_stats: false }"), ErrUnsupported, "use_global_stats: false"},
		"scale axes":   {of("Scale", "scale_param { num_axes: 2 }"), ErrUnsupported, "scales 2 axes from axis 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Import("net.prototxt", []byte(c.text), "net.caffemodel", weights)
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestWeightErrors(t *testing.T) {
	marshal := func(w *pb.Weights) []byte {
		data, err := proto.Marshal(w)
		require.NoError(t, err)
		return data
	}
	of := func(blobs ...*pb.BlobProto) *pb.LayerWeights { return &pb.LayerWeights{Name: new("c"), Blobs: blobs} }
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"text":      {[]byte("layer { }"), "cannot be decoded as a caffemodel"},
		"empty":     {nil, "holds no weights"},
		"twice":     {marshal(&pb.Weights{Layer: []*pb.LayerWeights{of(&pb.BlobProto{Shape: &pb.BlobShape{}, Data: []float32{1}}), of(&pb.BlobProto{})}}), `weights of layer "c" twice`},
		"cut off":   {marshal(&pb.Weights{Layer: []*pb.LayerWeights{of(&pb.BlobProto{Shape: &pb.BlobShape{Dim: []int64{2, 3}}, Data: []float32{1}})}}), `layer "c": blob 0: its shape [2 3] does not fit its 1 values`},
		"negative":  {marshal(&pb.Weights{Layer: []*pb.LayerWeights{of(&pb.BlobProto{Shape: &pb.BlobShape{Dim: []int64{-2}}})}}), "out of bounds"},
		"overflows": {marshal(&pb.Weights{Layer: []*pb.LayerWeights{of(&pb.BlobProto{Shape: &pb.BlobShape{Dim: []int64{1 << 28, 1 << 28, 1 << 28}}})}}), "out of bounds"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Import("net.prototxt", []byte(data3x8x8+`layer { name: "r" type: "ReLU" bottom: "data" top: "r" }`), "net.caffemodel", c.data)
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, "net.caffemodel: ")
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := Load(filepath.Join(t.TempDir(), "none.prototxt"), "none.caffemodel")
	require.ErrorContains(t, err, "read network: ")
	_, err = Load(filepath.Join("testdata", "relu.prototxt"), "none.caffemodel")
	require.ErrorContains(t, err, "read weights: ")
}

// Weights as double_data, and the layer's definition beside them, which a caffemodel has and which is not looked at.
func TestWeightForms(t *testing.T) {
	w := &pb.Weights{Layers: []*pb.V1LayerWeights{{Name: new("l"), Blobs: []*pb.BlobProto{{Num: new(int32(1)), Channels: new(int32(1)), Height: new(int32(1)), Width: new(int32(2)), DoubleData: []float64{1, 2}}}}}}
	w.ProtoReflect().SetUnknown([]byte{0x0a, 0x01, 'n'}) // NetParameter.name
	data, err := proto.Marshal(w)
	require.NoError(t, err)
	got, err := parseWeights("w", data)
	require.NoError(t, err)
	require.Equal(t, map[string][]blob{"l": {{shape: []int64{2}, values: []float32{1, 2}}}}, got)
}

func TestScan(t *testing.T) {
	const text = `# layer { not this }
name: "layer { \" nor this"
layer {
  name: 'a'
  pooling_param: { kernel_size: 3 weight_filler { type: "x" sparse: 1 } odd: 1 }
  transform_param { mirror: true }
}
layer <
  lrn_param < local_size: 3; new_thing { deep: 1 } >
> layers { name: "c"
}`
	require.Equal(t, []place{
		{line: 3, unknown: []string{"pooling_param.odd (line 5)"}},
		{line: 8, unknown: []string{"lrn_param.new_thing (line 9)"}},
		{line: 10},
	}, scan([]byte(text)))
}

func FuzzImport(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.prototxt"))
	require.NoError(f, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		weights, err := os.ReadFile(strings.TrimSuffix(file, "prototxt") + "caffemodel")
		require.NoError(f, err)
		f.Add(text, weights)
	}
	f.Fuzz(func(t *testing.T, text, weights []byte) {
		b, err := Import("p", text, "w", weights)
		if err != nil {
			return
		}
		// What was accepted can be written, to the same bytes either way.
		m, err := b.Model()
		require.NoError(t, err)
		data, err := m.Bytes()
		require.NoError(t, err)
		var written bytes.Buffer
		_, err = b.WriteTo(&written)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, written.Bytes()))
	})
}
