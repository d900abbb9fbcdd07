package accuracy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// DisplayName is a precision's name as it is printed: FP32, FP16 and INT8 in capitals, others as given.
func DisplayName(precision string) string {
	switch precision {
	case "fp32", "fp16", "bf16", "fp8", "int8", "int4":
		return strings.ToUpper(precision)
	}
	return precision
}

// explain writes the look's verdict as one sentence, without the model's name.
func (l *Look) explain(p Policy) string {
	base, cand := DisplayName(l.Base), DisplayName(l.Candidate)
	loss, ends := l.MarginLoss(p.MaxLoss)
	digits := 2
	if l.Table.N() >= 10000 {
		digits = 3
	}
	unit, kind, margin := "points", "loss", trimFloat(p.MaxLoss.Value*100)+" points"
	if p.MaxLoss.Relative {
		unit, kind, margin = "%", "relative loss", trimFloat(p.MaxLoss.Value*100)+" % of "+base+"'s accuracy"
	}
	percent := func(v float64) string {
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return map[bool]string{true: "without bound", false: "undefined"}[math.IsInf(v, 0)]
		}
		return strconv.FormatFloat(v*100+0, 'f', digits, 64) // +0: no minus sign on a zero
	}

	var s strings.Builder
	fmt.Fprintf(&s, "%s top-%d ", cand, l.K)
	relation := ""
	switch {
	case l.Verdict == Pass:
		s.WriteString("passes")
		relation = ", within the margin of " + margin + ","
	case l.Verdict == Fail:
		s.WriteString("fails")
		relation = ", beyond the margin of " + margin + ","
	default:
		s.WriteString("is inconclusive")
		relation = " against a margin of " + margin
	}
	if p.Rule == RulePoint {
		s.WriteString(" by the observed loss alone")
	}
	whole := p.Target == TargetSet && (l.Stop == nil || l.Stop.SetSize == l.Table.N())
	fmt.Fprintf(&s, ": its %s is %s %s", kind, percent(loss), unit)
	images := count(l.Table.N(), "image")
	switch {
	case whole:
		images = "all " + images + " of the set"
	case l.Stop != nil:
		fmt.Fprintf(&s, " (%s %% confidence sequence %s to %s)", trimFloat(p.Confidence*100), percent(ends.Low), percent(ends.High))
		images = group(l.Table.N()) + " of " + count(l.Stop.SetSize, "image") + ", visited in random order,"
	default:
		fmt.Fprintf(&s, " (%s %% interval %s to %s)", trimFloat(p.Confidence*100), percent(ends.Low), percent(ends.High))
	}
	fmt.Fprintf(&s, "%s on %s with %s (%s right only at %s, %s only at %s)", relation, images,
		count(l.Table.Discordant(), "discordant pair"), group(l.Table.BaseOnly), base, group(l.Table.CandOnly), cand)
	if p.Rule == RulePoint {
		return s.String() + "."
	}
	if !l.Primary {
		fmt.Fprintf(&s, ", after Holm's correction p = %s within and %s beyond the margin", pValue(l.PWithinAdjusted), pValue(l.PBeyondAdjusted))
	}
	if st := l.Settle; st != nil {
		at := fmt.Sprintf(" at this loss and discordance, %s if the loss were %s %s, %s if it were %s, ever more towards the margin",
			about(st.AtLow), percent(ends.Low), unit, about(st.AtHigh), percent(ends.High))
		switch {
		case st.Practical:
			fmt.Fprintf(&s, "; about %s images would settle it with 90 %% chance%s", about(st.Images), at)
		case st.Images > 0:
			fmt.Fprintf(&s, "; no set of practical size would settle it: with 90 %% chance it takes about %s images%s", about(st.Images), at)
		default:
			fmt.Fprintf(&s, "; no set of practical size would settle it: the observed loss is the margin itself (with 90 %% chance it takes about %s images if the loss were %s %s, %s if it were %s)",
				about(st.AtLow), percent(ends.Low), unit, about(st.AtHigh), percent(ends.High))
		}
	}
	if l.Stop != nil {
		s.WriteString(l.Stop.explain(l.Table.N()))
	}
	if whole {
		return s.String() + "; this is certain for the set, and says nothing about other images."
	}
	// Rounded outwards, so that the sentence stays true.
	scale := math.Pow10(digits)
	up := strconv.FormatFloat(max(0, math.Ceil(l.Settled.High*100*scale)/scale), 'f', digits, 64)
	down := math.Floor(l.Settled.Low*100*scale) / scale
	fmt.Fprintf(&s, "; these images would have passed a margin from %s %s up", up, unit)
	if down > 0 {
		fmt.Fprintf(&s, " and failed one below %s", strconv.FormatFloat(down, 'f', digits, 64))
	}
	return s.String() + "."
}

// explain says by which argument n images sufficed.
func (s *Stop) explain(n int) string {
	switch {
	case s.Rule == StopBetting:
		return fmt.Sprintf("; the first %s were enough, by betting", group(s.Settled))
	case s.Rule == StopCertain && s.Settled < s.SetSize:
		return fmt.Sprintf("; after the first %s the others could not change it", group(s.Settled))
	case n == s.SetSize && s.Rule == "":
		return "; the whole set did not settle it"
	}
	return ""
}

// count writes "1 image", "48,750 images".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return group(n) + " " + noun + "s"
}

// about rounds a planned count up to two significant digits.
func about(n int) string {
	if n == 0 {
		return "no number of"
	}
	unit := 1
	for n/unit >= 100 {
		unit *= 10
	}
	return group((n + unit - 1) / unit * unit)
}

// group writes an integer with thousands separated by commas.
func group(n int) string {
	s := strconv.Itoa(n)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// pValue prints a p-value with two significant digits, and a very small one as a bound.
func pValue(p float64) string {
	if p < 1e-4 {
		return "< 0.0001"
	}
	return strconv.FormatFloat(p, 'g', 2, 64)
}
