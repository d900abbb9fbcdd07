package accuracy

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// Interval is a closed range; its ends may be infinite.
type Interval struct {
	Low, High float64
}

// TangoInterval returns the score interval, at two-sided confidence conf, for the loss (b-c)/n of a paired comparison:
// of n pairs b are right only at the base and c only at the candidate. It is -1..1 for n = 0.
//
// It is the set of losses that the score test keeps: |z(d)| <= z_{1-(1-conf)/2} with
//
//	z(d) = (b - c - n d) / sqrt(n (2 q + d (1-d)))
//
// where q is the maximum-likelihood estimate of P(right only at the candidate) under loss d, the larger root of
// 2n q^2 + (-b - c + (2n - b + c) d) q - c d (1-d) = 0.
// Source: Tango, Statistics in Medicine 17 (1998) 891-908.
func TangoInterval(n, b, c int, conf float64) (lo, hi float64) {
	if n == 0 {
		return -1, 1
	}
	crit := quantile(conf)
	est := float64(b-c) / float64(n)
	z := func(d float64) float64 { return lossZ(n, b, c, d) }
	return solve(z, crit, -1, est), solve(z, -crit, est, 1)
}

// lossZ is Tango's statistic at loss d in [-1, 1]; it falls as d grows.
func lossZ(n, b, c int, d float64) float64 {
	if d < 0 { // mirrored, so that the quadratic below has no cancellation
		return -lossZ(n, c, b, -d)
	}
	nf, bf, cf := float64(n), float64(b), float64(c)
	return ratioOfRoot(bf-cf-nf*d, nf*lossVariance(nf, bf, cf, d))
}

// lossVariance is the variance of one pair's difference under loss d in [0, 1], at the estimate constrained to d.
func lossVariance(n, b, c, d float64) float64 {
	return 2*positiveRoot(2*n, -b-c+(2*n-b+c)*d, c*d*(1-d)) + d*(1-d)
}

// RatioInterval returns the score interval, at two-sided confidence conf, for the relative loss (b-c)/(both+b):
// of n pairs both are right at base and candidate, b only at the base, c only at the candidate. The lower end is -Inf
// where the base may have got nothing right; the interval is -Inf..1 where neither side got anything right.
//
// It is the set of relative losses 1-r that the score test for the ratio r of paired proportions keeps:
//
//	z(r) = (both + c - r (both + b)) / sqrt(n r (p10 + p01))
//
// where p10 and p01 are the maximum-likelihood estimates of the discordant probabilities under ratio r.
// Source: Nam and Blackwelder, Statistics in Medicine 21 (2002) 689-699; Tang, Tang and Chan, Statistics in Medicine
// 22 (2003) 1217-1233. The constrained estimate is derived at ratioVariance.
func RatioInterval(both, b, c int, conf float64) (lo, hi float64) {
	if both+b+c == 0 {
		return math.Inf(-1), 1
	}
	crit := quantile(conf)
	// r in (0, inf) is searched as t in (0, 2): r = t up to 1, then r = 1/(2-t).
	z := func(t float64) float64 {
		if t > 1 {
			return -gainZ(both, c, b, 2-t)
		}
		return gainZ(both, b, c, t)
	}
	est := float64(both+c) / float64(both+b)
	if est > 1 {
		est = 2 - float64(both+b)/float64(both+c)
	}
	ratio := func(t float64) float64 {
		if t > 1 {
			return 1 / (2 - t)
		}
		return t
	}
	return 1 - ratio(solve(z, -crit, est, 2)), 1 - ratio(solve(z, crit, 0, est))
}

// ratioZ is the statistic of RatioInterval with the sign of lossZ: it falls as the relative loss d < 1 grows.
func ratioZ(both, b, c int, d float64) float64 {
	r := 1 - d
	if r <= 1 {
		return -gainZ(both, b, c, r)
	}
	return gainZ(both, c, b, 1/r)
}

// gainZ is z(r) of RatioInterval for r in [0, 1]; it falls as r grows.
func gainZ(both, b, c int, r float64) float64 {
	a, bf, cf := float64(both), float64(b), float64(c)
	return ratioOfRoot(a+cf-r*(a+bf), ratioVariance(a, bf, cf, r))
}

// ratioVariance is n times the variance of one pair's (candidate - r base) for r in [0, 1], at the estimate constrained
// to the ratio r.
//
// The constraint p01 = r p10 - (1-r) p11 is homogeneous, so P(neither) keeps its free estimate and the other three share
// s = (both+b+c)/n. With p01 = s u it gives p11 = s (r - (1+r) u) and p10 = s (1 - r + r u); setting the likelihood's
// derivative in u to zero leaves
//
//	r (1+r) m u^2 + (both + c - r^2 (both + b + 2c)) u - c r (1-r) = 0,  m = both+b+c,
//
// whose positive root is u. The variance r (p10 + p01) is r s (1 - r + (1+r) u).
func ratioVariance(both, b, c, r float64) float64 {
	m := both + b + c
	u := positiveRoot(r*(1+r)*m, both+c-r*r*(both+b+2*c), c*r*(1-r))
	return r * m * (1 - r + (1+r)*u)
}

// positiveRoot returns the larger root of a x^2 + b x - c = 0 for a, c >= 0, without cancellation.
func positiveRoot(a, b, c float64) float64 {
	root := math.Sqrt(b*b + 4*a*c)
	switch {
	case b > 0:
		return 2 * c / (b + root)
	case a == 0:
		return 0
	}
	return (root - b) / (2 * a)
}

// ratioOfRoot is x/sqrt(v), and its limit where v is 0: 0 for x = 0, else infinite.
func ratioOfRoot(x, v float64) float64 {
	if v > 0 {
		return x / math.Sqrt(v)
	}
	if x == 0 {
		return 0
	}
	return math.Inf(int(math.Copysign(1, x)))
}

// solve returns where the falling function z crosses level in [lo, hi], by bisection down to neighbouring floats, so
// that no start value and no step can fail. It returns the end that is nearest where z does not cross.
func solve(z func(float64) float64, level, lo, hi float64) float64 {
	if z(lo) <= level {
		return lo
	}
	if z(hi) >= level {
		return hi
	}
	for range 200 {
		mid := lo + (hi-lo)/2
		if mid <= lo || mid >= hi {
			break
		}
		if z(mid) > level {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo + (hi-lo)/2
}

// quantile returns the standard normal's quantile for a two-sided confidence.
func quantile(conf float64) float64 { return distuv.UnitNormal.Quantile(0.5 + conf/2) }

// normalCDF is the standard normal's distribution function, accurate in both tails.
func normalCDF(z float64) float64 { return 0.5 * math.Erfc(-z/math.Sqrt2) }
