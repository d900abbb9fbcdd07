package calib

import (
	"fmt"
	"math"
)

// View says what a tensor holds of a source's values: each of them, moved to Low where it is below and to High where it is above.
// The whole values are a view from -Inf to +Inf, those behind a Relu one from 0 to +Inf. Low is at most 0, High at least 0.
type View struct {
	Tensor    int // index in NewCollector's list
	Low, High float32
}

// Whole is the view of a tensor that holds a source's values as they are.
func Whole(tensor int) View {
	return View{Tensor: tensor, Low: float32(math.Inf(-1)), High: float32(math.Inf(1))}
}

// Source declares values that several tensors hold, so that they are read and counted once for all of them, and returns the index
// to observe them under. Each tensor of NewCollector's list is such a source by itself, under its own index. Sources are declared
// before the first batch.
func (c *Collector) Source(views ...View) (int, error) {
	if c.batches > 0 || !c.firstMax && c.method == Entropy {
		return 0, fmt.Errorf("%w: Source after the first batch began", ErrOrder)
	}
	for _, v := range views {
		if v.Tensor < 0 || v.Tensor >= len(c.names) {
			return 0, fmt.Errorf("view of tensor number %d: there are %d", v.Tensor, len(c.names))
		}
		if !(v.Low <= 0 && v.High >= 0) {
			return 0, fmt.Errorf("tensor %q: a view from %v to %v does not hold 0", c.names[v.Tensor], v.Low, v.High)
		}
	}
	views = append([]View(nil), views...)
	for k := range views {
		if views[k].High == 0 {
			views[k].High = 0 // not -0, whose bits are above those of every magnitude
		}
	}
	c.sources = append(c.sources, views)
	return len(c.names) + len(c.sources) - 1, nil
}

// views are those of the source with that index.
func (c *Collector) views(source int) []View {
	if n := len(c.names); source >= n {
		return c.sources[source-n]
	}
	return []View{Whole(source)}
}

// of is the value that the view shows of x; a NaN stays one.
func (v *View) of(x float32) float32 {
	switch {
	case x < v.Low:
		return v.Low
	case x > v.High:
		return v.High
	default:
		return x
	}
}

// most is the largest magnitude, in bits, that the view shows of values with those extremes.
func (v *View) most(e extremes) uint32 {
	return max(min(e.positive, math.Float32bits(v.High)), min(e.negative, absBits(v.Low)))
}

// joint counts a source's values in all its views with one store a value: in the cell that the sum of a value's bin indices names.
// Settling moves the counts to the tensors' counters, when a batch ends and before a grid changes.
type joint struct {
	views  []View
	counts []uint32 // by cell: positive values, then negative ones from below on
	below  int      // 0 where the views show the same of both signs: then they share cells

	grids  []grid // of the tensors when params were made
	params []viewParams
	limit  extremes   // what fits all the grids
	bins   [][]uint16 // by view and cell: the bin there; nil until it is needed

	pending uint64 // values in counts
	most    extremes
}

// newJoint returns a joint histogram of at most mostViews views.
func newJoint(views []View) *joint {
	j := &joint{views: views, grids: make([]grid, len(views)), bins: make([][]uint16, len(views))}
	positive, negative, symmetric := zeroCells, zeroCells, true
	for _, v := range views {
		if v.High > 0 {
			positive += Bins
		}
		if v.Low < 0 {
			negative += Bins
		}
		symmetric = symmetric && v.Low == -v.High
	}
	if symmetric {
		negative = 0
	} else {
		j.below = positive
	}
	j.counts = make([]uint32, positive+negative)
	return j
}

// newJoints returns the joint histograms that a source's views need.
func newJoints(views []View) []*joint {
	var js []*joint
	for len(views) > 0 {
		n := min(len(views), mostViews)
		js = append(js, newJoint(views[:n]))
		views = views[n:]
	}
	return js
}

// mostPending keeps a cell from overflowing.
const mostPending = 1 << 31

// observe counts x in the tensors of one shard.
func (j *joint) observe(x []float32, tensors []counter) {
	for k := range j.views {
		t := &tensors[j.views[k].Tensor]
		t.seen = t.seen || len(x) > 0
	}
	for len(x) > 0 {
		j.follow(tensors)
		n := min(len(x), mostPending)
		if j.pending+uint64(n) > mostPending {
			j.settle(tensors)
		}
		n = count(x[:n], j.params, j.below, j.limit, j.counts, &j.most)
		j.pending += uint64(n)
		x = x[n:]
		if len(x) == 0 || n == mostPending {
			continue
		}
		// Among the next values one is no finite number, or too large for a grid.
		n = min(len(x), block)
		for _, v := range x[:n] {
			for k := range j.views {
				tensors[j.views[k].Tensor].observeOne(j.views[k].of(v))
			}
		}
		x = x[n:]
	}
}

// follow takes over the tensors' grids.
func (j *joint) follow(tensors []counter) {
	same := j.params != nil
	for k := range j.views {
		g := &tensors[j.views[k].Tensor].grid
		same = same && j.grids[k].rng == g.rng && j.grids[k].exact == g.exact
	}
	if same {
		return
	}
	j.settle(tensors)
	j.params = make([]viewParams, len(j.views))
	j.limit = extremes{finiteLimit, finiteLimit}
	for k := range j.views {
		v, g := &j.views[k], tensors[j.views[k].Tensor].grid
		j.grids[k], j.bins[k] = g, nil
		j.params[k] = viewParams{scale: g.scale(), low: v.Low, high: v.High}
		if limit := g.limit(); math.Float32bits(v.High) > limit {
			j.limit.positive = min(j.limit.positive, limit)
		}
		if limit := g.limit(); absBits(v.Low) > limit {
			j.limit.negative = min(j.limit.negative, limit)
		}
	}
}

// settle moves the counts to the tensors' counters, whose grids may have grown since.
func (j *joint) settle(tensors []counter) {
	if j.pending == 0 {
		return
	}
	if j.bins[0] == nil {
		j.findBins()
	}
	for k := range j.views {
		t, v := &tensors[j.views[k].Tensor], &j.views[k]
		t.max = max(t.max, v.most(j.most))
		merged := j.grids[k].doublings(t.rng)
		for _, half := range j.filled() {
			bins := j.bins[k]
			for c := half[0]; c < half[1]; c++ {
				if n := j.counts[c]; n > 0 {
					t.counts[bins[c]>>merged] += uint64(n)
				}
			}
		}
	}
	for _, half := range j.filled() {
		clear(j.counts[half[0]:half[1]])
	}
	j.pending, j.most = 0, extremes{}
}

// filled are the ranges of cells that may hold counts.
func (j *joint) filled() [2][2]int {
	last := func(bits uint32) int { return cell(math.Float32frombits(bits), zeroCells-1, j.params, j.below) + 1 }
	positive, negative := last(j.most.positive), last(j.most.negative|^uint32(absMask))
	if j.below == 0 {
		return [2][2]int{{0, max(positive, negative)}, {}}
	}
	return [2][2]int{{0, positive}, {j.below, negative}}
}

// findBins lists, for every cell, the bins that its values have in each view: the cells are walked from zero outward, past every
// magnitude at which a bin begins.
func (j *joint) findBins() {
	for k := range j.bins {
		j.bins[k] = make([]uint16, len(j.counts))
	}
	for _, negative := range []bool{false, true} {
		first, end := 0, len(j.counts)
		if negative {
			first = j.below
		} else if j.below > 0 {
			end = j.below
		}
		var at [mostViews]int
		var next [mostViews]float32 // where the view's next bin begins
		find := func(k int) {
			next[k] = float32(math.Inf(1))
			if p := &j.params[k]; p.scale > 0 && at[k] < Bins {
				if e := edgeOf(at[k]+1, p.scale); e <= p.bound(negative) {
					next[k] = e
				}
			}
		}
		for k := range j.params {
			find(k)
		}
		for {
			e, sum := next[0], 0
			for k := range j.params {
				e = min(e, next[k])
			}
			if math.IsInf(float64(e), 1) {
				break
			}
			for k := range j.params {
				for next[k] == e {
					at[k]++
					find(k)
				}
				sum += at[k]
			}
			if c := first + zeroCells - 1 + sum; c < end {
				for k := range j.params {
					j.bins[k][c] = uint16(at[k])
				}
			}
		}
		if j.below == 0 {
			break
		}
	}
}

// edgeOf is the smallest magnitude of that index or more.
func edgeOf(i int, scale float32) float32 {
	e := float32(i) / scale
	for index(e, scale) >= i {
		e = math.Nextafter32(e, 0)
	}
	for index(e, scale) < i {
		e = math.Nextafter32(e, math.MaxFloat32)
	}
	return e
}

// doublings is the number of times the grid's range doubles to become rng; 0 from an empty grid, where only zeros were counted.
func (g *grid) doublings(rng float32) int {
	if g.rng == 0 {
		return 0
	}
	_, from := math.Frexp(float64(g.rng))
	_, to := math.Frexp(float64(rng))
	return to - from
}

// observeExtremes finds max|x| of every view.
func observeExtremes(x []float32, views []View, tensors []counter, odd func(*counter, float32)) {
	var e extremes
	for len(x) > 0 {
		n := extreme(x, extremes{finiteLimit, finiteLimit}, &e)
		x = x[n:]
		n = min(len(x), block)
		for _, v := range x[:n] {
			for k := range views {
				odd(&tensors[views[k].Tensor], views[k].of(v))
			}
		}
		x = x[n:]
	}
	for k := range views {
		t := &tensors[views[k].Tensor]
		t.max = max(t.max, views[k].most(e))
	}
}
