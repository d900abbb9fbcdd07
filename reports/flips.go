package reports

import (
	"container/heap"
	"image"
	"slices"

	"github.com/quantgate/quantgate/accuracy"
)

// Flips are the images on which a candidate's top-1 class is not the base's.
type Flips struct {
	Base, Candidate string // precisions
	Lost            int    // right at the base only
	Gained          int    // right at the candidate only
	Other           int    // two different wrong classes
	Images          []Flip // those with the largest margin lost, the largest first
}

// Flip is one such image.
type Flip struct {
	ID         int
	Path       string
	Label      int
	Base, Cand Prediction
	// Lost is the margin lost: by how much the base preferred its class plus by how much the candidate prefers its own, in
	// logits.
	Lost    float32
	Picture image.Image // nil where there is none
}

// Prediction is a precision's top-1 class, -1 where a logit was NaN.
type Prediction struct {
	Class int
	Prob  float32
}

// FlipPicker finds flips among the records that it is shown one by one, keeping a bounded number of them. The order of the
// records does not matter.
type FlipPicker struct {
	at    int // the candidate's index among the outcomes
	limit int
	flips Flips
	worst flipHeap
}

// NewFlipPicker compares the candidate at index at, from 1, of a record's outcomes with the base and keeps the limit largest
// flips; precisions are the records'.
func NewFlipPicker(precisions []string, at, limit int) *FlipPicker {
	return &FlipPicker{at: at, limit: limit, flips: Flips{Base: precisions[0], Candidate: precisions[at]}}
}

// Add shows one record.
func (p *FlipPicker) Add(r *accuracy.Record) {
	base, cand := r.Outcomes[0], r.Outcomes[p.at]
	if base.Top1 == cand.Top1 && base.NaN == cand.NaN {
		return
	}
	switch b, c := base.Hit(1), cand.Hit(1); {
	case b:
		p.flips.Lost++
	case c:
		p.flips.Gained++
	default:
		p.flips.Other++
	}
	f := Flip{
		ID: r.ID, Path: r.Path, Label: r.Label,
		Base: Prediction{base.Top1, base.Top1Prob}, Cand: Prediction{cand.Top1, cand.Top1Prob},
		Lost: base.Margin + cand.Margin,
	}
	heap.Push(&p.worst, f)
	if len(p.worst) > p.limit {
		heap.Pop(&p.worst)
	}
}

// Flips returns what was found.
func (p *FlipPicker) Flips() *Flips {
	f := p.flips
	f.Images = slices.SortedFunc(slices.Values(p.worst), func(a, b Flip) int {
		if a.larger(b) {
			return -1
		}
		return 1
	})
	return &f
}

// larger orders flips by margin lost, then by id.
func (f Flip) larger(g Flip) bool {
	if f.Lost != g.Lost {
		return f.Lost > g.Lost
	}
	return f.ID < g.ID
}

// flipHeap holds the smallest flip first.
type flipHeap []Flip

func (h flipHeap) Len() int           { return len(h) }
func (h flipHeap) Less(i, j int) bool { return h[j].larger(h[i]) }
func (h flipHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is heap.Interface's.
func (h *flipHeap) Push(x any) {
	if f, ok := x.(Flip); ok {
		*h = append(*h, f)
	}
}

// Pop is heap.Interface's.
func (h *flipHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
