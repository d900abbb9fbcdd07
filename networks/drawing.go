package networks

import (
	"hash/fnv"
	"iter"
	"math"
	"math/rand/v2"

	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

// drawing is a network while it is drawn: layers in the vocabulary of the papers.
type drawing struct {
	*onnx.Builder
	seed  uint64
	aux   bool
	heads []blob // outputs beside the classifier's
}

// blob is a tensor and the number of its channels, or of its values once it is flat.
type blob struct {
	name     string
	channels int64
}

// conv is a convolution's shape. Zero values are a stride of 1, one group and no padding.
type conv struct {
	out, kernel, stride, pad, group int64
	noBias                          bool
	gain                            float64 // of its weights; 0 is toRelu
}

// Gains keep the mean square of activations: a Relu halves it (He et al. 2015, equation 10), a linear layer does not.
const (
	toRelu   = 2.0
	toLinear = 1.0
)

func (d *drawing) conv(name string, x blob, c conv) blob {
	c.stride, c.group = max(c.stride, 1), max(c.group, 1)
	fanIn := x.channels / c.group * c.kernel * c.kernel
	inputs := []string{x.name, d.weight(name+"_w", tensor.Shape{c.out, x.channels / c.group, c.kernel, c.kernel}, fanIn, c.gain)}
	if !c.noBias {
		inputs = append(inputs, d.spread(name+"_b", c.out, 0, 0.1))
	}
	d.Node("Conv", name, inputs, onnx.Ints("kernel_shape", c.kernel, c.kernel), onnx.Ints("strides", c.stride, c.stride),
		onnx.Ints("pads", c.pad, c.pad, c.pad, c.pad), onnx.Int("group", c.group))
	return blob{name, c.out}
}

// batchNorm is a BatchNormalization whose statistics are near the data's; scale is about what it multiplies by.
func (d *drawing) batchNorm(name string, x blob, scale float64) blob {
	d.Node("BatchNormalization", name, []string{
		x.name, d.spread(name+"_scale", x.channels, scale, 0.1*scale), d.spread(name+"_bias", x.channels, 0, 0.1*scale),
		d.spread(name+"_mean", x.channels, 0, 0.1), d.spread(name+"_var", x.channels, 1, 0.1),
	})
	return blob{name, x.channels}
}

func (d *drawing) relu(name string, x blob) blob {
	return blob{d.Node("Relu", name, []string{x.name}), x.channels}
}

// convRelu is a convolution and the Relu behind it, as Caffe's models name them.
func (d *drawing) convRelu(name, relu string, x blob, c conv) blob {
	return d.relu(relu, d.conv(name, x, c))
}

// dense is a fully connected layer over values inputs.
func (d *drawing) dense(name string, x blob, values, out int64, gain float64) blob {
	inputs := []string{x.name, d.weight(name+"_w", tensor.Shape{out, values}, values, gain), d.spread(name+"_b", out, 0, 0.1)}
	return blob{d.Node("Gemm", name, inputs, onnx.Int("transB", 1)), out}
}

func (d *drawing) flatten(name string, x blob) blob {
	return blob{d.Node("Flatten", name, []string{x.name}, onnx.Int("axis", 1)), x.channels}
}

// lrn is the normalisation across five channels of Krizhevsky et al. 2012, section 3.3, with Caffe's alpha and k.
func (d *drawing) lrn(name string, x blob) blob {
	d.Node("LRN", name, []string{x.name}, onnx.Int("size", 5), onnx.Float("alpha", 1e-4), onnx.Float("beta", 0.75), onnx.Float("bias", 1))
	return blob{name, x.channels}
}

// pool is a pooling with begin and end rows and columns of padding; Caffe's rounding up is an end without a begin.
func (d *drawing) pool(op, name string, x blob, kernel, stride, begin, end int64) blob {
	d.Node(op, name, []string{x.name}, onnx.Ints("kernel_shape", kernel, kernel), onnx.Ints("strides", stride, stride),
		onnx.Ints("pads", begin, begin, end, end))
	return blob{name, x.channels}
}

func (d *drawing) add(name string, a, b blob) blob {
	return blob{d.Node("Add", name, []string{a.name, b.name}), a.channels}
}

// weight draws normal-like weights of variance gain/fanIn.
func (d *drawing) weight(name string, shape tensor.Shape, fanIn int64, gain float64) string {
	if gain == 0 {
		gain = toRelu
	}
	n, err := shape.Elems()
	d.Fail(err)
	return d.Weight(name, shape, d.bell(name, n, 0, math.Sqrt(gain/float64(fanIn))))
}

// spread draws a value for each channel.
func (d *drawing) spread(name string, n int64, mean, sigma float64) string {
	return d.Weight(name, tensor.Shape{n}, d.bell(name, int(n), mean, sigma))
}

// bell draws n numbers of a bell-shaped distribution: the sum of four uniform ones, which ends at 3.46 sigma. It needs whole
// numbers and one multiplication alone, so it gives the same bits on every machine. Each tensor has a sequence of its own, from
// the seed and its name.
func (d *drawing) bell(name string, n int, mean, sigma float64) iter.Seq[float32] {
	h := fnv.New64a()
	h.Write([]byte(name))
	const levels = 1 << 16 // of each of the four: variance (levels^2 - 1)/12
	unit := sigma / math.Sqrt((levels*levels-1)/3.0)
	return func(yield func(float32) bool) {
		rng := rand.NewPCG(d.seed, h.Sum64())
		for range n {
			u := rng.Uint64()
			sum := int64(u&0xffff) + int64(u>>16&0xffff) + int64(u>>32&0xffff) + int64(u>>48) - 2*(levels-1)
			// The conversion rounds the product, which some machines would otherwise fuse with the addition.
			if !yield(float32(mean + float64(unit*float64(sum)))) {
				return
			}
		}
	}
}
