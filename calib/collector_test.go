package calib

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// plainCounts is TensorRT's counting written down as it is described: whole batches, in float32.
type plainCounts struct {
	rng    float32
	counts [Bins]uint64
}

func (p *plainCounts) batch(x []float32) {
	var m float32
	for _, v := range x {
		m = max(m, float32(math.Abs(float64(v))))
	}
	if p.rng == 0 {
		p.rng = m
	}
	for m > p.rng {
		var merged [Bins]uint64
		for j := range Bins / 2 {
			merged[j] = p.counts[2*j] + p.counts[2*j+1]
		}
		p.counts = merged
		p.rng *= 2
	}
	scale := float32(2048) / p.rng
	for _, v := range x {
		p.counts[min(Bins-1, int(float32(math.Abs(float64(v)))*scale))]++
	}
}

// collect feeds batches through shards in random pieces and random order.
func collect(t testing.TB, m Method, shards int, r *rand.Rand, batches [][]float32) *Collector {
	c, err := NewCollector(m, []string{"x"}, Options{})
	require.NoError(t, err)
	var ss []*Shard
	for range shards {
		ss = append(ss, c.NewShard())
	}
	pieces := func(x []float32, f func(*Shard, []float32)) {
		var cut [][]float32
		for len(x) > 0 {
			n := 1 + r.IntN(len(x))
			cut = append(cut, x[:n])
			x = x[n:]
		}
		for _, k := range r.Perm(len(cut)) {
			f(ss[r.IntN(shards)], cut[k])
		}
	}
	for _, x := range batches {
		if c.NeedsFirstMax() {
			pieces(x, func(s *Shard, x []float32) { s.ObserveMax(0, x) })
			require.NoError(t, c.EndFirstMax())
		}
		pieces(x, func(s *Shard, x []float32) { s.Observe(0, x) })
		require.NoError(t, c.EndBatch())
	}
	return c
}

// randomBatches makes values whose maxima grow, with ranges hit exactly and doubled afterwards.
func randomBatches(r *rand.Rand, batches, n int) [][]float32 {
	out := make([][]float32, batches)
	var first float32
	for b := range out {
		x := make([]float32, n)
		for i := range x {
			switch r.IntN(8) {
			case 0:
			case 1:
				x[i] = float32(r.NormFloat64()) * float32(b+1)
			default:
				x[i] = float32(r.NormFloat64())
			}
		}
		if b == 0 {
			for _, v := range x {
				first = max(first, float32(math.Abs(float64(v))))
			}
		} else {
			for range r.IntN(4) {
				x[r.IntN(n)] = first * float32(int(1)<<r.IntN(b+1)) * float32(1-2*r.IntN(2))
			}
		}
		out[b] = x
	}
	return out
}

func TestEntropyCountsAreTensorRTs(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		batches := randomBatches(r, 1+r.IntN(6), 1+r.IntN(9000))
		var want plainCounts
		for _, x := range batches {
			want.batch(x)
		}
		for _, shards := range []int{1, 3} {
			c := collect(t, Entropy, shards, r, batches)
			if want.rng == 0 {
				continue
			}
			res, err := c.Results()
			require.NoError(t, err)
			require.Equal(t, want.rng, res[0].Histogram.Range, "seed %d", seed)
			require.Equal(t, want.counts, res[0].Histogram.Counts, "seed %d, %d shards", seed, shards)
			h := Histogram{Range: want.rng, Counts: want.counts}
			bin, _ := plainEntropy(&h)
			require.Equal(t, (float32(bin)+0.5)*(want.rng/2048), res[0].Amax)
			require.Equal(t, res[0].Amax/127, res[0].Scale)
		}
	}
}

// A value equal to the range: in a batch of its own it stays in the last bin when the range doubles later, in one batch with
// the value that doubles the range it goes to the bin where whole-batch counting puts it.
func TestValueEqualToARangeThatDoubles(t *testing.T) {
	apart := collect(t, Entropy, 2, rand.New(rand.NewPCG(1, 1)), [][]float32{{1}, {1}, {2}})
	res, err := apart.Results()
	require.NoError(t, err)
	require.EqualValues(t, 2, res[0].Histogram.Counts[1023], "clamped to bin 2047 before the range doubled")
	require.EqualValues(t, 1, res[0].Histogram.Counts[2047])

	for seed := range uint64(20) {
		together := collect(t, Entropy, 2, rand.New(rand.NewPCG(seed, 1)), [][]float32{{1}, {1, 2}})
		res, err = together.Results()
		require.NoError(t, err)
		require.EqualValues(t, 1, res[0].Histogram.Counts[1023])
		require.EqualValues(t, 1, res[0].Histogram.Counts[1024], "the batch was counted on the doubled range")
		require.EqualValues(t, 1, res[0].Histogram.Counts[2047])
	}
}

func TestStableMethodsForgetOrderAndBatches(t *testing.T) {
	for _, m := range []Method{EntropyStable, Percentile, MSE, MinMax} {
		r := rand.New(rand.NewPCG(11, 12))
		batches := randomBatches(r, 6, 3000)
		batches[0] = make([]float32, 3000) // zeros first
		batches[1][0], batches[2][0], batches[3][0] = 4, 1e-20, float32(math.NaN())
		var all []float32
		for _, x := range batches {
			all = append(all, x...)
		}
		want, err := collect(t, m, 1, r, [][]float32{all}).Results()
		require.NoError(t, err)
		for shards := 1; shards < 4; shards++ {
			r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			n := 1 + r.IntN(len(all)-1)
			got, err := collect(t, m, shards, r, [][]float32{all[:n], all[n:]}).Results()
			require.NoError(t, err)
			require.Equal(t, want, got, m)
		}
		if m != MinMax {
			require.Greater(t, want[0].Histogram.Range, want[0].Max)
			require.LessOrEqual(t, want[0].Histogram.Range, 2*want[0].Max)
			frac, _ := math.Frexp(float64(want[0].Histogram.Range))
			require.Equal(t, 0.5, frac, "a power of two")
		}
	}
}

// A power of two lies in the upper half of a range strictly above it.
func TestStableRangeIsStrictlyAbove(t *testing.T) {
	for _, tc := range []struct{ max, want float32 }{
		{1, 2}, {0.99999994, 1}, {1.0000001, 2}, {0.25, 0.5}, {-3, 4}, {1e-30, 0x1p-99}, {1e-38, 0x1p-100}, {1e-45, 0x1p-100}, {8e37, 0x1p126},
	} {
		res, err := collect(t, EntropyStable, 1, rand.New(rand.NewPCG(1, 1)), [][]float32{{0, tc.max / 3, tc.max}}).Results()
		require.NoError(t, err)
		require.Equal(t, tc.want, res[0].Histogram.Range, "max %v", tc.max)
		require.EqualValues(t, 3, res[0].Histogram.Total())
		require.Zero(t, res[0].Histogram.Inf)
	}
}

func TestUnusualTensors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, tc := range []struct {
		name    string
		method  Method
		batches [][]float32
		amax    float32 // 0: only the warning matters
		max     float32
		warning string
	}{
		{"zeros", Entropy, [][]float32{{0, 0}, {0}}, 1, 0, `tensor "x": zero wherever it was seen: its range is set to 1`},
		{"zeros", EntropyStable, [][]float32{{0, 0}}, 1, 0, `zero wherever it was seen`},
		{"zeros", MinMax, [][]float32{{0, 0}}, 1, 0, `zero wherever it was seen`},
		{"zeros", Percentile, [][]float32{{0, 0}}, 1, 0, `zero wherever it was seen`},
		{"zeros", MSE, [][]float32{{0, 0}}, 1, 0, `zero wherever it was seen`},
		{"NaN only", Entropy, [][]float32{{nan}}, 1, 0, `tensor "x": 1 NaN and 0 infinite values are left out of its range`},
		{"constant", Entropy, [][]float32{{3, 3}, {-3}}, float32(3) * 2048.5 / 2048, 3, `constant: one magnitude`},
		{"constant", EntropyStable, [][]float32{{3, 3}, {-3}}, 3, 3, `constant: one magnitude`},
		{"constant", MinMax, [][]float32{{3, 3}, {-3}}, 3, 3, ``},
		{"constant", Percentile, [][]float32{{3, 3}, {-3}}, 3, 3, `constant: one magnitude`},
		{"constant", MSE, [][]float32{{3, 3}, {-3}}, 3, 3, `constant: one magnitude`},
		{"mask", EntropyStable, [][]float32{{0, 1, 1, 0}}, 1, 1, `constant: one magnitude`},
		{"infinite", MinMax, [][]float32{{1, inf, -inf, nan, 2}}, 2, 2, `1 NaN and 2 infinite values`},
		{"infinite", Entropy, [][]float32{{1, inf, -inf, nan, 2}}, 0, 2, `1 NaN and 2 infinite values`},
		{"huge", MinMax, [][]float32{{1, 1e38}}, 1, 1, `0 NaN and 1 infinite values`},
		{"zero at first", Entropy, [][]float32{{0, 0}, {1, 2, 3}}, 0, 3, `tensor "x": zero in the whole first batch`},
		{"tiny at first", Entropy, [][]float32{{1e-40}, {1, 2, 3}}, 0, 3, `zero in the whole first batch`},
	} {
		t.Run(tc.name+" "+string(tc.method), func(t *testing.T) {
			res, err := collect(t, tc.method, 2, rand.New(rand.NewPCG(1, 1)), tc.batches).Results()
			require.NoError(t, err)
			if tc.amax != 0 {
				require.Equal(t, tc.amax, res[0].Amax)
			}
			require.Equal(t, tc.max, res[0].Max)
			require.Equal(t, res[0].Amax/127, res[0].Scale)
			require.Positive(t, res[0].Amax)
			require.False(t, math.IsInf(res[0].KL, 0) || math.IsNaN(res[0].KL))
			if tc.warning == "" {
				require.Empty(t, res[0].Warnings)
			} else {
				require.Contains(t, fmt.Sprint(res[0].Warnings), tc.warning)
			}
		})
	}
}

// A tensor that is zero in the first batch has no maximum to start from; it then no longer depends on order.
func TestZeroFirstBatchIsCountedStably(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	x := randomBatches(r, 2, 500)
	late, err := collect(t, Entropy, 2, r, [][]float32{make([]float32, 500), x[0], x[1]}).Results()
	require.NoError(t, err)
	stable, err := collect(t, EntropyStable, 1, r, [][]float32{x[1], make([]float32, 500), x[0]}).Results()
	require.NoError(t, err)
	require.Equal(t, stable[0].Histogram, late[0].Histogram)
	require.Equal(t, stable[0].Amax, late[0].Amax)
}

// An engine that is not deterministic may exceed the maximum it gave in the first pass: the range stays what it was.
func TestFirstBatchAboveItsMaximum(t *testing.T) {
	c, err := NewCollector(Entropy, []string{"x"}, Options{})
	require.NoError(t, err)
	s := c.NewShard()
	s.ObserveMax(0, []float32{1})
	require.NoError(t, c.EndFirstMax())
	s.Observe(0, []float32{1.0000001, 0.5})
	require.NoError(t, c.EndBatch())
	s.Observe(0, []float32{1.0000001})
	require.NoError(t, c.EndBatch())
	res, err := c.Results()
	require.NoError(t, err)
	require.Equal(t, float32(2), res[0].Histogram.Range, "doubled by the second batch only")
	require.EqualValues(t, 1, res[0].Histogram.Counts[1023])
	require.EqualValues(t, 1, res[0].Histogram.Counts[1024])
}

func TestCollectorRefuses(t *testing.T) {
	_, err := NewCollector("kl", []string{"x"}, Options{})
	require.ErrorIs(t, err, ErrMethod)
	_, err = NewCollector(Entropy, []string{"x", "x"}, Options{})
	require.ErrorContains(t, err, `tensor "x" is listed twice`)
	for _, p := range []float64{-1, 1.5, math.NaN()} {
		_, err = NewCollector(Percentile, []string{"x"}, Options{Percentile: p})
		require.ErrorContains(t, err, "share above 0")
	}

	c, err := NewCollector(Entropy, []string{"x", "y"}, Options{})
	require.NoError(t, err)
	_, err = c.Results()
	require.ErrorIs(t, err, ErrOrder)
	s := c.NewShard()
	s.Observe(0, []float32{1})
	require.ErrorIs(t, c.EndBatch(), ErrOrder)

	c, err = NewCollector(EntropyStable, []string{"x", "y"}, Options{})
	require.NoError(t, err)
	require.False(t, c.NeedsFirstMax())
	require.ErrorIs(t, c.EndFirstMax(), ErrOrder)
	s = c.NewShard()
	s.Observe(0, []float32{1})
	require.NoError(t, c.EndBatch())
	_, err = c.Results()
	require.EqualError(t, err, `tensor "y": no value was observed in 1 batches`)
	s.Observe(1, []float32{1})
	_, err = c.Results()
	require.ErrorIs(t, err, ErrOrder)
	require.NoError(t, c.EndBatch())
	_, err = c.Results()
	require.NoError(t, err)
	_, err = ParseMethod("entropi")
	require.EqualError(t, err, `unknown calibration method "entropi": use one of entropy, entropy-stable, minmax, percentile, mse`)
}

func BenchmarkObserve(b *testing.B) {
	kinds := map[string]func(v float32) float32{
		"normal": func(v float32) float32 { return v },
		"relu":   func(v float32) float32 { return max(v, 0) },
		"relu6":  func(v float32) float32 { return min(max(6*v, 0), 6) },
		"zero":   func(float32) float32 { return 0 },
	}
	inf := float32(math.Inf(1))
	for _, m := range []Method{Entropy, MinMax} {
		for _, n := range []int{1000, 200_000, 3_000_000} {
			for _, kind := range []string{"normal", "relu", "relu6", "zero", "normal in 3 views", "normal with gates"} {
				views, of := []View{Whole(0)}, kinds[kind]
				switch {
				case kind == "normal with gates": // a convolution with its HardSwish
					views, of = trio(0, 1, 2, 1./6, 0.5), func(v float32) float32 { return 3 * v }
				case of == nil: // a convolution with its Relu6 and a Concat
					views, of = []View{Whole(0), bounded(1, 0, 2), bounded(2, 0, inf)}, kinds["normal"]
				}
				r := rand.New(rand.NewPCG(1, 1))
				x := make([]float32, n)
				for i := range x {
					x[i] = of(float32(r.NormFloat64()))
				}
				c, err := NewCollector(m, []string{"x", "y", "z"}, Options{})
				require.NoError(b, err)
				source, err := c.Source(views...)
				require.NoError(b, err)
				s := c.NewShard()
				if c.NeedsFirstMax() {
					s.ObserveMax(source, x)
					require.NoError(b, c.EndFirstMax())
				}
				b.Run(fmt.Sprintf("%s/%s/%d", m, kind, n), func(b *testing.B) {
					for b.Loop() {
						s.Observe(source, x)
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/value")
				})
			}
		}
	}
}
