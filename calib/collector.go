package calib

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
)

// ErrOrder is wrapped by the errors of a collector whose methods were called out of order.
var ErrOrder = errors.New("calibration calls out of order")

// A grid's range stays between these, so that a range can double, and 2048/range neither overflows nor becomes subnormal.
const (
	smallestRange = 0x1p-100
	infinite      = 0x1p126 // magnitudes from here on count as infinite
)

// finiteLimit has the bits of the largest magnitude that counts as finite.
var finiteLimit = math.Float32bits(infinite) - 1

// Collector gathers the activations of a fixed list of tensors, batch by batch, and chooses a range for each.
//
// Shards do the work, one a goroutine. The calls for every batch in turn:
//
//	if c.NeedsFirstMax() { shards: ObserveMax of the whole batch; c.EndFirstMax() }
//	shards: Observe of the whole batch; c.EndBatch()
//
// and Results at the end. Within a batch, values may go to any shard, in pieces of any size and in any order: the
// counts are those of one call with the whole batch, which is how TensorRT sees it.
//
// Memory is about 40 KiB for a tensor and shard, and at most 24 KiB more for one of small pieces, whatever the number of batches.
type Collector struct {
	method  Method
	options Options
	names   []string
	sources [][]View // beyond the tensors themselves
	gated   gatedTables

	mu       sync.Mutex // guards shards
	shards   []*Shard
	total    []counter
	firstMax bool // entropy: the first batch's maximum is still to come
	batches  int
}

// Shard is one goroutine's part of a collector. It has no locks: different shards may be used at the same time, one shard by one
// goroutine only.
type Shard struct {
	c       *Collector
	tensors []counter
	sources [][]counting // by source; nil until it is observed
	held    [][]float32  // by source: values of small pieces that are not counted yet
	misused bool         // Observe before EndFirstMax
}

// NewCollector returns a collector for the named tensors. Results follow their order.
func NewCollector(m Method, tensors []string, o Options) (*Collector, error) {
	if _, err := ParseMethod(string(m)); err != nil {
		return nil, err
	}
	if o.Percentile == 0 {
		o.Percentile = DefaultPercentile
	}
	if !(o.Percentile > 0 && o.Percentile <= 1) {
		return nil, fmt.Errorf("percentile %v: give a share above 0 and at most 1, for example %v", o.Percentile, DefaultPercentile)
	}
	seen := make(map[string]bool, len(tensors))
	for _, name := range tensors {
		if seen[name] {
			return nil, fmt.Errorf("tensor %q is listed twice for calibration", name)
		}
		seen[name] = true
	}
	return &Collector{
		method:   m,
		options:  o,
		names:    append([]string(nil), tensors...),
		total:    make([]counter, len(tensors)),
		firstMax: m == Entropy,
	}, nil
}

// NewShard adds a shard. It may be called at any time outside a batch.
func (c *Collector) NewShard() *Shard {
	s := &Shard{c: c, tensors: make([]counter, len(c.total))}
	for i := range s.tensors {
		s.tensors[i].grid = c.total[i].grid
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shards = append(c.shards, s)
	return s
}

// NeedsFirstMax says whether the maximum of the first batch is wanted before the batch is counted: true for entropy until EndFirstMax.
func (c *Collector) NeedsFirstMax() bool { return c.firstMax }

// ObserveMax sees part of source i of the first batch, before the same batch is counted.
func (s *Shard) ObserveMax(i int, x []float32) {
	observeExtremes(x, s.c.views(i), s.tensors, func(t *counter, v float32) {
		if b := absBits(v); b <= finiteLimit {
			t.max = max(t.max, b)
		}
	})
}

// EndFirstMax ends the first pass over the first batch and fixes every tensor's range. No shard may be busy.
func (c *Collector) EndFirstMax() error {
	if !c.firstMax {
		return fmt.Errorf("%w: EndFirstMax without NeedsFirstMax", ErrOrder)
	}
	c.firstMax = false
	for i := range c.total {
		var most uint32
		for _, s := range c.shards {
			most = max(most, s.tensors[i].max)
		}
		c.total[i].startAt(math.Float32frombits(most))
		for _, s := range c.shards {
			s.tensors[i].grid = c.total[i].grid
			s.tensors[i].max = 0
		}
	}
	return nil
}

// Observe counts part of source i, a tensor or what Source declared, of the current batch.
func (s *Shard) Observe(i int, x []float32) {
	if s.c.firstMax {
		s.misused = true
		return
	}
	if s.c.method == MinMax {
		views := s.c.views(i)
		for k := range views {
			t := &s.tensors[views[k].Tensor]
			t.seen = t.seen || len(x) > 0
		}
		observeExtremes(x, views, s.tensors, func(t *counter, v float32) {
			if !t.leaveOut(v) {
				t.max = max(t.max, absBits(v))
			}
		})
		return
	}
	for len(s.sources) <= i {
		s.sources, s.held = append(s.sources, nil), append(s.held, nil)
	}
	if s.sources[i] == nil {
		s.sources[i] = newCountings(s.c.views(i), &s.c.gated)
	}
	if len(x) < smallPiece {
		s.held[i] = append(s.held[i], x...)
		if len(s.held[i]) >= mostHeld {
			s.release(i)
		}
		return
	}
	s.count(i, x)
}

// Pieces of few values wait for one another: a histogram is out of the processor's caches when it is used again, and reaching it takes
// several times as long as counting a value.
const (
	smallPiece = 2048
	mostHeld   = 2 * smallPiece
)

// release counts what is held of source i.
func (s *Shard) release(i int) {
	if len(s.held[i]) > 0 {
		s.count(i, s.held[i])
		s.held[i] = s.held[i][:0]
	}
}

// unfinished says whether the shard has seen values of a batch that has not ended.
func (s *Shard) unfinished() bool {
	for i := range s.tensors {
		if s.tensors[i].seen {
			return true
		}
	}
	return slices.ContainsFunc(s.held, func(x []float32) bool { return len(x) > 0 })
}

// count counts values of source i.
func (s *Shard) count(i int, x []float32) {
	for _, c := range s.sources[i] {
		c.observe(x, s.tensors)
	}
}

// EndBatch ends a batch: it merges the shards, in any order to the same counts. No shard may be busy.
func (c *Collector) EndBatch() error {
	for _, s := range c.shards {
		if s.misused {
			return fmt.Errorf("%w: Observe before EndFirstMax", ErrOrder)
		}
	}
	c.merge(counting.endBatch)
	c.gated.age()
	c.batches++
	return nil
}

// merge has every shard move counts to its tensors' counters, and adds those up.
func (c *Collector) merge(move func(counting, []counter)) {
	for _, s := range c.shards {
		for i, list := range s.sources {
			s.release(i)
			for _, counts := range list {
				move(counts, s.tensors)
			}
		}
	}
	for i := range c.total {
		c.add(i)
	}
}

func (c *Collector) add(i int) {
	t := &c.total[i]
	for _, s := range c.shards {
		t.growTo(s.tensors[i].rng)
	}
	for _, s := range c.shards {
		t.add(&s.tensors[i])
	}
	// Only inside a batch can a value equal to the range still move on.
	t.counts[Bins-1] += t.counts[Bins]
	t.counts[Bins] = 0
	t.announced = false
	for _, s := range c.shards {
		s.tensors[i].grid = t.grid
	}
}

// grid says where a counter's bins lie.
type grid struct {
	rng float32 // upper edge of the last bin; 0: no value other than zero was seen
	// exact grids hold a value equal to rng (TensorRT's rule: range is the first maximum times 2^k), the others are powers of two
	// strictly above every value.
	exact bool
	// announced says that this is the first batch of an exact grid: its maximum is known to be rng.
	announced bool
	// late says that entropy had no first maximum to start from.
	late bool
}

// startAt fixes the grid of TensorRT's rule from the first batch's maximum.
func (g *grid) startAt(first float32) {
	if first < smallestRange {
		g.late = true
		return
	}
	g.rng, g.exact, g.announced = first, true, true
}

// limit has the bits of the largest magnitude that the grid holds.
func (g *grid) limit() uint32 {
	switch {
	case g.exact:
		return math.Float32bits(g.rng)
	case g.rng > 0:
		return math.Float32bits(g.rng) - 1
	default:
		return 0
	}
}

// scale is the number of bins in a unit of |x|, in float32.
func (g *grid) scale() float32 {
	if g.rng == 0 {
		return 0
	}
	return Bins / g.rng
}

// holding returns the range that the grid must grow to for a magnitude beyond its limit.
func (g *grid) holding(v float32) float32 {
	if g.rng == 0 {
		_, exp := math.Frexp(float64(v))
		return max(float32(math.Ldexp(1, exp)), smallestRange)
	}
	r := g.rng
	for v > r || !g.exact && v == r {
		r *= 2
	}
	return r
}

// counter counts one tensor on a grid that only becomes coarser.
type counter struct {
	grid
	counts   [Bins + 1]uint64 // the last is for index 2048, a value equal to the range
	max      uint32           // bits of max|x|
	nan, inf uint64
	seen     bool
	counted  bool // counts are not all 0
}

// leaveOut counts a value that is no finite number, and reports whether it was one.
func (t *counter) leaveOut(v float32) bool {
	if v != v {
		t.nan++
		return true
	}
	if absBits(v) > finiteLimit {
		t.inf++
		return true
	}
	return false
}

// observeOne counts one value; the grid grows as far as it must.
func (t *counter) observeOne(v float32) {
	if t.leaveOut(v) {
		return
	}
	b := absBits(v)
	if b > t.limit() {
		if t.announced {
			// The engine gave a larger value than when it was asked for the maximum: it stands for the maximum.
			t.counts[Bins]++
			t.counted = true
			return
		}
		t.growTo(t.holding(math.Float32frombits(b)))
	}
	t.max = max(t.max, b)
	t.counts[index(math.Float32frombits(b), t.scale())]++
	t.counted = true
}

// growTo makes the range rng, which is the present one times a power of two: bins merge, index 2048 with them. From an
// empty grid, where only zeros were counted, any range will do.
func (t *counter) growTo(rng float32) {
	if rng <= t.rng {
		return
	}
	if k := t.doublings(rng); k > 0 {
		t.coarsen(k)
	}
	t.rng = rng
}

// coarsen merges 2^k bins to one.
func (t *counter) coarsen(k int) {
	for j := 1; j <= Bins; j++ {
		n := t.counts[j]
		t.counts[j] = 0
		t.counts[j>>k] += n
	}
}

// add moves the counts of a shard here. t's range is at least the shard's.
func (t *counter) add(s *counter) {
	if s.counted {
		s.growTo(t.rng)
		for j, n := range s.counts {
			t.counts[j] += n
		}
		s.counts, s.counted = [Bins + 1]uint64{}, false
	}
	t.max = max(t.max, s.max)
	t.nan += s.nan
	t.inf += s.inf
	t.seen = t.seen || s.seen
	s.max, s.nan, s.inf, s.seen = 0, 0, 0, false
}
