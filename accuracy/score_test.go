package accuracy

import (
	"math"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	inf = float32(math.Inf(1))
	nan = float32(math.NaN())
)

func TestScore(t *testing.T) {
	for _, x := range []struct {
		name          string
		logits        []float32
		label, offset int
		want          Outcome
	}{
		// Probabilities: scipy.special.log_softmax in float64 of these float32 logits, exp, rounded to float32.
		{"plain", []float32{1.5, -2, 0.25, 7, 3, 6.5, -100, 0}, 5, 0, Outcome{Top1: 3, Top1Prob: 0.61306846, Rank: 2, LabelProb: 0.3718448, Margin: 0.5}},
		{"offset drops the background", []float32{99, 1, 3, 2}, 2, 1, Outcome{Top1: 1, Top1Prob: 0.66524094, Rank: 2, LabelProb: 0.24472848, Margin: 1}},
		{"tie won by the lower label", []float32{1, 4, 4, 0}, 1, 0, Outcome{Top1: 1, Top1Prob: 0.48353495, Rank: 1, LabelProb: 0.48353495, TiesAfter: 1}},
		{"tie lost by the higher label", []float32{1, 4, 4, 0}, 2, 0, Outcome{Top1: 1, Top1Prob: 0.48353495, Rank: 2, LabelProb: 0.48353495, TiesBefore: 1}},
		{"all equal", []float32{2, 2, 2, 2}, 2, 0, Outcome{Top1: 0, Top1Prob: 0.25, Rank: 3, LabelProb: 0.25, TiesBefore: 2, TiesAfter: 1}},
		{"NaN anywhere", []float32{9, 1, nan}, 0, 0, Outcome{Top1: -1, NaN: true}},
		{"NaN below the offset", []float32{nan, 9, 1}, 0, 1, Outcome{Top1: 0, Top1Prob: 0.99966466, Rank: 1, LabelProb: 0.99966466, Margin: 8}},
		{"one +Inf", []float32{1, inf, 2}, 1, 0, Outcome{Top1: 1, Top1Prob: 1, Rank: 1, LabelProb: 1, Margin: inf}},
		{"two +Inf", []float32{inf, 1, inf}, 2, 0, Outcome{Top1: 0, Top1Prob: 0.5, Rank: 2, LabelProb: 0.5, TiesBefore: 1}},
		{"label beside +Inf", []float32{inf, 1, 2}, 2, 0, Outcome{Top1: 0, Top1Prob: 1, Rank: 2, Margin: inf}},
		{"-Inf label", []float32{1, 1, -inf}, 2, 0, Outcome{Top1: 0, Top1Prob: 0.5, Rank: 3}},
		{"all -Inf", []float32{-inf, -inf}, 1, 0, Outcome{Top1: 0, Top1Prob: 0.5, Rank: 2, LabelProb: 0.5, TiesBefore: 1}},
		{"huge", []float32{3e38, -3e38}, 0, 0, Outcome{Top1: 0, Top1Prob: 1, Rank: 1, LabelProb: 1, Margin: inf}},
		{"one class", []float32{5}, 0, 0, Outcome{Top1: 0, Top1Prob: 1, Rank: 1, LabelProb: 1, Margin: inf}},
	} {
		t.Run(x.name, func(t *testing.T) {
			got, err := Score(x.logits, x.label, x.offset)
			require.NoError(t, err)
			require.InEpsilon(t, 1+x.want.Top1Prob, 1+got.Top1Prob, 1e-7)
			require.InEpsilon(t, 1+x.want.LabelProb, 1+got.LabelProb, 1e-7)
			got.Top1Prob, got.LabelProb = x.want.Top1Prob, x.want.LabelProb
			require.Equal(t, x.want, got)
		})
	}
}

func TestScoreErrors(t *testing.T) {
	for _, x := range []struct {
		width, label, offset int
		want                 error
	}{
		{10, 10, 0, ErrLabel}, {10, -1, 0, ErrLabel}, {10, 9, 1, ErrLabel}, {1, 0, 1, ErrWidth}, {0, 0, 0, ErrWidth}, {10, 0, -1, ErrWidth},
	} {
		_, err := Score(make([]float32, x.width), x.label, x.offset)
		require.ErrorIs(t, err, x.want, "%+v", x)
		require.NotContains(t, err.Error(), "\n")
	}
	_, err := Score(make([]float32, 1000), 1000, 1)
	require.EqualError(t, err, "label out of range: label 1000, but the model has classes 0..998 (1000 outputs, class offset 1)")
	_, err = CompareLogits(make([]float32, 10), make([]float32, 11), 0)
	require.ErrorIs(t, err, ErrWidth)
	_, err = CompareLogits(make([]float32, 1), make([]float32, 1), 1)
	require.ErrorIs(t, err, ErrWidth)
}

// Coarse logits tie all the time; the rank must be the label's place in a stable sort, and its range what other orders give.
func TestScoreAgainstSort(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		z := make([]float32, 1+rng.IntN(20))
		for i := range z {
			z[i] = float32(rng.IntN(6))
			if rng.IntN(40) == 0 {
				z[i] = []float32{inf, -inf}[rng.IntN(2)]
			}
		}
		label := rng.IntN(len(z))
		o, err := Score(z, label, 0)
		require.NoError(t, err)

		classes := make([]int, len(z))
		for i := range classes {
			classes[i] = i
		}
		sort.SliceStable(classes, func(i, j int) bool { return z[classes[i]] > z[classes[j]] })
		require.Equal(t, classes[0], o.Top1)
		require.Equal(t, label, classes[o.Rank-1], "%v label %d", z, label)
		best, worst := 1, 0
		for _, v := range z {
			if v > z[label] {
				best++
			}
			if v >= z[label] {
				worst++
			}
		}
		require.Equal(t, []int{best, worst}, []int{o.Rank - o.TiesBefore, o.Rank + o.TiesAfter})
		for k := 1; k <= len(z); k++ {
			require.Equal(t, o.Rank <= k, o.Hit(k))
			require.Equal(t, best <= k && worst > k, o.TiedAt(k))
		}
	}
}

func TestCompareLogits(t *testing.T) {
	// lp, lq = log_softmax(base), log_softmax(cand) in float64 (SciPy 1.17.1); KL = sum(exp(lp) * (lp - lq)).
	base := []float32{1.5, -2, 0.25, 7, 3, 6.5, -100, 0}
	cand := []float32{1.25, -2.5, 0.5, 6.75, 3.5, 6.875, -90, 0.125}
	s, err := CompareLogits(base, cand, 0)
	require.NoError(t, err)
	require.InEpsilon(t, 0.04837963572427137, s.KL, 1e-12)
	require.Equal(t, float32(10), s.MaxLogitChange)

	s, err = CompareLogits(append([]float32{500}, base...), append([]float32{-500}, cand...), 1)
	require.NoError(t, err)
	require.InEpsilon(t, 0.04837963572427137, s.KL, 1e-12, "the offset's output takes no part")

	for _, x := range []struct {
		name       string
		base, cand []float32
		want       Shift
	}{
		{"equal", base, base, Shift{}},
		{"shifted by a constant", []float32{1, 2, 3}, []float32{11, 12, 13}, Shift{MaxLogitChange: 10}},
		{"far apart stays finite", []float32{3e4, -3e4, 0}, []float32{-3e4, 3e4, 1}, Shift{KL: 60000, MaxLogitChange: 60000}},
		{"+Inf against finite", []float32{0, inf}, []float32{0, 0}, Shift{KL: math.Ln2, MaxLogitChange: inf}},
		{"finite against +Inf", []float32{0, 0}, []float32{0, inf}, Shift{KL: math.Inf(1), MaxLogitChange: inf}},
		{"same +Inf", []float32{0, inf}, []float32{0, inf}, Shift{}},
		{"-Inf where the base has weight", []float32{0, 0}, []float32{0, -inf}, Shift{KL: math.Inf(1), MaxLogitChange: inf}},
		{"-Inf on both", []float32{0, 0, -inf}, []float32{0, 0, -inf}, Shift{}},
	} {
		t.Run(x.name, func(t *testing.T) {
			s, err := CompareLogits(x.base, x.cand, 0)
			require.NoError(t, err)
			require.Equal(t, x.want.MaxLogitChange, s.MaxLogitChange)
			if math.IsInf(x.want.KL, 1) {
				require.Equal(t, x.want.KL, s.KL)
			} else {
				require.InDelta(t, x.want.KL, s.KL, 1e-12)
			}
		})
	}
	s, err = CompareLogits([]float32{1, nan}, []float32{1, 2}, 0)
	require.NoError(t, err)
	require.True(t, math.IsNaN(s.KL) && math.IsNaN(float64(s.MaxLogitChange)))
}

func TestScoreDoesNotAllocate(t *testing.T) {
	base, cand := randomLogits(1), randomLogits(2)
	require.Zero(t, testing.AllocsPerRun(10, func() {
		_, _ = Score(base, 7, 0)
		_, _ = CompareLogits(base, cand, 0)
	}))
}

func randomLogits(seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 0))
	z := make([]float32, 1000)
	for i := range z {
		z[i] = float32(rng.NormFloat64() * 3)
	}
	return z
}

func BenchmarkScore(b *testing.B) {
	z := randomLogits(1)
	for b.Loop() {
		_, _ = Score(z, 7, 0)
	}
}

func BenchmarkCompareLogits(b *testing.B) {
	base, cand := randomLogits(1), randomLogits(2)
	for b.Loop() {
		_, _ = CompareLogits(base, cand, 0)
	}
}
