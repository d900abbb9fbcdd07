package reports

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/quantgate/quantgate/accuracy"
)

// LaTeX writes the accuracy table for a document that loads the package booktabs. The change that decides is bold.
func LaTeX(w io.Writer, r *Report) error {
	names := r.precisions()
	var b strings.Builder
	b.WriteString("% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n")
	fmt.Fprintf(&b, "\\caption{Top-1 and top-5 accuracy in \\%% and changes ($\\Delta$) in points. The verdict stands on the bold change: margin %s, confidence %s\\,\\%%.}\n",
		latexEscape(r.Policy.margin()), trim(r.Policy.Confidence*100))
	columns, groups, rules, header := "lr", []string{"", ""}, "", []string{"Network", "Images"}
	for _, name := range names {
		width := 2
		header = append(header, "top-1", "top-5")
		if !isBase(r, name) {
			width = 4
			header = append(header, `$\Delta$ top-1`, `$\Delta$ top-5`)
		}
		at := len(columns) + 1
		columns += strings.Repeat("r", width)
		groups = append(groups, fmt.Sprintf(`\multicolumn{%d}{c}{%s}`, width, latexEscape(accuracy.DisplayName(name))))
		rules += fmt.Sprintf(`\cmidrule(lr){%d-%d}`, at, at+width-1)
	}
	columns, groups, header = columns+"l", append(groups, ""), append(header, "Verdict")
	fmt.Fprintf(&b, "\\begin{tabular}{@{}%s@{}}\n\\toprule\n", columns)
	line := func(cells []string) { b.WriteString(strings.Join(cells, " & ") + " \\\\\n") }
	line(groups)
	b.WriteString(rules + "\n")
	line(header)
	b.WriteString("\\midrule\n")
	for i := range r.Models {
		line(r.latexRow(&r.Models[i], names))
	}
	b.WriteString("\\bottomrule\n\\end{tabular}\n\\end{table}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) latexRow(m *Model, names []string) []string {
	row := []string{latexEscape(m.Name), grouped(m.N)}
	change := func(p *Precision, v *float64, metric string) string {
		s := points(v, p.N)
		if strings.HasPrefix(s, "-") && len(s) > 1 {
			s = "$-$" + s[1:]
		}
		if slices.ContainsFunc(p.Looks, func(l Look) bool { return l.Primary && l.Metric == metric }) {
			s = `\textbf{` + s + "}"
		}
		return s
	}
	for _, name := range names {
		p := m.precision(name)
		switch {
		case p != nil:
			row = append(row, percent(p.Top1, p.N), percent(p.Top5, p.N))
		default:
			p = &Precision{}
			row = append(row, "-", "-")
		}
		if !isBase(r, name) {
			row = append(row, change(p, p.DeltaTop1, "top1"), change(p, p.DeltaTop5, "top5"))
		}
	}
	return append(row, string(m.Verdict))
}

var latexSpecials = map[rune]string{
	'\\': `\textbackslash{}`, '{': `\{`, '}': `\}`, '$': `\$`, '&': `\&`, '#': `\#`, '%': `\%`, '_': `\_`,
	'^': `\textasciicircum{}`, '~': `\textasciitilde{}`, '<': `\textless{}`, '>': `\textgreater{}`, '|': `\textbar{}`,
	'"': `\textquotedbl{}`, '`': `\textasciigrave{}`, '[': `{[}`, ']': `{]}`, '-': `{-}`,
}

// latexEscape keeps a text from being read as commands, ligatures or an optional argument, and on one line.
func latexEscape(s string) string {
	var b strings.Builder
	for _, c := range s {
		switch x, special := latexSpecials[c]; {
		case special:
			b.WriteString(x)
		case unicode.IsControl(c):
			b.WriteByte(' ')
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// margin is the policy's margin in words.
func (p Policy) margin() string {
	number := trim(p.MaxLossFraction * 100)
	if p.MaxLossRelative {
		return number + " % of the base's accuracy"
	}
	return number + " points"
}

// grouped writes a count with thousands separated by commas.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
