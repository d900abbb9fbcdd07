package dataset

// #include "simd.h"
import "C"

import "math"

// simd tells whether C's kernels run on this machine. Go's code, which they equal byte for byte, does elsewhere.
var simd = C.qg_simd() == 1

// simdRows resizes as many of src's rows along the row as the kernel may, and returns how many: whole groups of rows, whose loads
// stay inside src.
func (t *taps) simdRows(src, dst raster) int {
	rows := src.h
	// A row's loads end reach bytes after its start.
	reach := 3*(t.reach-t.min) + 4
	if over := (rows-1)*src.stride + reach - len(src.pix); over > 0 {
		rows -= (over + src.stride - 1) / src.stride
	}
	rows -= rows % C.QG_ROWS
	if rows <= 0 {
		return 0
	}
	C.qg_rgb_rows((*C.uint8_t)(&src.pix[0]), C.size_t(src.stride), (*C.uint8_t)(&dst.pix[0]), C.size_t(dst.stride), C.size_t(rows), C.size_t(dst.w),
		(*C.int32_t)(&t.from[0]), C.int32_t(t.min), (*C.int32_t)(&t.groups[0]), (*C.int16_t)(&t.split[0]), C.size_t(t.stride))
	return rows
}

// simdColumns resizes src's columns into dst, unless its rows are too short.
func (t *taps) simdColumns(src, dst raster) bool {
	count := src.w * src.channels
	if count < C.QG_SHORTEST {
		return false
	}
	C.qg_columns((*C.uint8_t)(&src.pix[0]), C.size_t(src.stride), (*C.uint8_t)(&dst.pix[0]), C.size_t(dst.stride), C.size_t(count), C.size_t(dst.h),
		(*C.int32_t)(&t.from[0]), C.int32_t(t.min), (*C.int32_t)(&t.n[0]), (*C.int32_t)(&t.coef[0]), C.size_t(t.width))
	return true
}

// narrowest is the width of a crop from which on simdPlanes takes it.
const narrowest = C.QG_NARROWEST

// norm is what qg_planes normalises the red, the green and the blue of three channels with; nil where it would not give lookup's values.
func (p Preprocess) norm(lookup [][256]float32) []float32 {
	if !simd || p.Channels != 3 {
		return nil
	}
	var norm []float32
	for _, c := range p.colours() {
		norm = append(norm, p.Mean[c], p.Std[c], 1/p.Std[c])
	}
	src := make([]byte, 0, 3*256)
	for v := range 256 {
		src = append(src, byte(v), byte(v), byte(v))
	}
	var got [3][256]float32
	simdPlanes(raster{pix: src, w: 256, h: 1, channels: 3, stride: len(src)}, got[0][:], got[1][:], got[2][:], 256, norm)
	for i, c := range p.colours() {
		for v, want := range lookup[c] {
			if math.Float32bits(got[i][v]) != math.Float32bits(want) {
				return nil
			}
		}
	}
	return norm
}

// simdPlanes normalises a crop of at least narrowest columns into planes whose rows are stride values apart.
func simdPlanes(crop raster, red, green, blue []float32, stride int, norm []float32) {
	C.qg_planes((*C.uint8_t)(&crop.pix[0]), C.size_t(crop.stride), (*C.float)(&red[0]), (*C.float)(&green[0]), (*C.float)(&blue[0]),
		C.size_t(stride), C.size_t(crop.h), C.size_t(crop.w), (*C.float)(&norm[0]))
}
