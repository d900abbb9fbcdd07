package main

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/stat/distuv"
)

// The sums are those over every single table, where there are few enough to visit.
func TestExactIsTheWholeSum(t *testing.T) {
	lgamma := func(n int) float64 {
		v, _ := math.Lgamma(float64(n + 1))
		return v
	}
	term := func(k int, p float64) float64 {
		if k == 0 {
			return 0
		}
		return float64(k) * math.Log(p)
	}
	crit := distuv.UnitNormal.Quantile(1 - alpha)
	for _, c := range []fixedCell{
		{N: 60, Loss: 0.1, Discordance: 0.2, Base: 0.6},
		{N: 60, Loss: 0.1, Discordance: 0.2},
		{N: 60, Discordance: 0.1, Base: 0.9},
		{N: 60, Loss: 0.05, Discordance: 0.05},
	} {
		pBoth, pb, pc := c.probabilities()
		pass, fail := 0.0, 0.0
		for b := 0; b <= c.N; b++ {
			for cand := 0; b+cand <= c.N; cand++ {
				if pc == 0 && cand > 0 {
					continue
				}
				for both := 0; b+cand+both <= c.N; both++ {
					rest := c.N - b - cand - both
					p := math.Exp(lgamma(c.N) - lgamma(b) - lgamma(cand) - lgamma(both) - lgamma(rest) +
						term(b, pb) + term(cand, pc) + term(both, pBoth) + term(rest, 1-pBoth-pb-pc))
					switch c.verdict(crit, both, b, cand) {
					case -1:
						pass += p
					case 1:
						fail += p
					}
				}
			}
		}
		c.exact()
		require.InDelta(t, pass, c.FalsePass.Exact, 1e-9, c)
		require.InDelta(t, fail, c.FalseFail.Exact, 1e-9, c)
		require.Positive(t, fail)
	}
}
