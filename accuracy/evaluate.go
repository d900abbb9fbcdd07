package accuracy

import (
	"fmt"
	"math"
	"sort"
)

// Summary is a policy's answer to a set of outcomes.
type Summary struct {
	Policy   Policy
	Models   []ModelSummary
	Verdict  Verdict  // the worst of the models
	Warnings []string // one line each
}

// ModelSummary is what was measured on one model.
type ModelSummary struct {
	Name       string
	N          int                // images scored, by every precision
	SetSize    int                // not 0 where the run could stop early: the images it chose from, of which it saw N
	Precisions []PrecisionSummary // base first
	Verdict    Verdict            // the primary look's; with Policy.GateAll the worst of all looks
	// Guesses says that the base is no better than guessing at top-1: every look is then inconclusive.
	Guesses bool
}

// PrecisionSummary is what was measured on one precision of a model.
type PrecisionSummary struct {
	Name       string
	N          int
	Top1, Top5 Hits
	NaN        int        // images with a NaN logit, a miss at every k
	ECE        float64    // expected calibration error, 15 bins of Top1Prob, over the images that have one; NaN where none has
	Candidate  *Candidate // nil at the base
}

// Hits is the accuracy at one k.
type Hits struct {
	Correct int
	Rate    float64 // Correct/N
	Tied    int     // images whose hit or miss hangs on how a tie is broken
}

// Candidate compares a precision with the base, image by image.
type Candidate struct {
	Agree                int     // images on which both have the same top-1 class
	MeanKL               float64 // mean divergence of the softmax outputs, in nats, over the images where it is finite
	InfiniteKL           int     // images where it is not, or where a logit is NaN
	MaxLogitChange       float32
	DeltaTop1, DeltaTop5 float64     // candidate minus base
	Looks                []Look      // by Metrics
	Classes              []ClassLoss // those with a discordant image, by PAdjusted, then by falling Loss
}

// Look is one paired comparison against the margin.
type Look struct {
	Model, Base, Candidate string
	K                      int // top-K
	Primary                bool
	Table                  Table2x2

	Loss         float64  // base minus candidate
	LossInterval Interval // Tango's; a confidence sequence where Stop is not nil; for TargetSet otherwise the loss itself
	RelLoss      float64  // Loss over the base's accuracy; NaN where that is 0
	RelInterval  Interval // score interval of the ratio, or as LossInterval; unbounded below where the base's accuracy may be 0

	McNemarExact float64 // reported; never decides
	McNemarMidP  float64

	// PWithin and PBeyond are the one-sided score p-values at the margin: a small PWithin shows that the loss is
	// below it, a small PBeyond that it is above. Where Stop is not nil they are a Stopper's. The adjusted values are Holm's over all secondary looks of the
	// summary, and equal the others on a primary look.
	PWithin, PBeyond                 float64
	PWithinAdjusted, PBeyondAdjusted float64

	// Settled are the margins that these images would have settled: a pass from High up, a fail below Low. On a
	// secondary look they hold at Bonferroni's level, and so under Holm's whatever the other looks show.
	Settled Interval
	Settle  *Settle // on an inconclusive look of a run that could not stop early

	Stop *Stop // where the run could stop early

	Verdict Verdict
	Reason  string // one sentence
}

// Stop says how far a look's images were visited, and when they sufficed for its verdict at the policy's confidence.
type Stop struct {
	SetSize int      // images of the whole set
	Settled int      // images after which the verdict was reached; 0 where it was not
	Rule    StopRule // by what; empty where it was not

	stopper *Stopper // in the unit of the margin
}

// Metric is the look's measure, "top1" or "top5".
func (l Look) Metric() string { return metricName(l.K) }

// MarginLoss is the loss and its interval in the margin's unit: absolute, or relative to the base's accuracy.
func (l Look) MarginLoss(m MaxLoss) (float64, Interval) {
	if m.Relative {
		return l.RelLoss, l.RelInterval
	}
	return l.Loss, l.LossInterval
}

// Evaluate decides outcomes by a policy; where only a base was scored the verdict is None. It fails on an invalid policy, on no images, and where the policy's primary
// look is not among the outcomes.
func Evaluate(o *Outcomes, p Policy) (*Summary, error) {
	tallies, err := o.Tally()
	if err != nil {
		return nil, err
	}
	return Judge(tallies, p)
}

// Judge is Evaluate on outcomes that have been counted.
func Judge(tallies []*Tally, p Policy) (*Summary, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if len(tallies) == 0 {
		return nil, fmt.Errorf("no outcomes: nothing to judge")
	}
	s := &Summary{Policy: p, Verdict: None}
	for _, t := range tallies {
		m, err := t.summarise(p)
		if err != nil {
			return nil, err
		}
		s.Models = append(s.Models, m)
	}

	var secondary []*Look
	for i := range s.Models {
		for l := range s.Models[i].Looks {
			if !l.Primary {
				secondary = append(secondary, l)
			}
		}
	}
	adjust(secondary)
	for i := range s.Models {
		m := &s.Models[i]
		m.Guesses = tallies[i].guesses()
		for l := range m.Looks {
			l.decide(p, len(secondary))
			if m.Guesses {
				l.voidBy(m.Precisions[0])
			}
			if l.Primary || p.GateAll {
				m.Verdict = m.Verdict.Worse(l.Verdict)
			}
		}
		s.Verdict = s.Verdict.Worse(m.Verdict)
	}
	s.warn()
	return s, nil
}

// Looks visits the model's looks, by candidate and k.
func (m *ModelSummary) Looks(yield func(*Look) bool) {
	for i := range m.Precisions {
		c := m.Precisions[i].Candidate
		if c == nil {
			continue
		}
		for j := range c.Looks {
			if !yield(&c.Looks[j]) {
				return
			}
		}
	}
}

// Primary returns the look that decides, nil where only a base was scored.
func (m *ModelSummary) Primary() *Look {
	for l := range m.Looks {
		if l.Primary {
			return l
		}
	}
	return nil
}

// summarise computes everything but the adjusted p-values and the verdicts.
func (t *Tally) summarise(p Policy) (ModelSummary, error) {
	m := ModelSummary{Name: t.model, N: t.n, SetSize: t.setSize, Verdict: None}
	if t.n == 0 {
		return m, fmt.Errorf("model %s: no scored images: nothing to judge", t.model)
	}
	primary, err := p.Primary.Among(t.precisions)
	if err != nil {
		return m, fmt.Errorf("model %s: %w", t.model, err)
	}
	for i, name := range t.precisions {
		s := t.scores[i]
		score := func(metric int) Hits {
			return Hits{Correct: s.correct[metric], Rate: float64(s.correct[metric]) / float64(t.n), Tied: s.tied[metric]}
		}
		ps := PrecisionSummary{Name: name, N: t.n, Top1: score(0), Top5: score(1), NaN: s.nan, ECE: s.calibration.error()}
		if i > 0 {
			pair := t.pairs[i-1]
			c := &Candidate{Agree: pair.agree, InfiniteKL: t.n - pair.klFinite, MaxLogitChange: pair.maxChange, Classes: classLosses(pair.classes)}
			if pair.klFinite > 0 {
				c.MeanKL = pair.klSum / float64(pair.klFinite)
			}
			for metric, k := range Metrics {
				l := newLook(pair.tables[metric], p)
				if t.setSize > 0 {
					if err := l.replay(t, i-1, metric, p); err != nil {
						return m, err
					}
				}
				l.Model, l.Base, l.Candidate, l.K = t.model, t.precisions[0], name, k
				l.Primary = name == primary && k == p.Primary.K
				c.Looks = append(c.Looks, l)
			}
			c.DeltaTop1, c.DeltaTop5 = 0-c.Looks[0].Loss, 0-c.Looks[1].Loss
			ps.Candidate = c
		}
		m.Precisions = append(m.Precisions, ps)
	}
	return m, nil
}

// newLook computes what a look shows before the looks are judged together.
func newLook(t Table2x2, p Policy) Look {
	l := Look{
		Table:        t,
		Loss:         t.Loss(),
		RelLoss:      t.RelLoss(),
		McNemarExact: McNemarExact(t.BaseOnly, t.CandOnly),
		McNemarMidP:  McNemarMidP(t.BaseOnly, t.CandOnly),
	}
	if p.Target == TargetSet {
		l.LossInterval, l.RelInterval = Interval{l.Loss, l.Loss}, Interval{l.RelLoss, l.RelLoss}
		l.PWithin, l.PBeyond = 1, 0
		if withinPoint(t, p.MaxLoss) {
			l.PWithin, l.PBeyond = 0, 1
		}
	} else {
		l.LossInterval.Low, l.LossInterval.High = TangoInterval(t.N(), t.BaseOnly, t.CandOnly, p.Confidence)
		l.RelInterval.Low, l.RelInterval.High = RatioInterval(t.Both, t.BaseOnly, t.CandOnly, p.Confidence)
		z := MarginZ(t, p.MaxLoss)
		l.PWithin, l.PBeyond = normalCDF(z), normalCDF(-z)
	}
	l.PWithinAdjusted, l.PBeyondAdjusted = l.PWithin, l.PBeyond
	return l
}

// replay puts what holds at any time in the place of what holds at a number of images fixed beforehand.
func (l *Look) replay(t *Tally, pair, metric int, p Policy) error {
	other := p.MaxLoss
	other.Relative = !other.Relative
	decides := newStopper(t.setSize, p.Target, p.MaxLoss, p.alpha())
	second := newStopper(t.setSize, p.Target, other, p.alpha())
	for _, s := range []*Stopper{decides, second} {
		if err := t.replay(s, pair, metric); err != nil {
			return err
		}
	}
	l.LossInterval, l.RelInterval = decides.Interval(), second.Interval()
	if p.MaxLoss.Relative {
		l.LossInterval, l.RelInterval = l.RelInterval, l.LossInterval
	}
	l.PWithin, l.PBeyond = decides.PValues()
	l.PWithinAdjusted, l.PBeyondAdjusted = l.PWithin, l.PBeyond
	l.Stop = &Stop{SetSize: t.setSize, stopper: decides}
	l.Stop.Settled, l.Stop.Rule = decides.Settled()
	return nil
}

// MarginZ is the score statistic at a margin, of any sign: far below 0 where the loss is smaller, far above where it is
// larger. Its normal distribution function gives Look's PWithin, and the losses at which it stays within the normal quantiles
// are the interval's.
func MarginZ(t Table2x2, m MaxLoss) float64 {
	if m.Relative {
		return ratioZ(t.Both, t.BaseOnly, t.CandOnly, m.Value)
	}
	return lossZ(t.N(), t.BaseOnly, t.CandOnly, m.Value)
}

// adjust applies Holm's method to both p-values of every look together.
func adjust(looks []*Look) {
	var sides []side
	for _, l := range looks {
		sides = append(sides, side{l.PWithin, &l.PWithinAdjusted}, side{l.PBeyond, &l.PBeyondAdjusted})
	}
	holm(sides)
}

// side is a p-value and where its adjusted value goes.
type side struct {
	p   float64
	adj *float64
}

// holm adjusts by Holm's step-down method: of K values the i-th smallest is multiplied by K-i+1, and made no smaller than
// the one before it.
//
// Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
func holm(sides []side) {
	sort.SliceStable(sides, func(i, j int) bool { return sides[i].p < sides[j].p })
	var last float64
	for i, s := range sides {
		last = max(last, min(1, float64(len(sides)-i)*s.p))
		*s.adj = last
	}
}

// decide sets the verdict and what goes with it; secondaries is the number of secondary looks.
func (l *Look) decide(p Policy, secondaries int) {
	level := p.alpha()
	if !l.Primary {
		level /= float64(2 * secondaries)
	}
	t := l.Table
	switch {
	case l.Stop != nil:
		l.Settled = l.Stop.stopper.interval(level)
	case p.Target == TargetSet:
		_, l.Settled = l.MarginLoss(p.MaxLoss)
	case p.MaxLoss.Relative:
		l.Settled.Low, l.Settled.High = RatioInterval(t.Both, t.BaseOnly, t.CandOnly, 1-2*level)
	default:
		l.Settled.Low, l.Settled.High = TangoInterval(t.N(), t.BaseOnly, t.CandOnly, 1-2*level)
	}
	switch {
	case p.Rule == RulePoint:
		l.Verdict = Fail
		if withinPoint(t, p.MaxLoss) {
			l.Verdict = Pass
		}
	case l.Stop != nil && l.Primary:
		l.Verdict = l.Stop.stopper.Verdict()
	case l.PWithinAdjusted <= p.alpha():
		l.Verdict = Pass
	case l.PBeyondAdjusted <= p.alpha():
		l.Verdict = Fail
	default:
		l.Verdict = Inconclusive
		if l.Stop == nil {
			l.Settle = settle(*l, p.MaxLoss, level)
		}
	}
	l.Reason = l.explain(p)
}

// guesses reports whether the base's top-1 accuracy is what guessing among the labels' classes gives, or below: within three standard
// errors, and within half of it, so that a few images are not enough to say so. Then labels, class order or preprocessing are wrong, and a difference between two such models means nothing.
func (t *Tally) guesses() bool {
	if t.scores[0].correct[0] == 0 {
		return true
	}
	if len(t.labels) < 2 {
		return false
	}
	chance := 1 / float64(len(t.labels))
	rate := float64(t.scores[0].correct[0]) / float64(t.n)
	return rate <= chance+min(3*math.Sqrt(chance*(1-chance)/float64(t.n)), chance/2)
}

// voidBy makes a look inconclusive because its base is no better than guessing.
func (l *Look) voidBy(base PrecisionSummary) {
	name := DisplayName(base.Name)
	l.Verdict, l.Settle = Inconclusive, nil
	l.Reason = fmt.Sprintf("%s top-%d is inconclusive: %s itself is right on %s %% of %s at top-1, no better than guessing, so a loss against it means nothing: check labels, class order and preprocessing.",
		DisplayName(l.Candidate), l.K, name, trimFloat(math.Round(base.Top1.Rate*1e4)/100), count(base.N, "image"))
}

// withinPoint compares the observed loss with the margin; a loss equal to it, but for rounding, is within.
func withinPoint(t Table2x2, m MaxLoss) bool {
	whole := t.N()
	if m.Relative {
		whole = t.Both + t.BaseOnly
	}
	return float64(t.BaseOnly-t.CandOnly) <= m.Value*float64(whole)*(1+1e-12)
}

// warn collects what a reader should know beside the verdict.
func (s *Summary) warn() {
	warnf := func(format string, args ...any) { s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...)) }
	if s.Policy.Rule == RulePoint {
		warnf("the verdict stands on the observed loss alone (rule point): on another set of images it may differ")
	}
	for _, m := range s.Models {
		if m.Guesses {
			base := m.Precisions[0]
			warnf("%s: %s is right on %s %% of %s at top-1, no better than guessing: check labels, class order (class offset) and preprocessing",
				m.Name, DisplayName(base.Name), trimFloat(math.Round(base.Top1.Rate*1e4)/100), count(base.N, "image"))
		}
		for _, p := range m.Precisions {
			name := m.Name + " " + DisplayName(p.Name)
			if p.NaN > 0 {
				warnf("%s: %s with a NaN logit, counted as wrong", name, count(p.NaN, "image"))
			}
			if p.Top1.Tied > 0 || p.Top5.Tied > 0 {
				warnf("%s: tied logits decide top-1 on %s and top-5 on %d: the lowest class wins, other tools may count them otherwise",
					name, count(p.Top1.Tied, "image"), p.Top5.Tied)
			}
			c := p.Candidate
			if c == nil {
				continue
			}
			if c.MaxLogitChange == 0 && c.InfiniteKL == 0 {
				warnf("%s: every logit equals %s's: check that this is the quantised model", name, DisplayName(m.Precisions[0].Name))
			}
			for _, l := range c.Looks {
				if !l.Primary && l.Verdict == Fail {
					effect := "it does not decide"
					if s.Policy.GateAll {
						effect = "it decides too"
					}
					warnf("%s: %s (secondary: %s)", m.Name, l.Reason, effect)
				}
			}
		}
	}
}
