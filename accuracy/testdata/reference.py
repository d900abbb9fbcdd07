"""Writes reference.csv: intervals, p-values and score statistics for paired tables, by another way than the Go code.

The constrained estimate is checked to be where the likelihood's derivative changes its sign, and the limits come from a
bisection on the score statistic, all with 120 digits; the binomial sums are SciPy's, checked against exact rationals.
Needs mpmath and SciPy:  python3 reference.py > reference.csv
"""

import csv
import sys
from fractions import Fraction
from math import comb

import mpmath as mp
from scipy import stats

mp.mp.dps = 120
STEPS = 200


def bisect(falling, level, lo, hi):
    """Where a falling function crosses level."""
    for _ in range(STEPS):
        mid = (lo + hi) / 2
        if falling(mid) > level:
            lo = mid
        else:
            hi = mid
    return (lo + hi) / 2


def over(x, v):
    if v > 0:
        return x / mp.sqrt(v)
    return mp.mpf(0) if x == 0 else mp.sign(x) * mp.inf


def checked(x, slope, lo, hi):
    """x, if slope falls through zero there or keeps its sign up to the end of [lo, hi] that x lies at."""
    eps = mp.mpf(10) ** -30
    below, above = x - (x - lo) * eps, x + (hi - x) * eps
    assert x <= lo + mp.mpf(10) ** -40 or slope(below) >= 0, (x, lo)
    assert x >= hi - mp.mpf(10) ** -40 or slope(above) <= 0, (x, hi)
    return x


def larger_root(a, b, c):
    return (mp.sqrt(b * b - 4 * a * c) - b) / (2 * a)


def loss_z(n, b, c, d):
    """Score statistic of the paired difference p10 - p01 = d."""
    def slope(q):  # of the log-likelihood b ln(q+d) + c ln q + (n-b-c) ln(1-2q-d)
        return (b / (q + d) if b else 0) + (c / q if c else 0) - (2 * (n - b - c) / (1 - 2 * q - d) if n - b - c else 0)
    q = larger_root(2 * n, -b - c + (2 * n - b + c) * d, -c * d * (1 - d))
    lo, hi = max(mp.mpf(0), -d), (1 - d) / 2
    q = checked(min(max(q, lo), hi), slope, lo, hi)
    return over(b - c - n * d, n * (2 * q + d - d * d))


def ratio_z(a, b, c, r):
    """Score statistic of the ratio (p11+p01)/(p11+p10) = r; u is the share of p01 in p11+p10+p01."""
    m = a + b + c

    def slope(u):
        return (-a * (1 + r) / (r - (1 + r) * u) if a else 0) + (b * r / (1 - r + r * u) if b else 0) + (c / u if c else 0)
    u = larger_root(r * (1 + r) * m, a + c - r * r * (a + b + 2 * c), -c * r * (1 - r))
    lo, hi = max(mp.mpf(0), 1 - 1 / r), r / (1 + r)
    u = checked(min(max(u, lo), hi), slope, lo, hi)
    return over(a + c - r * (a + b), m * r * (1 - r + (1 + r) * u))


def main():
    tables = [  # both, base only, candidate only, neither
        (1, 1, 7, 12), (59, 6, 16, 80), (43, 0, 1, 0), (80, 40, 20, 20), (0, 3, 0, 5), (0, 0, 4, 6), (9, 0, 0, 1), (5, 0, 0, 0),
        (0, 0, 0, 7), (0, 10, 0, 0), (0, 0, 10, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 5, 5, 0), (3, 2, 0, 0), (1, 1, 1, 1),
        (870, 14, 9, 407), (906, 21, 4, 369), (34000, 700, 450, 13600), (36561, 0, 0, 12189), (37000, 3, 1, 11746), (36000, 1, 0, 12749),
        (30000, 6000, 200, 12550), (753000, 12000, 9500, 225500), (750000, 10, 10, 249980), (0, 500000, 499000, 1000),
        (999999, 1, 0, 0), (999999, 0, 1, 0), (0, 999999, 1, 0), (1000000, 0, 0, 0),
    ]
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow("both base_only cand_only neither conf loss_low loss_high rel_low rel_high z_loss_005 z_rel_005 mcnemar_exact mcnemar_mid_p".split())
    for t in tables:
        a, b, c, d = t
        n, k = sum(t), min(b, c)
        exact = min(1.0, 2 * stats.binom.cdf(k, b + c, 0.5)) if b + c else 1.0
        pmf = stats.binom.pmf(k, b + c, 0.5)
        mid = 1.0 if b + c == 0 else (1 - pmf / 2 if b == c else exact - pmf)
        if 0 < b + c <= 1000:
            tail = Fraction(sum(comb(b + c, j) for j in range(k + 1)), 2 ** (b + c))
            assert abs(exact - float(min(1, 2 * tail))) <= 1e-11 * exact, t
        for conf in ("0.95", "0.9", "0.999"):
            z = mp.sqrt(2) * mp.erfinv(mp.mpf(conf))
            est = mp.mpf(b - c) / n
            row = [*t, conf]
            row += [bisect(lambda x: loss_z(n, b, c, x), z, mp.mpf(-1), est) if est > -1 else mp.mpf(-1),
                    bisect(lambda x: loss_z(n, b, c, x), -z, est, mp.mpf(1)) if est < 1 else mp.mpf(1)]
            # the ratio is searched on a log scale: r = e^x
            if a + b + c == 0:
                row += [-mp.inf, mp.mpf(1)]
            else:
                f = lambda x: ratio_z(a, b, c, mp.exp(x))
                x = mp.log(mp.mpf(a + c) / (a + b)) if a + c and a + b else mp.mpf(0)
                row += [1 - mp.exp(bisect(f, -z, x if a + b and a + c else mp.mpf(-60), mp.mpf(60))) if a + b else -mp.inf,
                        1 - mp.exp(bisect(f, z, mp.mpf(-60), x if a + b and a + c else mp.mpf(60))) if a + c else mp.mpf(1)]
            row += [loss_z(n, b, c, mp.mpf("0.005")), ratio_z(a, b, c, mp.mpf("0.995")) * -1 if a + b + c else mp.mpf(0)]
            out.writerow([*row[:5], *(mp.nstr(v, 17) if mp.isfinite(v) else ("-inf" if v < 0 else "inf") for v in row[5:]), repr(float(exact)), repr(float(mid))])


main()
