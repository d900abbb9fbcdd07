package calib

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// plainEntropy is TensorRT's search written down as it is described, without a shortcut: the truth for EntropyThreshold.
func plainEntropy(h *Histogram) (int, float64) {
	counts := h.Counts
	counts[0] = counts[1]
	var total uint64
	for _, n := range counts {
		total += n
	}
	best, least := Bins, math.Inf(1)
	for i := 128; i <= Bins; i++ {
		var inside uint64
		filled := 0
		for _, n := range counts[:i] {
			inside += n
			if n > 0 {
				filled++
			}
		}
		outliers := total - inside
		if counts[i-1] == 0 && outliers > 0 || filled < 2 {
			continue
		}
		var sum [128]uint64
		var number [128]int
		for j, n := range counts[:i] {
			if n > 0 {
				sum[j*128/i] += n
				number[j*128/i]++
			}
		}
		var kl float64
		for j, n := range counts[:i] {
			if n == 0 {
				continue
			}
			p := float64(n) / float64(total)
			if j == i-1 {
				p = float64(n+outliers) / float64(total)
			}
			level := j * 128 / i
			q := float64(sum[level]) / float64(number[level]) / float64(inside)
			kl += float64(p * math.Log(p/q))
		}
		if kl < least {
			best, least = i, kl
		}
	}
	return best, least
}

// histograms for differential tests: plausible, sparse, degenerate, and with many exact ties.
func randomHistogram(r *rand.Rand, kind int) *Histogram {
	h := &Histogram{Range: float32(math.Exp(r.Float64()*20 - 10))}
	switch kind {
	case 0: // half-normal with a tail
		for range 200_000 {
			h.Counts[min(Bins-1, int(math.Abs(r.NormFloat64())*float64(100+r.IntN(300))))]++
		}
	case 1: // few filled bins
		for range 1 + r.IntN(40) {
			h.Counts[r.IntN(Bins)] += uint64(1 + r.IntN(1000))
		}
	case 2: // flat: neighbouring candidates nearly tie
		for j := range h.Counts {
			h.Counts[j] = 1000
		}
		h.Counts[r.IntN(Bins)] += uint64(r.IntN(3))
	case 3: // flat up to an edge, nothing beyond: exact ties at 0
		for j := range 1 + r.IntN(Bins) {
			h.Counts[j] = 7
		}
	case 4: // a spike at zero, a spike at the range
		h.Counts[0] = 1 << 40
		h.Counts[Bins-1] = uint64(r.IntN(1000))
		for range r.IntN(5000) {
			h.Counts[r.IntN(Bins)]++
		}
	case 5: // exponential, huge counts
		for j := range h.Counts {
			h.Counts[j] = uint64(math.Exp(30 - float64(j)*r.Float64()/20))
		}
	case 6: // repeated pattern, so that whole levels are alike
		period := 1 + r.IntN(64)
		for j := range h.Counts {
			h.Counts[j] = uint64(j % period)
		}
	case 7: // one value or none
		if r.IntN(2) == 0 {
			h.Counts[r.IntN(Bins)] = 5
		}
	}
	h.Max = h.Range
	return h
}

func TestEntropyThresholdIsThePlainAlgorithm(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 3 {
		for kind := range 8 {
			h := randomHistogram(r, kind)
			before := *h
			bin, amax, kl := h.EntropyThreshold()
			wantBin, wantKL := plainEntropy(h)
			require.Equal(t, wantBin, bin, "kind %d round %d", kind, round)
			require.Equal(t, wantKL, kl, "kind %d round %d: same float64", kind, round)
			require.Equal(t, (float32(bin)+0.5)*(h.Range/2048), amax)
			require.Equal(t, before, *h, "the search must not change the histogram")
			if !math.IsInf(kl, 1) {
				require.Equal(t, kl, h.KLAt(bin))
			}
		}
	}
}

// The prefix sums must be far more exact than the margin within which the plain sums decide.
func TestPrefixSumsAreWithinTheTieMargin(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for kind := range 8 {
		var s search
		s.fill(randomHistogram(r, kind))
		for i := minKept; i <= Bins; i++ {
			fast, plain := s.fast(i, math.Inf(1)), s.plain(i)
			if math.IsInf(plain, 1) {
				require.True(t, math.IsInf(fast, 1))
				continue
			}
			require.InDelta(t, plain, fast, tieMargin/100, "kind %d, %d bins", kind, i)
			for _, least := range []float64{0, plain / 2, plain - 3*tieMargin, plain - tieMargin/2, plain, 2 * plain} {
				if cut := s.fast(i, least); cut != fast {
					require.True(t, math.IsInf(cut, 1))
					require.Greater(t, plain, least+tieMargin, "given up on too early: kind %d, %d bins", kind, i)
				}
			}
		}
	}
}

func TestEntropyThresholdWithNothingToWeigh(t *testing.T) {
	for name, fill := range map[string]func(*Histogram){
		"empty":       func(*Histogram) {},
		"zeros only":  func(h *Histogram) { h.Counts[0] = 9 },
		"one value":   func(h *Histogram) { h.Counts[Bins-1] = 9 },
		"zeros + one": func(h *Histogram) { h.Counts[0], h.Counts[1500] = 4, 9 },
	} {
		h := &Histogram{Range: 2, Max: 2}
		fill(h)
		bin, amax, kl := h.EntropyThreshold()
		require.Equal(t, 2048, bin, name)
		// TensorRT writes a constant's scale as |c|*2048.5/2048/127.
		require.Equal(t, float32(2)*2048.5/2048, amax, name)
		require.True(t, math.IsInf(kl, 1), name)
	}
	require.True(t, math.IsInf((&Histogram{}).KLAt(127), 1))
	require.True(t, math.IsInf((&Histogram{}).KLAt(2049), 1))
}

func TestPercentileThreshold(t *testing.T) {
	h := &Histogram{Range: 2048, Max: 2047.5}
	for j := range 100 {
		h.Counts[j*20] = 1 // bins 0, 20 .. 1980
	}
	for _, tc := range []struct {
		share float64
		want  float32
	}{
		{0.01, 1}, {0.5, 981}, {0.505, 1001}, {0.99, 1961}, {1, 1981},
	} {
		require.Equal(t, tc.want, h.PercentileThreshold(tc.share), "share %v", tc.share)
	}
	h.Max = 1980.25
	require.Equal(t, float32(1980.25), h.PercentileThreshold(1), "never beyond the maximum")
}

func TestMSEThreshold(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for kind := range 7 {
		h := randomHistogram(r, kind)
		best, least := 0, math.Inf(1)
		for i := 128; i <= Bins; i++ {
			scale := (float64(i) + 0.5) / 127
			var loss float64
			for j, n := range h.Counts {
				x := float64(j) + 0.5
				if j == 0 {
					x = 0
				}
				q := min(math.Floor(x/scale+0.5), 127) * scale
				loss += float64(n) * (x - q) * (x - q)
			}
			if loss < least {
				best, least = i, loss
			}
		}
		got, ok := h.BinOf(h.MSEThreshold())
		if !ok { // capped at the maximum, which is the range here
			require.Equal(t, h.Max, h.MSEThreshold())
			got = Bins
		}
		if got != best {
			require.Less(t, kind, 7)
			t.Logf("kind %d: bin %d, plain sums say %d", kind, got, best)
		}
		require.Equal(t, best, got, "kind %d", kind)
	}
}

func TestBinOf(t *testing.T) {
	h := &Histogram{Range: 3.7}
	for bin := 128; bin <= Bins; bin++ {
		got, ok := h.BinOf(ScaleOf(h.Amax(bin)) * 127)
		require.True(t, ok)
		require.Equal(t, bin, got)
	}
	for _, amax := range []float32{0, h.Amax(127), h.Amax(2049), 1000 * h.Width(), float32(math.NaN())} {
		_, ok := h.BinOf(amax)
		require.False(t, ok, fmt.Sprint(amax))
	}
	_, ok := (&Histogram{}).BinOf(1)
	require.False(t, ok)
}

func TestLogCount(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 100_000 {
		n := math.Floor(math.Exp(r.Float64() * 36))
		require.InDelta(t, math.Log(n), logCount(n), 1e-13, "%v", n)
	}
	require.InDelta(t, 0, logCount(1), 1e-13)
}

func BenchmarkEntropyThreshold(b *testing.B) {
	h := randomHistogram(rand.New(rand.NewPCG(1, 2)), 0)
	for b.Loop() {
		h.EntropyThreshold()
	}
}

func BenchmarkMSEThreshold(b *testing.B) {
	h := randomHistogram(rand.New(rand.NewPCG(1, 2)), 0)
	for b.Loop() {
		h.MSEThreshold()
	}
}
