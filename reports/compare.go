package reports

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/quantgate/quantgate/accuracy"
)

// Comparison is what two runs on the same images say of each other: A is the base, B the candidate, precision by precision.
type Comparison struct {
	SchemaVersion string           `json:"schema_version"`
	Tool          string           `json:"tool,omitempty"`
	A             Side             `json:"a"`
	B             Side             `json:"b"`
	Verdict       accuracy.Verdict `json:"verdict"` // the worst of the pairs
	Policy        Policy           `json:"policy"`
	Pairs         []Pair           `json:"pairs"`
	Differences   []string         `json:"differences"` // between the runs' settings
	Warnings      []string         `json:"warnings"`
}

// Side is one of the two runs.
type Side struct {
	Outcomes string `json:"outcomes"` // path
	Tool     string `json:"tool,omitempty"`
	Method   string `json:"method,omitempty"` // of calibration
}

// Pair is one precision of one model in both runs.
type Pair struct {
	Model     string `json:"model"`
	ModelB    string `json:"model_b,omitempty"` // where B calls it otherwise
	Precision string `json:"precision"`
	N         int    `json:"n"` // images in both
	// Identical says that both gave the same classes, probabilities and margins on every image; nothing was decided then, and
	// there are no looks.
	Identical bool             `json:"identical"`
	Verdict   accuracy.Verdict `json:"verdict"`
	Sentence  string           `json:"sentence"`
	A         Rates            `json:"a"`
	B         Rates            `json:"b"`
	Agreement float64          `json:"agreement"` // share of images with the same top-1 class
	Looks     []Look           `json:"looks,omitempty"`
}

// Rates are a run's accuracies.
type Rates struct {
	Top1 float64 `json:"top1"`
	Top5 float64 `json:"top5"`
}

// PairOf makes a pair of a judged model whose base is A and whose only candidate is B.
func PairOf(model, precision string, s *accuracy.ModelSummary) Pair {
	a, b := newPrecision(s.Precisions[0], 0), newPrecision(s.Precisions[1], 0)
	p := Pair{
		Model: model, Precision: precision, N: s.N, Verdict: s.Verdict, Sentence: sentence(s),
		A: Rates{a.Top1, a.Top5}, B: Rates{b.Top1, b.Top5}, Looks: b.Looks,
	}
	if b.Agreement != nil {
		p.Agreement = *b.Agreement
	}
	return p
}

// NewComparison starts a comparison under a policy.
func NewComparison(p accuracy.Policy) *Comparison {
	return &Comparison{
		SchemaVersion: SchemaVersion, Verdict: accuracy.Pass, Policy: newPolicy(p),
		Pairs: []Pair{}, Differences: []string{}, Warnings: []string{},
	}
}

// JSON writes the comparison; its looks are as in a report.
func (c *Comparison) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(c)
}

// table shows every look: one a row.
func (c *Comparison) table() table {
	t := table{
		header: []string{"network", "look", "verdict", "images", "A %", "B %", "Δ points", trim(c.Policy.Confidence*100) + " % interval", "lost", "gained", "McNemar p", "same class"},
		left:   3,
	}
	for _, p := range c.Pairs {
		name := p.Model
		if p.ModelB != "" {
			name += " / " + p.ModelB
		}
		precision := accuracy.DisplayName(p.Precision)
		same := percent(p.Agreement, p.N) + " %"
		if p.Identical {
			for i, rate := range []float64{p.A.Top1, p.A.Top5} {
				t.rows = append(t.rows, []string{name, precision + " " + metric([]string{"top1", "top5"}[i]), "identical", strconv.Itoa(p.N),
					percent(rate, p.N), percent(rate, p.N), percent(0, p.N), "-", "0", "0", "-", same})
			}
			continue
		}
		for _, l := range p.Looks {
			a, b := p.A.Top1, p.B.Top1
			if l.Metric == "top5" {
				a, b = p.A.Top5, p.B.Top5
			}
			verdict := string(l.Verdict)
			if l.Primary {
				verdict = strings.ToUpper(verdict)
			}
			delta := 0 - l.Loss
			t.rows = append(t.rows, []string{
				name, precision + " " + metric(l.Metric), verdict, strconv.Itoa(p.N), percent(a, p.N), percent(b, p.N),
				points(&delta, p.N), deltaInterval(l.LossInterval, p.N),
				strconv.Itoa(l.BaseOnly), strconv.Itoa(l.CandOnly), pValue(l.McNemarExact), same,
			})
		}
	}
	return t
}

func (s Side) describe() string {
	var facts []string
	for _, f := range []string{s.Method, s.Tool} {
		if f != "" {
			facts = append(facts, f)
		}
	}
	if len(facts) == 0 {
		return s.Outcomes
	}
	return s.Outcomes + " (" + strings.Join(facts, ", ") + ")"
}

// heading says what the table's capitals mean.
func (c *Comparison) heading() string {
	return fmt.Sprintf("B against A on the same images; capitals mark what decides (margin %s, confidence %s, rule %s)",
		c.Policy.MaxLoss, trim(c.Policy.Confidence), c.Policy.Rule)
}

// Text writes the comparison as aligned text.
func (c *Comparison) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "A: %s\nB: %s\n\n%s\n\n", c.A.describe(), c.B.describe(), c.heading())
	c.table().text(&b)
	b.WriteByte('\n')
	for _, d := range c.Differences {
		fmt.Fprintf(&b, "note: %s\n", d)
	}
	for _, x := range c.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", x)
	}
	for _, p := range c.Pairs {
		fmt.Fprintf(&b, "%s %s: %s\n", p.Model, accuracy.DisplayName(p.Precision), p.Sentence)
	}
	fmt.Fprintf(&b, "verdict: %s\n", c.Verdict)
	_, err := io.WriteString(w, b.String())
	return err
}

// Markdown writes the comparison as GitHub-flavoured Markdown.
func (c *Comparison) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Comparison: %s\n\n- A: %s\n- B: %s\n", c.Verdict, escape(c.A.describe()), escape(c.B.describe()))
	for _, p := range c.Pairs {
		fmt.Fprintf(&b, "- **%s %s**: %s\n", escape(p.Model), escape(accuracy.DisplayName(p.Precision)), escape(p.Sentence))
	}
	fmt.Fprintf(&b, "\n%s.\n\n", escape(c.heading()))
	c.table().markdown(&b)
	for _, list := range []struct {
		title string
		lines []string
	}{{"Warnings", c.Warnings}, {"Differences", c.Differences}} {
		if len(list.lines) > 0 {
			fmt.Fprintf(&b, "\n## %s\n\n", list.title)
			for _, l := range list.lines {
				fmt.Fprintf(&b, "- %s\n", escape(l))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
