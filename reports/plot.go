package reports

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html/template"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/quantgate/quantgate/accuracy"
)

// barColours tell precisions apart, also without colours: they grow darker.
var barColours = []color.Color{
	color.RGBA{R: 0xb7, G: 0xc4, B: 0xd4, A: 0xff}, color.RGBA{R: 0x5b, G: 0x8f, B: 0xd0, A: 0xff},
	color.RGBA{R: 0x1f, G: 0x4e, B: 0x8c, A: 0xff}, color.RGBA{R: 0x8a, G: 0x5a, B: 0x9e, A: 0xff}, color.RGBA{R: 0x3d, G: 0x2a, B: 0x4d, A: 0xff},
}

// mostBars bounds the accuracy plot; a longer table has none.
const mostBars = 40

// accuracyPlot draws every model's top-1 in every precision and returns it as a data URL; empty where there are too many bars.
func accuracyPlot(r *Report) (template.URL, error) {
	names := r.precisions()
	if len(r.Models)*len(names) > mostBars {
		return "", nil
	}
	p := newPlot("top-1 accuracy, %")
	p.Y.Min, p.Y.Max = 0, 100
	for i, name := range names {
		values := make(plotter.Values, len(r.Models))
		for j := range r.Models {
			if prec := r.Models[j].precision(name); prec != nil {
				values[j] = 100 * prec.Top1
			}
		}
		if err := addBars(p, accuracy.DisplayName(name), values, i, len(names)); err != nil {
			return "", fmt.Errorf("plot the accuracies: %w", err)
		}
	}
	// Room for the legend above the bars.
	p.Y.Max = 100 + 14*float64(len(names))
	p.Y.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "0"}, {Value: 25, Label: "25"}, {Value: 50, Label: "50"}, {Value: 75, Label: "75"}, {Value: 100, Label: "100"}}
	labels := make([]string, len(r.Models))
	for i, m := range r.Models {
		labels[i] = m.Name
	}
	data, err := drawBars(p, labels, len(names))
	if err != nil {
		return "", fmt.Errorf("plot the accuracies: %w", err)
	}
	return dataURL("image/svg+xml", data), nil
}

// newPlot is an empty plot with a legend on its top left.
func newPlot(y string) *plot.Plot {
	p := plot.New()
	sans := font.Font{Typeface: "Liberation", Variant: "Sans"}
	for _, f := range []*font.Font{
		&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font,
		&p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font,
	} {
		size := f.Size
		*f = sans
		f.Size = size
	}
	p.Y.Label.Text = y
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding = vg.Points(2)
	return p
}

// barWidth is that of one bar.
const barWidth = vg.Length(14)

// addBars adds the i-th of n bars of every group.
func addBars(p *plot.Plot, name string, values plotter.Values, i, n int) error {
	bars, err := plotter.NewBarChart(values, barWidth)
	if err != nil {
		return err
	}
	bars.Color = barColours[i%len(barColours)]
	bars.LineStyle.Width = 0
	bars.Offset = barWidth * vg.Length(float64(i)-float64(n-1)/2)
	p.Add(bars)
	p.Legend.Add(name, bars)
	return nil
}

// mostLabel is how many characters of a group's name fit below it.
const mostLabel = 14

// drawBars draws groups of n bars as SVG.
func drawBars(p *plot.Plot, groups []string, n int) ([]byte, error) {
	labels := make([]string, len(groups))
	for i, name := range groups {
		labels[i] = shortened(name, mostLabel)
	}
	p.NominalX(labels...)
	p.X.Min, p.X.Max = -0.55, float64(len(groups))-0.45 // half a group at either end, for the labels
	group := max(barWidth*vg.Length(n+1), vg.Points(96))
	return svg(p, vg.Points(50)+group*vg.Length(len(groups)), vg.Points(210))
}

func svg(p *plot.Plot, w, h vg.Length) ([]byte, error) {
	c := vgsvg.New(w, h)
	p.Draw(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// dataURL embeds bytes of this package's own making into the page.
func dataURL(mediaType string, data []byte) template.URL {
	return template.URL("data:" + mediaType + ";base64," + base64.StdEncoding.EncodeToString(data)) //nolint:gosec // base64 holds no markup
}
