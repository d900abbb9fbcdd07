package accuracy

import "math"

// McNemarExact returns the two-sided p-value of the exact conditional McNemar test: b and c, the discordant counts,
// are compared with a fair coin. It is 1 where b + c = 0.
//
// p = min(1, 2 P(X <= min(b,c))), X ~ Binomial(b+c, 1/2).
// Source: McNemar, Psychometrika 12 (1947) 153; Fagerland, Lydersen, Laake, BMC Med Res Methodol 13 (2013) 91, eq. 6.
func McNemarExact(b, c int) float64 {
	_, cdf := fairBinomial(min(b, c), b+c)
	return min(1, 2*cdf)
}

// McNemarMidP returns the two-sided mid-p value of the McNemar test: the probability of a larger |b-c| plus half that
// of an equal one. It is 1 where b + c = 0.
//
// Source: Fagerland, Lydersen, Laake, BMC Med Res Methodol 13 (2013) 91, section "The McNemar mid-p test".
func McNemarMidP(b, c int) float64 {
	if b+c == 0 {
		return 1
	}
	pmf, cdf := fairBinomial(min(b, c), b+c)
	if b == c {
		return 1 - pmf/2
	}
	return 2*cdf - pmf
}

// fairBinomial returns P(X = k) and P(X <= k) for X ~ Binomial(n, 1/2) and k <= n/2, both with a small relative error
// in the far tail too. The mass is Loader's saddle-point form; the lower tail is summed down from k.
//
// Source: Loader, Fast and accurate computation of binomial probabilities (2000).
func fairBinomial(k, n int) (pmf, cdf float64) {
	x, m := float64(k), float64(n)
	if k == 0 {
		pmf = math.Exp2(-m)
	} else {
		y := m - x
		e := stirlingError(m) - stirlingError(x) - stirlingError(y) - deviance(x, m/2) - deviance(y, m/2)
		pmf = math.Exp(e) * math.Sqrt(m/(2*math.Pi*x*y))
	}
	term, sum := 1.0, 1.0
	for j := x; j > 0 && term > sum*1e-17; j-- {
		term *= j / (m - j + 1)
		sum += term
	}
	return pmf, min(1, pmf*sum)
}

// stirlingError is ln(n!) less Stirling's approximation of it, for n >= 1.
func stirlingError(n float64) float64 {
	if n < 16 {
		lg, _ := math.Lgamma(n + 1)
		return lg - (n+0.5)*math.Log(n) + n - 0.5*math.Log(2*math.Pi)
	}
	nn := n * n
	return (1.0/12 - (1.0/360-(1.0/1260-(1.0/1680-1.0/1188/nn)/nn)/nn)/nn) / n
}

// deviance is x ln(x/m) + m - x, without cancellation where x is near m.
func deviance(x, m float64) float64 {
	if math.Abs(x-m) >= 0.1*(x+m) {
		return x*math.Log(x/m) + m - x
	}
	v := (x - m) / (x + m)
	s := (x - m) * v
	term := 2 * x * v
	v *= v
	for j := 3.0; ; j += 2 {
		term *= v
		next := s + term/j
		if next == s {
			return s
		}
		s = next
	}
}
