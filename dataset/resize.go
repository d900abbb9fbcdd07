package dataset

import (
	"encoding/binary"
	"math"
)

// precision is the number of fractional bits of a resize coefficient (Pillow libImaging/Resample.c, PRECISION_BITS).
const precision = 32 - 8 - 2

// resizer resizes rasters as Pillow's Image.resize does for 8-bit images, to the bit: one pass along each axis into bytes,
// with the filter stretched by the reduction. It computes only the window that a crop keeps.
// Source: Pillow libImaging/Resample.c. It serves one goroutine.
type resizer struct {
	horizontal, vertical taps
	first, second        []byte // the passes' results
}

// taps are the coefficients of the outputs in one window along one axis.
type taps struct {
	in, out  int
	win      window
	filter   Interpolation
	from     []int32 // first input of each output
	n        []int32 // inputs of each output
	coef     []int32 // width of them an output
	width    int
	weights  []float64
	min, max int // inputs that the window reads, max excluded

	// The same for qg_rgb_rows in simd.h, which takes inputs in groups of four.
	groups []int32 // of each output
	split  []int16 // coefficients, stride groups of them an output
	stride int
	reach  int // end of the last group

	plain bool // computes in Go even where there are kernels
}

// resize returns the windows y and x of img resized to rh x rw pixels. The result may share img's memory, and is valid until
// the next call.
func (r *resizer) resize(img raster, rh, rw int, y, x window, filter Interpolation) raster {
	v, h := &r.vertical, &r.horizontal
	top, bottom := y.from, y.from+y.n
	if rh != img.h {
		v.set(img.h, rh, y, filter)
		top, bottom = v.min, v.max
	}
	left, right := x.from, x.from+x.n
	if rw != img.w {
		h.set(img.w, rw, x, filter)
		left, right = h.min, h.max
	}
	img.pix = img.pix[top*img.stride+left*img.channels:]
	// The order of the passes shows in the rounding. Pillow 13 goes down the columns first where that shortens them by more
	// than twice what the other pass takes off the rows; earlier versions never do.
	columnsFirst := rh < img.h && img.h-rh > 2*(img.w-rw)
	fromW, fromH := img.w, img.h
	img.w, img.h = right-left, bottom-top
	if columnsFirst {
		img, r.first = v.acrossRows(img, r.first)
	}
	if rw != fromW {
		img, r.second = h.alongRows(img, r.second)
	}
	if rh != fromH && !columnsFirst {
		img, r.first = v.acrossRows(img, r.first)
	}
	return img
}

// set computes the coefficients, unless it did so last time (precompute_coeffs and normalize_coeffs_8bpc). The products are
// rounded one by one: a fused multiply-add would give other bits.
func (t *taps) set(in, out int, win window, filter Interpolation) {
	if filter == "" {
		filter = Bilinear
	}
	if t.in == in && t.out == out && t.win == win && t.filter == filter {
		return
	}
	t.in, t.out, t.win, t.filter = in, out, win, filter
	scale := float64(in) / float64(out)
	stretch := max(scale, 1)
	weigh, reach := bilinear, 1.0
	if filter == Bicubic {
		weigh, reach = bicubic, 2.0
	}
	support := reach * stretch
	t.width = int(math.Ceil(support))*2 + 1
	t.from, t.n, t.coef = t.from[:0], t.n[:0], t.coef[:0]
	t.min, t.max = in, 0
	inverse := 1 / stretch
	for o := win.from; o < win.from+win.n; o++ {
		centre := float64((float64(o) + 0.5) * scale)
		lo := max(0, int(centre-support+0.5))
		n := min(in, int(centre+support+0.5)) - lo
		sum := 0.0
		t.weights = t.weights[:0]
		for i := range n {
			w := weigh(float64((float64(i+lo) - centre + 0.5) * inverse))
			t.weights = append(t.weights, w)
			sum += w
		}
		for _, w := range t.weights {
			if sum != 0 {
				w /= sum
			}
			w = float64(w * (1 << precision))
			if w < 0 {
				w -= 0.5
			} else {
				w += 0.5
			}
			t.coef = append(t.coef, int32(w))
		}
		for i := n; i < t.width; i++ {
			t.coef = append(t.coef, 0)
		}
		t.from, t.n = append(t.from, int32(lo)), append(t.n, int32(n))
		t.min, t.max = min(t.min, lo), max(t.max, lo+n)
	}
	if simd {
		t.splitCoefficients()
	}
}

// splitCoefficients makes what qg_rgb_rows takes: the high part of a coefficient fits 16 bits because weights stay far below 256.
func (t *taps) splitCoefficients() {
	t.stride = (t.width + 3) / 4
	t.reach = 0
	t.groups = t.groups[:0]
	t.split = append(t.split[:0], make([]int16, 8*t.stride*len(t.from))...)
	for o, from := range t.from {
		groups := (t.n[o] + 3) / 4
		t.groups = append(t.groups, groups)
		t.reach = max(t.reach, int(from+4*groups))
		for i, c := range t.coef[o*t.width:][:t.n[o]] {
			at := (o*t.stride+i/4)*8 + i%4
			t.split[at], t.split[at+4] = int16(c>>15), int16(c&0x7FFF)
		}
	}
}

func bilinear(x float64) float64 {
	x = math.Abs(x)
	if x < 1 {
		return 1 - x
	}
	return 0
}

// bicubic is Keys's filter with a = -0.5.
func bicubic(x float64) float64 {
	const a = -0.5
	x = math.Abs(x)
	switch {
	case x < 1:
		inner := float64((a+2)*x) - (a + 3)
		return float64(float64(inner*x)*x) + 1
	case x < 2:
		inner := float64((x-5)*x) + 8
		return (float64(inner*x) - 4) * a
	}
	return 0
}

// clip8 rounds a sum of coefficients times bytes, which has 0.5 added, to a byte.
func clip8(v int32) byte {
	v >>= precision
	if uint32(v) > 255 {
		if v < 0 {
			return 0
		}
		return 255
	}
	return byte(v)
}

const half = 1 << (precision - 1)

// alongRows resizes the rows of src, whose first column is input t.min, into buf.
func (t *taps) alongRows(src raster, buf []byte) (dst raster, _ []byte) {
	n := len(t.from)
	dst = raster{w: n, h: src.h, channels: src.channels, stride: n * src.channels}
	buf = grow(buf, dst.stride*dst.h)
	dst.pix = buf
	if src.channels == 1 {
		for y := range src.h {
			t.greyRow(src.row(y), dst.row(y))
		}
		return dst, buf
	}
	done := 0
	if simd && !t.plain {
		done = t.simdRows(src, dst)
	}
	for y := done; y < src.h; y++ {
		t.colourRow(src.row(y), dst.row(y))
	}
	return dst, buf
}

func (t *taps) greyRow(in, out []byte) {
	for o, from := range t.from {
		coef := t.coef[o*t.width:][:t.n[o]]
		px := in[int(from)-t.min:][:len(coef)]
		sum := int32(half)
		for i, c := range coef {
			sum += c * int32(px[i])
		}
		out[o] = clip8(sum)
	}
}

func (t *taps) colourRow(in, out []byte) {
	for o, from := range t.from {
		coef := t.coef[o*t.width:][:t.n[o]]
		px := in[3*(int(from)-t.min):][:3*len(coef)]
		r, g, b := int32(half), int32(half), int32(half)
		for len(coef) >= 2 && len(px) >= 6 {
			c, d := coef[0], coef[1]
			r += c*int32(px[0]) + d*int32(px[3])
			g += c*int32(px[1]) + d*int32(px[4])
			b += c*int32(px[2]) + d*int32(px[5])
			coef, px = coef[2:], px[6:]
		}
		if len(coef) == 1 && len(px) >= 3 {
			r += coef[0] * int32(px[0])
			g += coef[0] * int32(px[1])
			b += coef[0] * int32(px[2])
		}
		p := out[3*o : 3*o+3]
		p[0], p[1], p[2] = clip8(r), clip8(g), clip8(b)
	}
}

// acrossRows resizes the columns of src, whose first row is input t.min, into buf.
func (t *taps) acrossRows(src raster, buf []byte) (dst raster, _ []byte) {
	dst = raster{w: src.w, h: len(t.from), channels: src.channels, stride: src.w * src.channels}
	buf = grow(buf, dst.stride*dst.h)
	dst.pix = buf
	if simd && !t.plain && t.simdColumns(src, dst) {
		return dst, buf
	}
	for o, from := range t.from {
		coef := t.coef[o*t.width:][:t.n[o]]
		blend(src, int(from)-t.min, coef, dst.row(o))
	}
	return dst, buf
}

// lanes selects two bytes of eight, four apart, so that one multiplication serves both: a sum of coefficients times bytes
// fits 32 bits, and a negative low half borrows from the high one, which blend pays back.
const lanes = 0x000000FF_000000FF

// blend sums the rows of src from row first on, times coef, into out.
func blend(src raster, first int, coef []int32, out []byte) {
	x := 0
	for ; x+8 <= len(out); x += 8 {
		a := uint64(half | half<<32)
		b, c, d := a, a, a
		at := first*src.stride + x
		for _, k := range coef {
			v := binary.LittleEndian.Uint64(src.pix[at:])
			w := uint64(int64(k))
			a += w * (v & lanes)
			b += w * (v >> 8 & lanes)
			c += w * (v >> 16 & lanes)
			d += w * (v >> 24 & lanes)
			at += src.stride
		}
		p := out[x : x+8]
		p[0], p[4] = clipLanes(a)
		p[1], p[5] = clipLanes(b)
		p[2], p[6] = clipLanes(c)
		p[3], p[7] = clipLanes(d)
	}
	for ; x < len(out); x++ {
		sum := int32(half)
		at := first*src.stride + x
		for _, k := range coef {
			sum += k * int32(src.pix[at])
			at += src.stride
		}
		out[x] = clip8(sum)
	}
}

// clipLanes splits a double sum.
func clipLanes(v uint64) (lo, hi byte) {
	low := int32(v)
	return clip8(low), clip8(int32((v - uint64(int64(low))) >> 32))
}
