package onnx

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/x448/float16"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// Every float16, the middle between it and the next, and the float32 on either side of both, rounded as the float16 library does.
func TestRoundsAsFloat16(t *testing.T) {
	check := func(bits uint32) {
		v := math.Float32frombits(bits)
		want := float16.Fromfloat32(v)
		if got := halfBits(v); got != want.Bits() {
			require.Equalf(t, want.Bits(), got, "bits of %x", bits)
		}
		if got := math.Float32bits(roundToHalf(v)); got != math.Float32bits(want.Float32()) {
			require.Equalf(t, math.Float32bits(want.Float32()), got, "value of %x", bits)
		}
	}
	for h := range 1 << 16 {
		bits := math.Float32bits(float16.Frombits(uint16(h)).Float32())
		for _, half := range []uint32{0, 1 << 12} {
			for _, d := range []uint32{^uint32(0), 0, 1} {
				check(bits + half + d)
			}
		}
	}
	for bits := uint64(0); bits < 1<<32; bits += 65_521 { // a prime: all kinds of fractions at every exponent
		check(uint32(bits))
	}
}

func TestFloatsShareTheTensorsMemory(t *testing.T) {
	if !littleEndian {
		t.Skip("this machine lays out numbers otherwise than ONNX")
	}
	values := []float32{1, -2, 3.5}
	made := floatTensor("w", []int64{3}, values)
	got, err := floats(made)
	require.NoError(t, err)
	require.Equal(t, values, got)
	require.Same(t, &values[0], &got[0], "a copy of the weights")
}

func TestFloatsOutOfLine(t *testing.T) {
	raw := make([]byte, 16)[1:13] // 16 bytes begin at a multiple of 16
	for i, v := range []float32{1, -2, 3.5} {
		binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(v))
	}
	_, ok := asFloats(raw)
	require.False(t, ok)
	got, err := floats(rawTensor("w", pb.TensorProto_FLOAT, []int64{3}, raw))
	require.NoError(t, err)
	require.Equal(t, []float32{1, -2, 3.5}, got)
}
