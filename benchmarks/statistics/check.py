"""Recomputes every number of a report.json from its outcomes with NumPy, SciPy and statsmodels, and compares.

    python3 check.py out/fashion-mnist [MODEL ...]

The folder holds outcomes.csv.gz and report.json of a run that scored all images. Nothing here shares code or formulas with
quantgate where a library has the quantity; the two score intervals, which none of the three has, are found numerically from the
likelihood under the constraint. Exits 1 if a number differs.
"""

import gzip
import json
import math
import pathlib
import sys

import numpy as np
import pandas as pd
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

checked = 0
wrong = []


def same(where, got, want, rel=1e-7, abs_=1e-12):
    """Compares a number of the report, got, with the recomputed one."""
    global checked
    checked += 1
    if got is None or want is None:
        ok = got is want or (got is None and not math.isfinite(want))
    elif isinstance(want, str):
        ok = got == want
    else:
        ok = math.isclose(got, want, rel_tol=rel, abs_tol=abs_)
    if not ok:
        wrong.append(f"{where}: report {got!r}, here {want!r}")


def constrained(n, b, c, d):
    """Maximum-likelihood P(right only at the candidate) under loss d >= 0: where the likelihood's derivative changes its sign."""
    low, high = 0.0, (1 - d) / 2
    if b == 0 and c == 0:
        return low

    def slope(q):
        return (b / (q + d) if b else 0) + (c / q if c else 0) - 2 * (n - b - c) / (1 - 2 * q - d)

    span = high - low
    a, z = low + span * 1e-13, high - span * 1e-9
    if slope(a) < 0:
        return low
    if slope(z) > 0:
        return high
    return optimize.brentq(slope, a, z, xtol=1e-18, rtol=1e-15, maxiter=500)


def tango_z(n, b, c, d):
    if d < 0:  # mirrored, so that no estimate is the difference of two near numbers
        return -tango_z(n, c, b, -d)
    q = constrained(n, b, c, d)
    v = n * (2 * q + d - d * d)
    x = b - c - n * d
    return x / math.sqrt(v) if v > 0 else math.copysign(math.inf, x)


def tango(n, b, c, conf):
    crit = stats.norm.isf((1 - conf) / 2)
    est = (b - c) / n

    def end(sign, limit):
        def f(d):
            return tango_z(n, b, c, d) + sign * crit

        inner, outer = est + sign * 1e-13, limit * 0.999
        return optimize.brentq(f, inner, outer, xtol=1e-15, rtol=1e-15)

    return end(-1, -1), end(1, 1)


def ratio(both, b, c, conf):
    """Interval of the relative loss: where the score statistic meets the normal quantile. (statsmodels has Nam's closed form of
    it, unfinished and private: by its own words it agrees with the published example in two decimals only.)"""
    crit = stats.norm.isf((1 - conf) / 2)
    est = (b - c) / (both + b)

    def end(sign):
        return optimize.brentq(lambda d: ratio_z(both, b, c, d) + sign * crit, est + sign * 1e-13, est + sign * 0.5, xtol=1e-15, rtol=1e-15)

    return end(-1), end(1)


def ratio_z(both, b, c, d):
    """The score statistic at relative loss d. With p11 + p10 + p01 = m/n, which the constraint leaves free, and u = p01 n/m it
    gives p11 n/m = r - (1+r) u and p10 n/m = 1 - r + r u; u is where the likelihood's derivative changes its sign."""
    if d < 0:
        return -ratio_z(both, c, b, 1 - 1 / (1 - d))
    r, m = 1 - d, both + b + c

    def slope(u):
        return -both * (1 + r) / (r - (1 + r) * u) + b * r / (1 - r + r * u) + (c / u if c else 0)

    low, high = 1e-16, r / (1 + r) * (1 - 1e-12)
    u = 0.0 if slope(low) < 0 else optimize.brentq(slope, low, high, xtol=1e-18, rtol=1e-15, maxiter=500)
    x, v = both + c - r * (both + b), r * m * (1 - r + (1 + r) * u)
    return -x / math.sqrt(v)


def ece(prob, hit):
    ok = ~np.isnan(prob)
    prob, hit = prob[ok], hit[ok]
    bins = np.digitize(prob, np.arange(1, 15) / 15, right=True)
    total = 0.0
    for i in range(15):
        at = bins == i
        if at.any():
            total += at.sum() / len(prob) * abs(hit[at].mean() - prob[at].mean())
    return total


def images(sd0, sd1, distance, level, power=0.9):
    return math.ceil(((stats.norm.isf(level) * sd0 + stats.norm.ppf(power) * sd1) / distance) ** 2)


def images_for_loss(loss, discordance, margin, level):
    psi = max(discordance, abs(loss))
    q = constrained(1.0, (psi + loss) / 2, (psi - loss) / 2, margin)
    return images(math.sqrt(2 * q + margin - margin**2), math.sqrt(psi - loss**2), margin - loss, level)


def check_class_list(where, entry, frame, base_hit, hit, conf):
    t = pd.DataFrame({"label": frame.label, "b": base_hit & ~hit, "c": ~base_hit & hit, "n": 1}).groupby("label").sum()
    t = t[t.b + t.c > 0]
    if t.empty:
        return
    t["p"] = [stats.binomtest(int(x.b), int(x.b + x.c), 0.5, alternative="greater").pvalue for x in t.itertuples()]
    t["adjusted"] = multipletests(t.p, method="holm")[1]
    if "classes_lost" in entry or "classes" in entry:
        same(f"{where} classes_lost", entry.get("classes_lost", 0), int((t.adjusted <= 1 - conf).sum()))
    for c in entry.get("classes", []):
        x = t.loc[c["class"]]
        at = f"{where} class {c['class']}"
        same(at + " n", c["n"], int(x.n))
        same(at + " base_only", c["base_only"], int(x.b))
        same(at + " cand_only", c["cand_only"], int(x.c))
        same(at + " loss", c["loss"], (x.b - x.c) / x.n)
        same(at + " p", c["p"], x.p)
        same(at + " p_adjusted", c["p_adjusted"], x.adjusted)


def main():
    folder = pathlib.Path(sys.argv[1])
    report = json.loads((folder / "report.json").read_text())
    with gzip.open(folder / "outcomes.csv.gz", "rt") as f:
        frame = pd.read_csv(f, skiprows=1, keep_default_na=False, na_values=[""])
    policy = report["policy"]
    conf, margin, relative = policy["confidence"], policy["max_loss_fraction"], policy["max_loss_relative"]
    alpha = (1 - conf) / 2
    assert policy["rule"] == "interval" and policy.get("target", "population") == "population" and "visit" not in frame, "not a run of this kind"
    wanted = sys.argv[2:] or [m["name"] for m in report["models"]]

    looks = []  # of all models: Holm's correction goes over all
    for m in report["models"]:
        part = frame[frame.model == m["name"]]
        n = len(part)
        names = list(m["precisions"])
        base = names[0]
        for name in names:
            e = m["precisions"][name]
            if m["name"] in wanted:
                where = f"{m['name']} {name}"
                rank = part[f"{name}_rank"]
                for k in (1, 5):
                    hit = (rank <= k) & rank.notna()
                    same(f"{where} correct_top{k}", e[f"correct_top{k}"], int(hit.sum()))
                    same(f"{where} top{k}", e[f"top{k}"], hit.mean())
                    tied = (rank - part[f"{name}_ties_before"] <= k) & (rank + part[f"{name}_ties_after"] > k)
                    same(f"{where} tied_top{k}", e[f"tied_top{k}"], int(tied.sum()))
                same(f"{where} n", e["n"], n)
                same(f"{where} nan", e["nan"], int(rank.isna().sum()))
                if "ece" in e:
                    prob = part[f"{name}_top1_prob"].to_numpy(np.float32).astype(float)
                    same(f"{where} ece", e["ece"], ece(prob, (rank == 1).to_numpy()), rel=1e-6)
            if name == base:
                continue
            for look in e["looks"]:
                k = int(look["metric"][3:])
                x, y = part[f"{base}_rank"] <= k, part[f"{name}_rank"] <= k
                table = [int((x & y).sum()), int((x & ~y).sum()), int((~x & y).sum()), int((~x & ~y).sum())]
                both, b, c, neither = table
                z = ratio_z(both, b, c, margin) if relative else tango_z(n, b, c, margin)
                looks.append({"m": m, "name": name, "look": look, "table": table, "n": n, "pw": stats.norm.cdf(z), "pb": stats.norm.sf(z)})
                if k == 1 and m["name"] in wanted:
                    check_class_list(f"{m['name']} {name}", e, part, x, y, conf)
            if m["name"] in wanted:
                where = f"{m['name']} {name}"
                p, q = part[f"{base}_top1"], part[f"{name}_top1"]
                kl, change = part[f"{name}_kl"], part[f"{name}_max_logit_change"]
                finite = np.isfinite(kl)
                same(f"{where} agreement", e["agreement"], (p == q).mean())
                same(f"{where} mean_kl", e["mean_kl"], kl[finite].mean())
                same(f"{where} infinite_kl", e["infinite_kl"], int((~finite).sum()))
                same(f"{where} max_logit_change", e["max_logit_change"], float(np.float32(change.max())))
                for k in (1, 5):
                    same(f"{where} delta_top{k}", e[f"delta_top{k}"], (part[f"{name}_rank"] <= k).mean() - (part[f"{base}_rank"] <= k).mean())

    secondary = [x for x in looks if not x["look"]["primary"]]
    if secondary:
        adjusted = multipletests([x["pw"] for x in secondary] + [x["pb"] for x in secondary], method="holm")[1]
        for i, x in enumerate(secondary):
            x["aw"], x["ab"] = adjusted[i], adjusted[i + len(secondary)]
    worst = "pass"
    for x in looks:
        look = x["look"]
        if look["primary"]:
            x["aw"], x["ab"] = x["pw"], x["pb"]
        verdict = "pass" if x["aw"] <= alpha else "fail" if x["ab"] <= alpha else "inconclusive"
        if look["primary"]:
            worst = max(worst, verdict, key=["pass", "inconclusive", "fail"].index)
        if x["m"]["name"] not in wanted:
            continue
        where = f"{x['m']['name']} {x['name']} {look['metric']}"
        both, b, c, neither = x["table"]
        n = x["n"]
        for key, v in zip(["both", "base_only", "cand_only", "neither"], x["table"]):
            same(f"{where} {key}", look[key], v)
        same(f"{where} loss", look["loss"], (b - c) / n)
        same(f"{where} relative_loss", look["relative_loss"], (b - c) / (both + b))
        low, high = tango(n, b, c, conf)
        same(f"{where} loss_interval low", look["loss_interval"]["low"], low, 1e-7, 1e-10)
        same(f"{where} loss_interval high", look["loss_interval"]["high"], high, 1e-7, 1e-10)
        low, high = ratio(both, b, c, conf)
        same(f"{where} relative_loss_interval low", look["relative_loss_interval"]["low"], low, 1e-7, 1e-10)
        same(f"{where} relative_loss_interval high", look["relative_loss_interval"]["high"], high, 1e-7, 1e-10)
        same(f"{where} mcnemar_exact_p", look["mcnemar_exact_p"], mcnemar([[both, b], [c, neither]], exact=True).pvalue)
        k, t = min(b, c), b + c
        mid = 2 * stats.binom.cdf(k, t, 0.5) - stats.binom.pmf(k, t, 0.5) if b != c else 1 - stats.binom.pmf(k, t, 0.5) / 2
        same(f"{where} mcnemar_mid_p", look["mcnemar_mid_p"], mid if t else 1.0)
        for key, v in (("p_within", x["pw"]), ("p_beyond", x["pb"]), ("p_within_adjusted", x["aw"]), ("p_beyond_adjusted", x["ab"])):
            same(f"{where} {key}", look[key], v, 1e-6, 1e-300)
        level = alpha if look["primary"] else alpha / (2 * len(secondary))
        low, high = ratio(both, b, c, 1 - 2 * level) if relative else tango(n, b, c, 1 - 2 * level)
        same(f"{where} passes_margin_from", look["passes_margin_from"], max(0, high), 1e-7, 1e-10)
        same(f"{where} fails_margin_below", look["fails_margin_below"], low if low > 0 else None, 1e-7, 1e-10)
        same(f"{where} verdict", look["verdict"], verdict)
        if verdict == "inconclusive" and not relative:
            low, high = tango(n, b, c, conf)
            for key, loss in (("images", (b - c) / n), ("at_low", low), ("at_high", high)):
                same(f"{where} settle {key}", look["settle"][key], images_for_loss(loss, (b + c) / n, margin, level), 1e-6, 1)
        if look["primary"]:
            same(f"{x['m']['name']} verdict", x["m"]["verdict"], verdict)
    same("verdict", report["verdict"], worst)

    print(f"{folder}: {checked} numbers of {', '.join(wanted)} checked, {len(wrong)} differ")
    for line in wrong:
        print("  " + line)
    sys.exit(bool(wrong))


main()
