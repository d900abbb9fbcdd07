// Package accuracy scores a classifier's outputs, keeps the outcomes, and decides from paired outcomes of two
// precisions whether the loss stays within a margin. Rates and losses are fractions 0..1 throughout.
package accuracy

import (
	"errors"
	"fmt"
	"math"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrLabel says that a label has no logit: it is negative or not below the number of classes.
	ErrLabel = errors.New("label out of range")
	// ErrWidth says that a model has too few outputs for the class offset.
	ErrWidth = errors.New("wrong number of outputs")
)

// Outcome is what one model in one precision said about one image.
//
// Where a model told its classes and no logits, the probabilities and the margin are unknown: NaN.
//
// A NaN logit makes the image a miss at every k: NaN is true, Top1 is -1, Rank is 0 and the other fields are zero.
type Outcome struct {
	Top1      int     // class of the largest logit, the lowest such class; the class offset is already subtracted
	Top1Prob  float32 // softmax probability of Top1
	Rank      int     // 1 + #(z_j > z_label) + #(j < label with z_j = z_label)
	LabelProb float32 // softmax probability of the label
	Margin    float32 // largest logit minus the second largest: 0 for a tie, +Inf for a single class
	// TiesBefore and TiesAfter count the other classes whose logit equals the label's, below and above the label:
	// breaking ties otherwise would put the label anywhere in Rank-TiesBefore..Rank+TiesAfter.
	TiesBefore, TiesAfter int
	NaN                   bool // at least one logit is NaN
}

// Hit reports whether the label is among the k best classes.
func (o Outcome) Hit(k int) bool { return !o.NaN && o.Rank <= k }

// TiedAt reports whether Hit(k) hangs on a tie: another way of breaking ties would change it.
func (o Outcome) TiedAt(k int) bool {
	return !o.NaN && o.Rank-o.TiesBefore <= k && o.Rank+o.TiesAfter > k
}

// Score ranks the label among the logits of one image. The class of output i is i - classOffset; outputs below
// classOffset are dropped before ranking. The error wraps ErrLabel or ErrWidth.
//
// Infinite logits follow the limit: classes at +Inf share the probability equally and all others have none; where
// all logits are -Inf, all classes share it. Two infinite logits of one sign are tied.
func Score(logits []float32, label, classOffset int) (Outcome, error) {
	if classOffset < 0 || classOffset >= len(logits) {
		return Outcome{}, fmt.Errorf("%w: %d outputs with class offset %d: the offset must be at least 0 and below the number of outputs",
			ErrWidth, len(logits), classOffset)
	}
	z := logits[classOffset:]
	if label < 0 || label >= len(z) {
		return Outcome{}, fmt.Errorf("%w: label %d, but the model has classes 0..%d (%d outputs, class offset %d)",
			ErrLabel, label, len(z)-1, len(logits), classOffset)
	}

	zl := z[label]
	best, second := float32(math.Inf(-1)), float32(math.Inf(-1))
	o := Outcome{Rank: 1, TiesBefore: 0, TiesAfter: -1} // the label ties with itself
	for j, v := range z {
		if v != v {
			return Outcome{Top1: -1, NaN: true}, nil
		}
		if v > best {
			best, second, o.Top1 = v, best, j
		} else if v > second {
			second = v
		}
		if v > zl {
			o.Rank++
		} else if v == zl {
			if j < label {
				o.TiesBefore++
			} else {
				o.TiesAfter++
			}
		}
	}
	o.Rank += o.TiesBefore
	switch {
	case len(z) == 1:
		o.Margin = float32(math.Inf(1))
	case best > second: // else a tie, of infinite logits too: 0
		o.Margin = best - second
	}

	m := float64(best)
	var sum float64
	if math.IsInf(m, 0) {
		for _, v := range z {
			if v == best {
				sum++
			}
		}
	} else {
		for _, v := range z {
			sum += math.Exp(float64(v) - m)
		}
	}
	o.Top1Prob = float32(1 / sum)
	switch {
	case zl == best:
		o.LabelProb = o.Top1Prob
	case !math.IsInf(m, 0):
		o.LabelProb = float32(math.Exp(float64(zl)-m) / sum)
	}
	return o, nil
}

// Shift is how far a candidate's logits moved from the base's on one image. Both are NaN where a logit is NaN.
type Shift struct {
	KL             float64 // Kullback-Leibler divergence of softmax(base) from softmax(candidate), in nats
	MaxLogitChange float32 // largest |base - candidate| over the logits, the class offset dropped
}

// CompareLogits measures the shift from base to cand, two outputs of equal length; outputs below classOffset are dropped.
//
// The divergence is computed from log-softmax values in float64, so it is finite for all finite logits. With infinite
// logits the softmax is Score's limit, and the divergence is +Inf where the candidate gives no probability to a class
// that has some at the base. Two equal infinities count as no change.
func CompareLogits(base, cand []float32, classOffset int) (Shift, error) {
	if len(base) != len(cand) {
		return Shift{}, fmt.Errorf("%w: the base has %d outputs and the candidate %d", ErrWidth, len(base), len(cand))
	}
	if classOffset < 0 || classOffset >= len(base) {
		return Shift{}, fmt.Errorf("%w: %d outputs with class offset %d: the offset must be at least 0 and below the number of outputs",
			ErrWidth, len(base), classOffset)
	}
	base, cand = base[classOffset:], cand[classOffset:]

	var maxBase, maxCand, change = float32(math.Inf(-1)), float32(math.Inf(-1)), float32(0)
	for i, v := range base {
		w := cand[i]
		if v != v || w != w {
			return Shift{KL: math.NaN(), MaxLogitChange: float32(math.NaN())}, nil
		}
		maxBase, maxCand = max(maxBase, v), max(maxCand, w)
		if d := v - w; d > change {
			change = d
		} else if -d > change {
			change = -d
		}
	}

	if math.IsInf(float64(maxBase), 0) || math.IsInf(float64(maxCand), 0) {
		return Shift{KL: divergenceAtInfinity(base, cand, maxBase, maxCand), MaxLogitChange: change}, nil
	}
	// KL = sum p_i (ln p_i - ln q_i) = sum p_i ((z_i - w_i) - (lse_z - lse_w)), with both maxima subtracted.
	mz, mw := float64(maxBase), float64(maxCand)
	var sz, sw, dot float64
	for i, v := range base {
		dz, dw := float64(v)-mz, float64(cand[i])-mw
		e := math.Exp(dz)
		sz += e
		sw += math.Exp(dw)
		if e > 0 {
			dot += e * (dz - dw)
		}
	}
	return Shift{KL: max(0, dot/sz-math.Log(sz)+math.Log(sw)), MaxLogitChange: change}, nil
}

// divergenceAtInfinity is CompareLogits' divergence where the largest logit of either side is infinite.
func divergenceAtInfinity(base, cand []float32, maxBase, maxCand float32) float64 {
	sb, sc := weightSum(base, maxBase), weightSum(cand, maxCand)
	var kl float64
	for i, v := range base {
		p := weight(v, maxBase) / sb
		if p > 0 {
			kl += p * math.Log(p/(weight(cand[i], maxCand)/sc))
		}
	}
	return max(0, kl)
}

// weight is a class's softmax numerator in the limit of Score.
func weight(v, largest float32) float64 {
	switch {
	case v == largest:
		return 1
	case math.IsInf(float64(largest), 0):
		return 0
	}
	return math.Exp(float64(v) - float64(largest))
}

func weightSum(z []float32, largest float32) float64 {
	var s float64
	for _, v := range z {
		s += weight(v, largest)
	}
	return s
}
