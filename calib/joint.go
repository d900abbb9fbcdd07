package calib

import (
	"fmt"
	"math"
	"slices"
)

// View says what a tensor holds of a source's values: what Func makes of each of them, moved to Low where it is below and to High where it
// is above. The whole values are a view from -Inf to +Inf, those behind a Relu one from 0 to +Inf. Low is at most 0, High at least 0.
type View struct {
	Tensor    int // index in NewCollector's list
	Low, High float32
	Func      Func
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
		if k := v.Func.Kind; k != Identity && k != HardSigmoid && k != HardSwish {
			return 0, fmt.Errorf("tensor %q: a view through %q: only %s and %s are known", c.names[v.Tensor], k, HardSigmoid, HardSwish)
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
	x = v.Func.of(x)
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

// joint counts a source's values in all its views with one store a value: in the cell that a placement names.
// Settling moves the counts to the tensors' counters, before a grid changes and in the end.
type joint struct {
	views  []View
	gated  *gatedTables // of a gated placement; nil for one by bounds
	counts []uint32     // by cell: positive values, then negative ones from placement.below on; below 0 both share cells

	grids  []grid // of the tensors when placement was made; nil before
	placed placement
	limit  extremes   // what fits all the grids
	bins   [][]uint16 // by view and cell: the bin there; nil until it is needed
	apart  []counting // counts instead, where the grids allow no gated placement

	pending uint64 // values in counts
	most    extremes
}

// counting is a way to count a source's values in some of its views.
type counting interface {
	observe(x []float32, tensors []counter)
	// settle moves all counts to the tensors' counters.
	settle(tensors []counter)
	// endBatch moves those that the end of a batch changes.
	endBatch(tensors []counter)
}

// newJoint returns a joint histogram of at most mostViews views without functions.
func newJoint(views []View) *joint {
	j := &joint{views: views}
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
		j.placed.below = uint32(positive)
	}
	j.counts = make([]uint32, positive+negative)
	return j
}

// newJoints returns the joint histograms that views without functions need.
func newJoints(views []View) []*joint {
	var js []*joint
	for len(views) > 0 {
		n := min(len(views), mostViews)
		js = append(js, newJoint(views[:n]))
		views = views[n:]
	}
	return js
}

// newCountings returns what counts a source's views.
func newCountings(views []View, tables *gatedTables) []counting {
	var list []counting
	by := map[Func][]View{}
	var funcs []Func
	for _, v := range views {
		if by[v.Func] == nil && v.Func.Kind != Identity {
			funcs = append(funcs, v.Func)
		}
		by[v.Func] = append(by[v.Func], v)
	}
	for _, f := range funcs {
		product := Func{HardSwish, f.Alpha, f.Beta}
		for i, x := range by[Func{}] {
			if len(by[f]) == 1 && len(by[product]) == 1 && gatedViews(x, by[f][0], by[product][0]) {
				list = append(list, &joint{views: []View{x, by[f][0], by[product][0]}, gated: tables})
				by[Func{}] = slices.Delete(by[Func{}], i, i+1)
				by[f], by[product] = nil, nil
				break
			}
		}
	}
	for _, j := range newJoints(by[Func{}]) {
		list = append(list, j)
	}
	for _, f := range funcs {
		if len(by[f]) > 0 {
			list = append(list, newDerived(f, by[f]))
		}
	}
	return list
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
		if j.apart != nil {
			for _, c := range j.apart {
				c.observe(x, tensors)
			}
			return
		}
		n := min(len(x), mostPending)
		if j.pending+uint64(n) > mostPending {
			j.settle(tensors)
		}
		n = count(x[:n], &j.placed, j.summed(), j.limit, j.counts, &j.most)
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

// summed is the number of views whose indices a cell is the sum of, 0 for a gated placement.
func (j *joint) summed() int {
	if j.gated != nil {
		return 0
	}
	return len(j.views)
}

// follow takes over the tensors' grids.
func (j *joint) follow(tensors []counter) {
	same := j.grids != nil
	for k := range j.grids {
		g := &tensors[j.views[k].Tensor].grid
		same = same && j.grids[k].rng == g.rng && j.grids[k].exact == g.exact
	}
	if same {
		return
	}
	j.settle(tensors)
	j.grids, j.bins = make([]grid, len(j.views)), nil
	for k := range j.views {
		j.grids[k] = tensors[j.views[k].Tensor].grid
	}
	if j.gated != nil {
		j.placeGated()
		return
	}
	j.limit = extremes{positive: finiteLimit, negative: finiteLimit}
	for k := range j.views {
		v, g := &j.views[k], &j.grids[k]
		j.placed.views[k] = viewParams{scale: g.scale(), low: v.Low, high: v.High}
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
	for _, c := range j.apart {
		c.settle(tensors)
	}
	if j.pending == 0 {
		return
	}
	if j.bins == nil {
		j.findBins()
	}
	var at [mostViews]*counter
	var merged [mostViews]int
	for k := range j.views {
		t := &tensors[j.views[k].Tensor]
		t.max = max(t.max, j.shown(k))
		t.counted = true
		at[k], merged[k] = t, j.grids[k].doublings(t.rng)
	}
	for _, half := range j.filled() {
		cells := j.counts[half[0]:half[1]]
		for c, n := range cells {
			if n == 0 {
				continue
			}
			for k, bins := range j.bins {
				at[k].counts[bins[half[0]+c]>>merged[k]] += uint64(n)
			}
		}
		clear(cells)
	}
	j.pending, j.most = 0, extremes{}
}

// endBatch settles where a value equal to its grid's range was counted, which stays in the last bin from now on, if the grid can still
// grow: a gate's cannot beyond 1. Other counts mean the same in a later batch.
func (j *joint) endBatch(tensors []counter) {
	for _, c := range j.apart {
		c.endBatch(tensors)
	}
	for k, g := range j.grids {
		grows := j.views[k].Func.Kind != HardSigmoid || g.rng < 1
		if g.exact && grows && j.pending > 0 && j.shown(k) >= g.limit() {
			j.settle(tensors)
		}
	}
}

// shown is the largest magnitude, in bits, that view k showed of what is pending.
func (j *joint) shown(k int) uint32 {
	switch j.views[k].Func.Kind {
	case HardSigmoid:
		return j.most.gate
	case HardSwish:
		return j.most.product
	default:
		return j.views[k].most(j.most)
	}
}

// filled are the ranges of cells that may hold counts.
func (j *joint) filled() [2][2]int {
	last := func(bits uint32) int {
		return j.placed.cell(math.Float32frombits(bits), zeroCells-1, j.summed())>>j.placed.shift<<j.placed.shift + 1<<j.placed.shift
	}
	below := int(j.placed.below)
	positive, negative := last(j.most.positive), last(j.most.negative|^uint32(absMask))
	if below == 0 {
		return [2][2]int{{0, max(positive, negative)}, {}}
	}
	return [2][2]int{{0, positive}, {below, negative}}
}

// findBins lists, for every cell, the bins that its values have in each view: the cells are walked from zero outward, past every
// magnitude at which a bin begins.
func (j *joint) findBins() {
	below := int(j.placed.below)
	j.bins = make([][]uint16, len(j.views))
	for k := range j.bins {
		j.bins[k] = make([]uint16, len(j.counts))
	}
	for _, negative := range []bool{false, true} {
		first, end := 0, len(j.counts)
		if negative {
			first = below
		} else if below > 0 {
			end = below
		}
		var at [mostViews]int
		var next [mostViews]float32 // where the view's next bin begins
		find := func(k int) {
			next[k] = float32(math.Inf(1))
			if p := &j.placed.views[k]; p.scale > 0 && at[k] < Bins {
				if e := edgeOf(at[k]+1, p.scale); e <= p.bound(negative) {
					next[k] = e
				}
			}
		}
		for k := range j.views {
			find(k)
		}
		for {
			e, sum := next[0], 0
			for k := range j.views {
				e = min(e, next[k])
			}
			if math.IsInf(float64(e), 1) {
				break
			}
			for k := range j.views {
				for next[k] == e {
					at[k]++
					find(k)
				}
				sum += at[k]
			}
			if c := first + zeroCells - 1 + sum; c < end {
				for k := range j.views {
					j.bins[k][c] = uint16(at[k])
				}
			}
		}
		if below == 0 {
			break
		}
	}
}

// edgeOf is the smallest magnitude of that index or more.
func edgeOf(i int, scale float32) float32 {
	e := math.Float32bits(float32(i) / scale) // neighbouring numbers have neighbouring bits
	for index(math.Float32frombits(e), scale) >= i {
		e--
	}
	for index(math.Float32frombits(e), scale) < i {
		e++
	}
	return math.Float32frombits(e)
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

// observeExtremes finds max|x| of every view; odd is called for the values that are no finite number, and some others.
func observeExtremes(x []float32, views []View, tensors []counter, odd func(*counter, float32)) {
	plain := make([]View, 0, len(views))
	for _, v := range views {
		if v.Func.Kind == Identity {
			plain = append(plain, v)
			continue
		}
		f := v.Func
		v.Func = Func{}
		f.inPieces(x, new(pieceOfFunc), func(values []float32) { observeExtremes(values, []View{v}, tensors, odd) })
	}
	views = plain
	var e extremes
	for len(x) > 0 {
		n := extreme(x, extremes{positive: finiteLimit, negative: finiteLimit}, &e)
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
