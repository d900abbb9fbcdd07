package accuracy

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

const (
	// settlePower is the chance that the planned number of images settles the question.
	settlePower = 0.9
	// practicalFactor bounds a set of practical size, in sets of the size at hand.
	practicalFactor = 10
)

// Settle says how many images would settle an inconclusive look with 90 % chance, if the discordance is as observed.
// A count of 0 stands for none: the loss assumed equals the margin, or the count exceeds 10^15.
type Settle struct {
	Images    int  // at the observed loss
	Practical bool // Images is at most ten times the set
	// AtLow and AtHigh hold if the true loss is at the low or the high end of its interval. In between, the count
	// grows without bound towards the margin.
	AtLow, AtHigh int
}

// settle plans the number of images for a one-sided level.
func settle(l Look, m MaxLoss, level float64) *Settle {
	n := float64(l.Table.N())
	discordance := float64(l.Table.Discordant()) / n
	images := func(loss float64) int {
		if m.Relative {
			return imagesForRatio(l.Table.BaseAccuracy(), loss, discordance, m.Value, level, settlePower)
		}
		return imagesForLoss(loss, discordance, m.Value, level, settlePower)
	}
	loss, ends := l.MarginLoss(m)
	s := &Settle{Images: images(loss), AtLow: images(ends.Low), AtHigh: images(ends.High)}
	s.Practical = s.Images > 0 && float64(s.Images) <= practicalFactor*n
	return s
}

// imagesForLoss returns how many images show a true loss to be on its side of the margin, with the given power and at a
// one-sided level, by the score test: N = ((z_level sd0 + z_power sd1) / (margin - loss))^2 with the standard deviation of
// one pair's difference under the margin and under the true loss.
//
// Source: Nam, Biometrics 53 (1997) 1422-1430; the constrained estimate is Tango's.
func imagesForLoss(loss, discordance, margin, level, power float64) int {
	psi := max(discordance, math.Abs(loss))
	sd0 := math.Sqrt(lossVariance(1, (psi+loss)/2, (psi-loss)/2, margin))
	sd1 := math.Sqrt(psi - loss*loss)
	return imageCount(sd0, sd1, margin-loss, level, power)
}

// imagesForRatio is imagesForLoss for a relative loss and margin, at a base accuracy: the difference of one pair is
// candidate - (1-margin) base.
//
// Source: Nam and Blackwelder, Statistics in Medicine 21 (2002) 689-699.
func imagesForRatio(base, loss, discordance, margin, level, power float64) int {
	if math.IsInf(loss, 0) || math.IsNaN(loss) {
		return 0
	}
	diff := base * loss
	psi := max(discordance, math.Abs(diff))
	b, c := (psi+diff)/2, (psi-diff)/2
	both := max(0, base-b)
	r := 1 - margin
	mean := both + c - r*(both+b)
	sd0 := math.Sqrt(ratioVariance(both, b, c, r))
	sd1 := math.Sqrt(max(0, both*(1-r)*(1-r)+c+r*r*b-mean*mean))
	return imageCount(sd0, sd1, mean, level, power)
}

func imageCount(sd0, sd1, distance, level, power float64) int {
	z := distuv.UnitNormal.Quantile
	n := math.Ceil(math.Pow((z(1-level)*sd0+z(power)*sd1)/distance, 2))
	if !(n <= 1e15) {
		return 0
	}
	return int(n)
}

// Plan asks how many images a verdict takes.
type Plan struct {
	MaxLoss     MaxLoss
	Loss        float64 // the true loss expected, in the margin's unit
	Discordance float64 // share of images expected to be right at one of the two only
	Base        float64 // the base's accuracy expected; counts for a relative margin only
	Confidence  float64
	Power       float64 // chance that the images settle it
}

// Images is the number of images, as many as it takes for the primary look, a pass where the loss is inside the margin and a fail
// where it is beyond; 0 where the loss is the margin and no number would do.
func (p Plan) Images() (int, error) {
	policy := DefaultPolicy()
	policy.MaxLoss, policy.Confidence = p.MaxLoss, p.Confidence
	if err := policy.Validate(); err != nil {
		return 0, err
	}
	diff := p.Loss
	if p.MaxLoss.Relative {
		if !(p.Base > 0 && p.Base <= 1) {
			return 0, fmt.Errorf("base accuracy %v: must be a fraction above 0", p.Base)
		}
		diff *= p.Base
	}
	switch {
	case !(p.Discordance > 0 && p.Discordance <= 1):
		return 0, fmt.Errorf("discordance %v: must be a fraction above 0, such as 0.02", p.Discordance)
	case !(math.Abs(diff) <= p.Discordance):
		return 0, fmt.Errorf("loss %v: cannot exceed the share of discordant images, %v", diff, p.Discordance)
	case !(p.Power >= 0.5 && p.Power < 1):
		return 0, fmt.Errorf("power %v: must be a fraction of at least 0.5 and below 1, such as 0.9", p.Power)
	}
	if p.MaxLoss.Relative {
		return imagesForRatio(p.Base, p.Loss, p.Discordance, p.MaxLoss.Value, policy.alpha(), p.Power), nil
	}
	return imagesForLoss(p.Loss, p.Discordance, p.MaxLoss.Value, policy.alpha(), p.Power), nil
}
