package main

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/quantgate/quantgate/benchmarks/internal/bench"
)

// sections of the document, by bench.Line.What.
var sections = []struct{ what, title, text string }{
	{"calibration", "Calibration", `Entropy calibration on 500 images of every tensor that TensorRT's cache has, decoding left out on both sides. The bare pass is the same
engine over the same images without any activation taken out.`},
	{"images", "Images", `Full-size JPEGs to input tensors on one core, to the pixels of Pillow.`},
	{"job", "The whole job", `Decoding and scoring from start to end, beside the bare engine and beside the same job in Python on ONNX Runtime's own INT8 models. ` + "`evaluate`" + `
scores the very models that Python does. ` + "`run`" + ` makes its INT8 model itself and computes it as TensorRT does, with symmetric int8 activations: the model with
asymmetric uint8 ones computes something else, which is faster on a CPU, and has no bar beside it.`},
	{"uint8", "INT8 scored on the CPU", `The same integers as symmetric int8 and as uint8 with zero point 128.`},
	{"fp16", "FP16 scored on the CPU", `float32 arithmetic with float16's roundings.`},
	{"big", "50,000 images", "`quantgate run` over a synthetic tar of 50,000 JPEGs of ImageNet's sizes: 2,000 batches of 25, of which 50 calibrate."},
	{"throughput", "Throughput on a GPU", `The networks of the published study with random weights, batches of 128, no copies between host and device, medians of 7 repeats: each engine of
` + "`quantgate bench`" + ` beside a bare loop in C++ over the same plan, and beside FP32. For INT8 the published study has 4.6 to 9.5 times FP32 on a T4.`},
}

const preamble = `# Benchmarks

Written by ` + "`make bench`" + `, from what its programs measured; not by hand. A ratio is the median over pairs, the two sides of a pair measured one after the
other in the same run, who is first alternating; in brackets stand the smallest and the largest. CPU time is user and system time.
"Bar" is what a figure must keep to, "aim" what it should reach; both are judged by the median.
Absolute figures depend on the machine and its neighbours; compare ratios.
`

// document renders what was measured.
func document(all []outcome) []byte {
	var b bytes.Buffer
	b.WriteString(preamble)
	var lines []bench.Line
	for _, x := range all {
		lines = append(lines, x.Lines...)
	}
	writeVerdicts(&b, lines)
	for _, s := range sections {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", s.title, s.text)
		var here []bench.Line
		for _, l := range lines {
			if l.What == s.what {
				here = append(here, l)
			}
		}
		if len(here) == 0 {
			b.WriteString("\nNot measured.\n")
			continue
		}
		writeFigures(&b, here)
	}
	for _, l := range lines {
		if !slices.ContainsFunc(sections, func(s struct{ what, title, text string }) bool { return s.what == l.What }) {
			fmt.Fprintf(&b, "\n%s has no section: what is %q.\n", l.Bench, l.What)
		}
	}
	writeRuns(&b, all)
	return b.Bytes()
}

// writeVerdicts says of every figure with a bar or an aim whether it is met.
func writeVerdicts(b *bytes.Buffer, lines []bench.Line) {
	b.WriteString("\n## What is met\n\n")
	header := false
	for _, l := range lines {
		if l.Bar == "" && l.Goal == "" {
			continue
		}
		if !header {
			b.WriteString("| benchmark | figure | measured | bar | met | aim | met |\n| --- | --- | ---: | ---: | --- | ---: | --- |\n")
			header = true
		}
		x, ok := l.Figure()
		measured := "not measured"
		if ok {
			measured = number(x)
			if l.Ratio == nil {
				measured += " " + l.Unit
			}
		}
		met := func(limit string) string {
			switch {
			case limit == "":
				return ""
			case !ok:
				return "?"
			case bench.Meets(x, limit):
				return "yes"
			}
			return "**no**"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s |\n", l.Bench, figure(l), measured, limit(l.Bar), met(l.Bar), limit(l.Goal), met(l.Goal))
	}
	if !header {
		b.WriteString("Nothing that has a bar was measured.\n")
	}
}

// figure says in words what a line's ratio or value is.
func figure(l bench.Line) string {
	switch {
	case l.Peer == "":
		return l.Metric
	case l.RatioOf == bench.TheirsOfOurs:
		return fmt.Sprintf("%s, %s / ours", l.Metric, l.Peer)
	}
	return fmt.Sprintf("%s, ours / %s", l.Metric, l.Peer)
}

func limit(s string) string { return strings.NewReplacer("<=", "≤", ">=", "≥").Replace(s) }

func writeFigures(b *bytes.Buffer, lines []bench.Line) {
	b.WriteString("\n| benchmark | figure | ours | other side | ratio | pairs |\n| --- | --- | ---: | ---: | ---: | ---: |\n")
	var notes []string
	for _, l := range lines {
		theirs, ratio, pairs := "", "", ""
		if l.Theirs != nil {
			theirs = number(*l.Theirs) + " " + l.Unit
		}
		if l.Ratio != nil {
			ratio = number(*l.Ratio)
			if l.Low != nil && l.High != nil {
				ratio += fmt.Sprintf(" (%s to %s)", number(*l.Low), number(*l.High))
			}
		}
		if l.Absent != "" {
			theirs = "absent"
			notes = append(notes, l.Absent)
		}
		if l.Pairs > 0 {
			pairs = fmt.Sprint(l.Pairs)
		}
		fmt.Fprintf(b, "| %s | %s | %s %s | %s | %s | %s |\n", l.Bench, figure(l), number(l.Ours), l.Unit, theirs, ratio, pairs)
		if l.Note != "" {
			notes = append(notes, strings.TrimPrefix(l.Bench, l.What+"/")+": "+l.Note)
		}
	}
	if len(notes) > 0 {
		b.WriteString("\n")
	}
	for i, n := range notes {
		if !slices.Contains(notes[:i], n) {
			fmt.Fprintf(b, "- %s\n", n)
		}
	}
}

// writeRuns says how, when, where and with which versions each program ran.
func writeRuns(b *bytes.Buffer, all []outcome) {
	b.WriteString("\n## How it was measured\n")
	for _, x := range all {
		fmt.Fprintf(b, "\n**%s**", x.Program)
		if x.Date == "" {
			fmt.Fprintf(b, ": not measured here. %s\n", x.Failed)
			continue
		}
		where := x.Where
		if where == "" {
			where = x.Machine.String()
		}
		fmt.Fprintf(b, ", %s, quantgate %s\n\n    %s\n\n%s", x.Date, x.Version, x.Command, where)
		if x.Machine.Load != "" && x.Where == "" {
			fmt.Fprintf(b, "; load average %s when it began", x.Machine.Load)
		}
		versions := map[string]string{}
		for _, l := range x.Lines {
			maps.Copy(versions, l.Versions)
		}
		for i, name := range slices.Sorted(maps.Keys(versions)) {
			separator := ", "
			if i == 0 {
				separator = ".\n"
			}
			fmt.Fprintf(b, "%s%s %s", separator, name, versions[name])
		}
		b.WriteString(".\n")
		if x.Failed != "" {
			fmt.Fprintf(b, "It did not finish: %s.\n", x.Failed)
		}
	}
}

// number prints about three digits that matter, and no exponent.
func number(x float64) string {
	if x == 0 {
		return "0"
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(x))))
	return thousands(strconv.FormatFloat(x, 'f', max(0, min(digits, 6)), 64))
}

func thousands(s string) string {
	whole, rest, fraction := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if fraction {
		whole += "." + rest
	}
	return whole
}
