package calib

import "math"

// Bins is the number of bins of every histogram.
const Bins = 2048

// Histogram counts |x| of one tensor.
type Histogram struct {
	// Name is the tensor's.
	Name string
	// Range is the upper edge of the last bin; 0 when no value other than zero was seen.
	Range float32
	// Max is max|x|.
	Max float32
	// Counts holds the number of values in bin j, |x| in [j, j+1) times Range/2048. A value equal to Range is in the last bin.
	Counts [Bins]uint64
	// NaN and Inf count what was left out: NaN, and magnitudes of 2^126 and more.
	NaN, Inf uint64
}

// Width is the width of one bin.
func (h *Histogram) Width() float32 { return h.Range / Bins }

// Total is the number of values counted, zeros included.
func (h *Histogram) Total() uint64 {
	var n uint64
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Amax is the magnitude that a threshold of bin kept bins stands for: (bin + 0.5) widths, in float32 as TensorRT computes it.
func (h *Histogram) Amax(bin int) float32 { return (float32(bin) + 0.5) * h.Width() }

// BinOf returns the number of kept bins whose Amax is amax, and whether there is one: TensorRT's scales agree with the
// formula to a few float32 roundings and to the noise of the activations, so a tenth of a bin is allowed.
func (h *Histogram) BinOf(amax float32) (int, bool) {
	if !(h.Range > 0) {
		return 0, false
	}
	at := float64(amax)/float64(h.Width()) - 0.5
	bin := math.Round(at)
	if bin >= minKept && bin <= Bins && math.Abs(at-bin) <= 0.1 {
		return int(bin), true
	}
	return 0, false
}
