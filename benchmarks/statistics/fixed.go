package main

import (
	"fmt"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/quantgate/quantgate/accuracy"
)

// fixedCell is one setting of a comparison on N images drawn independently, of which Loss is the true loss (relative to Base
// where that is not 0) and the margin at once.
type fixedCell struct {
	N           int
	Loss        float64
	Discordance float64
	Base        float64 `json:",omitempty"` // the base's accuracy, for a relative loss

	Draws     int  // simulated comparisons
	Coverage  rate // the interval holds the true loss
	FalsePass rate // the verdict is pass although the loss is at the margin, not inside
	FalseFail rate // the verdict is fail although the loss is at the margin, not outside
}

// rate is a probability, and its share among simulations.
type rate struct{ Exact, Simulated float64 }

// deviation is the simulation's distance from the exact rate in standard errors.
func (r rate) deviation(draws int) float64 {
	se := math.Sqrt(r.Exact * (1 - r.Exact) / float64(draws))
	if se == 0 {
		return 0
	}
	return (r.Simulated - r.Exact) / se
}

func (c fixedCell) String() string {
	s := fmt.Sprintf("n %d, loss %.2f, discordance %.0f %%", c.N, c.Loss*100, c.Discordance*100)
	if c.Base > 0 {
		s += fmt.Sprintf(", base %.0f %%", c.Base*100)
	}
	return s
}

// margin is the true loss as a margin.
func (c fixedCell) margin() accuracy.MaxLoss {
	return accuracy.MaxLoss{Value: c.Loss, Relative: c.Base > 0}
}

// probabilities of an image being right at both, only at the base, only at the candidate.
func (c fixedCell) probabilities() (both, b, cand float64) {
	diff := c.Loss
	base := 0.75
	if c.Base > 0 {
		base, diff = c.Base, c.Loss*c.Base
	}
	b, cand = (c.Discordance+diff)/2, (c.Discordance-diff)/2
	return base - b, b, cand
}

func fixedCells(bases []float64, draws int) []fixedCell {
	var cells []fixedCell
	if bases == nil {
		bases = []float64{0}
	}
	for _, base := range bases {
		for _, n := range sizes {
			for _, d := range discordances {
				for _, loss := range losses {
					cells = append(cells, fixedCell{N: n, Loss: loss, Discordance: d, Base: base})
				}
			}
		}
	}
	each(len(cells), func(i int) {
		cells[i].exact()
		cells[i].simulate(draws, rand.New(rand.NewPCG(1, uint64(i))))
		// Among hundreds of cells luck alone exceeds 3.5 standard errors now and then: such a cell is drawn again, afresh.
		if first := cells[i].deviation(); first > 3.5 {
			cells[i].simulate(40*draws, rand.New(rand.NewPCG(3, uint64(i))))
			fmt.Printf("%s: %.2f standard errors off in %d draws, %.2f in %d fresh ones\n", cells[i], first, draws, cells[i].deviation(), 40*draws)
		}
	})
	return cells
}

// verdict is -1 for pass, 1 for fail, 0 for neither, at the true loss; the interval holds the true loss where it is 0.
func (c fixedCell) verdict(crit float64, both, b, cand int) int {
	z := accuracy.MarginZ(accuracy.Table2x2{Both: both, BaseOnly: b, CandOnly: cand, Neither: c.N - both - b - cand}, c.margin())
	switch {
	case z <= -crit:
		return -1
	case z >= crit:
		return 1
	}
	return 0
}

// exact sums the probabilities of all outcomes, but for those beyond 9 standard deviations of a count: the discordant pairs,
// those among them that only the base got right, and, for a relative loss, those that both got right, on which the verdict
// turns from pass over neither to fail as their number falls.
func (c *fixedCell) exact() {
	crit := distuv.UnitNormal.Quantile(1 - alpha)
	pBoth, pb, pc := c.probabilities()
	d := c.Discordance
	pairs := binomial(c.N, d)
	for n := pairs.low; n <= pairs.high; n++ {
		only := binomial(n, pb/(pb+pc))
		both := binomial(c.N-n, pBoth/(1-d))
		for b := only.low; b <= only.high; b++ {
			p := pairs.mass(n) * only.mass(b)
			if c.Base == 0 {
				c.add(c.verdict(crit, c.N/2, b, n-b), p)
				continue
			}
			at := func(k int) int { return c.verdict(crit, k, b, n-b) }
			from := both.low
			for _, v := range []int{1, 0} { // fail up to a number of images, then neither, then pass
				to := first(from, both.high+1, func(k int) bool { return at(k) < v })
				c.add(v, p*both.sum(from, to-1))
				from = to
			}
			c.add(-1, p*both.sum(from, both.high))
		}
	}
	c.Coverage.Exact = 1 - c.FalsePass.Exact - c.FalseFail.Exact
}

// deviation is the largest of the cell's, in standard errors.
func (c fixedCell) deviation() float64 {
	most := 0.0
	for _, r := range []rate{c.Coverage, c.FalsePass, c.FalseFail} {
		most = max(most, math.Abs(r.deviation(c.Draws)))
	}
	return most
}

func (c *fixedCell) add(verdict int, p float64) {
	switch verdict {
	case -1:
		c.FalsePass.Exact += p
	case 1:
		c.FalseFail.Exact += p
	}
}

// first is the least k in [low, high) with ok(k), high where there is none; ok is false and then true.
func first(low, high int, ok func(int) bool) int {
	if low >= high || ok(low) {
		return low
	}
	if !ok(high - 1) {
		return high
	}
	for high-low > 1 {
		mid := (low + high) / 2
		if ok(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}

func (c *fixedCell) simulate(draws int, rng *rand.Rand) {
	crit := distuv.UnitNormal.Quantile(1 - alpha)
	pBoth, pb, pc := c.probabilities()
	draw := func(n int, p float64) int {
		return int(distuv.Binomial{N: float64(n), P: p, Src: rng}.Rand())
	}
	c.Draws = draws
	pass, fail := 0, 0
	for range draws {
		b := draw(c.N, pb)
		cand := draw(c.N-b, pc/(1-pb))
		both := draw(c.N-b-cand, pBoth/(1-pb-pc))
		switch c.verdict(crit, both, b, cand) {
		case -1:
			pass++
		case 1:
			fail++
		}
	}
	c.FalsePass.Simulated = float64(pass) / float64(draws)
	c.FalseFail.Simulated = float64(fail) / float64(draws)
	c.Coverage.Simulated = 1 - c.FalsePass.Simulated - c.FalseFail.Simulated
}

// counts is a binomial distribution between two counts that hold all of it that matters.
type counts struct {
	low, high  int
	masses     []float64
	cumulative []float64 // cumulative[i] is the sum of masses before i
}

func binomial(n int, p float64) counts {
	mean, sd := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
	c := counts{low: max(0, int(mean-9*sd-9)), high: min(n, int(mean+9*sd+9))}
	dist := distuv.Binomial{N: float64(n), P: p}
	c.cumulative = []float64{0}
	sum := 0.0
	for k := c.low; k <= c.high; k++ {
		mass := dist.Prob(float64(k))
		switch p { // 0 and 1 are no binomials to the library
		case 0:
			mass = b2f(k == 0)
		case 1:
			mass = b2f(k == n)
		}
		sum += mass
		c.masses, c.cumulative = append(c.masses, mass), append(c.cumulative, sum)
	}
	return c
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c counts) mass(k int) float64 { return c.masses[k-c.low] }

// sum is the probability of from..to.
func (c counts) sum(from, to int) float64 {
	if to < from {
		return 0
	}
	return c.cumulative[to+1-c.low] - c.cumulative[from-c.low]
}

// printFixed names the worst cells.
func printFixed(title string, cells []fixedCell) {
	fmt.Printf("%s: %d cells\n", title, len(cells))
	worst := func(what string, value func(fixedCell) float64, keep func(fixedCell) bool) {
		var at *fixedCell
		for i := range cells {
			if c := &cells[i]; keep(*c) && (at == nil || value(*c) > value(*at)) {
				at = c
			}
		}
		fmt.Printf("  %-38s %7.3f   (%s)\n", what, math.Abs(value(*at)), at)
	}
	all := func(fixedCell) bool { return true }
	worst("lowest coverage, %", func(c fixedCell) float64 { return -100 * c.Coverage.Exact }, all)
	worst("highest coverage, %", func(c fixedCell) float64 { return 100 * c.Coverage.Exact }, all)
	worst("highest false pass, positive margin, %", func(c fixedCell) float64 { return 100 * c.FalsePass.Exact }, func(c fixedCell) bool { return c.Loss > 0 })
	worst("highest false pass, margin 0, %", func(c fixedCell) float64 { return 100 * c.FalsePass.Exact }, func(c fixedCell) bool { return c.Loss == 0 })
	worst("highest false fail, %", func(c fixedCell) float64 { return 100 * c.FalseFail.Exact }, all)
	worst("largest deviation, standard errors", fixedCell.deviation, all)
}
