package reports

import (
	"encoding/csv"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/quantgate/quantgate/accuracy"
)

// table is rows of cells under a header; the first left columns are text, the others numbers, set flush right.
type table struct {
	header []string
	left   int
	rows   [][]string
}

// accuracyTable is the study's table: one network a row, top-1 and top-5 of every precision and the changes. A precision
// that a model lacks is a dash.
func accuracyTable(r *Report) table {
	names := r.precisions()
	t := table{header: []string{"network", "images"}, left: 1}
	for _, name := range names {
		label := accuracy.DisplayName(name)
		t.header = append(t.header, label+" top-1", "top-5")
		if !isBase(r, name) {
			t.header = append(t.header, "Δ top-1", "Δ top-5")
		}
	}
	for _, m := range r.Models {
		row := []string{m.Name, strconv.Itoa(m.N)}
		for _, name := range names {
			p := m.precision(name)
			if p == nil {
				p = &Precision{}
				row = append(row, "-", "-")
			} else {
				row = append(row, percent(p.Top1, p.N), percent(p.Top5, p.N))
			}
			if !isBase(r, name) {
				row = append(row, points(p.DeltaTop1, p.N), points(p.DeltaTop5, p.N))
			}
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// precisions names every model's precisions, in order of appearance.
func (r *Report) precisions() []string {
	var names []string
	for _, m := range r.Models {
		for _, p := range m.Precisions {
			if !slices.Contains(names, p.Name) {
				names = append(names, p.Name)
			}
		}
	}
	return names
}

// lookTable shows every paired comparison: one a row. Its calibration error is the base's and the candidate's.
func lookTable(r *Report) table {
	confidence := trim(r.Policy.Confidence*100) + " % interval"
	t := table{
		header: []string{"network", "look", "verdict", "Δ points", confidence, "lost", "gained", "McNemar p", "same class", "mean KL", "max Δ logit", "ECE %", "ties", "NaN"},
		left:   3,
	}
	for _, m := range r.Models {
		for _, p := range m.Precisions {
			ece := "-"
			if base := m.precision(m.Base); p.ECE != nil && base != nil && base.ECE != nil {
				ece = strconv.FormatFloat(*base.ECE*100, 'f', 2, 64) + " → " + strconv.FormatFloat(*p.ECE*100, 'f', 2, 64)
			}
			for _, l := range p.Looks {
				verdict := string(l.Verdict)
				if l.Primary {
					verdict = strings.ToUpper(verdict)
				}
				ties := p.TiedTop1
				if l.Metric == "top5" {
					ties = p.TiedTop5
				}
				delta := 0 - l.Loss
				t.rows = append(t.rows, []string{
					m.Name, accuracy.DisplayName(p.Name) + " " + metric(l.Metric), verdict,
					points(&delta, p.N), deltaInterval(l.LossInterval, p.N),
					strconv.Itoa(l.BaseOnly), strconv.Itoa(l.CandOnly), pValue(l.McNemarExact),
					optional(p.Agreement, func(v float64) string { return percent(v, p.N) + " %" }),
					optional(p.MeanKL, func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }),
					optional(p.MaxLogitChange, func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }),
					ece, strconv.Itoa(ties), strconv.Itoa(p.NaN),
				})
			}
		}
	}
	return t
}

func (m *Model) precision(name string) *Precision {
	for i := range m.Precisions {
		if m.Precisions[i].Name == name {
			return &m.Precisions[i]
		}
	}
	return nil
}

func isBase(r *Report, name string) bool {
	for _, m := range r.Models {
		if m.Base != name && m.precision(name) != nil {
			return false
		}
	}
	return true
}

// digits is how many decimals of a percentage n images can carry.
func digits(n int) int {
	if n >= 10000 {
		return 3
	}
	return 2
}

func percent(v float64, n int) string { return strconv.FormatFloat(v*100, 'f', digits(n), 64) }

// points prints a change with its sign; a dash where there is none.
func points(v *float64, n int) string {
	return optional(v, func(v float64) string {
		s := percent(v, n)
		if strings.Trim(s, "-0.") == "" {
			return strings.TrimPrefix(s, "-")
		}
		if v > 0 {
			s = "+" + s
		}
		return s
	})
}

// deltaInterval prints the interval of the change, which is the loss's mirrored.
func deltaInterval(loss Interval, n int) string {
	end := func(v *float64) string {
		if v == nil {
			return "?"
		}
		d := 0 - *v
		return points(&d, n)
	}
	return end(loss.High) + " to " + end(loss.Low)
}

func optional(v *float64, format func(float64) string) string {
	if v == nil {
		return "-"
	}
	return format(*v)
}

func pValue(p float64) string {
	if p < 1e-4 {
		return "<0.0001"
	}
	return strconv.FormatFloat(p, 'f', 4, 64)
}

func metric(m string) string { return strings.Replace(m, "top", "top-", 1) }

func trim(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// Verdict writes one sentence a model and the verdict, for a gate's stdout.
func Verdict(w io.Writer, r *Report) error {
	var b strings.Builder
	r.verdict(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) verdict(b *strings.Builder) {
	for _, m := range r.Models {
		fmt.Fprintf(b, "%s: %s\n", m.Name, m.Sentence)
	}
	fmt.Fprintf(b, "verdict: %s\n", r.Verdict)
}

// Text writes the report as aligned text for a terminal.
func Text(w io.Writer, r *Report) error {
	var b strings.Builder
	b.WriteString("Accuracy in %, changes (Δ) in points\n\n")
	accuracyTable(r).text(&b)
	if looks := lookTable(r); len(looks.rows) > 0 {
		fmt.Fprintf(&b, "\nPaired comparisons; capitals mark the look that decides (margin %s, confidence %s, rule %s)\n\n",
			r.Policy.MaxLoss, trim(r.Policy.Confidence), r.Policy.Rule)
		looks.text(&b)
	}
	if len(r.Throughput) > 0 {
		b.WriteString("\nThroughput\n\n")
		throughputTable(r.Throughput).text(&b)
	}
	b.WriteByte('\n')
	for _, line := range r.notes() {
		fmt.Fprintf(&b, "note: %s\n", line)
	}
	for _, line := range r.warnings() {
		fmt.Fprintf(&b, "warning: %s\n", line)
	}
	r.verdict(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (t table) text(b *strings.Builder) {
	width := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	line := func(row []string) {
		var s strings.Builder
		for i, c := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i > 0 {
				s.WriteString("  ")
			}
			if i < t.left {
				s.WriteString(c + pad)
			} else {
				s.WriteString(pad + c)
			}
		}
		b.WriteString(strings.TrimRight(s.String(), " ") + "\n")
	}
	line(t.header)
	rule := make([]string, len(t.header))
	for i := range rule {
		rule[i] = strings.Repeat("-", width[i])
	}
	line(rule)
	for _, row := range t.rows {
		line(row)
	}
}

// notes says where the figures come from: data, calibration, nodes left in float.
func (r *Report) notes() []string {
	var lines []string
	if d := r.Dataset; d != nil {
		lines = append(lines, fmt.Sprintf("%d images: %d calibrated, %d scored, %d skipped", d.Images, d.Calibration, d.Scored, d.Skipped))
	}
	lines = append(lines, r.computed()...)
	lines = append(lines, throughputNotes(r.Throughput)...)
	for _, m := range r.Models {
		for _, p := range m.Precisions {
			if p.ClassesLost > 0 {
				lines = append(lines, m.Name+": "+accuracy.DisplayName(p.Name)+" "+r.classesLost(p))
			}
		}
		if c := m.Calibration; c != nil {
			from := fmt.Sprintf("%d images", c.Images)
			if c.FromCache {
				from = "cache " + c.Cache
			}
			lines = append(lines, fmt.Sprintf("%s: %d thresholds by %s from %s", m.Name, c.Tensors, c.Method, from))
		}
		for _, q := range m.Quantization {
			line := fmt.Sprintf("%s: %d nodes compute in %s", m.Name, q.Rewritten, accuracy.DisplayName(q.Precision))
			if q.Following > 0 {
				line += fmt.Sprintf(", %d follow them (activations in their kernels, and what only moves values)", q.Following)
			}
			if len(q.Float) > 0 {
				line += fmt.Sprintf(", %d stay in float: %s", len(q.Float), floatNodes(q.Float))
			}
			lines = append(lines, line)
		}
		for _, l := range m.Layers {
			lines = append(lines, fmt.Sprintf("%s: %s runs %s", m.Name, accuracy.DisplayName(l.Precision), layerCounts(l)))
		}
	}
	return lines
}

// computed says what the candidates were computed in, once where it is the same for several models.
func (r *Report) computed() []string {
	var lines []string
	for _, m := range r.Models {
		for _, p := range m.Precisions[min(1, len(m.Precisions)):] {
			line := accuracy.DisplayName(p.Name) + ": " + p.Computed
			if p.Computed != "" && !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// classesLost names the classes that lost most surely.
func (r *Report) classesLost(p Precision) string {
	const named = 5
	var names []string
	for _, c := range p.Classes[:min(named, p.ClassesLost)] {
		names = append(names, fmt.Sprintf("%s by %s points", r.className(c.Class), percent(c.Loss, c.N)))
	}
	if p.ClassesLost > named {
		names = append(names, "...")
	}
	noun := "classes"
	if p.ClassesLost == 1 {
		noun = "class"
	}
	return fmt.Sprintf("lost significantly in %d %s: %s", p.ClassesLost, noun, strings.Join(names, ", "))
}

// layerCounts says how many layers run in which arithmetic, the most first.
func layerCounts(l Layers) string {
	computing := 0
	for _, n := range l.Counts {
		computing += n
	}
	names := slices.Sorted(maps.Keys(l.Counts))
	slices.SortStableFunc(names, func(a, b string) int { return l.Counts[b] - l.Counts[a] })
	for i, n := range names {
		names[i] = fmt.Sprintf("%d of %d layers in %s", l.Counts[n], computing, accuracy.DisplayName(n))
	}
	return strings.Join(names, ", ")
}

// floatNodes groups nodes by operator and reason, in order of appearance.
func floatNodes(nodes []FloatNode) string {
	type group struct {
		key string
		n   int
	}
	var groups []group
	for _, f := range nodes {
		key := f.Op + " (" + f.Reason + ")"
		i := slices.IndexFunc(groups, func(g group) bool { return g.key == key })
		if i < 0 {
			groups = append(groups, group{key: key})
			i = len(groups) - 1
		}
		groups[i].n++
	}
	var parts []string
	for _, g := range groups {
		parts = append(parts, fmt.Sprintf("%d %s", g.n, g.key))
	}
	return strings.Join(parts, ", ")
}

// warnings is every warning of the report, those of the models with the model's name.
func (r *Report) warnings() []string {
	lines := append(slices.Clone(r.Warnings), r.Throughput.Warnings()...)
	for _, m := range r.Models {
		if m.Calibration != nil {
			for _, s := range m.Calibration.Warnings {
				lines = append(lines, m.Name+": "+s)
			}
		}
		for _, q := range m.Quantization {
			for _, s := range q.Warnings {
				lines = append(lines, m.Name+" "+accuracy.DisplayName(q.Precision)+": "+s)
			}
		}
	}
	return lines
}

// Markdown writes the report as GitHub-flavoured Markdown.
func Markdown(w io.Writer, r *Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Verdict: %s\n\n", r.Verdict)
	for _, m := range r.Models {
		fmt.Fprintf(&b, "- **%s**: %s\n", escape(m.Name), escape(m.Sentence))
	}
	b.WriteString("\n## Accuracy\n\nIn %, changes (Δ) in points.\n\n")
	accuracyTable(r).markdown(&b)
	if looks := lookTable(r); len(looks.rows) > 0 {
		fmt.Fprintf(&b, "\n## Paired comparisons\n\nCapitals mark the look that decides (margin %s, confidence %s, rule %s).\n\n",
			r.Policy.MaxLoss, trim(r.Policy.Confidence), r.Policy.Rule)
		looks.markdown(&b)
	}
	if len(r.Throughput) > 0 {
		b.WriteString("\n## Throughput\n\n")
		throughputTable(r.Throughput).markdown(&b)
	}
	list := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n## %s\n\n", title)
		for _, l := range lines {
			fmt.Fprintf(&b, "- %s\n", escape(l))
		}
	}
	list("Warnings", r.warnings())
	list("Notes", r.notes())
	_, err := io.WriteString(w, b.String())
	return err
}

// escape keeps a text from being read as markup, and on one line.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "*", `\*`, "_", `\_`, "<", "&lt;", "&", "&amp;", "$", `\$`, "~", `\~`, "@", "&#64;", "`", "\\`", "[", `\[`, "\n", " ", "\r", " ").Replace(s)
}

func (t table) markdown(b *strings.Builder) {
	line := func(row []string, cell func(int, string) string) {
		b.WriteByte('|')
		for i, c := range row {
			b.WriteString(" " + cell(i, c) + " |")
		}
		b.WriteByte('\n')
	}
	text := func(_ int, c string) string { return escape(c) }
	line(t.header, text)
	line(t.header, func(i int, _ string) string {
		if i < t.left {
			return "---"
		}
		return "---:"
	})
	for _, row := range t.rows {
		line(row, text)
	}
}

// CSV writes one row a model and precision, fractions and counts unrounded. Fields that a base or an unbounded interval
// does not have are empty.
func CSV(w io.Writer, r *Report) error {
	header := []string{"model", "precision", "base", "n", "top1", "top5", "delta_top1", "delta_top5", "nan", "ece", "agreement", "mean_kl", "max_logit_change", "classes_lost"}
	lookFields := []string{"primary", "verdict", "both", "base_only", "cand_only", "neither", "loss", "loss_low", "loss_high",
		"relative_loss", "relative_loss_low", "relative_loss_high", "mcnemar_exact_p", "mcnemar_mid_p",
		"p_within", "p_beyond", "p_within_adjusted", "p_beyond_adjusted", "tied"}
	for _, k := range accuracy.Metrics {
		for _, f := range lookFields {
			header = append(header, fmt.Sprintf("top%d_%s", k, f))
		}
	}
	c := csv.NewWriter(w)
	if err := c.Write(header); err != nil {
		return err
	}
	number := func(v *float64) string {
		if v == nil {
			return ""
		}
		return strconv.FormatFloat(*v, 'g', -1, 64)
	}
	for _, m := range r.Models {
		for _, p := range m.Precisions {
			classesLost := ""
			if p.Looks != nil {
				classesLost = strconv.Itoa(p.ClassesLost)
			}
			row := []string{m.Name, p.Name, m.Base, strconv.Itoa(p.N), number(&p.Top1), number(&p.Top5), number(p.DeltaTop1), number(p.DeltaTop5),
				strconv.Itoa(p.NaN), number(p.ECE), number(p.Agreement), number(p.MeanKL), number(p.MaxLogitChange), classesLost}
			for i, tied := range []int{p.TiedTop1, p.TiedTop5} {
				if i >= len(p.Looks) {
					row = append(row, make([]string, len(lookFields)-1)...)
					row = append(row, strconv.Itoa(tied))
					continue
				}
				l := p.Looks[i]
				row = append(row, strconv.FormatBool(l.Primary), string(l.Verdict),
					strconv.Itoa(l.Both), strconv.Itoa(l.BaseOnly), strconv.Itoa(l.CandOnly), strconv.Itoa(l.Neither),
					number(&l.Loss), number(l.LossInterval.Low), number(l.LossInterval.High),
					number(l.RelLoss), number(l.RelInterval.Low), number(l.RelInterval.High), number(&l.McNemarExact), number(&l.McNemarMidP),
					number(&l.PWithin), number(&l.PBeyond), number(&l.PWithinAdjusted), number(&l.PBeyondAdjusted), strconv.Itoa(tied))
			}
			if err := c.Write(row); err != nil {
				return err
			}
		}
	}
	c.Flush()
	return c.Error()
}

type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name      string        `xml:"name,attr"`
	Classname string        `xml:"classname,attr"`
	Failure   *junitFailure `xml:"failure"`
	Out       string        `xml:"system-out"`
}

type junitFailure struct {
	Type    string `xml:"type,attr"`
	Message string `xml:"message,attr"`
}

// JUnit writes one suite a model and one case a look, for CI systems. A look that decides is a failure unless it passed;
// the others always succeed and carry their sentence as output.
func JUnit(w io.Writer, r *Report) error {
	all := junitSuites{Name: "quantgate"}
	for _, m := range r.Models {
		s := junitSuite{Name: m.Name}
		for _, p := range m.Precisions {
			for _, l := range p.Looks {
				c := junitCase{Name: accuracy.DisplayName(p.Name) + " " + metric(l.Metric), Classname: m.Name, Out: l.Sentence}
				if (l.Primary || r.Policy.GateAll) && l.Verdict != accuracy.Pass {
					c.Failure = &junitFailure{Type: string(l.Verdict), Message: l.Sentence}
					s.Failures++
				}
				s.Tests++
				s.Cases = append(s.Cases, c)
			}
		}
		all.Tests += s.Tests
		all.Failures += s.Failures
		all.Suites = append(all.Suites, s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
