package accuracy

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// tallyOf counts made-up images of one model: at top-1 as given for each candidate, at top-5 all right.
func tallyOf(t *testing.T, model string, precisions []string, tables ...Table2x2) *Tally {
	t.Helper()
	require.Len(t, tables, len(precisions)-1)
	tally := NewTally(model, precisions)
	tally.n = tables[0].N()
	tally.scores[0].correct = [2]int{tables[0].Both + tables[0].BaseOnly, tally.n}
	for i, tab := range tables {
		require.Equal(t, tally.n, tab.N())
		tally.scores[i+1].correct = [2]int{tab.Both + tab.CandOnly, tally.n}
		tally.pairs[i] = pairCount{tables: [2]Table2x2{tab, {Both: tally.n}}, agree: tab.Both, klFinite: tally.n, maxChange: 1}
	}
	return tally
}

var threePrecisions = []string{"fp32", "fp16", "int8"}

func judge(t *testing.T, p Policy, tallies ...*Tally) *Summary {
	t.Helper()
	s, err := Judge(tallies, p)
	require.NoError(t, err)
	return s
}

// The sentences are golden: they are what people read.
func TestVerdicts(t *testing.T) {
	same := Table2x2{Both: 36000, Neither: 12750}
	for _, x := range []struct {
		name    string
		policy  func(*Policy)
		int8    Table2x2
		verdict Verdict
		reason  string
	}{
		{"pass", nil, Table2x2{35800, 200, 150, 12600}, Pass,
			"INT8 top-1 passes: its loss is 0.103 points (95 % interval 0.027 to 0.179), within the margin of 0.5 points, on 48,750 images with 350 discordant pairs (200 right only at FP32, 150 only at INT8); these images would have passed a margin from 0.179 points up and failed one below 0.027."},
		{"fail", nil, Table2x2{35000, 1000, 500, 12250}, Fail,
			"INT8 top-1 fails: its loss is 1.026 points (95 % interval 0.871 to 1.182), beyond the margin of 0.5 points, on 48,750 images with 1,500 discordant pairs (1,000 right only at FP32, 500 only at INT8); these images would have passed a margin from 1.183 points up and failed one below 0.871."},
		{"inconclusive", nil, Table2x2{35400, 600, 400, 12350}, Inconclusive,
			"INT8 top-1 is inconclusive: its loss is 0.410 points (95 % interval 0.284 to 0.538) against a margin of 0.5 points on 48,750 images with 1,000 discordant pairs (600 right only at FP32, 400 only at INT8); about 270,000 images would settle it with 90 % chance at this loss and discordance, 47,000 if the loss were 0.284 points, 1,500,000 if it were 0.538, ever more towards the margin; these images would have passed a margin from 0.539 points up and failed one below 0.283."},
		{"no practical size", nil, Table2x2{35380, 620, 380, 12370}, Inconclusive,
			"INT8 top-1 is inconclusive: its loss is 0.492 points (95 % interval 0.366 to 0.620) against a margin of 0.5 points on 48,750 images with 1,000 discordant pairs (620 right only at FP32, 380 only at INT8); no set of practical size would settle it: with 90 % chance it takes about 37,000,000 images at this loss and discordance, 130,000 if the loss were 0.366 points, 150,000 if it were 0.620, ever more towards the margin; these images would have passed a margin from 0.621 points up and failed one below 0.365."},
		{"gain", nil, Table2x2{35900, 100, 190, 12560}, Pass,
			"INT8 top-1 passes: its loss is -0.185 points (95 % interval -0.255 to -0.117), within the margin of 0.5 points, on 48,750 images with 290 discordant pairs (100 right only at FP32, 190 only at INT8); these images would have passed a margin from 0.000 points up."},
		{"relative", func(p *Policy) { p.MaxLoss.Relative = true }, Table2x2{35800, 200, 150, 12600}, Pass,
			"INT8 top-1 passes: its relative loss is 0.139 % (95 % interval 0.037 to 0.242), within the margin of 0.5 % of FP32's accuracy, on 48,750 images with 350 discordant pairs (200 right only at FP32, 150 only at INT8); these images would have passed a margin from 0.242 % up and failed one below 0.037."},
		{"point", func(p *Policy) { p.Rule = RulePoint }, Table2x2{35400, 600, 400, 12350}, Pass,
			"INT8 top-1 passes by the observed loss alone: its loss is 0.410 points (95 % interval 0.284 to 0.538), within the margin of 0.5 points, on 48,750 images with 1,000 discordant pairs (600 right only at FP32, 400 only at INT8)."},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := DefaultPolicy()
			if x.policy != nil {
				x.policy(&p)
			}
			s := judge(t, p, tallyOf(t, "m", threePrecisions, same, x.int8))
			l := s.Models[0].Primary()
			require.Equal(t, x.verdict, l.Verdict)
			require.Equal(t, x.verdict, s.Verdict)
			require.Equal(t, x.reason, l.Reason)
			require.Equal(t, "int8", l.Candidate)
		})
	}
}

func TestWorstModelDecides(t *testing.T) {
	pass := func(name string) *Tally {
		return tallyOf(t, name, []string{"fp32", "int8"}, Table2x2{35800, 200, 190, 12560})
	}
	fail := tallyOf(t, "bad", []string{"fp32", "int8"}, Table2x2{34000, 2000, 500, 12250})
	open := tallyOf(t, "open", []string{"fp32", "int8"}, Table2x2{870, 14, 9, 407})
	require.Equal(t, Pass, judge(t, DefaultPolicy(), pass("a"), pass("b")).Verdict)
	require.Equal(t, Inconclusive, judge(t, DefaultPolicy(), pass("a"), open).Verdict)
	require.Equal(t, Fail, judge(t, DefaultPolicy(), open, fail, pass("a")).Verdict)
}

func TestSecondaries(t *testing.T) {
	good := Table2x2{35800, 200, 190, 12560}
	bad := Table2x2{34000, 2000, 500, 12250}
	s := judge(t, DefaultPolicy(), tallyOf(t, "m", threePrecisions, bad, good))
	require.Equal(t, Pass, s.Verdict, "FP16 is secondary")
	require.Len(t, s.Warnings, 1)
	require.Contains(t, s.Warnings[0], "m: FP16 top-1 fails")
	require.Contains(t, s.Warnings[0], "(secondary: it does not decide)")

	p := DefaultPolicy()
	p.GateAll = true
	require.Equal(t, Fail, judge(t, p, tallyOf(t, "m", threePrecisions, bad, good)).Verdict)

	p = DefaultPolicy()
	p.Primary = Primary{Candidate: "fp16", K: 1}
	require.Equal(t, Fail, judge(t, p, tallyOf(t, "m", threePrecisions, bad, good)).Verdict)
	p.Primary = Primary{K: 5}
	require.Equal(t, Pass, judge(t, p, tallyOf(t, "m", threePrecisions, bad, good)).Verdict)
}

// R 4.2.2: print(p.adjust(c(0.01, 0.99, 0.02, 0.98, 0.004, 0.996), "holm"))
//
//	[1] 0.050 1.000 0.080 1.000 0.024 1.000
func TestHolm(t *testing.T) {
	looks := []*Look{{PWithin: 0.01, PBeyond: 0.99}, {PWithin: 0.02, PBeyond: 0.98}, {PWithin: 0.004, PBeyond: 0.996}}
	adjust(looks)
	var got []float64
	for _, l := range looks {
		got = append(got, l.PWithinAdjusted, l.PBeyondAdjusted)
	}
	require.InDeltaSlice(t, []float64{0.05, 1, 0.08, 1, 0.024, 1}, got, 1e-12)
}

// The verdict and the interval agree: a pass means the worse end is inside the margin, a fail that the better end is beyond.
func TestVerdictMatchesInterval(t *testing.T) {
	for _, relative := range []bool{false, true} {
		for b := 0; b <= 60; b += 3 {
			for c := 0; c <= 60; c += 4 {
				p := DefaultPolicy()
				p.MaxLoss = MaxLoss{Value: 0.012, Relative: relative}
				s := judge(t, p, tallyOf(t, "m", []string{"fp32", "int8"}, Table2x2{800, b, c, 440 - b - c}))
				l := s.Models[0].Primary()
				_, ends := l.MarginLoss(p.MaxLoss)
				want := Inconclusive
				switch {
				case ends.High <= p.MaxLoss.Value:
					want = Pass
				case ends.Low >= p.MaxLoss.Value:
					want = Fail
				}
				require.Equal(t, want, l.Verdict, "%+v: %+v", l.Table, ends)
				require.Equal(t, want == Inconclusive, l.Settle != nil)
				require.InDeltaSlice(t, []float64{ends.Low, ends.High}, []float64{l.Settled.Low, l.Settled.High}, 1e-12)
				if l.Settle != nil && l.Settle.Images > 0 {
					require.Greater(t, l.Settle.Images, l.Table.N(), "fewer images than were not enough")
				}
			}
		}
	}
}

func TestPrimaryCandidate(t *testing.T) {
	tab := Table2x2{900, 10, 10, 80}
	_, err := Judge([]*Tally{tallyOf(t, "m", []string{"base", "a", "b"}, tab, tab)}, DefaultPolicy())
	require.EqualError(t, err, "model m: candidates [a b], none of them named int8: name the one that decides, such as a:top1")
	p := DefaultPolicy()
	p.Primary.Candidate = "int8"
	_, err = Judge([]*Tally{tallyOf(t, "m", []string{"fp32", "fp16"}, tab)}, p)
	require.EqualError(t, err, "model m: primary int8:top1: no candidate int8 among [fp16]")
	require.Equal(t, "fp16", judge(t, DefaultPolicy(), tallyOf(t, "m", []string{"fp32", "fp16"}, tab)).Models[0].Primary().Candidate)
	_, err = Judge([]*Tally{NewTally("m", []string{"fp32", "int8"})}, DefaultPolicy())
	require.ErrorContains(t, err, "no scored images")
	_, err = Judge(nil, DefaultPolicy())
	require.ErrorContains(t, err, "nothing to judge")
	single := NewTally("m", []string{"fp32"})
	require.NoError(t, single.Add(&Record{Outcomes: make([]Outcome, 1)}))
	require.Equal(t, None, judge(t, DefaultPolicy(), single).Verdict)
}

func TestBaseGotNothingRight(t *testing.T) {
	for _, relative := range []bool{false, true} {
		p := DefaultPolicy()
		p.MaxLoss.Relative = relative
		tally := tallyOf(t, "m", []string{"fp32", "int8"}, Table2x2{Neither: 900})
		tally.scores[0].correct[1] = 0
		s := judge(t, p, tally)
		l := s.Models[0].Primary()
		require.True(t, math.IsNaN(l.RelLoss))
		require.Equal(t, Inconclusive, s.Verdict, "a loss against nothing means nothing")
		require.True(t, s.Models[0].Guesses)
		require.Equal(t, "INT8 top-1 is inconclusive: FP32 itself is right on 0 % of 900 images at top-1, no better than guessing, so a loss against it means nothing: check labels, class order and preprocessing.", l.Reason)
		require.Equal(t, "m: FP32 is right on 0 % of 900 images at top-1, no better than guessing: check labels, class order (class offset) and preprocessing", s.Warnings[0])
	}
}

// TestGuessing: labels that are off by one pass any gate, since no model is right.
func TestGuessing(t *testing.T) {
	tally := func(n, classes, right int) *Tally {
		y := NewTally("m", []string{"fp32", "int8"})
		for i := range n {
			o := Outcome{Top1: i % classes, Rank: 1}
			if i >= right {
				o.Rank = 2
			}
			require.NoError(t, y.Add(&Record{ID: i, Label: i % classes, Outcomes: []Outcome{o, o}, Shifts: []Shift{{}}}))
		}
		return y
	}
	for _, c := range []struct {
		n, classes, right int
		guesses           bool
	}{
		{10000, 10, 43, true},    // shifted labels
		{10000, 10, 1000, true},  // chance
		{10000, 10, 1091, false}, // more than three standard errors of 0.3 points above
		{50000, 1000, 30, true},
		{50000, 1000, 35000, false},
		{4, 3, 4, false}, // too few to call it guessing
		{10000, 2, 5400, false},
		{100, 1, 100, false}, // one class: nothing can be guessed
	} {
		s := judge(t, DefaultPolicy(), tally(c.n, c.classes, c.right))
		require.Equal(t, c.guesses, s.Models[0].Guesses, "%+v", c)
		if c.guesses {
			require.Equal(t, Inconclusive, s.Verdict)
		}
	}
}

func TestTallyCounts(t *testing.T) {
	hit := func(class, label int) Outcome {
		o := Outcome{Top1: class, Rank: 1}
		if class != label {
			o.Rank = 7
		}
		return o
	}
	tally := NewTally("m", []string{"fp32", "int8"})
	add := func(base, cand Outcome, s Shift) {
		require.NoError(t, tally.Add(&Record{Label: 1, Outcomes: []Outcome{base, cand}, Shifts: []Shift{s}}))
	}
	add(hit(1, 1), hit(1, 1), Shift{KL: 0.5, MaxLogitChange: 1})
	add(hit(1, 1), hit(2, 1), Shift{KL: 1.5, MaxLogitChange: 3})
	add(hit(2, 1), hit(1, 1), Shift{KL: math.Inf(1), MaxLogitChange: 2})
	add(hit(2, 1), hit(3, 1), Shift{KL: 1, MaxLogitChange: 1})
	add(hit(1, 1), Outcome{Top1: -1, NaN: true}, Shift{KL: math.NaN(), MaxLogitChange: nan})
	add(Outcome{Top1: 1, Rank: 1, TiesAfter: 2}, Outcome{Top1: 0, Rank: 6, TiesBefore: 1}, Shift{})
	require.ErrorContains(t, tally.Add(&Record{Outcomes: make([]Outcome, 1)}), "1 outcomes and 0 shifts for 2 precisions")

	s := judge(t, DefaultPolicy(), tally)
	m := s.Models[0]
	require.Equal(t, 6, m.N)
	require.Equal(t, Hits{Correct: 4, Rate: 4.0 / 6, Tied: 1}, m.Precisions[0].Top1)
	require.Equal(t, Hits{Correct: 2, Rate: 2.0 / 6}, m.Precisions[1].Top1)
	require.Equal(t, 1, m.Precisions[1].Top5.Tied)
	require.Equal(t, 1, m.Precisions[1].NaN)
	c := m.Precisions[1].Candidate
	require.Equal(t, Table2x2{Both: 1, BaseOnly: 3, CandOnly: 1, Neither: 1}, c.Looks[0].Table)
	require.Equal(t, 1, c.Agree)
	require.InDelta(t, 0.75, c.MeanKL, 1e-15)
	require.Equal(t, 2, c.InfiniteKL)
	require.Equal(t, float32(3), c.MaxLogitChange)
	require.InDelta(t, -2.0/6, c.DeltaTop1, 1e-15)
	require.Contains(t, fmt.Sprint(s.Warnings), "m INT8: 1 image with a NaN logit, counted as wrong")
	require.Contains(t, fmt.Sprint(s.Warnings), "m FP32: tied logits decide top-1 on 1 image and top-5 on 0")
}

// At the planned number of images the verdict must settle with about 90 % chance: the probability is enumerated exactly.
func TestSettlePower(t *testing.T) {
	for _, x := range []struct{ loss, discordance, margin float64 }{
		{0, 0.02, 0.01}, {0.002, 0.03, 0.01}, {0.02, 0.04, 0.01}, {-0.002, 0.01, 0.005},
	} {
		n := imagesForLoss(x.loss, x.discordance, x.margin, 0.025, settlePower)
		var power float64
		trinomialNear(n, (x.discordance+x.loss)/2, (x.discordance-x.loss)/2, func(b, c int, p float64) {
			z := lossZ(n, b, c, x.margin)
			if x.loss < x.margin && z <= -1.959963984540054 || x.loss > x.margin && z >= 1.959963984540054 {
				power += p
			}
		})
		t.Logf("%+v: %d images, power %.4f", x, n, power)
		require.InDelta(t, 0.9, power, 0.02, "%+v with %d images", x, n)
	}
	require.Zero(t, imagesForLoss(0.005, 0.02, 0.005, 0.025, settlePower), "at the margin no number settles it")
	// With no discordance at all n z^2/(n+z^2) must fall below the margin: n = z^2 (1-m)/m.
	require.Equal(t, int(math.Ceil(math.Pow(1.959963984540054, 2)*0.995/0.005)), imagesForLoss(0, 0, 0.005, 0.025, settlePower))
	// At a base accuracy of 1 and no gains the relative and the absolute loss are one thing.
	require.InEpsilon(t, imagesForLoss(0.002, 0.002, 0.01, 0.025, settlePower), imagesForRatio(1, 0.002, 0.002, 0.01, 0.025, settlePower), 1e-3)
	require.Zero(t, imagesForRatio(0.7, math.Inf(-1), 0.02, 0.01, 0.025, settlePower))
}

// trinomialNear visits the counts within nine standard deviations of their means.
func trinomialNear(n int, p10, p01 float64, visit func(b, c int, p float64)) {
	lf := func(k int) float64 { l, _ := math.Lgamma(float64(k + 1)); return l }
	span := func(p float64) (int, int) {
		m := float64(n) * p
		return max(0, int(m-9*math.Sqrt(m+1))), min(n, int(m+9*math.Sqrt(m+1)))
	}
	b0, b1 := span(p10)
	c0, c1 := span(p01)
	for b := b0; b <= b1; b++ {
		for c := c0; c <= c1 && b+c <= n; c++ {
			visit(b, c, math.Exp(lf(n)-lf(b)-lf(c)-lf(n-b-c)+xlog(b, p10)+xlog(c, p01)+xlog(n-b-c, 1-p10-p01)))
		}
	}
}
