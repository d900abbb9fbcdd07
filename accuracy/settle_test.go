package accuracy

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/stat/distuv"
)

// The planned number of images has the promised chance, summed exactly over all outcomes of that many images: the formula
// is asymptotic, so within two and a half points of it.
func TestPlanHasItsPower(t *testing.T) {
	for _, p := range []Plan{
		{MaxLoss: MaxLoss{Value: 0.01}, Discordance: 0.02, Power: 0.9},
		{MaxLoss: MaxLoss{Value: 0.01}, Loss: 0.003, Discordance: 0.05, Power: 0.8},
		{MaxLoss: MaxLoss{Value: 0.005}, Loss: 0.02, Discordance: 0.03, Power: 0.9},
		{MaxLoss: MaxLoss{}, Loss: 0.01, Discordance: 0.02, Power: 0.9},
	} {
		p.Confidence = 0.95
		n, err := p.Images()
		require.NoError(t, err)
		crit := quantile(0.95)
		power := 0.0
		pairs := distuv.Binomial{N: float64(n), P: p.Discordance}
		mean, sd := pairs.Mean(), pairs.StdDev()
		for k := int(max(0, mean-8*sd)); float64(k) <= mean+8*sd; k++ {
			only := distuv.Binomial{N: float64(k), P: (p.Discordance + p.Loss) / 2 / p.Discordance}
			for b := 0; b <= k; b++ {
				z := lossZ(n, b, k-b, p.MaxLoss.Value)
				if p.Loss < p.MaxLoss.Value && z <= -crit || p.Loss > p.MaxLoss.Value && z >= crit {
					power += pairs.Prob(float64(k)) * only.Prob(float64(b))
				}
			}
		}
		require.InDelta(t, p.Power, power, 0.025, "%+v: %d images", p, n)
	}
}

func TestPlan(t *testing.T) {
	p := Plan{MaxLoss: MaxLoss{Value: 0.005}, Discordance: 0.02, Base: 0.75, Confidence: 0.95, Power: 0.9}
	n, err := p.Images()
	require.NoError(t, err)
	// (z(0.975) sd0 + z(0.9) sd1)^2 / 0.005^2 with sd1 = sqrt(0.02) and sd0 next to it: about (3.2415/0.005)^2 * 0.02.
	require.InEpsilon(t, math.Pow(3.2415/0.005, 2)*0.02, float64(n), 0.05)
	p.MaxLoss.Relative = true
	relative, err := p.Images()
	require.NoError(t, err)
	require.Greater(t, relative, n, "0.5 % of 75 % is less than 0.5 points")
	p.Loss = 0.005
	n, err = p.Images()
	require.NoError(t, err)
	require.Zero(t, n)

	for want, change := range map[string]func(*Plan){
		"discordance 0: must be": func(p *Plan) { p.Discordance = 0 },
		"base accuracy 0":        func(p *Plan) { p.Base = 0 },
		"power 1: must be":       func(p *Plan) { p.Power = 1 },
		"confidence 95":          func(p *Plan) { p.Confidence = 95 },
		"loss 0.75: cannot exceed the share of discordant": func(p *Plan) { p.Loss = 1 },
	} {
		q := p
		change(&q)
		_, err := q.Images()
		require.ErrorContains(t, err, want)
	}
}
