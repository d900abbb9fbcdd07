package main

import (
	"bytes"
	"cmp"
	"fmt"
	"image/color"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/quantgate/quantgate/accuracy"
)

// plannedCell is one line of plan's JSON; rates are fractions.
type plannedCell struct {
	MaxLoss     string  `json:"max_loss"`
	Loss        float64 `json:"loss"`
	Discordance float64 `json:"discordance"`
	Base        float64 `json:"base_accuracy,omitempty"` // for a relative margin
	Confidence  float64 `json:"confidence"`
	Power       float64 `json:"power"`
	Images      *int    `json:"images"` // null: no number settles it
}

func newPlanCmd(a *app) *cobra.Command {
	var (
		margins, discordances []string
		loss, file            string
		base                  string
		plan                  accuracy.Plan
		asJSON                bool
	)
	p := accuracy.DefaultPolicy()
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Tell how many images a margin needs",
		Long: `plan prints how many images settle a margin, by the share of discordant images to expect: those that one of the two models
gets right and the other wrong. It takes no files. INT8 against FP32 is often 1 to 3 % discordant; a first run tells.

The numbers hold for the primary look of gate on a sample of the population (the score test), with the chance --power. By
--target set or --stop-early fewer images do; docs/STATISTICS.md measures how many.`,
		Example: `  quantgate plan
  quantgate plan --max-loss 0.5pp --loss 0.2pp --discordance 1%,2%,3%
  quantgate plan --max-loss 1%rel --base-accuracy 76% --plot plan.svg`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cells, err := planned(plan, margins, discordances, loss, base)
			if err != nil {
				return err
			}
			if file != "" {
				svg, err := planPlot(cells)
				if err != nil {
					return fmt.Errorf("plot: %w", err)
				}
				if err := renameio.WriteFile(file, svg, 0o644); err != nil {
					return fmt.Errorf("write %s: %w", file, err)
				}
				a.wrote([]string{file})
			}
			if asJSON {
				err = printJSON(a.stdout, cells)
			} else {
				err = planTable(a, cells)
			}
			if err != nil {
				return fmt.Errorf("write the plan: %w", err)
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&margins, "max-loss", []string{"0.1pp", "0.2pp", "0.3pp", "0.5pp", "1pp", "2pp"}, "margins to plan for, as gate takes them")
	fs.StringSliceVar(&discordances, "discordance", []string{"0.5%", "1%", "2%", "3%", "5%"}, "shares of discordant images to expect")
	fs.StringVar(&loss, "loss", "", "true loss to expect, in the unit of --max-loss (default: none)")
	fs.Float64Var(&plan.Confidence, "confidence", p.Confidence, "confidence of the verdict's interval")
	fs.Float64Var(&plan.Power, "power", 0.9, "chance that the images settle the verdict")
	fs.StringVar(&base, "base-accuracy", "75%", "the base's accuracy to expect; counts for a relative margin only")
	fs.BoolVar(&asJSON, "json", false, "print JSON instead of the table")
	fs.StringVar(&file, "plot", "", "SVG file to draw the table into")
	return cmd
}

// planned computes every pair of a margin and a discordance, by margin.
func planned(plan accuracy.Plan, margins, discordances []string, loss, base string) ([]plannedCell, error) {
	var err error
	if plan.Base, err = parsePercent("--base-accuracy", base); err != nil {
		return nil, err
	}
	relative := false
	if loss != "" {
		m, err := accuracy.ParseMaxLoss(strings.TrimPrefix(loss, "-"))
		if err != nil {
			return nil, fmt.Errorf("--loss: %w", err)
		}
		plan.Loss, relative = m.Value, m.Relative
		if strings.HasPrefix(loss, "-") {
			plan.Loss = -plan.Loss
		}
	}
	var cells []plannedCell
	for i, s := range margins {
		if plan.MaxLoss, err = accuracy.ParseMaxLoss(s); err != nil {
			return nil, fmt.Errorf("--max-loss: %w", err)
		}
		if i == 0 && loss == "" {
			relative = plan.MaxLoss.Relative
		}
		if plan.MaxLoss.Relative != relative {
			return nil, fmt.Errorf("--max-loss %s and %s: give all losses in one unit, pp or %%rel", s, cmp.Or(loss, margins[0]))
		}
		for _, d := range discordances {
			if plan.Discordance, err = parsePercent("--discordance", d); err != nil {
				return nil, err
			}
			n, err := plan.Images()
			if err != nil {
				return nil, fmt.Errorf("--%w", err)
			}
			c := plannedCell{
				MaxLoss: plan.MaxLoss.String(), Loss: plan.Loss, Discordance: plan.Discordance,
				Confidence: plan.Confidence, Power: plan.Power,
			}
			if plan.MaxLoss.Relative {
				c.Base = plan.Base
			}
			if n > 0 {
				c.Images = &n
			}
			cells = append(cells, c)
		}
	}
	return cells, nil
}

// parsePercent reads "2%".
func parsePercent(flag, s string) (float64, error) {
	number, ok := strings.CutSuffix(strings.TrimSpace(s), "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) {
		return 0, fmt.Errorf("%s %q: want a percentage, such as 2%%", flag, s)
	}
	return v / 100, nil
}

// percent prints a fraction as a percentage without a tail of digits.
func percent(v float64) string { return strconv.FormatFloat(v*100, 'g', 6, 64) + " %" }

func planTable(a *app, cells []plannedCell) error {
	var b bytes.Buffer
	first := cells[0]
	loss := percent(first.Loss) + " of a base accuracy of " + percent(first.Base)
	if first.Base == 0 {
		loss = strings.TrimSuffix(percent(first.Loss), "%") + "points"
	}
	fmt.Fprintf(&b, "Images that settle a margin with %s chance, at %s confidence and a true loss of %s\n\n", percent(first.Power), percent(first.Confidence), loss)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "margin\t")
	for _, c := range cells {
		if c.MaxLoss != first.MaxLoss {
			break
		}
		fmt.Fprintf(w, "%s discordant\t", percent(c.Discordance))
	}
	margin := ""
	for _, c := range cells {
		if c.MaxLoss != margin {
			margin = c.MaxLoss
			fmt.Fprintf(w, "\n%s\t", margin)
		}
		n := "none would"
		if c.Images != nil {
			n = grouped(*c.Images)
		}
		fmt.Fprintf(w, "%s\t", n)
	}
	fmt.Fprintln(w)
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := b.WriteTo(a.stdout)
	return err
}

// grouped writes 48750 as 48,750.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// planPlot draws the images by the margin, a line a discordance, both axes logarithmic.
func planPlot(cells []plannedCell) ([]byte, error) {
	p := plot.New()
	p.Title.Text = "Images that settle a margin"
	p.X.Label.Text, p.Y.Label.Text = "margin, points", "images"
	if cells[0].Base > 0 {
		p.X.Label.Text = "margin, % of the base's accuracy"
	}
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.Y.Tick.Marker = plot.LogTicks{Prec: -1}
	var margins plot.ConstantTicks
	p.BackgroundColor = color.White
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	lines := map[float64]plotter.XYs{}
	var order []float64
	for _, c := range cells {
		m, err := accuracy.ParseMaxLoss(c.MaxLoss)
		if err != nil {
			return nil, err
		}
		if c.Discordance == cells[0].Discordance && m.Value > 0 {
			margins = append(margins, plot.Tick{Value: 100 * m.Value, Label: strconv.FormatFloat(100*m.Value, 'g', 6, 64)})
		}
		if _, seen := lines[c.Discordance]; !seen {
			order = append(order, c.Discordance)
			lines[c.Discordance] = nil
		}
		if c.Images != nil && m.Value > 0 {
			lines[c.Discordance] = append(lines[c.Discordance], plotter.XY{X: 100 * m.Value, Y: float64(*c.Images)})
		}
	}
	drawn := 0
	for i, d := range order {
		if len(lines[d]) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(lines[d])
		if err != nil {
			return nil, err
		}
		shade := color.Gray{Y: uint8(170 * i / len(order))}
		line.Color, dots.Color = shade, shade
		line.Width = vg.Points(1.5)
		dots.Shape, dots.Radius = draw.CircleGlyph{}, vg.Points(2.5)
		p.Add(line, dots)
		p.Legend.Add(percent(d)+" discordant", line, dots)
		drawn++
	}
	if drawn == 0 {
		return nil, fmt.Errorf("no margin above 0 that a number of images settles")
	}
	p.X.Tick.Marker = margins
	// Room on every side, for a single point too: an axis without length has no logarithm.
	p.X.Min, p.X.Max = p.X.Min/1.2, p.X.Max*1.2
	p.Y.Min, p.Y.Max = p.Y.Min/2, p.Y.Max*2
	canvas := vgsvg.New(16*vg.Centimeter, 11*vg.Centimeter)
	p.Draw(draw.New(canvas))
	var b bytes.Buffer
	_, err := canvas.WriteTo(&b)
	return b.Bytes(), err
}
