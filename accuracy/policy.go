package accuracy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxLoss is the margin of a gate: the largest loss that a release may have. Value is a fraction, of all images, or of
// the base's accuracy where Relative.
type MaxLoss struct {
	Value    float64
	Relative bool
}

// ParseMaxLoss reads "0.5pp", percentage points, or "0.5%rel", percent of the base's accuracy. A bare number or a bare
// percentage could mean either and is refused.
func ParseMaxLoss(s string) (MaxLoss, error) {
	text := strings.TrimSpace(s)
	number, points := strings.CutSuffix(text, "pp")
	var relative bool
	if !points {
		number, relative = strings.CutSuffix(text, "%rel")
	}
	bare := strings.TrimSuffix(text, "%")
	if !points && !relative {
		number = bare
	}
	number = strings.TrimSpace(number)
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || strings.Trim(number, "0123456789.") != "" {
		return MaxLoss{}, fmt.Errorf("max loss %q: want a number with its unit, such as 0.5pp (percentage points) or 0.5%%rel (percent of the base's accuracy)", s)
	}
	if !points && !relative {
		return MaxLoss{}, fmt.Errorf("max loss %q can mean two things: write %[2]spp for percentage points (from 75 %% down to %[3]s %%) or %[2]s%%rel for percent of the base's accuracy (from 75 %% down to %[4]s %%)",
			s, number, trimFloat(75-v), trimFloat(75-0.75*v))
	}
	if v >= 100 {
		return MaxLoss{}, fmt.Errorf("max loss %q: must be below 100", s)
	}
	return MaxLoss{Value: v / 100, Relative: relative}, nil
}

// String writes the margin as ParseMaxLoss reads it.
func (m MaxLoss) String() string {
	if m.Relative {
		return trimFloat(m.Value*100) + "%rel"
	}
	return trimFloat(m.Value*100) + "pp"
}

// trimFloat prints at most 12 significant digits, so that 0.07 does not become 0.06999999999999999.
func trimFloat(v float64) string {
	f, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 12, 64), 64)
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// Rule says what a verdict stands on.
type Rule string

// The rules.
const (
	RuleInterval Rule = "interval" // the score interval: pass, fail or inconclusive
	RulePoint    Rule = "point"    // the observed loss alone: pass or fail, by luck where the set is small
)

// Verdict is a gate's answer.
type Verdict string

// The verdicts.
const (
	Pass         Verdict = "pass"
	Fail         Verdict = "fail"
	Inconclusive Verdict = "inconclusive"
	None         Verdict = "none" // only a base was scored: nothing was compared
)

// Worse returns the worse of two verdicts: fail, then inconclusive, then pass. None is no verdict.
func (v Verdict) Worse(w Verdict) Verdict {
	order := []Verdict{None, Pass, Inconclusive, Fail}
	if slices.Index(order, w) > slices.Index(order, v) {
		return w
	}
	return v
}

// Primary names the look that decides: a candidate and top-1 or top-5. Where Candidate is empty it is int8, or the only
// candidate.
type Primary struct {
	Candidate string
	K         int // 1 or 5
}

// Among returns the candidate that decides among precisions, base first; "" where there is only a base.
func (p Primary) Among(precisions []string) (string, error) {
	if len(precisions) < 2 {
		return "", nil
	}
	candidates := precisions[1:]
	switch {
	case p.Candidate != "":
		if !slices.Contains(candidates, p.Candidate) {
			return "", fmt.Errorf("primary %s: no candidate %s among %s", p, p.Candidate, candidates)
		}
		return p.Candidate, nil
	case slices.Contains(candidates, "int8"):
		return "int8", nil
	case len(candidates) == 1:
		return candidates[0], nil
	}
	return "", fmt.Errorf("candidates %s, none of them named int8: name the one that decides, such as %s:%s", candidates, candidates[0], p)
}

// ParsePrimary reads "top1", "top5", or one of them after a candidate and a colon: "int8:top1".
func ParsePrimary(s string) (Primary, error) {
	candidate, metric := "", s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		candidate, metric = s[:i], s[i+1:]
		if candidate == "" {
			metric = ""
		}
	}
	for _, k := range Metrics {
		if metric == metricName(k) {
			return Primary{Candidate: candidate, K: k}, nil
		}
	}
	return Primary{}, fmt.Errorf("primary %q: want top1, top5, or CANDIDATE:top1", s)
}

// String writes the primary as ParsePrimary reads it.
func (p Primary) String() string {
	if p.Candidate == "" {
		return metricName(p.K)
	}
	return p.Candidate + ":" + metricName(p.K)
}

func metricName(k int) string { return "top" + strconv.Itoa(k) }

// Target says what a verdict speaks about.
type Target string

// The targets.
const (
	// TargetPopulation: the images scored are a sample, and the verdict is about the images that they stand for.
	TargetPopulation Target = "population"
	// TargetSet: the verdict is about the set of images itself that is scored, without those that calibrated. Once all of them
	// are seen it is certain, and says nothing about other images.
	TargetSet Target = "set"
)

// Policy is what a verdict is decided by.
type Policy struct {
	MaxLoss    MaxLoss
	Confidence float64 // two-sided; each end of the interval errs with (1 - Confidence)/2
	Primary    Primary
	Rule       Rule
	GateAll    bool // secondary looks decide too, not only warn
	Target     Target
}

// DefaultPolicy passes a loss of at most 0.5 points in INT8 top-1 at 95 % confidence.
func DefaultPolicy() Policy {
	return Policy{MaxLoss: MaxLoss{Value: 0.005}, Confidence: 0.95, Primary: Primary{K: 1}, Rule: RuleInterval, Target: TargetPopulation}
}

// Validate reports the first field that no verdict can be decided by.
func (p Policy) Validate() error {
	if !(p.MaxLoss.Value >= 0 && p.MaxLoss.Value < 1) {
		return fmt.Errorf("max loss %v: must be a fraction of at least 0 and below 1", p.MaxLoss.Value)
	}
	if !(p.Confidence >= 0.5 && p.Confidence < 1) {
		return fmt.Errorf("confidence %v: must be a fraction of at least 0.5 and below 1, such as 0.95", p.Confidence)
	}
	if !slices.Contains(Metrics[:], p.Primary.K) {
		return fmt.Errorf("primary top-%d: want top1 or top5", p.Primary.K)
	}
	if p.Rule != RuleInterval && p.Rule != RulePoint {
		return fmt.Errorf("rule %q: want %s or %s", p.Rule, RuleInterval, RulePoint)
	}
	if p.Target != TargetPopulation && p.Target != TargetSet {
		return fmt.Errorf("target %q: want %s or %s", p.Target, TargetPopulation, TargetSet)
	}
	return nil
}

// alpha is the error rate of one end of the interval.
func (p Policy) alpha() float64 { return (1 - p.Confidence) / 2 }
