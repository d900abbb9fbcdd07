package caffe

import (
	"github.com/quantgate/quantgate/caffe/internal/pb"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

// window is what a pooling does along one dimension.
type window struct {
	out        int64 // size of the output
	begin, end int64 // padding that makes a pooling that rounds down take the places of Caffe's
	beyond     int64 // by how much the last window leaves the input and its padding
}

// slide computes Caffe's output size (pooling_layer.cpp, Reshape): it rounds up, and where any padding is set drops a last window that
// would start in it. ONNX's own rounding up is not used: versions and engines disagree about that last window.
func slide(size, kernel, stride, pad int64, ceil, clip bool) window {
	w := window{begin: pad}
	room := size + 2*pad - kernel
	switch {
	case ceil && room < 0:
		w.out = 1 - -room/stride
	case ceil:
		w.out = (room+stride-1)/stride + 1
	case room >= 0:
		w.out = room/stride + 1
	}
	if clip && (w.out-1)*stride >= size+pad {
		w.out--
	}
	last := (w.out-1)*stride + kernel - pad // where the last window ends
	w.end = max(last-size, 0)
	w.beyond = max(last-size-pad, 0)
	return w
}

func (c *converter) pooling(l *layer, in []*value) (*value, error) {
	p, shape := given(l.PoolingParam), in[0].shape
	if len(shape) != 4 {
		return nil, l.unsupported("pools %s, wanted images", shape)
	}
	average := p.GetPool() == pb.PoolingParameter_AVE
	if !average && p.GetPool() != pb.PoolingParameter_MAX {
		return nil, l.unsupported("pools by %s, wanted MAX or AVE", p.GetPool())
	}
	one := func(v *uint32) []uint32 {
		if v == nil {
			return nil
		}
		return []uint32{*v}
	}
	kernel, err := l.pair("kernel", one(p.KernelSize), p.KernelH, p.KernelW, 0)
	if err != nil {
		return nil, err
	}
	stride, err := l.pair("stride", one(p.Stride), p.StrideH, p.StrideW, 1)
	if err != nil {
		return nil, err
	}
	pad, err := l.pair("pad", one(p.Pad), p.PadH, p.PadW, 0)
	if err != nil {
		return nil, err
	}
	if p.GetGlobalPooling() {
		if kernel != [2]int64{} || stride != [2]int64{1, 1} || pad != [2]int64{} {
			return nil, l.corrupt("global_pooling goes with no kernel, stride or padding")
		}
		op := "GlobalMaxPool"
		if average {
			op = "GlobalAveragePool"
		}
		return c.node(op, l, tensor.Shape{tensor.Dynamic, shape[1], 1, 1}, []string{in[0].tensor}), nil
	}
	var w [2]window
	for i := range w {
		fits := kernel[i] > 0 && stride[i] > 0 && pad[i] < kernel[i]
		if fits {
			w[i] = slide(shape[2+i], kernel[i], stride[i], pad[i], p.GetRoundMode() == pb.PoolingParameter_CEIL, pad != [2]int64{})
		}
		if !fits || w[i].out < 1 {
			return nil, l.corrupt("kernel %dx%d, stride %dx%d and padding %dx%d do not fit its input %s",
				kernel[0], kernel[1], stride[0], stride[1], pad[0], pad[1], shape)
		}
		if w[i].end >= kernel[i] {
			return nil, l.unsupported("its last window lies outside its input %s: Caffe makes nothing of it", shape)
		}
	}
	out := tensor.Shape{tensor.Dynamic, shape[1], w[0].out, w[1].out}
	if err := bounded(l, out); err != nil {
		return nil, err
	}
	x := in[0].tensor
	attrs := []onnx.Attr{onnx.Ints("kernel_shape", kernel[:]...), onnx.Ints("strides", stride[:]...)}
	pads := []int64{w[0].begin, w[1].begin, w[0].end, w[1].end}
	op := "MaxPool"
	if average {
		op = "AveragePool"
		// Caffe divides by the window's size within input and padding (pooling_layer.cpp, AVE): padding counts, what is beyond it does not.
		switch padded := pad != [2]int64{}; {
		case padded && w[0].beyond+w[1].beyond > 0:
			zeros := c.Integers(c.unique(l.GetName()+"_pads"), 0, 0, pad[0], pad[1], 0, 0, pad[0], pad[1])
			x = c.inner("Pad", l, "_padded", []string{x, zeros})
			pads = []int64{0, 0, w[0].beyond, w[1].beyond}
			attrs = append(attrs, onnx.Int("count_include_pad", 0))
		case padded:
			attrs = append(attrs, onnx.Int("count_include_pad", 1))
		default:
			attrs = append(attrs, onnx.Int("count_include_pad", 0))
		}
	}
	attrs = append(attrs, onnx.Ints("pads", pads...))
	return c.node(op, l, out, []string{x}, attrs...), nil
}
