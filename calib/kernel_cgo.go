//go:build cgo

package calib

// #cgo CFLAGS: -O3 -std=c11
// #include "kernel.h"
import "C"

import "unsafe"

// instructions is the instruction set in use.
var instructions = int(C.qg_best())

// count is plainCount in C.
func count(x []float32, p *placement, views int, limit extremes, counts []uint32, most *extremes) int {
	return countWith(instructions, x, p, views, limit, counts, most)
}

func countWith(set int, x []float32, p *placement, views int, limit extremes, counts []uint32, most *extremes) int {
	if len(x) == 0 {
		return 0
	}
	return int(C.qg_count(C.int(set), (*C.float)(&x[0]), C.size_t(len(x)), (*C.struct_qg_placement)(unsafe.Pointer(p)), C.int(views),
		limit.c(), (*C.uint32_t)(&counts[0]), (*C.struct_qg_extremes)(unsafe.Pointer(most))))
}

func (e extremes) c() C.struct_qg_extremes {
	return C.struct_qg_extremes{C.uint32_t(e.positive), C.uint32_t(e.negative), C.uint32_t(e.gate), C.uint32_t(e.product)}
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
		limit.c(), (*C.struct_qg_extremes)(unsafe.Pointer(most))))
}

// gates is plainGates in C.
func gates(x []float32, f Func, out []float32) { gatesWith(instructions, x, f, out) }

func gatesWith(set int, x []float32, f Func, out []float32) {
	if len(x) == 0 {
		return
	}
	product := C.int(0)
	if f.Kind == HardSwish {
		product = 1
	}
	C.qg_gate(C.int(set), (*C.float)(&x[0]), C.size_t(len(x)), C.float(f.Alpha), C.float(f.Beta), product, (*C.float)(&out[0]))
}
