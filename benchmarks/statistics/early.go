package main

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/quantgate/quantgate/accuracy"
)

// earlyCell is one setting of runs that may stop early, against a margin of 0.5 points at 95 %.
type earlyCell struct {
	Target      accuracy.Target
	N           int
	Loss        float64 // for a set, of its images; one image more where Beyond
	Beyond      bool
	Discordance float64
	Runs        int

	Pass, Fail   float64 // shares of the runs
	Contradicted float64 // set: verdicts that all images would have reversed; population: verdicts against the true loss
	Images       float64 // mean share of the images used
}

// earlyCells are the settings, at a loss of 0.5 points both the largest loss of a set that passes and the smallest that fails.
func earlyCells(runs int) []earlyCell {
	var cells []earlyCell
	for _, target := range []accuracy.Target{accuracy.TargetSet, accuracy.TargetPopulation} {
		for _, n := range sizes {
			for _, d := range discordances {
				for _, loss := range append(losses, 0.015) {
					if loss > d {
						continue
					}
					c := earlyCell{Target: target, N: n, Loss: loss, Discordance: d, Runs: runs}
					cells = append(cells, c)
					if loss == margin && target == accuracy.TargetSet {
						c.Beyond = true
						cells = append(cells, c)
					}
				}
			}
		}
	}
	each(len(cells), func(i int) { cells[i].simulate(rand.New(rand.NewPCG(2, uint64(i)))) })
	return cells
}

func (c *earlyCell) simulate(rng *rand.Rand) {
	policy := accuracy.DefaultPolicy()
	policy.Target = c.Target
	n := float64(c.N)
	diff := int(math.Floor(c.Loss*n + 1e-9))
	if c.Beyond {
		diff++
	}
	pairs := max(diff, int(math.Round(c.Discordance*n)))
	b := (pairs + diff) / 2
	cand := b - diff
	images := make([]int8, c.N)
	used, pass, fail := 0, 0, 0
	for range c.Runs {
		if c.Target == accuracy.TargetSet {
			place(images, b, cand, rng)
		} else {
			sample(images, (c.Discordance+c.Loss)/2, (c.Discordance-c.Loss)/2, rng)
		}
		s, err := accuracy.NewStopper(c.N, policy)
		if err != nil {
			panic(err) // constant arguments
		}
		for i := 0; i < c.N && s.Verdict() == accuracy.Inconclusive; i++ {
			s.Add(images[i] >= 0, images[i] <= 0)
		}
		used += s.Images()
		switch s.Verdict() {
		case accuracy.Pass:
			pass++
		case accuracy.Fail:
			fail++
		}
	}
	runs := float64(c.Runs)
	c.Pass, c.Fail, c.Images = float64(pass)/runs, float64(fail)/runs, float64(used)/runs/n
	switch {
	case c.Target == accuracy.TargetPopulation && c.Loss == margin:
		c.Contradicted = max(c.Pass, c.Fail) // each is an error of its own side
	case c.Loss > margin || c.Beyond:
		c.Contradicted = c.Pass
	default:
		c.Contradicted = c.Fail
	}
}

// place puts b losses (1) and cand gains (-1) at random places.
func place(images []int8, b, cand int, rng *rand.Rand) {
	clear(images)
	for k := range b + cand {
		v := int8(1)
		if k >= b {
			v = -1
		}
		i := rng.IntN(len(images))
		for images[i] != 0 {
			i = rng.IntN(len(images))
		}
		images[i] = v
	}
}

// sample makes every image a loss or a gain with the given probabilities.
func sample(images []int8, b, cand float64, rng *rand.Rand) {
	for i := range images {
		u := rng.Float64()
		switch {
		case u < b:
			images[i] = 1
		case u < b+cand:
			images[i] = -1
		default:
			images[i] = 0
		}
	}
}

// bound is the most that a share of wrong verdicts may be: the promise and three standard errors.
func (c earlyCell) bound() float64 {
	return alpha + 3*math.Sqrt(alpha*(1-alpha)/float64(c.Runs))
}

func printEarly(cells []earlyCell) {
	fmt.Printf("Early stopping: %d cells of %d runs\n", len(cells), cells[0].Runs)
	worst := cells[0]
	for _, c := range cells {
		if c.Contradicted > worst.Contradicted {
			worst = c
		}
	}
	fmt.Printf("  most wrong verdicts: %.2f %% (bound %.2f %%): %s, n %d, loss %.2f, discordance %.0f %%\n",
		100*worst.Contradicted, 100*worst.bound(), worst.Target, worst.N, 100*worst.Loss, 100*worst.Discordance)
	fmt.Println("  target      n      discordance  loss      pass    fail    open   wrong   images used")
	for _, c := range cells {
		more := " "
		if c.Beyond {
			more = "+"
		}
		fmt.Printf("  %-10s %6d  %8.0f %%     %5.2f%s  %6.2f  %6.2f  %6.2f  %6.2f  %7.1f %%\n", c.Target, c.N, 100*c.Discordance,
			100*c.Loss, more, 100*c.Pass, 100*c.Fail, 100*max(0, 1-c.Pass-c.Fail), 100*c.Contradicted, 100*c.Images)
	}
}
