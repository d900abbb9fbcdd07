package reports

import (
	"fmt"
	"image/color"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/quantgate/quantgate/bench"
)

// ThroughputPlot draws bars of every network and precision as SVG: on one device and engine, at the largest batch and number of threads; the
// fastest where figures differ in ranges or calls in flight. Nil where there is nothing to draw, or too much.
func ThroughputPlot(rs bench.Results) ([]byte, error) {
	var drawn bench.Results // of the first figure's engine
	batch, threads := 0, 0
	for _, r := range rs {
		first := &rs[0]
		sameEngine := bench.EngineFor(r.Engine, bench.Base) == bench.EngineFor(first.Engine, bench.Base) && r.Settings == first.Settings
		if sameEngine && r.Device == first.Device && r.Devices == 1 {
			drawn = append(drawn, r)
			batch, threads = max(batch, r.Batch), max(threads, r.Threads)
		}
	}
	drawn = slices.DeleteFunc(drawn, func(r bench.Result) bool { return r.Batch != batch || r.Threads != threads })
	type bar struct{ model, precision string }
	var models, labels, precisions []string // models by digest, with their labels
	values := map[bar]float64{}
	for i := range drawn {
		r := &drawn[i]
		at := bar{r.ModelSHA256, precisionRun(r)}
		if !slices.Contains(models, at.model) {
			models, labels = append(models, at.model), append(labels, markedModel(drawn, r, mostLabel))
		}
		if !slices.Contains(precisions, at.precision) {
			precisions = append(precisions, at.precision)
		}
		values[at] = max(values[at], r.Rate().Median)
	}
	if len(values) == 0 || len(models)*len(precisions) > mostBars {
		return nil, nil
	}
	p := newPlot(fmt.Sprintf("images/s at batch %d", batch))
	for i, precision := range precisions {
		bars := make(plotter.Values, len(models))
		for k, m := range models {
			bars[k] = values[bar{m, precision}]
		}
		if err := addBars(p, precision, bars, i, len(precisions)); err != nil {
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
	data, err := drawBars(p, labels, len(precisions))
	if err != nil {
		return nil, fmt.Errorf("plot throughput: %w", err)
	}
	return data, nil
}

// mostLinesDrawn bounds the scaling plot.
const mostLinesDrawn = 12

// ScalingPlot draws throughput over the number of devices, in units of one device's, as SVG: a line a network and precision at its largest
// batch, and whatever else tells figures apart, beside the ideal. Nil where no more than one device was measured.
func ScalingPlot(rs bench.Results) ([]byte, error) {
	type line struct {
		key  bench.Key // of its figure of one device
		name string
		xy   plotter.XYs
	}
	type place struct{ model, device string }
	batch := map[place]int{}
	for _, r := range rs {
		if r.Devices > 1 {
			at := place{r.ModelSHA256, r.Device}
			batch[at] = max(batch[at], r.Batch)
		}
	}
	var lines []line
	most := 1
	others := apart(rs)
	for i := range rs {
		r := &rs[i]
		e := rs.Efficiency(r, r.Compute == nil)
		if e == 0 || r.Threads > 0 || r.Batch != batch[place{r.ModelSHA256, r.Device}] {
			continue
		}
		key := rs.Single(r).Key
		at := slices.IndexFunc(lines, func(l line) bool { return l.key == key })
		if at < 0 {
			name := markedModel(rs, r, 20) + " " + precisionRun(r) + shortened(others(r), 40)
			at, lines = len(lines), append(lines, line{key: key, name: name})
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

// markedModel is a model's name in at most so many characters, with what tells it from another of the name.
func markedModel(rs bench.Results, r *bench.Result, most int) string {
	mark := rs.ModelMark(r)
	return shortened(r.Model, most-len(mark)) + mark
}
