package accuracy

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// The p-values are binomial sums done by hand: P(X >= b), X ~ Binomial(b+c, 1/2).
func TestClassLosses(t *testing.T) {
	got := classLosses(map[int]classCount{
		0: {n: 50},                           // nothing discordant: not listed
		1: {n: 50, baseOnly: 10},             // 1/1024
		2: {n: 50, baseOnly: 3, candOnly: 1}, // (4+1)/16
		3: {n: 50, baseOnly: 1, candOnly: 3}, // 1 - 1/16
		4: {n: 20, candOnly: 2},              // 1
		5: {n: 25, baseOnly: 3, candOnly: 1}, // as class 2, of fewer images
	})
	want := []ClassLoss{
		{1, 50, 10, 0, 0.2, 1.0 / 1024, 5.0 / 1024},
		{5, 25, 3, 1, 0.08, 5.0 / 16, 1},
		{2, 50, 3, 1, 0.04, 5.0 / 16, 1},
		{3, 50, 1, 3, -0.04, 15.0 / 16, 1},
		{4, 20, 0, 2, -0.1, 1, 1},
	}
	require.Len(t, got, len(want))
	for i, w := range want {
		require.InDelta(t, w.P, got[i].P, 1e-12)
		require.InDelta(t, w.PAdjusted, got[i].PAdjusted, 1e-12)
		got[i].P, got[i].PAdjusted = w.P, w.PAdjusted
		require.Equal(t, w, got[i])
	}
	require.Empty(t, classLosses(nil))
}

// Three images by hand: two at 0.9, one of them right, share a bin; the third stands alone.
// |1 - 1.8|/3 + |1 - 0.3|/3 = 0.5.
func TestCalibrationError(t *testing.T) {
	var c calibration
	require.True(t, math.IsNaN(c.error()))
	for _, o := range []Outcome{
		{Top1Prob: 0.9, Rank: 1}, {Top1Prob: 0.9, Rank: 2}, {Top1Prob: 0.3, Rank: 1}, {NaN: true, Top1: -1}, {Top1Prob: nan, Rank: 1},
	} {
		c.add(o)
	}
	require.InDelta(t, 0.5, c.error(), 1e-7) // the probabilities are float32
	c = calibration{}
	c.add(Outcome{Top1Prob: 1, Rank: 1})
	c.add(Outcome{Top1Prob: 0, Rank: 1})
	require.Equal(t, 1, c.n[eceBins-1])
	require.Equal(t, 1, c.n[0])
	require.InDelta(t, 0.5, c.error(), 1e-12)
}

func TestTallyCountsClasses(t *testing.T) {
	tally := NewTally("m", []string{"fp32", "int8"})
	for i, hits := range [][2]int{{1, 1}, {1, 2}, {1, 2}, {2, 1}} { // ranks at the base and at the candidate
		r := Record{ID: i, Label: i / 3, Shifts: make([]Shift, 1)}
		for _, rank := range hits {
			r.Outcomes = append(r.Outcomes, Outcome{Top1: i/3 + rank - 1, Rank: rank, Top1Prob: 0.5})
		}
		require.NoError(t, tally.Add(&r))
	}
	s := judge(t, DefaultPolicy(), tally)
	c := s.Models[0].Precisions[1].Candidate
	require.Equal(t, []ClassLoss{
		{Class: 0, N: 3, BaseOnly: 2, Loss: 2.0 / 3, P: 0.25, PAdjusted: 0.5},
		{Class: 1, N: 1, CandOnly: 1, Loss: -1, P: 1, PAdjusted: 1},
	}, c.Classes)
	require.InDelta(t, 0.25, s.Models[0].Precisions[0].ECE, 1e-12) // 3 of 4 right at 0.5
	require.InDelta(t, 0, s.Models[0].Precisions[1].ECE, 1e-12)    // 2 of 4
}
