//go:build cgo

package calib

// #cgo CFLAGS: -O3
// #include "kernel.h"
import "C"

import "unsafe"

// instructions is the instruction set in use.
var instructions = int(C.qg_best())

// count is plainCount in C.
func count(x []float32, views []viewParams, below int, limit extremes, counts []uint32, most *extremes) int {
	return countWith(instructions, x, views, below, limit, counts, most)
}

func countWith(set int, x []float32, views []viewParams, below int, limit extremes, counts []uint32, most *extremes) int {
	if len(x) == 0 {
		return 0
	}
	return int(C.qg_count(C.int(set), (*C.float)(&x[0]), C.size_t(len(x)),
		(*C.struct_qg_view)(unsafe.Pointer(&views[0])), C.int(len(views)), C.uint32_t(below),
		C.struct_qg_extremes{C.uint32_t(limit.positive), C.uint32_t(limit.negative)},
		(*C.uint32_t)(&counts[0]), (*C.struct_qg_extremes)(unsafe.Pointer(most))))
}

// extreme is plainExtreme in C.
func extreme(x []float32, limit extremes, most *extremes) int {
	return extremeWith(instructions, x, limit, most)
}

func extremeWith(set int, x []float32, limit extremes, most *extremes) int {
	if len(x) == 0 {
		return 0
	}
	return int(C.qg_extreme(C.int(set), (*C.float)(&x[0]), C.size_t(len(x)),
		C.struct_qg_extremes{C.uint32_t(limit.positive), C.uint32_t(limit.negative)}, (*C.struct_qg_extremes)(unsafe.Pointer(most))))
}
