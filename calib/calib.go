// Package calib turns activations into INT8 ranges: it counts |x| of every tensor in 2,048 bins while batches stream
// past, chooses the largest magnitude to keep (amax) from the counts, and reads, writes and compares calibration caches.
// It sees float slices only: no model, no engine.
//
// # Grids
//
// A histogram divides 0..range into 2,048 equal bins. Two rules choose the range, and both only ever double it, which
// merges pairs of bins and loses nothing:
//
//   - entropy takes TensorRT's: the maximum of |x| over the first batch, doubled while a later batch's maximum exceeds it.
//     It therefore depends on which images come first, as TensorRT's own caches do.
//   - entropy-stable, percentile and mse take the smallest power of two strictly above max|x|, so that neither the order
//     of the images, nor the batch size, nor the number of workers changes one count.
//
// # Unusual values
//
// Each of these adds a warning that names the tensor:
//
//   - NaN, infinities, and finite values of magnitude 2^126 and more (8.5e37, where a range could not double) are left
//     out of histogram and maximum, and counted apart.
//   - A tensor that is zero wherever it was seen has no range to offer: its amax is 1.
//   - A tensor of one magnitude (a constant, or a mask of zero and one value) gives the entropy search nothing to weigh.
//     entropy then keeps the whole range, as TensorRT does; entropy-stable keeps max|x|.
//   - A tensor that is zero in the whole first batch, which gives entropy no range to start from, is counted on the
//     power-of-two grid instead. The same holds for a first maximum below 2^-100.
//
// The power-of-two grid is never finer than a range of 2^-100.
package calib

import (
	"errors"
	"fmt"
	"strings"
)

// Method names a rule that chooses amax.
type Method string

// The methods.
const (
	// Entropy is TensorRT's EntropyCalibrator2, bin for bin.
	Entropy Method = "entropy"
	// EntropyStable is the same search on a power-of-two range, independent of order, batch size and sharding.
	EntropyStable Method = "entropy-stable"
	// MinMax keeps everything: amax = max|x|.
	MinMax Method = "minmax"
	// Percentile keeps a share of the values, Options.Percentile.
	Percentile Method = "percentile"
	// MSE minimises the mean squared error of quantising to 127 levels a side.
	MSE Method = "mse"
)

// Methods lists every method in the order a help text should.
func Methods() []Method { return []Method{Entropy, EntropyStable, MinMax, Percentile, MSE} }

// ErrMethod is wrapped by ParseMethod's error.
var ErrMethod = errors.New("unknown calibration method")

// ParseMethod returns the method of that name.
func ParseMethod(s string) (Method, error) {
	names := make([]string, 0, 5)
	for _, m := range Methods() {
		if string(m) == s {
			return m, nil
		}
		names = append(names, string(m))
	}
	return "", fmt.Errorf("%w %q: use one of %s", ErrMethod, s, strings.Join(names, ", "))
}

// Calibrator is the name that a TensorRT cache made by this method carries in its first line. TensorRT accepts a cache
// only where the name is that of the calibrator it was given, so percentile and mse, which TensorRT does not have, go
// under the name of EntropyCalibrator2, the one that trtexec uses.
func (m Method) Calibrator() string {
	if m == MinMax {
		return CalibratorMinMax
	}
	return CalibratorEntropy2
}

// Levels is the largest magnitude of a symmetric INT8 value: scale = amax / Levels.
const Levels = 127

// ScaleOf returns amax/127 in float32, as TensorRT computes it.
func ScaleOf(amax float32) float32 { return amax / Levels }

// DefaultPercentile is the share of values that Percentile keeps unless told otherwise.
const DefaultPercentile = 0.9999

// Options tune a collector. The zero value is ready for use.
type Options struct {
	// Percentile is the share of the values that method Percentile keeps, above 0 and at most 1; 0 means DefaultPercentile.
	Percentile float64
}

// Result is what a collector found for one tensor.
type Result struct {
	// Name is the tensor's, as given to NewCollector.
	Name string
	// Amax is the largest magnitude kept and Scale is Amax/127.
	Amax, Scale float32
	// Max is max|x| over everything observed, without NaN and infinities.
	Max float32
	// Bin is the number of bins kept, 128..2048, and KL the divergence there in nats; both 0 for other methods than the entropies,
	// and KL 0 where no threshold could be weighed.
	Bin int
	KL  float64
	// Clipped is the share, 0..1, of the values in bins wholly above Amax.
	Clipped float64
	// Histogram is what Amax was chosen from; nil for MinMax.
	Histogram *Histogram
	// Warnings are whole sentences that name the tensor.
	Warnings []string
}
