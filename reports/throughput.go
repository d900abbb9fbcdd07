package reports

import (
	"encoding/csv"
	"fmt"
	"image/color"
	"io"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/bench"
)

// throughputTable is one figure a row; columns in which nothing was measured are left out.
func throughputTable(rs bench.Results) table {
	type column struct {
		name string
		text func(r *bench.Result) string // "" where there is nothing to tell
	}
	rate := func(r *bench.Rate) string {
		if r == nil {
			return ""
		}
		return perSecond(r.Median)
	}
	milli := func(s float64) string { return strconv.FormatFloat(1e3*s, 'f', 3, 64) }
	times := func(v float64) string {
		if v == 0 {
			return ""
		}
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	condition := func(f func(c *bench.Conditions) float64, digits int) func(*bench.Result) string {
		return func(r *bench.Result) string {
			if r.Conditions == nil || f(r.Conditions) == 0 {
				return ""
			}
			return strconv.FormatFloat(f(r.Conditions), 'f', digits, 64)
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
	several := func(of func(r *bench.Result) string) bool {
		return slices.ContainsFunc(rs, func(r bench.Result) bool { return of(&r) != of(&rs[0]) })
	}
	device := func(r *bench.Result) string { return r.Device }
	engine := func(r *bench.Result) string { return r.Engine }
	columns := []column{{"network", func(r *bench.Result) string { return r.Model }}, {"precision", func(r *bench.Result) string { return accuracy.DisplayName(r.Precision) }}}
	if several(device) {
		columns = append(columns, column{"device", device})
	}
	if several(engine) {
		columns = append(columns, column{"engine", engine})
	}
	// What tells two rows apart stands in the table where it is not the same in all.
	if settings := func(r *bench.Result) string { return r.Settings }; several(settings) {
		columns = append(columns, column{"settings", settings})
	}
	if ranges := func(r *bench.Result) string { return r.Ranges }; slices.ContainsFunc(rs, func(r bench.Result) bool {
		return slices.ContainsFunc(rs, func(x bench.Result) bool {
			return r.Ranges != x.Ranges && r.ModelSHA256 == x.ModelSHA256 && r.Precision == x.Precision
		})
	}) {
		columns = append(columns, column{"ranges", ranges})
	}
	if inFlight := func(r *bench.Result) string { return strconv.Itoa(r.Parallel / max(1, r.Devices)) }; several(inFlight) {
		columns = append(columns, column{"in flight", inFlight})
	}
	left := len(columns)
	columns = append(columns, []column{
		{"batch", func(r *bench.Result) string { return strconv.Itoa(r.Batch) }},
		{"GPUs", func(r *bench.Result) string {
			if r.Threads > 0 {
				return ""
			}
			return strconv.Itoa(r.Devices)
		}},
		{"threads", func(r *bench.Result) string { return strings.TrimPrefix(strconv.Itoa(r.Threads), "0") }},
		{"images/s", func(r *bench.Result) string { return rate(r.Rate()) }},
		{"least", func(r *bench.Result) string { return perSecond(r.Rate().Min) }},
		{"most", func(r *bench.Result) string { return perSecond(r.Rate().Max) }},
		{"speed-up", func(r *bench.Result) string { return times(rs.Speedup(r)) }},
		{"scaling %", scaling(false)},
		{"with copies", func(r *bench.Result) string {
			if r.Compute == nil {
				return ""
			}
			return rate(&r.EndToEnd)
		}},
		{"scaling % with copies", scaling(true)},
		{"p50 ms", func(r *bench.Result) string { return milli(r.Latency.P50) }},
		{"p90", func(r *bench.Result) string { return milli(r.Latency.P90) }},
		{"p99", func(r *bench.Result) string { return milli(r.Latency.P99) }},
		{"MHz", condition(func(c *bench.Conditions) float64 { return c.ClockMHz }, 0)},
		{"W", condition(func(c *bench.Conditions) float64 { return c.PowerWatts }, 0)},
		{"°C", condition(func(c *bench.Conditions) float64 { return float64(c.TemperatureC) }, 0)},
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
		add(fmt.Sprintf("%s: %s", r.Device, r.Engine))
	}
	switch {
	case len(rs) == 0:
	case slices.ContainsFunc(rs, func(r bench.Result) bool { return r.Compute != nil }):
		add("images/s without copies between host and device; medians; latency is that of one call with its copies and no other in flight")
	default:
		add("images/s are medians; latency is that of one call with no other in flight")
	}
	for _, r := range rs {
		if r.Ranges != "" {
			add(fmt.Sprintf("%s: INT8 ranges from %s", r.Model, r.Ranges))
		}
	}
	for _, r := range rs {
		if len(r.Float) == 0 {
			continue
		}
		total := 0
		for _, n := range r.Layers {
			total += n
		}
		const named = 8
		var names []string
		for i, l := range r.Float {
			if i == named {
				names = append(names, fmt.Sprintf("and %d more", len(r.Float)-named))
				break
			}
			what := l.Name
			if l.Type != "" {
				what = l.Type + " " + l.Name
			}
			names = append(names, fmt.Sprintf("%s (%s)", what, accuracy.DisplayName(l.Precision)))
		}
		add(fmt.Sprintf("%s INT8, batch %d: %d of %d layers do not run in INT8: %s", r.Model, r.Batch, len(r.Float), total, strings.Join(names, ", ")))
	}
	return lines
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

// ThroughputPlot draws bars of every network and precision as SVG: on one device, at the largest batch and number of threads. Nil where
// there is nothing to draw, or too much.
func ThroughputPlot(rs bench.Results) ([]byte, error) {
	batch, threads := 0, 0
	for _, r := range rs {
		if r.Device == rs[0].Device && r.Engine == rs[0].Engine && r.Settings == rs[0].Settings && r.Devices == 1 {
			batch, threads = max(batch, r.Batch), max(threads, r.Threads)
		}
	}
	var models, precisions []string
	values := map[[2]string]float64{}
	for _, r := range rs {
		if r.Device != rs[0].Device || r.Engine != rs[0].Engine || r.Settings != rs[0].Settings || r.Devices != 1 || r.Batch != batch || r.Threads != threads {
			continue
		}
		if !slices.Contains(models, r.Model) {
			models = append(models, r.Model)
		}
		if !slices.Contains(precisions, r.Precision) {
			precisions = append(precisions, r.Precision)
		}
		values[[2]string{r.Model, r.Precision}] = r.Rate().Median
	}
	if len(values) == 0 || len(models)*len(precisions) > mostBars {
		return nil, nil
	}
	p := newPlot(fmt.Sprintf("images/s at batch %d", batch))
	for i, precision := range precisions {
		bars := make(plotter.Values, len(models))
		for k, m := range models {
			bars[k] = values[[2]string{m, precision}]
		}
		if err := addBars(p, accuracy.DisplayName(precision), bars, i, len(precisions)); err != nil {
			return nil, fmt.Errorf("plot throughput: %w", err)
		}
	}
	p.Y.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick {
		ticks := plot.DefaultTicks{}.Ticks(low, high)
		for i := range ticks {
			if ticks[i].Label != "" {
				ticks[i].Label = strconv.FormatFloat(ticks[i].Value, 'f', -1, 64)
			}
		}
		return ticks
	})
	p.Y.Min = 0
	p.Y.Max *= 1 + 0.14*float64(len(precisions)) // room for the legend above the bars
	data, err := drawBars(p, models, len(precisions))
	if err != nil {
		return nil, fmt.Errorf("plot throughput: %w", err)
	}
	return data, nil
}

// mostLinesDrawn bounds the scaling plot.
const mostLinesDrawn = 12

// ScalingPlot draws throughput over the number of devices, in units of one device's, as SVG: a line a network and precision at its largest
// batch, beside the ideal. Nil where no more than one device was measured.
func ScalingPlot(rs bench.Results) ([]byte, error) {
	type line struct {
		name string
		xy   plotter.XYs
	}
	batch := map[string]int{}
	for _, r := range rs {
		if r.Devices > 1 {
			batch[r.Model+r.Device] = max(batch[r.Model+r.Device], r.Batch)
		}
	}
	var lines []line
	most := 1
	for i := range rs {
		r := &rs[i]
		e := rs.Efficiency(r, r.Compute == nil)
		if e == 0 || r.Threads > 0 || r.Batch != batch[r.Model+r.Device] {
			continue
		}
		name := shortened(r.Model, 20) + " " + accuracy.DisplayName(r.Precision)
		at := slices.IndexFunc(lines, func(l line) bool { return l.name == name })
		if at < 0 {
			at, lines = len(lines), append(lines, line{name: name})
		}
		lines[at].xy = append(lines[at].xy, plotter.XY{X: float64(r.Devices), Y: e * float64(r.Devices)})
		most = max(most, r.Devices)
	}
	lines = slices.DeleteFunc(lines, func(l line) bool { return len(l.xy) < 2 }) // measured on one device only
	if len(lines) == 0 || len(lines) > mostLinesDrawn {
		return nil, nil
	}
	p := newPlot("times one GPU's images/s")
	p.X.Label.Text = "GPUs"
	ideal, err := plotter.NewLine(plotter.XYs{{X: 1, Y: 1}, {X: float64(most), Y: float64(most)}})
	if err != nil {
		return nil, fmt.Errorf("plot scaling: %w", err)
	}
	ideal.Color, ideal.Dashes = color.Gray{Y: 0x99}, []vg.Length{vg.Points(4), vg.Points(3)}
	p.Add(ideal)
	p.Legend.Add("ideal", ideal)
	for i, l := range lines {
		drawn, points, err := plotter.NewLinePoints(l.xy)
		if err != nil {
			return nil, fmt.Errorf("plot scaling: %w", err)
		}
		c := barColours[1:][i%(len(barColours)-1)]
		drawn.Color, points.Color = c, c
		drawn.Dashes = []vg.Length{vg.Points(float64(6 - i%3*2)), vg.Points(float64(i % 3))}
		p.Add(drawn, points)
		p.Legend.Add(l.name, drawn, points)
	}
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0.9, float64(most)+0.1, 0, float64(most)*(1.1+0.09*float64(len(lines)+1))
	var ticks plot.ConstantTicks
	for n := 1; n <= most; n++ {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: strconv.Itoa(n)})
	}
	p.X.Tick.Marker = ticks
	p.Y.Tick.Marker = ticks
	data, err := svg(p, vg.Points(300), vg.Points(240))
	if err != nil {
		return nil, fmt.Errorf("plot scaling: %w", err)
	}
	return data, nil
}
