package dataset

// #include "simd.h"
import "C"

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
