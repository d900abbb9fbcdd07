package calib

import "math"

// The entropy search keeps at least as many bins as there are INT8 levels of one sign.
const (
	minKept = 128
	levels  = 128
)

// EntropyThreshold returns the number of bins to keep, 128..2048, that TensorRT's EntropyCalibrator2 keeps, the magnitude it
// stands for, and the Kullback-Leibler divergence there in nats.
//
// Of every candidate i, P is the histogram's first i bins with what lies beyond added to the last one, and Q the same bins,
// without what lies beyond, after merging them to 128 levels and spreading each level evenly over its non-empty bins. The candidate of least
// divergence wins, the lowest of equals. Bin 0, where the zeros are, counts as much as bin 1. Candidates are skipped whose last
// bin is empty while something lies beyond, and those of fewer than two non-empty bins. Where none is left the answer is 2048 and +Inf.
//
// The divergences come from prefix sums. Those that may be within 1e-9 of the least are then summed again bin by bin, in order, in float64,
// and those sums decide: the answer is that of the plain algorithm to the bit. The histogram is not changed.
func (h *Histogram) EntropyThreshold() (bin int, amax float32, kl float64) {
	var s search // on the stack: fresh memory costs as much as filling it
	s.fill(h)
	var fast [Bins + 1]float64
	least := math.Inf(1)
	try := func(i int) {
		fast[i] = s.fast(i, least)
		least = min(least, fast[i])
	}
	// Every 32nd first: their least spares most of the rest from being summed to the end.
	for i := minKept; i <= Bins; i += 32 {
		try(i)
	}
	for i := minKept; i <= Bins; i++ {
		if (i-minKept)%32 != 0 {
			try(i)
		}
	}
	bin, kl = Bins, math.Inf(1)
	for i := minKept; i <= Bins; i++ {
		if fast[i] > least+tieMargin || math.IsInf(fast[i], 1) {
			continue
		}
		if d := s.plain(i); d < kl {
			bin, kl = i, d
		}
	}
	return bin, h.Amax(bin), kl
}

// tieMargin is far above the rounding of the prefix sums, 2,048 terms of at most 44 (the log of 2^64) and 1e-16 relative each,
// and far below the difference between divergences that matter.
const tieMargin = 1e-9

// KLAt returns the divergence, in nats, of keeping bin bins, as EntropyThreshold weighs it: +Inf for a number of bins outside
// 128..2048 and for one that the search skips.
func (h *Histogram) KLAt(bin int) float64 {
	if bin < minKept || bin > Bins {
		return math.Inf(1)
	}
	var s search
	s.fill(h)
	return s.plain(bin)
}

// search holds prefix sums over a histogram whose bin 0 was set to bin 1: element i covers bins 0..i-1.
type search struct {
	counts  [Bins]uint64
	sum     [Bins + 1]uint64
	filled  [Bins + 1]int     // non-empty bins
	entropy [Bins + 1]float64 // sum of n*ln(n)

	total, logTotal float64
}

// fill makes an empty search one over h.
func (s *search) fill(h *Histogram) {
	s.counts = h.Counts
	s.counts[0] = s.counts[1]
	for j, n := range s.counts {
		s.sum[j+1] = s.sum[j] + n
		s.filled[j+1] = s.filled[j]
		s.entropy[j+1] = s.entropy[j]
		if n > 0 {
			s.filled[j+1]++
			s.entropy[j+1] += xlogx(float64(n))
		}
	}
	s.total = float64(s.sum[Bins])
	s.logTotal = logCount(s.total)
}

// skipped says whether the search passes over keeping i bins.
func (s *search) skipped(i int) bool {
	return s.counts[i-1] == 0 && s.sum[i] < s.sum[Bins] || s.filled[i] < 2
}

// edge is the first bin of level l when i bins are kept: the least j with floor(j*128/i) = l.
func edge(l, i int) int { return (l*i + levels - 1) / levels }

// fast returns the divergence of keeping i bins, or +Inf as soon as it must exceed least by more than the margin. With T the total, I what
// lies inside and O beyond, S and C sum and number of a level's non-empty bins, L the last level:
//
//	T*KL = sum over levels of (sum of n*ln(n) - S*ln(S/C)) - O*ln(S_L/C_L) + T*ln(I/T),   O counted with the last bin's n
//
// Each level but the last adds 0 or more, and the rest is at least what is left when every level is taken as one bin:
//
//	(S_L+O)*ln((S_L+O)/S_L) + T*ln(I/T)
func (s *search) fast(i int, least float64) float64 {
	if s.skipped(i) {
		return math.Inf(1)
	}
	inside := float64(s.sum[i])
	beyond := float64(s.sum[Bins] - s.sum[i])
	from := edge(levels-1, i)
	last := float64(s.sum[i] - s.sum[from])
	scaled := s.total * (logCount(inside) - s.logTotal)
	spent := scaled
	if beyond > 0 { // the last bin is not empty
		spent += (last + beyond) * (logCount(last+beyond) - logCount(last))
	}
	budget := (least+2*tieMargin)*s.total - spent
	var kl float64
	from = 0
	for l := range levels - 1 {
		to := edge(l+1, i)
		if n := float64(s.sum[to] - s.sum[from]); n > 0 {
			kl += s.entropy[to] - s.entropy[from] - n*(logCount(n)-logOf[s.filled[to]-s.filled[from]])
		}
		if kl > budget {
			return math.Inf(1)
		}
		from = to
	}
	if last > 0 {
		kl += s.entropy[i-1] - s.entropy[from] + xlogx(float64(s.counts[i-1])+beyond) - (last+beyond)*(logCount(last)-logOf[s.filled[i]-s.filled[from]])
	}
	return (kl + scaled) / s.total
}

// plain returns the divergence of keeping i bins, summed bin by bin.
func (s *search) plain(i int) float64 {
	if s.skipped(i) {
		return math.Inf(1)
	}
	inside := float64(s.sum[i])
	var kl float64
	for l := range levels {
		from, to := edge(l, i), edge(l+1, i)
		sum := float64(s.sum[to] - s.sum[from])
		q := sum / float64(s.filled[to]-s.filled[from]) / inside
		for j := from; j < to; j++ {
			n := s.counts[j]
			if n == 0 {
				continue
			}
			if j == i-1 {
				n += s.sum[Bins] - s.sum[i]
			}
			p := float64(n) / s.total
			kl += float64(p * math.Log(p/q)) // the conversion forbids a fused multiply-add: same bits on every platform
		}
	}
	return kl
}

// logOf holds the logarithms of a level's possible numbers of bins.
var logOf = func() (t [Bins/levels + 1]float64) {
	for n := range t {
		t[n] = math.Log(float64(n))
	}
	return t
}()

// logCount is the natural logarithm of a number of 1 or more, to 1e-13: c is the middle of one of 256 parts of 1..2, where the number
// lies but for a power of two, and the rest is a series in r = number/c - 1, which is at most 2^-9.
func logCount(n float64) float64 {
	b := math.Float64bits(n)
	c := &logParts[b>>44&0xff]
	r := math.Float64frombits(b&(1<<52-1)|1023<<52)*c.inverse - 1
	return float64(int(b>>52)-1023)*math.Ln2 + c.log + r*(1-r*(1./2-r*(1./3-r*(1./4))))
}

var logParts = func() (t [256]struct{ inverse, log float64 }) {
	for i := range t {
		c := 1 + (float64(i)+0.5)/256
		t[i].inverse, t[i].log = 1/c, math.Log(c)
	}
	return t
}()

func xlogx(x float64) float64 {
	if x == 0 {
		return 0
	}
	return x * math.Log(x)
}

// PercentileThreshold returns the magnitude that at least the given share, 0..1, of all values (zeros included) does not exceed:
// the upper edge of the bin where that share is reached, or max|x| where that is less.
func (h *Histogram) PercentileThreshold(share float64) float32 {
	want := share * float64(h.Total())
	var n uint64
	for j, c := range h.Counts {
		n += c
		if c > 0 && float64(n) >= want {
			return min(float32(j+1)*h.Width(), h.Max)
		}
	}
	return h.Max
}

// MSEThreshold returns the magnitude, one of those that 128..2048 kept bins stand for, with the least mean squared error between
// |x| and min(round(|x|/scale), 127)*scale, scale being the magnitude / 127; |x| is taken at the middle of its bin, bin 0 at zero, where the
// zeros are. The lowest of equals wins, and never more than max|x|.
func (h *Histogram) MSEThreshold() float32 {
	// Prefix sums, in units of a bin, of n, n*x and n*x*x: within a level q the error is the sum of n*(x-q*scale)^2.
	var n0, n1, n2 [Bins + 1]float64
	for j, c := range h.Counts {
		x := float64(j) + 0.5
		if j == 0 {
			x = 0
		}
		n := float64(c)
		n0[j+1] = n0[j] + n
		n1[j+1] = n1[j] + float64(n*x) // the conversions forbid fused multiply-adds, here and below
		n2[j+1] = n2[j] + float64(n*x*x)
	}
	best, least := Bins, math.Inf(1)
	for i := minKept; i <= Bins; i++ {
		scale := (float64(i) + 0.5) / Levels
		var loss float64
		from := 0
		for q := 0; q <= Levels && from < Bins; q++ {
			to := Bins
			if q < Levels {
				// Bins whose middle is below (q + 0.5)*scale round to q or less.
				to = min(Bins, max(from, int(math.Ceil((float64(q)+0.5)*scale-0.5))))
			}
			at := float64(q) * scale
			loss += (n2[to] - n2[from]) - float64(2*at*(n1[to]-n1[from])) + float64(at*at*(n0[to]-n0[from]))
			from = to
		}
		if loss < least {
			best, least = i, loss
		}
	}
	return min(h.Amax(best), h.Max)
}

// oneValued says that everything but the zeros is in one bin.
func (h *Histogram) oneValued() bool {
	filled := 0
	for _, n := range h.Counts[1:] {
		if n > 0 {
			filled++
		}
	}
	return filled == 1
}

// ShareAbove is the share of the values in bins that lie wholly above amax.
func (h *Histogram) ShareAbove(amax float32) float64 {
	total := h.Total()
	if total == 0 {
		return 0
	}
	from := math.Ceil(float64(amax) / float64(h.Width()))
	if !(from < Bins) {
		return 0
	}
	var n uint64
	for _, c := range h.Counts[int(from):] {
		n += c
	}
	return float64(n) / float64(total)
}
