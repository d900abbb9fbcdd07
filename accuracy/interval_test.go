package accuracy

import (
	"encoding/csv"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// reference is a row of testdata/reference.csv, made by testdata/reference.py with 120 digits.
type reference struct {
	table                              Table2x2
	conf                               float64
	lossLow, lossHigh, relLow, relHigh float64
	zLoss, zRel                        float64 // at a margin of 0.005
	exact, mid                         float64
}

func readReference(t *testing.T) []reference {
	f, err := os.Open(filepath.Join("testdata", "reference.csv"))
	require.NoError(t, err)
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	var refs []reference
	for _, row := range rows[1:] {
		v := make([]float64, len(row))
		for i, s := range row {
			v[i], err = strconv.ParseFloat(s, 64)
			require.NoError(t, err)
		}
		refs = append(refs, reference{
			Table2x2{int(v[0]), int(v[1]), int(v[2]), int(v[3])}, v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12],
		})
	}
	require.Len(t, refs, 93)
	return refs
}

// closeTo compares with a small relative error, or an absolute one where the value itself is a difference near 0.
func closeTo(t *testing.T, want, got, relative, absolute float64, what ...any) {
	t.Helper()
	if want == got || math.Abs(want-got) <= math.Max(absolute, relative*math.Abs(want)) {
		return
	}
	require.Fail(t, "too far apart", "want %.17g, got %.17g: %v", want, got, what)
}

func TestIntervalsAgainstReference(t *testing.T) {
	for _, r := range readReference(t) {
		n, b, c := r.table.N(), r.table.BaseOnly, r.table.CandOnly
		lo, hi := TangoInterval(n, b, c, r.conf)
		closeTo(t, r.lossLow, lo, 1e-10, 1e-15, r, "loss low")
		closeTo(t, r.lossHigh, hi, 1e-10, 1e-15, r, "loss high")
		lo, hi = RatioInterval(r.table.Both, b, c, r.conf)
		closeTo(t, r.relLow, lo, 1e-9, 1e-15, r, "relative low")
		closeTo(t, r.relHigh, hi, 1e-9, 1e-15, r, "relative high")
		closeTo(t, r.zLoss, MarginZ(r.table, MaxLoss{Value: 0.005}), 1e-10, 1e-12, r, "z of the loss")
		closeTo(t, r.zRel, MarginZ(r.table, MaxLoss{Value: 0.005, Relative: true}), 1e-10, 1e-12, r, "z of the relative loss")
	}
}

// Published examples, as Fagerland's R package contingencytables 3.1.0 computes them (tolerance of its root finder 1e-7):
//
//	Tango_asymptotic_score_CI_paired_2x2(matrix(c(1,1,7,12), 2, byrow = TRUE))   Bentur et al. 2009
//	Tang_asymptotic_score_CI_paired_2x2(...)   ratio of base to candidate, hence 1 - 1/ratio here
//	PropCIs::scoreci.mp(b = 20, c = 40, n = 160, conf.level = 0.95)              Agresti and Min 2005
func TestIntervalsAgainstPublishedExamples(t *testing.T) {
	for _, x := range []struct {
		name                        string
		table                       Table2x2
		low, high, rLow, rHigh, tol float64
	}{
		{"Bentur 2009", Table2x2{1, 1, 7, 12}, -0.517232276357, -0.0260030316776, 0.0652792240779, 0.906880556578, 1e-7},
		{"Cavo 2012", Table2x2{59, 6, 16, 80}, -0.124023432465, -0.00543339572611, 0.747579058921, 0.987614928597, 1e-7},
		{"Agresti and Min 2005", Table2x2{80, 40, 20, 20}, 0.0308645517073, 0.218064244165, 1.04593794664, 1.38738847474, 1e-7},
		{"Tango 1998, lens", Table2x2{43, 0, 1, 0}, -0.118077098436, 0.0593932396921, 0.881922902859, 1.06457860956, 1e-7},
	} {
		lo, hi := TangoInterval(x.table.N(), x.table.BaseOnly, x.table.CandOnly, 0.95)
		require.InDelta(t, x.low, lo, x.tol, x.name)
		require.InDelta(t, x.high, hi, x.tol, x.name)
		lo, hi = RatioInterval(x.table.Both, x.table.BaseOnly, x.table.CandOnly, 0.95)
		require.InDelta(t, x.rLow, 1/(1-lo), 10*x.tol, x.name)
		require.InDelta(t, x.rHigh, 1/(1-hi), 10*x.tol, x.name)
	}
}

// With no discordant pairs both limits have a closed form: z^2/(n+z^2), and for the ratio a/(a+z^2).
func TestIntervalsWithoutDiscordance(t *testing.T) {
	z2 := math.Pow(1.959963984540054, 2) // R: qnorm(0.975)
	for _, n := range []int{1, 2, 10, 1300, 48750, 1000000} {
		lo, hi := TangoInterval(n, 0, 0, 0.95)
		closeTo(t, z2/(float64(n)+z2), hi, 1e-12, 0, n)
		closeTo(t, -z2/(float64(n)+z2), lo, 1e-12, 0, n)
		lo, hi = RatioInterval(n, 0, 0, 0.95)
		closeTo(t, z2/(float64(n)+z2), hi, 1e-9, 0, n)
		closeTo(t, -z2/float64(n), lo, 1e-9, 0, n)
	}
	lo, hi := TangoInterval(0, 0, 0, 0.95)
	require.Equal(t, []float64{-1, 1}, []float64{lo, hi})
}

// Swapping base and candidate mirrors the loss; the statistic falls with the loss; the limits bracket the estimate and are
// where the test's verdict changes.
func TestIntervalProperties(t *testing.T) {
	for n := 1; n <= 12; n++ {
		for b := 0; b <= n; b++ {
			for c := 0; b+c <= n; c++ {
				lo, hi := TangoInterval(n, b, c, 0.95)
				mirrorLo, mirrorHi := TangoInterval(n, c, b, 0.95)
				require.InDeltaSlice(t, []float64{lo, hi}, []float64{-mirrorHi, -mirrorLo}, 1e-12, "%d %d %d", n, b, c)
				est := float64(b-c) / float64(n)
				require.True(t, -1 <= lo && lo <= est && est <= hi && hi <= 1, "%d %d %d: %v %v", n, b, c, lo, hi)
				last := math.Inf(1)
				for d := -1.0; d <= 1; d += 1.0 / 64 {
					z := lossZ(n, b, c, d)
					require.LessOrEqual(t, z, last+1e-12, "%d %d %d at %v", n, b, c, d)
					last = z
					if math.Abs(d-lo) > 1e-9 && math.Abs(d-hi) > 1e-9 {
						require.Equal(t, lo < d && d < hi, math.Abs(z) < 1.959963984540054, "%d %d %d at %v: z %v in %v..%v", n, b, c, d, z, lo, hi)
					}
				}
				for both := 0; both+b+c <= n; both += 2 {
					lo, hi := RatioInterval(both, b, c, 0.95)
					table := Table2x2{both, b, c, n - both - b - c}
					if both+b > 0 {
						require.True(t, lo <= table.RelLoss() && table.RelLoss() <= hi && hi <= 1, "%+v: %v %v", table, lo, hi)
					}
					last := math.Inf(1)
					for _, d := range []float64{-9, -3, -1, -0.5, -0.1, -0.01, 0, 0.01, 0.1, 0.3, 0.5, 0.9, 0.99} {
						z := ratioZ(both, b, c, d)
						require.LessOrEqual(t, z, last+1e-12, "%+v at %v", table, d)
						last = z
						if both+b+c > 0 && math.Abs(d-lo) > 1e-9 && math.Abs(d-hi) > 1e-9 {
							require.Equal(t, lo < d && d < hi, math.Abs(z) < 1.959963984540054, "%+v at %v: z %v in %v..%v", table, d, z, lo, hi)
						}
					}
				}
			}
		}
	}
}

// trinomial visits the counts of n pairs that have more than a trifling probability, with that probability.
func trinomial(n int, p10, p01 float64, visit func(b, c int, p float64)) {
	lf := make([]float64, n+1)
	for i := 2; i <= n; i++ {
		lf[i] = lf[i-1] + math.Log(float64(i))
	}
	for b := 0; b <= n; b++ {
		for c := 0; b+c <= n; c++ {
			d := n - b - c
			l := lf[n] - lf[b] - lf[c] - lf[d] + xlog(b, p10) + xlog(c, p01) + xlog(d, 1-p10-p01)
			if l > -32 {
				visit(b, c, math.Exp(l))
			}
		}
	}
}

func xlog(k int, p float64) float64 {
	if k == 0 {
		return 0
	}
	return float64(k) * math.Log(p)
}

// Coverage of the 95 % intervals and the error rate of the one-sided tests at the margin, by exact enumeration.
func TestCoverage(t *testing.T) {
	const crit = 1.959963984540054
	for _, n := range []int{200, 600} {
		for _, discordance := range []float64{0.03, 0.05, 0.1} {
			for _, loss := range []float64{0, 0.01, 0.02} {
				var cover, within, beyond, sum float64
				trinomial(n, (discordance+loss)/2, (discordance-loss)/2, func(b, c int, p float64) {
					z := lossZ(n, b, c, loss)
					sum += p
					if math.Abs(z) <= crit {
						cover += p
					}
					if z < -crit {
						within += p
					}
					if z > crit {
						beyond += p
					}
				})
				require.InDelta(t, 1, sum, 1e-9)
				t.Logf("n %d, discordance %v, loss %v: coverage %.4f, false pass %.4f, false fail %.4f", n, discordance, loss, cover, within, beyond)
				// With an expected 6 discordant pairs the test leans to fail; it never leans to pass.
				require.True(t, cover > 0.93 && cover < 0.98, "n %d, discordance %v, loss %v: coverage %.4f", n, discordance, loss, cover)
				require.LessOrEqual(t, within, 0.028)
				require.LessOrEqual(t, beyond, 0.052)
			}
		}
	}
}

// The relative loss: both is drawn given the discordant counts, so four cells are enumerated.
func TestRatioCoverage(t *testing.T) {
	const n, base, crit = 60, 0.75, 1.959963984540054
	for _, rel := range []float64{0, 0.05} {
		p10 := (0.15 + base*rel) / 2
		p01 := 0.15 - p10
		p11 := base - p10
		var cover, sum float64
		trinomial(n, p10, p01, func(b, c int, p float64) {
			rest := n - b - c
			share := p11 / (1 - p10 - p01)
			for a := 0; a <= rest; a++ {
				lg, _ := math.Lgamma(float64(rest + 1))
				la, _ := math.Lgamma(float64(a + 1))
				ld, _ := math.Lgamma(float64(rest - a + 1))
				q := p * math.Exp(lg-la-ld+xlog(a, share)+xlog(rest-a, 1-share))
				sum += q
				if math.Abs(ratioZ(a, b, c, rel)) <= crit {
					cover += q
				}
			}
		})
		require.InDelta(t, 1, sum, 1e-9)
		t.Logf("relative loss %v: coverage %.4f", rel, cover)
		require.True(t, cover > 0.94 && cover < 0.975, "relative loss %v: coverage %.4f", rel, cover)
	}
}
