package accuracy

import (
	"fmt"
	"math"
)

// Record is the outcome of one image of one model in every precision.
type Record struct {
	ID       int    // position in the data set's order
	Path     string // file name, or path inside the source
	Label    int
	Visit    int       // position in the visiting order, from 0, where Outcomes.SetSize is not 0
	Outcomes []Outcome // by precision, base first
	Shifts   []Shift   // by candidate: one fewer than Outcomes
}

// Table2x2 counts the images of a paired comparison by right and wrong at the base and at the candidate.
type Table2x2 struct {
	Both, BaseOnly, CandOnly, Neither int
}

// N is the number of images.
func (t Table2x2) N() int { return t.Both + t.BaseOnly + t.CandOnly + t.Neither }

// Discordant is the number of images that only one of the two got right.
func (t Table2x2) Discordant() int { return t.BaseOnly + t.CandOnly }

// Loss is the base's accuracy minus the candidate's.
func (t Table2x2) Loss() float64 { return float64(t.BaseOnly-t.CandOnly) / float64(t.N()) }

// BaseAccuracy is the share of images that the base got right.
func (t Table2x2) BaseAccuracy() float64 { return float64(t.Both+t.BaseOnly) / float64(t.N()) }

// RelLoss is the loss divided by the base's accuracy, NaN where the base got nothing right.
func (t Table2x2) RelLoss() float64 {
	return float64(t.BaseOnly-t.CandOnly) / float64(t.Both+t.BaseOnly)
}

func (t *Table2x2) add(base, cand bool) {
	switch {
	case base && cand:
		t.Both++
	case base:
		t.BaseOnly++
	case cand:
		t.CandOnly++
	default:
		t.Neither++
	}
}

// Metrics are the values of k that accuracy is measured at, top-1 and top-5.
var Metrics = [...]int{1, 5}

// Tally counts the outcomes of one model. Feed it in the order of the ids: the mean divergence is a sum of floats.
type Tally struct {
	model      string
	precisions []string // base first
	n          int
	setSize    int          // Outcomes.SetSize
	scores     []scoreCount // by precision
	pairs      []pairCount  // by candidate
	labels     map[int]bool // seen
}

type scoreCount struct {
	correct, tied [len(Metrics)]int
	nan           int
	calibration   calibration
}

type pairCount struct {
	tables    [len(Metrics)]Table2x2
	agree     int
	klSum     float64
	klFinite  int
	maxChange float32
	classes   map[int]classCount // by label, at top-1
	visits    map[int]visit      // by position in the visiting order, where there is one
}

// visit is an image's place in the paired table of every metric.
type visit [len(Metrics)]cell

// NewTally starts the count of one model; precisions names the base first.
func NewTally(model string, precisions []string) *Tally {
	t := &Tally{
		model:      model,
		precisions: precisions,
		scores:     make([]scoreCount, len(precisions)),
		pairs:      make([]pairCount, max(0, len(precisions)-1)),
		labels:     map[int]bool{},
	}
	for i := range t.pairs {
		t.pairs[i].classes, t.pairs[i].visits = map[int]classCount{}, map[int]visit{}
	}
	return t
}

// Add counts one image. It fails on a record with another number of precisions.
func (t *Tally) Add(r *Record) error {
	if len(r.Outcomes) != len(t.precisions) || len(r.Shifts) != len(t.pairs) {
		return fmt.Errorf("model %s, image %d: %d outcomes and %d shifts for %d precisions",
			t.model, r.ID, len(r.Outcomes), len(r.Shifts), len(t.precisions))
	}
	t.n++
	t.labels[r.Label] = true
	for i, o := range r.Outcomes {
		s := &t.scores[i]
		for m, k := range Metrics {
			if o.Hit(k) {
				s.correct[m]++
			}
			if o.TiedAt(k) {
				s.tied[m]++
			}
		}
		if o.NaN {
			s.nan++
		}
		s.calibration.add(o)
	}
	base := r.Outcomes[0]
	for i, s := range r.Shifts {
		o, p := r.Outcomes[i+1], &t.pairs[i]
		var v visit
		for m, k := range Metrics {
			v[m] = cell{base.Hit(k), o.Hit(k)}
			p.tables[m].add(v[m].base, v[m].cand)
		}
		if t.setSize > 0 {
			p.visits[r.Visit] = v
		}
		class := p.classes[r.Label]
		class.add(base.Hit(1), o.Hit(1))
		p.classes[r.Label] = class
		if !base.NaN && !o.NaN && o.Top1 == base.Top1 {
			p.agree++
		}
		if !math.IsNaN(s.KL) && !math.IsInf(s.KL, 0) {
			p.klSum += s.KL
			p.klFinite++
		}
		if s.MaxLogitChange > p.maxChange { // NaN compares false
			p.maxChange = s.MaxLogitChange
		}
	}
	return nil
}

// replay adds a pair's images, in the order they were visited, to a stopper for a metric.
func (t *Tally) replay(s *Stopper, pair, metric int) error {
	if t.n > t.setSize {
		return fmt.Errorf("model %s: %d images of a set of %d", t.model, t.n, t.setSize)
	}
	for i := range t.n {
		v, ok := t.pairs[pair].visits[i]
		if !ok {
			return fmt.Errorf("model %s: of %d images none was visited as number %d: the visits must run from 0 without gaps", t.model, t.n, i)
		}
		s.Add(v[metric].base, v[metric].cand)
	}
	return nil
}
