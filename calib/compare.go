package calib

import "math"

// SameBinTolerance is the relative difference up to which two scales stand for the same bin. Two neighbouring bins differ
// by at least 1/2048.5 = 4.9e-4; the maxima that TensorRT and ONNX Runtime find in the same tensor were seen to differ by up to 6e-6.
const SameBinTolerance = 1e-5

// Relation says how two entries of a name compare.
type Relation string

// The relations.
const (
	SameBits Relation = "same-bits" // the same float32
	SameBin  Relation = "same-bin"  // within SameBinTolerance
	OtherBin Relation = "other-bin"
)

// Pair is an entry that both caches have.
type Pair struct {
	Name     string   `json:"name"`
	Relation Relation `json:"relation"`
	// A and B are the scales, RelDiff is |A-B| / max(A,B).
	A       float32 `json:"a"`
	B       float32 `json:"b"`
	RelDiff float64 `json:"rel_diff"`
	// SharedWith is the earlier entry in another bin with just these two scales, as a pooling has its input's in TensorRT and is
	// no tensor of its own. Only OtherBin has it, and no entry with a histogram.
	SharedWith string `json:"shared_with,omitempty"`
	// Weighed is set for OtherBin where a histogram was given and both scales are thresholds on it.
	Weighed *Weighed `json:"weighed,omitempty"`
}

// Weighed compares two thresholds on one histogram.
type Weighed struct {
	// BinA and BinB are the numbers of bins kept.
	BinA int `json:"bin_a"`
	BinB int `json:"bin_b"`
	// KLA and KLB are the divergences there, in nats, and Gap is their difference by the lesser one.
	KLA float64 `json:"kl_a"`
	KLB float64 `json:"kl_b"`
	Gap float64 `json:"gap"`
}

// Diff compares two caches.
type Diff struct {
	A, B Header
	// Pairs are the entries of both, in A's order.
	Pairs []Pair
	// OnlyA and OnlyB are names, each in its cache's order.
	OnlyA, OnlyB []string
	// Moved are the names that would have to move for B's order to be A's, in A's order.
	Moved []string
}

// Compare compares two caches entry by entry. hist, which may be nil, gives the histograms of tensors by name.
func Compare(a, b *Cache, hist map[string]*Histogram) *Diff {
	d := &Diff{A: a.Header, B: b.Header}
	place := make(map[string]int, len(b.Entries))
	for i, e := range b.Entries {
		place[e.Name] = i
	}
	inA := make(map[string]bool, len(a.Entries))
	var order []int
	for _, ea := range a.Entries {
		inA[ea.Name] = true
		i, both := place[ea.Name]
		if !both {
			d.OnlyA = append(d.OnlyA, ea.Name)
			continue
		}
		order = append(order, i)
		d.Pairs = append(d.Pairs, d.pair(ea, b.Entries[i], hist[ea.Name]))
	}
	for _, eb := range b.Entries {
		if !inA[eb.Name] {
			d.OnlyB = append(d.OnlyB, eb.Name)
		}
	}
	for i, stays := range longestIncreasing(order) {
		if !stays {
			d.Moved = append(d.Moved, d.Pairs[i].Name)
		}
	}
	return d
}

func (d *Diff) pair(a, b Entry, h *Histogram) Pair {
	p := Pair{Name: a.Name, A: a.Scale, B: b.Scale}
	if most := max(float64(a.Scale), float64(b.Scale)); most > 0 {
		p.RelDiff = math.Abs(float64(a.Scale)-float64(b.Scale)) / most
	}
	switch {
	case math.Float32bits(a.Scale) == math.Float32bits(b.Scale):
		p.Relation = SameBits
		return p
	case p.RelDiff <= SameBinTolerance:
		p.Relation = SameBin
		return p
	}
	p.Relation = OtherBin
	if h != nil {
		p.Weighed = weigh(h, a.Amax, b.Amax)
		return p
	}
	for _, q := range d.Pairs {
		if q.Relation == OtherBin && q.A == p.A && q.B == p.B {
			p.SharedWith = q.Name
			break
		}
	}
	return p
}

func weigh(h *Histogram, a, b float32) *Weighed {
	binA, okA := h.BinOf(a)
	binB, okB := h.BinOf(b)
	if !okA || !okB {
		return nil
	}
	w := &Weighed{BinA: binA, BinB: binB, KLA: h.KLAt(binA), KLB: h.KLAt(binB)}
	if math.IsInf(w.KLA, 1) || math.IsInf(w.KLB, 1) {
		return nil
	}
	if less := min(w.KLA, w.KLB); less > 0 {
		w.Gap = math.Abs(w.KLA-w.KLB) / less
	}
	return w
}

// Count returns the number of pairs of a relation. Entries that share an earlier one's scales count with OtherBin too.
func (d *Diff) Count(r Relation) int {
	n := 0
	for i := range d.Pairs {
		if d.Pairs[i].Relation == r {
			n++
		}
	}
	return n
}

// OtherTensors returns the pairs in another bin, without those that share an earlier one's scales.
func (d *Diff) OtherTensors() []Pair {
	var out []Pair
	for _, p := range d.Pairs {
		if p.Relation == OtherBin && p.SharedWith == "" {
			out = append(out, p)
		}
	}
	return out
}

// Equal says that names and order are the same and every scale is within SameBinTolerance. Headers do not count.
func (d *Diff) Equal() bool {
	return len(d.OnlyA) == 0 && len(d.OnlyB) == 0 && len(d.Moved) == 0 && d.Count(OtherBin) == 0
}

// longestIncreasing marks the members of a longest increasing subsequence of distinct numbers.
func longestIncreasing(xs []int) []bool {
	var tails []int // tails[k]: index of the least last number of a subsequence of k+1
	before := make([]int, len(xs))
	for i, x := range xs {
		lo, hi := 0, len(tails)
		for lo < hi {
			if mid := (lo + hi) / 2; xs[tails[mid]] < x {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		before[i] = -1
		if lo > 0 {
			before[i] = tails[lo-1]
		}
		if lo == len(tails) {
			tails = append(tails, i)
		} else {
			tails[lo] = i
		}
	}
	marks := make([]bool, len(xs))
	if len(tails) == 0 {
		return marks
	}
	for i := tails[len(tails)-1]; i >= 0; i = before[i] {
		marks[i] = true
	}
	return marks
}
