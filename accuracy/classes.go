package accuracy

import (
	"math"
	"slices"
)

// ClassLoss compares one class's images, at top-1, between a base and a candidate.
type ClassLoss struct {
	Class              int
	N                  int // images of the class
	BaseOnly, CandOnly int
	Loss               float64 // (BaseOnly-CandOnly)/N
	// P is the one-sided exact McNemar p-value of a loss: P(X >= BaseOnly), X ~ Binomial(BaseOnly+CandOnly, 1/2). PAdjusted
	// is Holm's over the candidate's classes with a discordant image. The others' p-value is 1 whatever happens, so that
	// leaving them out costs no validity: naming every class with PAdjusted <= a names a class that did not lose with a chance
	// of at most a.
	P, PAdjusted float64
}

// classCount counts one class's images.
type classCount struct{ n, baseOnly, candOnly int }

func (c *classCount) add(base, cand bool) {
	c.n++
	switch {
	case base && !cand:
		c.baseOnly++
	case cand && !base:
		c.candOnly++
	}
}

// classLosses lists the classes with a discordant image by adjusted p-value, then by falling loss, then by class.
func classLosses(classes map[int]classCount) []ClassLoss {
	var out []ClassLoss
	for class, c := range classes {
		if c.baseOnly+c.candOnly > 0 {
			out = append(out, ClassLoss{
				Class: class, N: c.n, BaseOnly: c.baseOnly, CandOnly: c.candOnly,
				Loss: float64(c.baseOnly-c.candOnly) / float64(c.n),
				P:    mcnemarLoss(c.baseOnly, c.candOnly),
			})
		}
	}
	sides := make([]side, len(out))
	for i := range out {
		sides[i] = side{out[i].P, &out[i].PAdjusted}
	}
	holm(sides)
	slices.SortFunc(out, func(a, b ClassLoss) int {
		switch {
		case a.PAdjusted != b.PAdjusted:
			return sign(a.PAdjusted - b.PAdjusted)
		case a.Loss != b.Loss:
			return sign(b.Loss - a.Loss)
		}
		return a.Class - b.Class
	})
	return out
}

func sign(v float64) int {
	if v < 0 {
		return -1
	}
	return 1
}

// mcnemarLoss is the exact one-sided p-value of McNemar's test against a loss: small where b is far above c.
func mcnemarLoss(b, c int) float64 {
	if b > c {
		_, cdf := fairBinomial(c, b+c)
		return cdf
	}
	if b == 0 {
		return 1
	}
	_, cdf := fairBinomial(b-1, b+c)
	return max(0, 1-cdf)
}

// eceBins is the number of equal-width bins of the calibration error.
const eceBins = 15

// calibration sums the top-1 probabilities of one precision's images, by bin.
type calibration struct {
	n, correct [eceBins]int
	confidence [eceBins]float64
}

// add counts one image; bin m holds the probabilities in ((m-1)/15, m/15].
func (c *calibration) add(o Outcome) {
	if o.NaN || o.Top1Prob != o.Top1Prob {
		return
	}
	p := float64(o.Top1Prob)
	i := min(eceBins-1, max(0, int(math.Ceil(p*eceBins))-1))
	c.n[i]++
	c.confidence[i] += p
	if o.Hit(1) {
		c.correct[i]++
	}
}

// error is the expected calibration error, sum over bins of |right - probability|/n: NaN where no image has a
// probability.
//
// Source: Guo, Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
func (c *calibration) error() float64 {
	total, sum := 0, 0.0
	for i, n := range c.n {
		total += n
		sum += math.Abs(float64(c.correct[i]) - c.confidence[i])
	}
	return sum / float64(total)
}
