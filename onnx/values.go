package onnx

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/x448/float16"
)

// littleEndian says that this machine lays out a float32 in memory as raw_data does.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// asFloats returns raw_data as the float32 values it holds, in the same memory; false where this machine cannot read them there.
func asFloats(raw []byte) ([]float32, bool) {
	p := unsafe.Pointer(unsafe.SliceData(raw))
	if !littleEndian || uintptr(p)%unsafe.Alignof(float32(0)) != 0 {
		return nil, false
	}
	return unsafe.Slice((*float32)(p), len(raw)/4), true
}

// asBytes returns float32 values as raw_data, in the same memory; false where this machine lays them out otherwise.
func asBytes(values []float32) ([]byte, bool) {
	if len(values) == 0 {
		return []byte{}, true
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), 4*len(values)), littleEndian
}

// A float32 from 2^-14 up and below 2^15 rounds to a normal float16: these are the biased exponents of the first that does and the first
// that may not. Within, the 13 bits of the fraction that float16 lacks are rounded away by an addition; what lies without is float16's.
const (
	halfFrom, halfTo = 127 - 14, 127 + 15
	lostBits         = 13
)

// normalHalf reports whether the float32 of these bits becomes a normal float16 whatever its fraction.
func normalHalf(bits uint32) bool { return bits>>23&0xff-halfFrom < halfTo-halfFrom }

// roundBits rounds the fraction to float16's, to nearest, ties to even.
func roundBits(bits uint32) uint32 {
	return (bits + (1<<(lostBits-1) - 1) + bits>>lostBits&1) &^ (1<<lostBits - 1)
}

// roundToHalf rounds to float16: to nearest, ties to even, overflow to infinity.
func roundToHalf(v float32) float32 {
	if bits := math.Float32bits(v); normalHalf(bits) {
		return math.Float32frombits(roundBits(bits))
	}
	return float16.Fromfloat32(v).Float32()
}

// halfBits is the float16 that roundToHalf rounds to.
func halfBits(v float32) uint16 {
	if bits := math.Float32bits(v); normalHalf(bits) {
		return uint16(bits>>16&0x8000 | (roundBits(bits)&^(1<<31)-(127-15)<<23)>>lostBits)
	}
	return float16.Fromfloat32(v).Bits()
}
