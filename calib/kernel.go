package calib

import "math"

// The loops that see every activation exist twice: in C, in kernel.c, compiled for several instruction sets, and here, as the definition
// that tests hold the C to and for builds without cgo.

// Constants that kernel.h repeats.
const (
	mostViews = 3   // views that one joint histogram counts
	block     = 128 // values that are looked at before they are counted: their places stay in the first-level cache
	zeroCells = 8   // cells of index 0: neighbouring zeros go to different ones, so that a run of them does not wait on one memory cell
)

const absMask = 0x7fffffff

// absBits returns the bits of |x|: they order as the magnitudes do, infinity above every finite value and NaN above infinity.
func absBits(x float32) uint32 { return math.Float32bits(x) & absMask }

// extremes are the bits of the largest magnitudes among the positive and among the negative values; 0 where there are none. Where values
// are counted with their gates, gate and product are the largest of what those show.
type extremes struct {
	positive, negative, gate, product uint32
}

// sight widens e by x.
func (e *extremes) sight(x []float32) {
	for _, v := range x {
		if b := math.Float32bits(v); b <= absMask {
			e.positive = max(e.positive, b)
		} else {
			e.negative = max(e.negative, b&absMask)
		}
	}
}

// within says whether nothing is beyond limit.
func (e extremes) within(limit extremes) bool {
	return e.positive <= limit.positive && e.negative <= limit.negative && e.gate <= limit.gate && e.product <= limit.product
}

// viewParams place a view's values on its grid. low is at most 0, high at least 0.
type viewParams struct {
	scale, low, high float32
}

// index is the bin of a magnitude, in float32 throughout as TensorRT computes it. A value equal to the range has index 2048.
func index(magnitude, scale float32) int {
	if f := magnitude * scale; f < Bins {
		return int(f)
	}
	return Bins
}

// bound is the largest magnitude that the view shows of values with x's sign.
func (p *viewParams) bound(negative bool) float32 {
	if negative {
		return -p.low
	}
	return p.high
}

// placement says where a joint histogram counts a value.
type placement struct {
	views [mostViews]viewParams
	below uint32 // the first cell of negative values

	// Of a gated placement, whose views are a value, its gate and their product.
	alpha, beta float32
	turn        uint32 // the bin of 0's gate
	shift       uint32
}

// cell is a value's place in a joint histogram, number i of its block: the sum of its indices in that many views. Each index only grows
// with the magnitude, so the sum tells every one of them. Negative values lie below. With 0 views it is gatedCell.
func (p *placement) cell(v float32, i, views int) int {
	if views == 0 {
		return p.gatedCell(v)
	}
	negative, magnitude := math.Float32bits(v) > absMask, math.Float32frombits(absBits(v))
	at := 0
	for k := range p.views[:views] {
		m := p.views[k].bound(negative)
		if magnitude < m {
			m = magnitude
		}
		at += index(m, p.views[k].scale)
	}
	if at > 0 {
		at += zeroCells - 1
	} else {
		at = i % zeroCells
	}
	if negative {
		at += int(p.below)
	}
	return at
}

// plainCount counts x's values in their cells and widens most by them. It stops before the first block of values that holds one beyond
// limit, and returns the number counted.
func plainCount(x []float32, p *placement, views int, limit extremes, counts []uint32, most *extremes) int {
	for n := 0; n < len(x); n += block {
		now := *most
		piece := x[n:min(n+block, len(x))]
		now.sight(piece)
		if views == 0 {
			now.sightGates(piece, p.alpha, p.beta)
		}
		if !now.within(limit) {
			return n
		}
		*most = now
		for i, v := range piece {
			counts[p.cell(v, i, views)]++
		}
	}
	return len(x)
}

// plainExtreme widens most by x's values. It stops before the first block that holds one beyond limit, and returns the number seen.
func plainExtreme(x []float32, limit extremes, most *extremes) int {
	for n := 0; n < len(x); n += block {
		now := *most
		now.sight(x[n:min(n+block, len(x))])
		if !now.within(limit) {
			return n
		}
		*most = now
	}
	return len(x)
}
