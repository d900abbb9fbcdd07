package networks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/orttest"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

// Counts that others published:
//   - Netscope over Caffe's prototxts, as tabled by HewlettPackard/dlcookbook-dlbs (docs/models/models.md) and
//     KamelAbdelouahab/CNN-Workload (README.md)
//   - aiotalabs/caffe_scripts (README.md) over Caffe's ResNet-50: 3,868,560,384, of which 10,587,136 in BatchNormalization and Scale
//   - torchvision's metadata of its weights (torchvision/models/*.py): num_params, and _ops in 10^9 multiply-adds. Its ResNets stride in
//     the 3x3 convolutions, which changes no parameter but the multiply-adds.
func TestCounts(t *testing.T) {
	for _, want := range []struct {
		name         string
		options      Options
		parameters   int64
		multiplyAdds float64 // in millions
		within       float64 // half of the last digit that was published
		source       string
	}{
		{"alexnet", Options{}, 60_965_224, 724, 0.5, "dlcookbook-dlbs; CNN-Workload: 724 M"},
		{"googlenet", Options{}, 6_998_552, 1580, 5, "dlcookbook-dlbs; CNN-Workload: 1.58 G"},
		{"googlenet", Options{AuxiliaryHeads: true}, 13_378_280, 1590, 5, "torchinfo's summaries of the paper's network: 13,378,280 and 1.59 G"},
		{"resnet50", Options{}, 25_557_032, 3857.973248, 0, "torchvision; caffe_scripts less BatchNormalization and Scale"},
		{"resnet101", Options{}, 44_549_160, 7570, 5, "torchvision; CNN-Workload: 7.57 G"},
		{"vgg19", Options{}, 143_667_240, 19632, 0.5, "torchvision and dlcookbook-dlbs; torchvision: 19.632"},
		{"mobilenet_v2", Options{}, 3_504_872, 301, 0.5, "torchvision; torchvision: 0.301"},
	} {
		b, err := New(want.name, want.options)
		require.NoError(t, err)
		counts, err := b.Count()
		require.NoError(t, err)
		require.Equal(t, want.parameters, counts.Parameters, "%s: %s", want.name, want.source)
		require.InDelta(t, want.multiplyAdds, float64(counts.MultiplyAdds)/1e6, want.within, "%s: %s", want.name, want.source)
	}
}

// bvlc_googlenet.caffemodel, which holds the auxiliary heads, has 53,533,754 bytes (jetson-inference's documentation): four for each
// parameter, and tens of thousands for 152 layers' definitions.
func TestCaffemodelSize(t *testing.T) {
	b, err := New("googlenet", Options{AuxiliaryHeads: true})
	require.NoError(t, err)
	counts, err := b.Count()
	require.NoError(t, err)
	rest := 53_533_754 - 4*counts.Parameters
	require.Positive(t, rest)
	require.Less(t, rest, int64(152*200))
}

// AlexNet's layers by hand: output positions x output channels x inputs of each.
func TestCountsByLayer(t *testing.T) {
	b, err := New("alexnet", Options{})
	require.NoError(t, err)
	counts, err := b.Count()
	require.NoError(t, err)
	got := map[string]onnx.NodeCount{}
	for _, n := range counts.Nodes {
		got[n.Name] = n
	}
	for name, want := range map[string]onnx.NodeCount{
		"conv1": {Output: tensor.Shape{1, 96, 55, 55}, Parameters: 96*363 + 96, MultiplyAdds: 55 * 55 * 96 * 363},
		"conv2": {Output: tensor.Shape{1, 256, 27, 27}, Parameters: 256*1200 + 256, MultiplyAdds: 27 * 27 * 256 * 48 * 25},
		"pool5": {Output: tensor.Shape{1, 256, 6, 6}},
		"fc8":   {Output: tensor.Shape{1, 1000}, Parameters: 4096*1000 + 1000, MultiplyAdds: 4096 * 1000},
	} {
		want.Name, want.Op = name, got[name].Op
		require.Equal(t, want, got[name])
	}
}

// The same seed gives the same bytes, on every machine and however they are written.
func TestDeterministic(t *testing.T) {
	b, err := New("mobilenet_v2", Options{Seed: 7})
	require.NoError(t, err)
	var file bytes.Buffer
	n, err := b.WriteTo(&file)
	require.NoError(t, err)
	require.EqualValues(t, file.Len(), n)
	m, err := Build("mobilenet_v2", Options{Seed: 7})
	require.NoError(t, err)
	data, err := m.Bytes()
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, file.Bytes()))
	sum := sha256.Sum256(data)
	require.Equal(t, "383c0ab3c4342fb1bd95ea1b7dd41f9abcd0f4dc669b3d5e53950d9ab205fd2b", hex.EncodeToString(sum[:]))

	path := filepath.Join(t.TempDir(), "m.onnx")
	require.NoError(t, b.Save(path))
	saved, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, saved))

	other, err := Build("mobilenet_v2", Options{Seed: 8})
	require.NoError(t, err)
	differs, err := other.Bytes()
	require.NoError(t, err)
	require.Len(t, differs, len(data))
	require.False(t, bytes.Equal(data, differs))
}

// The mean and variance of a tensor's values, and the bounds of a sum of four uniform numbers.
func TestBell(t *testing.T) {
	d := &drawing{seed: 1}
	const n = 1 << 20
	var sum, squares, largest float64
	for v := range d.bell("w", n, 3, 0.5) {
		x := (float64(v) - 3) / 0.5
		sum += x
		squares += x * x
		largest = max(largest, math.Abs(x))
	}
	require.InDelta(t, 0, sum/n, 5/math.Sqrt(n))
	require.InDelta(t, 1, squares/n, 5*math.Sqrt2/math.Sqrt(n))
	require.Less(t, largest, 2*math.Sqrt(3)+1e-6)
	require.Greater(t, largest, 3.2)
}

func TestLRNIsNamed(t *testing.T) {
	m, err := Build("googlenet", Options{AuxiliaryHeads: true, Softmax: true})
	require.NoError(t, err)
	counts, err := m.Count()
	require.NoError(t, err)
	var norms []string
	for _, n := range counts.Nodes {
		if n.Op == "LRN" {
			norms = append(norms, n.Name)
		}
	}
	require.Equal(t, []string{"pool1/norm1", "conv2/norm2"}, norms)
	var outputs []string
	for _, p := range m.Outputs() {
		outputs = append(outputs, p.String())
	}
	require.Equal(t, []string{`"prob" float32 ?x1000`, `"prob2" float32 ?x1000`, `"prob3" float32 ?x1000`}, outputs)
	in, err := m.ImageInput()
	require.NoError(t, err)
	require.Equal(t, `"data" float32 ?x3x224x224`, in.String())
}

func TestRefusals(t *testing.T) {
	_, err := New("lenet", Options{})
	require.EqualError(t, err, `unknown network "lenet": use one of alexnet, googlenet, resnet50, resnet101, vgg19, mobilenet_v2`)
	_, err = New("vgg19", Options{AuxiliaryHeads: true})
	require.EqualError(t, err, "network vgg19 has no auxiliary heads, only googlenet has")
	_, err = Build("lenet", Options{})
	require.ErrorContains(t, err, "unknown network")
}

// Every tensor is alive and far from float16's largest value (65,504), for inputs of unit variance and for those of Caffe's
// models, which are about 70 times as large (pixels of 0 to 255 less their mean).
func TestActivations(t *testing.T) {
	for _, name := range []string{"alexnet", "googlenet", "resnet50", "mobilenet_v2"} {
		t.Run(name, func(t *testing.T) { activations(t, name) })
	}
}

// The same of the networks that take seconds and, with vgg19, two gigabytes.
func TestActivationsReference(t *testing.T) {
	if os.Getenv("QUANTGATE_VERIFY") != "1" {
		t.Skip("SKIPPED: resnet101 and vgg19 take seconds and gigabytes; QUANTGATE_VERIFY=1 runs them")
	}
	for _, name := range []string{"resnet101", "vgg19"} {
		t.Run(name, func(t *testing.T) { activations(t, name) })
	}
}

func activations(t *testing.T, name string) {
	if testing.Short() {
		t.Skip("runs whole networks")
	}
	backend := orttest.Backend(t)
	m, err := Build(name, Options{})
	require.NoError(t, err)
	counts, err := m.Count()
	require.NoError(t, err)
	var names []string
	for _, n := range counts.Nodes {
		names = append(names, n.Name)
	}
	tapped, err := onnx.Tap(m, names)
	require.NoError(t, err)
	data, err := tapped.Bytes()
	require.NoError(t, err)
	ctx := context.Background()
	s, err := backend.Open(ctx, engine.Model{Name: name, Data: data}, engine.Options{NoFusion: true, Threads: 2})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	for _, scale := range []float32{1, 70} {
		side := m.Inputs()[0].Shape[2]
		x := tensor.New(1, 3, side, side)
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range x.Data {
			x.Data[i] = scale * float32(rng.NormFloat64())
		}
		out := make([]*tensor.Tensor, len(names))
		for i := range out {
			out[i] = &tensor.Tensor{}
		}
		require.NoError(t, s.Run(ctx, x, out))
		var largest float64
		for i, o := range out {
			require.Equal(t, counts.Nodes[i].Output, o.Shape, names[i]) // what inference says of every shape
			var amax, squares float64
			for _, v := range o.Data {
				amax = max(amax, math.Abs(float64(v)))
				squares += float64(v) * float64(v)
			}
			require.False(t, math.IsNaN(squares), names[i])
			require.Greater(t, amax, 0.5, names[i])
			require.Greater(t, math.Sqrt(squares/float64(len(o.Data))), 0.05, names[i])
			largest = max(largest, amax)
		}
		require.Less(t, largest, 65504/20., "scale %g", scale)
		t.Logf("scale %g: largest |activation| %.4g", scale, largest)
	}
}
