package main

import (
	"fmt"
	"image/color"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	_ "gonum.org/v1/plot/vg/vgsvg" // the .svg format of Save

	"github.com/quantgate/quantgate/accuracy"
)

// colours are told apart by people who see colours differently (Okabe and Ito).
var colours = []color.Color{
	color.RGBA{0, 114, 178, 255}, color.RGBA{213, 94, 0, 255}, color.RGBA{0, 158, 115, 255},
	color.RGBA{204, 121, 167, 255}, color.RGBA{86, 180, 233, 255},
}

// plots draws coverage.svg, errors.svg and early.svg.
func plots(dir string, r results) error {
	coverage, err := fixedPlot("Coverage of the 95 % interval", "coverage, %", r.Fixed, []series{
		{"", func(c fixedCell) float64 { return 100 * c.Coverage.Exact }, draw.CircleGlyph{}},
	}, 94.5, 97)
	if err != nil {
		return err
	}
	errors, err := fixedPlot("Wrong verdicts with the loss exactly at the margin", "wrong verdicts, %", r.Fixed, []series{
		{"false pass, ", func(c fixedCell) float64 { return 100 * c.FalsePass.Exact }, draw.CircleGlyph{}},
		{"false fail, ", func(c fixedCell) float64 { return 100 * c.FalseFail.Exact }, draw.CrossGlyph{}},
	}, 2.55, 3.5)
	if err != nil {
		return err
	}
	early, err := earlyPlot(r.Early)
	if err != nil {
		return err
	}
	for name, p := range map[string]*plot.Plot{"coverage.svg": coverage, "errors.svg": errors, "early.svg": early} {
		if err := p.Save(16*vg.Centimeter, 10*vg.Centimeter, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// series is one value of every cell and how it is drawn.
type series struct {
	name  string
	value func(fixedCell) float64
	glyph draw.GlyphDrawer
}

// fixedPlot draws values by discordance, one colour a number of images, the losses side by side; dashed lines are the bars.
func fixedPlot(title, y string, cells []fixedCell, all []series, bars ...float64) (*plot.Plot, error) {
	p := newPlot(title, "discordant pairs, % (five true losses side by side)", y)
	for i, n := range sizes {
		for _, s := range all {
			var points plotter.XYs
			for _, c := range cells {
				if c.N == n {
					points = append(points, plotter.XY{X: 100*c.Discordance + 30*(c.Loss-margin) + 0.02*float64(i), Y: s.value(c)})
				}
			}
			sc, err := plotter.NewScatter(points)
			if err != nil {
				return nil, err
			}
			sc.GlyphStyle = draw.GlyphStyle{Color: colours[i], Radius: vg.Points(2), Shape: s.glyph}
			p.Add(sc)
			p.Legend.Add(s.name+thousands(n)+" images", sc)
		}
	}
	for _, bar := range bars {
		line, err := plotter.NewLine(plotter.XYs{{X: 0.8, Y: bar}, {X: 5.2, Y: bar}})
		if err != nil {
			return nil, err
		}
		line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
		p.Add(line)
	}
	p.X.Min, p.X.Max = 0.7, 5.3
	p.X.Tick.Marker = ticks(1, 5, 1)
	p.Y.Tick.Marker = ticks(0, 100, 0.5)
	p.Y.Max += float64(len(all)) * 0.3 * (p.Y.Max - p.Y.Min) // room for the legend
	return p, nil
}

// thousands writes 48750 as 48,750.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// earlyPlot draws the share of images used on the largest set.
func earlyPlot(cells []earlyCell) (*plot.Plot, error) {
	n := sizes[len(sizes)-1]
	p := newPlot("Images used of "+thousands(n)+", margin 0.5 points", "true loss, points", "images used, %")
	for i, d := range discordances {
		for _, target := range []accuracy.Target{accuracy.TargetSet, accuracy.TargetPopulation} {
			var points plotter.XYs
			for _, c := range cells {
				if c.N == n && c.Discordance == d && c.Target == target && !c.Beyond {
					points = append(points, plotter.XY{X: 100 * c.Loss, Y: 100 * c.Images})
				}
			}
			line, dots, err := plotter.NewLinePoints(points)
			if err != nil {
				return nil, err
			}
			line.Color, dots.Color = colours[i], colours[i]
			dots.Shape, dots.Radius = draw.CircleGlyph{}, vg.Points(2)
			if target == accuracy.TargetPopulation {
				line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
			}
			p.Add(line, dots)
			if target == accuracy.TargetSet {
				p.Legend.Add(fmt.Sprintf("%.0f %% discordant", 100*d), line)
			} else if i == len(discordances)-1 {
				p.Legend.Add("dashed: population", line)
			}
		}
	}
	p.Y.Min, p.Y.Max = 0, 105
	p.Y.Tick.Marker, p.X.Tick.Marker = ticks(0, 100, 20), ticks(0, 1.5, 0.25)
	return p, nil
}

// ticks are labelled marks from low to high.
func ticks(low, high, step float64) plot.ConstantTicks {
	var t plot.ConstantTicks
	for v := low; v <= high; v += step {
		t = append(t, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', -1, 64)})
	}
	return t
}

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.BackgroundColor = color.White
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	return p
}
