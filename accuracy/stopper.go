package accuracy

import (
	"fmt"
	"math"
	"slices"
)

// StopRule says by which argument a Stopper settled.
type StopRule string

// The rules of a Stopper.
const (
	StopBetting StopRule = "betting" // the wealth of the bets reached one over the error rate
	StopCertain StopRule = "certain" // the images not seen yet could not change the verdict
)

// Stopper decides a paired comparison while its images come in, and may be asked after every one of them: a verdict is
// wrong with a chance of at most (1-confidence)/2 on either side however often it is asked and whenever the run stops. Add
// the images in a random order that does not depend on their outcomes. Equal images in equal order give equal answers.
//
// It bets against two hypotheses, "the loss is at the margin or beyond" and "at the margin or below". One image's value is
// x = base - cand (right 1, wrong 0), or base - cand - m base under a relative margin m. If the mean of the images still to
// come were mu, then a bet of lambda multiplies the wealth by 1 + lambda (mu - x), which is 1 on average; a true hypothesis
// lets the wealth reach 1/alpha with a chance of at most alpha (Ville's inequality). For TargetSet the images are drawn
// without replacement: of N images of total N m, t-1 of them with sum S, the rest has the mean mu = (N m - S)/(N - t + 1).
// For TargetPopulation mu stays m. The wealth is spread evenly over a geometric grid of bets from 11/sqrt(N) up to 1.3, by a
// factor of 2, each raised by N/(N-t+1) for TargetSet, as the gap between the margin's mean and the true one grows, and held
// where no image can take more than nine tenths.
//
// Source: Waudby-Smith and Ramdas, Confidence sequences for sampling without replacement, NeurIPS 2020, and Estimating
// means of bounded random variables by betting, JRSS B 86 (2024) 1-27, sections 4.4 and 5. The grid is ours; docs/STATISTICS.md
// measures it.
type Stopper struct {
	size    int
	target  Target
	margin  MaxLoss
	alpha   float64
	bets    []float64
	images  []cell // in the order they came
	table   Table2x2
	within  wager // against a loss at the margin or beyond
	beyond  wager // against a loss at the margin or below
	verdict Verdict
	rule    StopRule
	settled int
}

// cell is one image's place in the paired table.
type cell struct{ base, cand bool }

// NewStopper starts a comparison on a set of size images by p's margin, confidence and target.
func NewStopper(size int, p Policy) (*Stopper, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if size < 1 {
		return nil, fmt.Errorf("early stopping on %d images: need at least one", size)
	}
	return newStopper(size, p.Target, p.MaxLoss, p.alpha()), nil
}

func newStopper(size int, target Target, margin MaxLoss, alpha float64) *Stopper {
	s := &Stopper{size: size, target: target, margin: margin, alpha: alpha, verdict: Inconclusive, bets: betGrid(size)}
	s.within, s.beyond = s.wager(1, s.null(1)), s.wager(-1, s.null(-1))
	return s
}

// betGrid holds at least one bet; see Stopper.
func betGrid(size int) []float64 {
	const least, largest = 11, 1.3
	var g []float64
	for b := min(1, least/math.Sqrt(float64(size))); b <= largest; b *= 2 {
		g = append(g, b)
	}
	return g
}

// hypothesis is what a wager bets against: that the values x = base - cand - rel*base of all images sum to total.
type hypothesis struct{ rel, total float64 }

// null is the hypothesis at the margin. Of a set, which has a whole number of images to lose, the largest loss that passes
// is told from the smallest that does not.
func (s *Stopper) null(side float64) hypothesis {
	if s.margin.Relative {
		return hypothesis{rel: s.margin.Value}
	}
	total := s.margin.Value * float64(s.size)
	if s.target == TargetSet {
		total = math.Floor(total * (1 + 1e-12))
		if side > 0 {
			total++
		}
	}
	return hypothesis{total: total}
}

// wager is the wealth of the bets against one hypothesis, on the side where it lies: 1 above the truth, -1 below.
type wager struct {
	side   float64
	null   hypothesis
	sum    float64 // of the values seen
	wealth []float64
	best   float64 // the largest mean wealth so far, at least 1
}

func (s *Stopper) wager(side float64, h hypothesis) wager {
	w := wager{side: side, null: h, wealth: make([]float64, len(s.bets)), best: 1}
	for i := range w.wealth {
		w.wealth[i] = 1
	}
	return w
}

// mean is the mean of the images still to come, were w's hypothesis true; t images have come.
func (s *Stopper) mean(w *wager, t int) float64 {
	if s.target == TargetSet {
		return (w.null.total - w.sum) / float64(s.size-t)
	}
	return w.null.total / float64(s.size)
}

// room is the most that one image can take of a wealth of 1 at a bet of 1: nothing or less where the hypothesis has become
// impossible.
func (w *wager) room(mean float64) float64 {
	if w.side > 0 {
		return 1 - w.null.rel - mean
	}
	return mean + 1
}

// play settles the bets against w's hypothesis on image t, which is c. The bets are those against the margin, lead's, so that
// the wealth grows with the distance of the hypothesis from the truth; a bet that could lose more than all is out.
func (s *Stopper) play(w, lead *wager, t int, c cell) {
	if w.best > 1e100 {
		w.sum += c.value(w.null.rel)
		return
	}
	mean := s.mean(w, t)
	room := w.room(mean)
	limit := lead.room(s.mean(lead, t))
	scale := 1.0
	if s.target == TargetSet {
		scale = float64(s.size) / float64(s.size-t)
		if room < -1e-9 {
			w.best = math.Inf(1)
		}
	}
	x := c.value(w.null.rel)
	gain := w.side * (mean - x)
	total := 0.0
	for i, b := range s.bets {
		b *= scale
		if limit > 0 {
			b = min(b, 0.9/limit)
		}
		if b*room > 1 {
			w.wealth[i] = 0
		}
		w.wealth[i] *= 1 + b*gain
		total += w.wealth[i]
	}
	w.best = max(w.best, total/float64(len(s.bets)))
	w.sum += x
}

// value is the image's base - cand - rel*base.
func (c cell) value(rel float64) float64 {
	v := 0.0
	if c.base {
		v = 1 - rel
	}
	if c.cand {
		v--
	}
	return v
}

// Add takes the next image: was it right at the base, and at the candidate. It panics on more images than the set has.
func (s *Stopper) Add(base, cand bool) {
	t := len(s.images)
	if t == s.size {
		panic(fmt.Sprintf("accuracy: a Stopper for %d images got one more", s.size))
	}
	c := cell{base, cand}
	s.play(&s.within, &s.within, t, c)
	s.play(&s.beyond, &s.beyond, t, c)
	s.images = append(s.images, c)
	s.table.add(base, cand)
	if s.verdict == Inconclusive || s.complete() {
		s.settle()
	}
}

// settle sees whether the verdict is due.
func (s *Stopper) settle() {
	switch {
	case s.complete():
		v := Fail
		if withinPoint(s.table, s.margin) {
			v = Pass
		}
		if v == s.verdict {
			return
		}
		s.verdict, s.rule = v, StopCertain
	case s.impossible(&s.within):
		s.verdict, s.rule = Pass, StopCertain
	case s.impossible(&s.beyond):
		s.verdict, s.rule = Fail, StopCertain
	case s.within.best >= 1/s.alpha:
		s.verdict, s.rule = Pass, StopBetting
	case s.beyond.best >= 1/s.alpha:
		s.verdict, s.rule = Fail, StopBetting
	default:
		return
	}
	s.settled = len(s.images)
}

// complete reports whether nothing is left to infer.
func (s *Stopper) complete() bool { return s.target == TargetSet && len(s.images) == s.size }

// impossible reports whether the images still to come cannot make the hypothesis true any more.
func (s *Stopper) impossible(w *wager) bool {
	return s.target == TargetSet && len(s.images) < s.size && w.room(s.mean(w, len(s.images))) < -1e-9
}

// Verdict is Inconclusive until the images suffice. It changes after that only where a whole set proves it wrong.
func (s *Stopper) Verdict() Verdict { return s.verdict }

// Settled returns after how many images the verdict was reached, and by which argument; 0 and "" where it was not.
func (s *Stopper) Settled() (images int, rule StopRule) { return s.settled, s.rule }

// Images is the number of images added.
func (s *Stopper) Images() int { return len(s.images) }

// Table counts the images added.
func (s *Stopper) Table() Table2x2 { return s.table }

// PValues returns p-values that hold at any time: a small within shows that the loss is inside the margin, a small beyond
// that it is outside. They are one over the largest wealth so far, and 0 or 1 once all is certain.
func (s *Stopper) PValues() (within, beyond float64) {
	if s.complete() {
		if withinPoint(s.table, s.margin) {
			return 0, 1
		}
		return 1, 0
	}
	p := func(w *wager) float64 {
		if s.impossible(w) {
			return 0
		}
		return 1 / w.best
	}
	return p(&s.within), p(&s.beyond)
}

// Interval is a confidence sequence for the loss, in the margin's unit: at all times together each end is wrong with a chance
// of at most the policy's (1-confidence)/2. Its ends are where the same bets would have settled another margin.
func (s *Stopper) Interval() Interval { return s.interval(s.alpha) }

// interval is Interval with an error rate of alpha at each end.
func (s *Stopper) interval(alpha float64) Interval {
	est := s.table.Loss()
	if s.margin.Relative {
		est = s.table.RelLoss()
	}
	if s.complete() {
		return Interval{Low: est, High: est}
	}
	if len(s.images) == 0 || math.IsNaN(est) {
		if s.margin.Relative {
			return Interval{Low: math.Inf(-1), High: 1}
		}
		return Interval{Low: -1, High: 1}
	}
	low := -1.0
	if s.margin.Relative {
		low = math.Inf(-1)
	}
	return Interval{Low: s.end(-1, est, low, alpha), High: s.end(1, est, 1, alpha)}
}

// end finds by bisection the loss nearest to est, towards limit, that the bets reject; limit where they reject none.
func (s *Stopper) end(side, est, limit, alpha float64) float64 {
	// A relative loss without bound is searched as est - u/(1-u).
	at := func(u float64) float64 {
		if math.IsInf(limit, 0) {
			return est - u/(1-u)
		}
		return est + u*(limit-est)
	}
	in, out := 0.0, 1-1e-9
	if !s.rejects(side, at(out), alpha) {
		return limit
	}
	for range 36 {
		mid := (in + out) / 2
		if s.rejects(side, at(mid), alpha) {
			out = mid
		} else {
			in = mid
		}
	}
	return at(out)
}

// rejects replays the bets against a loss of the given size.
func (s *Stopper) rejects(side, loss, alpha float64) bool {
	h := hypothesis{total: loss * float64(s.size)}
	if s.margin.Relative {
		h = hypothesis{rel: loss}
	}
	w, lead := s.wager(side, h), s.wager(side, s.null(side))
	for t, c := range s.images {
		s.play(&w, &lead, t, c)
		lead.sum += c.value(lead.null.rel)
		if w.best >= 1/alpha {
			return true
		}
	}
	return s.impossible(&w)
}

// Watch is a Stopper for the primary look of one model's records.
type Watch struct {
	*Stopper
	candidate int // index into a record's outcomes
	k         int
}

// NewWatch starts the watch of a model that is scored on size images; precisions names the base first.
func NewWatch(model string, precisions []string, size int, p Policy) (*Watch, error) {
	name, err := p.Primary.Among(precisions)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", model, err)
	}
	at := slices.Index(precisions, name)
	if at < 1 {
		return nil, fmt.Errorf("model %s: only a base is scored: there is no verdict to reach early", model)
	}
	s, err := NewStopper(size, p)
	if err != nil {
		return nil, err
	}
	return &Watch{Stopper: s, candidate: at, k: p.Primary.K}, nil
}

// See adds one record, in the order of the visits.
func (w *Watch) See(r *Record) { w.Add(r.Outcomes[0].Hit(w.k), r.Outcomes[w.candidate].Hit(w.k)) }
