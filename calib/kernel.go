package calib

import "math"

// laneCount is the number of sub-histograms: neighbouring values go to different ones, so that a run of equal values
// (the zeros behind a Relu) does not wait on one memory cell.
const laneCount = 8

// lanes are interleaved sub-histograms. Index 2048 takes what is equal to the range; the rest only makes a power of two, which
// frees the loop of bounds checks.
type lanes [2 * Bins][laneCount]uint32

// maxPiece is the number of values counted between two flushes, so that no uint32 overflows.
const maxPiece = 1 << 30

const absMask = 0x7fffffff

// absBits returns the bits of |x|: they order as the magnitudes do, infinity above every finite value and NaN above infinity.
func absBits(x float32) uint32 { return math.Float32bits(x) & absMask }

// count counts x's leading values whose magnitude has bits of at most limit, at index |x|*scale. It returns their number and the
// larger of most and the largest bits among them; it stops at the first value beyond limit.
func (l *lanes) count(x []float32, scale float32, limit, most uint32) (int, uint32) {
	rest := x
	for ; len(rest) >= laneCount; rest = rest[laneCount:] {
		v := (*[laneCount]float32)(rest)
		b0, b1, b2, b3 := absBits(v[0]), absBits(v[1]), absBits(v[2]), absBits(v[3])
		b4, b5, b6, b7 := absBits(v[4]), absBits(v[5]), absBits(v[6]), absBits(v[7])
		if b0 > most || b1 > most || b2 > most || b3 > most || b4 > most || b5 > most || b6 > most || b7 > most {
			m := max(b0, b1, b2, b3, b4, b5, b6, b7)
			if m > limit {
				break
			}
			most = m
		}
		l[index(b0, scale)][0]++
		l[index(b1, scale)][1]++
		l[index(b2, scale)][2]++
		l[index(b3, scale)][3]++
		l[index(b4, scale)][4]++
		l[index(b5, scale)][5]++
		l[index(b6, scale)][6]++
		l[index(b7, scale)][7]++
	}
	n := len(x) - len(rest)
	for i, v := range rest {
		b := absBits(v)
		if b > limit {
			return n + i, most
		}
		most = max(most, b)
		l[index(b, scale)][i%laneCount]++
	}
	return len(x), most
}

// index is the bin of the magnitude with bits b, in float32 throughout as TensorRT computes it. The mask never changes it.
func index(b uint32, scale float32) uint {
	return uint(int32(math.Float32frombits(b)*scale)) & (2*Bins - 1)
}

// largest returns the number of x's leading values whose magnitude has bits of at most limit, and the larger of most and the largest
// bits among them; it stops at the first value beyond limit.
func largest(x []float32, limit, most uint32) (int, uint32) {
	rest := x
	for ; len(rest) >= 8; rest = rest[8:] {
		v := (*[8]float32)(rest)
		b0, b1, b2, b3 := absBits(v[0]), absBits(v[1]), absBits(v[2]), absBits(v[3])
		b4, b5, b6, b7 := absBits(v[4]), absBits(v[5]), absBits(v[6]), absBits(v[7])
		if b0 > most || b1 > most || b2 > most || b3 > most || b4 > most || b5 > most || b6 > most || b7 > most {
			m := max(b0, b1, b2, b3, b4, b5, b6, b7)
			if m > limit {
				break
			}
			most = m
		}
	}
	n := len(x) - len(rest)
	for i, v := range rest {
		b := absBits(v)
		if b > limit {
			return n + i, most
		}
		most = max(most, b)
	}
	return len(x), most
}
