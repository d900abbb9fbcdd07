package calib

import (
	"math"
	"math/bits"
	"slices"
	"sync"
)

// FuncKind names a function of one value, as ONNX does.
type FuncKind string

// The functions that a view may see a source through.
const (
	Identity    FuncKind = ""
	HardSigmoid FuncKind = "HardSigmoid" // max(0, min(1, Alpha x + Beta))
	HardSwish   FuncKind = "HardSwish"   // x HardSigmoid(x)
)

// Func is what a view makes of a value before it bounds it. Each operation is rounded to float32 by itself, as inference engines do;
// NaN stays NaN. The zero Func is the identity.
type Func struct {
	Kind        FuncKind
	Alpha, Beta float32
}

// Apply sets out, as long as x, to the function's values.
func (f Func) Apply(x, out []float32) {
	if f.Kind == Identity {
		copy(out, x)
		return
	}
	gates(x, f, out)
}

// of is the function's value at one place.
func (f Func) of(x float32) float32 {
	switch f.Kind {
	case HardSigmoid:
		return gate(x, f.Alpha, f.Beta)
	case HardSwish:
		return x * gate(x, f.Alpha, f.Beta)
	default:
		return x
	}
}

// gate is HardSigmoid. The conversion keeps a compiler from joining two operations to one that rounds once.
func gate(x, alpha, beta float32) float32 {
	t := float32(alpha*x) + beta
	switch {
	case t > 1:
		return 1
	case t < 0:
		return 0
	default:
		return t
	}
}

// plainGates is Func.Apply of the gates and their products.
func plainGates(x []float32, f Func, out []float32) {
	for i, v := range x {
		out[i] = f.of(v)
	}
}

// sightGates widens e by the gates of x and their products with x.
func (e *extremes) sightGates(x []float32, alpha, beta float32) {
	for _, v := range x {
		s := gate(v, alpha, beta)
		e.gate, e.product = max(e.gate, absBits(s)), max(e.product, absBits(v*s))
	}
}

// pieceOfFunc holds as many of a function's values as stay in the first-level cache.
type pieceOfFunc [8 * block]float32

// inPieces shows the function's values of x, one piece after the other.
func (f Func) inPieces(x []float32, piece *pieceOfFunc, show func(values []float32)) {
	for len(x) > 0 {
		n := min(len(x), len(piece))
		f.Apply(x[:n], piece[:n])
		show(piece[:n])
		x = x[n:]
	}
}

// derived counts the views that see a source through one function.
type derived struct {
	f      Func
	joints []*joint
	piece  pieceOfFunc
}

func newDerived(f Func, views []View) *derived {
	plain := slices.Clone(views)
	for i := range plain {
		plain[i].Func = Func{}
	}
	return &derived{f: f, joints: newJoints(plain)}
}

func (d *derived) observe(x []float32, tensors []counter) {
	d.f.inPieces(x, &d.piece, func(values []float32) {
		for _, j := range d.joints {
			j.observe(values, tensors)
		}
	})
}

func (d *derived) settle(tensors []counter) {
	for _, j := range d.joints {
		j.settle(tensors)
	}
}

func (d *derived) endBatch(tensors []counter) {
	for _, j := range d.joints {
		j.endBatch(tensors)
	}
}

// gatedViews says whether a gated placement can count three views: a value, its gate, which never falls, and their product, all unbounded.
func gatedViews(x, gate, product View) bool {
	return x == Whole(x.Tensor) && gate == through(gate.Tensor, gate.Func) && product == through(product.Tensor, product.Func) &&
		gate.Func.Kind == HardSigmoid && product.Func == Func{HardSwish, gate.Func.Alpha, gate.Func.Beta} &&
		gate.Func.Alpha > 0 && gate.Func.Alpha <= math.MaxFloat32 && gate.Func.Beta >= 0 && gate.Func.Beta <= 1
}

// through is the unbounded view of a source through a function.
func through(tensor int, f Func) View {
	v := Whole(tensor)
	v.Func = f
	return v
}

// A gated placement counts a value, its gate and their product with one store. With the magnitude of a value on one side of zero its index
// only grows, and its gate's only grows (above zero) or falls (below), so that the sum of the first with the second, or with what the second
// has fallen by, tells both. A sum belongs to a short interval of values, in which the product's index takes a few neighbouring values: its
// last bits tell which.

// placeGated takes over the grids for a gated placement; where there is none, the three views are counted apart.
func (j *joint) placeGated() {
	f := j.views[1].Func
	t := j.gated.of(gatedKey{f.Alpha, f.Beta, [3]grid(j.grids)})
	if t == nil {
		j.apart = []counting{newJoint(j.views[:1]), newDerived(f, j.views[1:2]), newDerived(j.views[2].Func, j.views[2:])}
		return
	}
	j.apart = nil
	j.placed, j.bins = t.placement, [][]uint16{t.bins[0], t.bins[1], t.bins[2]}
	if len(j.counts) < t.cells {
		j.counts = make([]uint32, t.cells)
	}
	x := min(j.grids[0].limit(), finiteLimit)
	j.limit = extremes{positive: x, negative: x, gate: j.grids[1].limit(), product: j.grids[2].limit()}
}

// mostShift bounds those bits, and so the cells.
const mostShift = 3

// gatedCell is placement.cell of a gated placement.
func (p *placement) gatedCell(v float32) int {
	s := gate(v, p.alpha, p.beta)
	open := index(s, p.views[1].scale)
	product := index(math.Float32frombits(absBits(v*s)), p.views[2].scale)
	sum, from := index(math.Float32frombits(absBits(v)), p.views[0].scale)+open, 0
	if math.Float32bits(v) > absMask {
		sum, from = sum-2*open+int(p.turn), int(p.below)
	}
	return from + sum<<p.shift + product&(1<<p.shift-1)
}

// gatedTable is what a gated placement's cells tell.
type gatedTable struct {
	placement placement
	cells     int
	bins      [3][]uint16 // by view and cell
}

// gatedKey is what a table depends on.
type gatedKey struct {
	alpha, beta float32
	grids       [3]grid
}

// gatedTables keeps the tables that a collector's shards share: those of this batch and of the last, for shards that follow a grid later.
type gatedTables struct {
	mu            sync.Mutex
	tables, older map[gatedKey]*gatedTable
}

// age ends a batch.
func (g *gatedTables) age() { g.tables, g.older = nil, g.tables }

// of returns the table for three grids, nil where so many bits of the product's index would be needed that there is none.
func (g *gatedTables) of(key gatedKey) *gatedTable {
	for k := range key.grids {
		key.grids[k].announced, key.grids[k].late = false, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if t, ok := g.tables[key]; ok {
		return t
	}
	t, ok := g.older[key]
	if !ok {
		t = newGatedTable(key)
	}
	if g.tables == nil {
		g.tables = map[gatedKey]*gatedTable{}
	}
	g.tables[key] = t
	return t
}

// span is what a sum of indices tells: the indices of the value and of its gate, and the least and the largest of their product.
type span struct {
	sum, value, open, least, most uint16
}

func newGatedTable(key gatedKey) *gatedTable {
	t := &gatedTable{placement: placement{alpha: key.alpha, beta: key.beta}}
	p := &t.placement
	for k := range key.grids {
		p.views[k].scale = key.grids[k].scale()
	}
	p.turn = uint32(index(gate(0, p.alpha, p.beta), p.views[1].scale))
	limit := min(key.grids[0].limit(), finiteLimit)
	sides := [2][]span{p.spans(false, limit), p.spans(true, limit)}
	widest := uint16(0)
	for _, spans := range sides {
		for i := range spans {
			widest = max(widest, spans[i].most-spans[i].least)
		}
	}
	p.shift = uint32(bits.Len16(widest))
	if p.shift > mostShift {
		return nil
	}
	sums := func(spans []span) int { return int(spans[len(spans)-1].sum) + 1 } // they grow
	p.below = uint32(sums(sides[0])) << p.shift
	t.cells = int(p.below) + sums(sides[1])<<p.shift
	for k := range t.bins {
		t.bins[k] = make([]uint16, t.cells)
	}
	for negative, spans := range sides {
		from := negative * int(p.below)
		for _, s := range spans {
			for product := s.least; product <= s.most; product++ {
				c := from + int(s.sum)<<p.shift + int(product)&(1<<p.shift-1)
				t.bins[0][c], t.bins[1][c], t.bins[2][c] = s.value, s.open, product
			}
		}
	}
	return t
}

// spans lists the sums of indices that values on one side of zero have, up to a magnitude's bits, from zero outward.
func (p *placement) spans(negative bool, limit uint32) []span {
	list := make([]span, 0, 3*Bins)
	open := func(b uint32) int { return index(gate(side(b, negative), p.alpha, p.beta), p.views[1].scale) }
	for b := uint32(0); ; {
		value, gate := index(math.Float32frombits(b), p.views[0].scale), open(b)
		// The last magnitude with the same indices: up to the next bin of the value, which is known, as far as the gate's is the same.
		end := limit
		if value < Bins && p.views[0].scale > 0 {
			end = min(end, math.Float32bits(edgeOf(value+1, p.views[0].scale))-1)
		}
		if open(end) != gate {
			low, high := p.around(gate, negative, b, end)
			if open(low) != gate || open(high) == gate {
				low, high = b, end
			}
			for high-low > 1 {
				if mid := low + (high-low)/2; open(mid) == gate {
					low = mid
				} else {
					high = mid
				}
			}
			end = low
		}
		sum := value + gate
		if negative {
			sum = value + int(p.turn) - gate
		}
		least, most := p.products(b, end, negative)
		list = append(list, span{uint16(sum), uint16(value), uint16(gate), uint16(least), uint16(most)})
		if end >= limit {
			return list
		}
		b = end + 1
	}
}

// around guesses where, between the bits of two magnitudes, the gate leaves its bin.
func (p *placement) around(bin int, negative bool, from, to uint32) (low, high uint32) {
	const slack = 64
	edge := float32(bin+1)/p.views[1].scale - p.beta
	if negative {
		edge = p.beta - float32(bin)/p.views[1].scale
	}
	at := min(max(math.Float32bits(max(edge, 0)/p.alpha), from), to)
	return max(at, from+slack) - slack, min(at, to-min(to, slack)) + slack
}

// side is the value of a magnitude's bits on one side of zero.
func side(b uint32, negative bool) float32 {
	if negative {
		return -math.Float32frombits(b)
	}
	return math.Float32frombits(b)
}

// products are the least and the largest index of the product for magnitudes from one to another. Above zero the product grows with the
// value, rounded too. Below it is a parabola, from which roundings lead away by less than 2^-21 of the magnitude.
func (p *placement) products(from, to uint32, negative bool) (least, most int) {
	at := func(v float64) int {
		return index(float32(max(v, 0)), p.views[2].scale)
	}
	if !negative {
		of := func(b uint32) int {
			v := math.Float32frombits(b)
			return index(v*gate(v, p.alpha, p.beta), p.views[2].scale)
		}
		return of(from), of(to)
	}
	alpha, beta := float64(p.alpha), float64(p.beta)
	low, high := float64(math.Float32frombits(from)), float64(math.Float32frombits(to))
	product := func(m float64) float64 { return m * min(1, max(0, beta-alpha*m)) }
	a, b := product(low), product(high)
	peak := max(a, b)
	if m := beta / (2 * alpha); low < m && m < high {
		peak = product(m)
	}
	slack := high * 0x1p-21
	if low > beta/alpha*(1+0x1p-20) { // the gate is shut
		slack = 0
	}
	return at(min(a, b) - slack), at(peak + slack)
}
