package reports

import (
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/bench"
)

// speedColumn is a column of the table of figures.
type speedColumn struct {
	name string
	text func(r *bench.Result) string // "" where there is nothing to tell
}

// throughputTable is one figure a row; columns in which nothing was measured are left out.
func throughputTable(rs bench.Results) table {
	milli := func(s float64) string { return strconv.FormatFloat(1e3*s, 'f', 3, 64) }
	times := func(v float64) string {
		if v == 0 {
			return ""
		}
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	condition := func(f func(c *bench.Conditions) float64) func(*bench.Result) string {
		return func(r *bench.Result) string {
			if r.Conditions == nil || f(r.Conditions) == 0 {
				return ""
			}
			return strconv.FormatFloat(f(r.Conditions), 'f', 0, 64)
		}
	}
	scaling := func(copies bool) func(r *bench.Result) string {
		return func(r *bench.Result) string {
			if r.Devices < 2 || !copies && r.Compute == nil {
				return ""
			}
			if v := rs.Efficiency(r, copies); v > 0 {
				return strconv.FormatFloat(100*v, 'f', 1, 64)
			}
			return ""
		}
	}
	columns := []speedColumn{{"network", func(r *bench.Result) string { return r.Model + rs.ModelMark(r) }}, {"precision", precisionRun}}
	columns = append(columns, distinctions(rs)...)
	left := len(columns)
	columns = append(columns, []speedColumn{
		{"batch", func(r *bench.Result) string { return strconv.Itoa(r.Batch) }},
		{"GPUs", func(r *bench.Result) string {
			if r.Threads > 0 {
				return ""
			}
			return strconv.Itoa(r.Devices)
		}},
		{"threads", func(r *bench.Result) string { return strings.TrimPrefix(strconv.Itoa(r.Threads), "0") }},
		{"images/s", func(r *bench.Result) string { return perSecond(r.Rate().Median) }},
		{"least", func(r *bench.Result) string { return perSecond(r.Rate().Min) }},
		{"most", func(r *bench.Result) string { return perSecond(r.Rate().Max) }},
		{"speed-up", func(r *bench.Result) string { return times(rs.Speedup(r)) }},
		{"scaling %", scaling(false)},
		{"with copies", func(r *bench.Result) string {
			if r.Compute == nil {
				return ""
			}
			return perSecond(r.EndToEnd.Median)
		}},
		{"scaling % with copies", scaling(true)},
		{"p50 ms", func(r *bench.Result) string { return milli(r.Latency.P50) }},
		{"p90", func(r *bench.Result) string { return milli(r.Latency.P90) }},
		{"p99", func(r *bench.Result) string { return milli(r.Latency.P99) }},
		{"MHz", condition(func(c *bench.Conditions) float64 { return c.ClockMHz })},
		{"W", condition(func(c *bench.Conditions) float64 { return c.PowerWatts })},
		{"°C", condition(func(c *bench.Conditions) float64 { return float64(c.TemperatureC) })},
		{"images/s/W", func(r *bench.Result) string { return times(r.ImagesPerJoule()) }},
	}...)
	t := table{left: left, rows: make([][]string, len(rs))}
	for _, c := range columns {
		cells := make([]string, len(rs))
		told := false
		for i := range rs {
			cells[i] = c.text(&rs[i])
			told = told || cells[i] != ""
			if cells[i] == "" {
				cells[i] = "-"
			}
		}
		if !told {
			continue
		}
		t.header = append(t.header, c.name)
		for i := range rs {
			t.rows[i] = append(t.rows[i], cells[i])
		}
	}
	return t
}

// precisionRun is a figure's precision as it is printed.
func precisionRun(r *bench.Result) string {
	name := accuracy.DisplayName(r.Precision)
	if r.WithFP16() {
		name += " with FP16"
	}
	return name
}

// distinctions are the columns, beside network, precision, batch and the number of devices or threads, that tell figures apart: those that
// are not the same in all.
func distinctions(rs bench.Results) []speedColumn {
	var columns []speedColumn
	add := func(name string, text func(r *bench.Result) string) {
		if slices.ContainsFunc(rs, func(r bench.Result) bool { return text(&r) != text(&rs[0]) }) {
			columns = append(columns, speedColumn{name, text})
		}
	}
	add("device", func(r *bench.Result) string { return r.Device })
	add("engine", engineDifference(rs))
	add("settings", func(r *bench.Result) string { return r.Settings })
	// Each model, and INT8 alone, has its ranges: they tell figures apart where those of one model differ.
	if slices.ContainsFunc(rs, func(r bench.Result) bool {
		return slices.ContainsFunc(rs, func(x bench.Result) bool {
			return r.Ranges != x.Ranges && r.ModelSHA256 == x.ModelSHA256 && r.Precision == x.Precision
		})
	}) {
		add("ranges", func(r *bench.Result) string { return r.Ranges })
	}
	add("in flight", func(r *bench.Result) string { return strconv.Itoa(r.Parallel / max(1, r.Devices)) })
	return columns
}

// apart says behind commas what else than network, precision, batch and number of devices tells a figure from the others.
func apart(rs bench.Results) func(r *bench.Result) string {
	columns := distinctions(rs)
	return func(r *bench.Result) string {
		var b strings.Builder
		for _, c := range columns {
			if text := c.text(r); text != "" {
				fmt.Fprintf(&b, ", %s %s", c.name, text)
			}
		}
		return b.String()
	}
}

// engineDifference gives what of a figure's engine is not in the engines of all: its version or some options. The device and what the
// precision's name says are left out.
func engineDifference(rs bench.Results) func(r *bench.Result) string {
	parts := func(r *bench.Result) []string {
		list := strings.Split(bench.EngineFor(r.Engine, bench.Base), ", ")
		list[0] = strings.TrimSuffix(list[0], " on "+r.Device)
		return list
	}
	var common []string // in all
	for i := range rs {
		if list := parts(&rs[i]); i == 0 {
			common = list
		} else {
			common = slices.DeleteFunc(common, func(s string) bool { return !slices.Contains(list, s) })
		}
	}
	return func(r *bench.Result) string {
		return strings.Join(slices.DeleteFunc(parts(r), func(s string) bool { return slices.Contains(common, s) }), ", ")
	}
}

// perSecond prints a rate with four significant digits at least.
func perSecond(v float64) string {
	digits := 0
	for x := v; x < 1000 && digits < 3; x *= 10 {
		digits++
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// throughputNotes says how the figures came about, and which layers of an INT8 engine do not run in INT8.
func throughputNotes(rs bench.Results) []string {
	var lines []string
	add := func(line string) {
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	for _, r := range rs {
		add(fmt.Sprintf("%s: %s", r.Device, bench.EngineFor(r.Engine, bench.Base))) // a precision's name tells the rest
	}
	switch {
	case len(rs) == 0:
	case slices.ContainsFunc(rs, func(r bench.Result) bool { return r.Compute != nil }):
		add("images/s without copies between host and device; medians; latency is that of one call with its copies and no other in flight")
	default:
		add("images/s are medians; latency is that of one call with no other in flight")
	}
	var bases []string
	models := map[string][]string{} // whose ranges are so
	for i := range rs {
		r := &rs[i]
		name := r.Model + rs.ModelMark(r)
		if r.Ranges == "" || slices.Contains(models[r.Ranges], name) {
			continue
		}
		if models[r.Ranges] == nil {
			bases = append(bases, r.Ranges)
		}
		models[r.Ranges] = append(models[r.Ranges], name)
	}
	for _, ranges := range bases {
		add(fmt.Sprintf("%s: INT8 ranges from %s", strings.Join(models[ranges], ", "), ranges))
	}
	others := apart(rs)
	for i := range rs {
		r := &rs[i]
		if r.Devices > 1 && rs.Single(r) != nil {
			continue // they run the same plan
		}
		if text := int8Notes(rs, r); text != "" {
			add(fmt.Sprintf("%s%s %s, batch %d%s: %s", r.Model, rs.ModelMark(r), precisionRun(r), r.Batch, others(r), text))
		}
	}
	return lines
}

// int8Notes names the layers of an INT8 engine that do not run in INT8, and says so where FP16 is faster; "" where there is nothing to tell.
func int8Notes(rs bench.Results, r *bench.Result) string {
	if r.Precision != bench.INT8 {
		return ""
	}
	var parts []string
	half := rs.In(r, bench.FP16)
	slower := half != nil && r.Rate().Max < half.Rate().Min // in every repeat, so not by chance
	if slower {
		parts = append(parts, fmt.Sprintf("slower than FP16 (%s images/s against %s)", perSecond(r.Rate().Median), perSecond(half.Rate().Median)))
	}
	if len(r.Float) > 0 {
		total := 0
		for _, n := range r.Layers {
			total += n
		}
		parts = append(parts, fmt.Sprintf("%d of %d layers do not run in INT8: %s", len(r.Float), total, floatLayers(r.Float)))
	}
	inFP32 := slices.ContainsFunc(r.Float, func(l bench.FloatLayer) bool { return l.Precision == bench.Base })
	given := slices.ContainsFunc(rs, func(x bench.Result) bool {
		return x.WithFP16() && x.ModelSHA256 == r.ModelSHA256 && x.Batch == r.Batch && x.Device == r.Device
	})
	if slower && inFP32 && !given {
		parts = append(parts, "--int8-fp16 lets those in FP32 run in FP16")
	}
	return strings.Join(parts, "; ")
}

// floatLayers lists layers with what they run in.
func floatLayers(layers []bench.FloatLayer) string {
	const named = 8
	var names []string
	for i, l := range layers {
		if i == named {
			names = append(names, fmt.Sprintf("and %d more", len(layers)-named))
			break
		}
		what := l.Name
		if l.Type != "" {
			what = l.Type + " " + l.Name
		}
		names = append(names, fmt.Sprintf("%s (%s)", what, accuracy.DisplayName(l.Precision)))
	}
	return strings.Join(names, ", ")
}

// ThroughputFormats are the formats of Throughput.
func ThroughputFormats() []string {
	return []string{string(FormatText), string(FormatMarkdown), string(FormatCSV), string(FormatJSON)}
}

// Throughput writes measured speeds in one of ThroughputFormats.
func Throughput(w io.Writer, rs bench.Results, f Format) error {
	switch f {
	case FormatText, FormatMarkdown:
		if len(rs) == 0 {
			return nil
		}
		var b strings.Builder
		if f == FormatText {
			throughputTable(rs).text(&b)
			b.WriteByte('\n')
			for _, line := range throughputNotes(rs) {
				fmt.Fprintf(&b, "note: %s\n", line)
			}
		} else {
			throughputTable(rs).markdown(&b)
			b.WriteByte('\n')
			for _, line := range throughputNotes(rs) {
				fmt.Fprintf(&b, "- %s\n", escape(line))
			}
		}
		_, err := io.WriteString(w, b.String())
		return err
	case FormatCSV:
		return throughputCSV(w, rs)
	case FormatJSON:
		data, err := rs.MarshalIndent()
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	}
	return fmt.Errorf("throughput format %q: want one of %s", f, strings.Join(ThroughputFormats(), ", "))
}

func throughputCSV(w io.Writer, rs bench.Results) error {
	c := csv.NewWriter(w)
	rows := [][]string{{
		"model", "model_sha256", "engine", "device", "precision", "ranges", "settings", "batch", "devices", "threads", "parallel",
		"compute", "compute_min", "compute_max", "end_to_end", "end_to_end_min", "end_to_end_max", "speedup", "efficiency", "efficiency_end_to_end",
		"p50_seconds", "p90_seconds", "p99_seconds", "clock_mhz", "clock_min_mhz", "power_watts", "temperature_c", "images_per_joule",
	}}
	number := func(v float64) string {
		if v == 0 {
			return ""
		}
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	for i := range rs {
		r := &rs[i]
		compute, conditions := bench.Rate{}, bench.Conditions{}
		efficiency := 0.0
		if r.Compute != nil {
			compute, efficiency = *r.Compute, rs.Efficiency(r, false)
		}
		if r.Conditions != nil {
			conditions = *r.Conditions
		}
		rows = append(rows, []string{
			r.Model, r.ModelSHA256, r.Engine, r.Device, r.Precision, r.Ranges, r.Settings,
			strconv.Itoa(r.Batch), strconv.Itoa(r.Devices), number(float64(r.Threads)), strconv.Itoa(r.Parallel),
			number(compute.Median), number(compute.Min), number(compute.Max), number(r.EndToEnd.Median), number(r.EndToEnd.Min), number(r.EndToEnd.Max),
			number(rs.Speedup(r)), number(efficiency), number(rs.Efficiency(r, true)),
			number(r.Latency.P50), number(r.Latency.P90), number(r.Latency.P99),
			number(conditions.ClockMHz), number(float64(conditions.ClockMinMHz)), number(conditions.PowerWatts), number(float64(conditions.TemperatureC)), number(r.ImagesPerJoule()),
		})
	}
	return c.WriteAll(rows)
}
