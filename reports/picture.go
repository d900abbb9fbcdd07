package reports

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/calib"
)

// The intervals and the histograms are drawn by the page's template as inline SVG and not by gonum/plot: its SVG repeats the
// style of every mark, which makes some 100 kB of a histogram that takes 1 kB as one path, and it fixes sizes and colours,
// where these follow the width of the window and the dark theme. Horizontal positions are percentages, so that a narrow
// picture keeps its height and its letters.

// percentage is a position along a picture's width.
type percentage float64

// String writes it as an SVG length.
func (p percentage) String() string { return strconv.FormatFloat(float64(p), 'f', 2, 64) + "%" }

// anchor is which end of a text at p stays inside the picture.
func (p percentage) anchor() string {
	switch {
	case p < 20:
		return "start"
	case p > 80:
		return "end"
	}
	return "middle"
}

// axis maps losses to positions.
type axis struct{ low, high float64 }

func (a axis) at(v float64) percentage {
	const edge = 2 // room for the marks at the ends
	return percentage(edge + (100-2*edge)*(v-a.low)/(a.high-a.low))
}

// tick is a labelled position.
type tick struct {
	At     percentage
	Anchor string
	Text   string
}

// intervals is a model's losses against the margin, one bar a look, all on one axis.
type intervals struct {
	Zero, Margin, Beyond percentage // Beyond is the width from the margin to the right edge
	MarginLabel          tick
	Ticks                []tick
	Bars                 []bar
}

// bar is one look.
type bar struct {
	Name, Numbers  string
	Deciding       bool
	Verdict        accuracy.Verdict
	Low, High, Len percentage
	Point          percentage
	OpenLow        bool // the interval has no end there
	Drawn          bool // false where no loss is defined
}

// newIntervals lays a model's looks out; nil where there are none.
func newIntervals(p Policy, m *Model) *intervals {
	type look struct {
		bar
		loss, low, high *float64
	}
	var looks []look
	a := axis{0, p.MaxLossFraction}
	for _, prec := range m.Precisions {
		for _, l := range prec.Looks {
			x := look{bar: bar{
				Name: accuracy.DisplayName(prec.Name) + " " + metric(l.Metric), Deciding: l.Primary || p.GateAll, Verdict: l.Verdict,
			}, loss: &l.Loss, low: l.LossInterval.Low, high: l.LossInterval.High}
			if p.MaxLossRelative {
				x.loss, x.low, x.high = l.RelLoss, l.RelInterval.Low, l.RelInterval.High
			}
			x.Numbers = lossText(p, m.N, x.loss, x.low, x.high)
			for _, v := range []*float64{x.loss, x.low, x.high} {
				if v != nil {
					a.low, a.high = min(a.low, *v), max(a.high, *v)
				}
			}
			looks = append(looks, x)
		}
	}
	if len(looks) == 0 {
		return nil
	}
	room := 0.05 * (a.high - a.low)
	if !(room > 0) {
		room = 0.001
	}
	a.low, a.high = a.low-room, a.high+room
	out := &intervals{Zero: a.at(0), Margin: a.at(p.MaxLossFraction)}
	out.Beyond = 100 - out.Margin
	out.MarginLabel = tick{At: out.Margin, Anchor: out.Margin.anchor(), Text: "margin " + marginShort(p)}
	step := niceStep(a.high - a.low)
	for k := math.Ceil(a.low / step); k*step <= a.high; k++ {
		at := a.at(k * step)
		anchor := "middle"
		if at < 4 || at > 96 {
			anchor = at.anchor()
		}
		out.Ticks = append(out.Ticks, tick{At: at, Anchor: anchor, Text: trim(math.Round(k*step*1e8)/1e6 + 0)})
	}
	for _, l := range looks {
		b := l.bar
		if b.Drawn = l.loss != nil; b.Drawn {
			b.Point, b.Low, b.High = a.at(*l.loss), 0, 100
			if l.low != nil {
				b.Low = a.at(*l.low)
			}
			b.OpenLow = l.low == nil
			if l.high != nil {
				b.High = a.at(*l.high)
			}
			b.Len = b.High - b.Low
		}
		out.Bars = append(out.Bars, b)
	}
	return out
}

func marginShort(p Policy) string {
	if p.MaxLossRelative {
		return trim(p.MaxLossFraction*100) + " %"
	}
	return trim(p.MaxLossFraction*100) + " points"
}

// lossText prints a loss with its interval.
func lossText(p Policy, n int, loss, low, high *float64) string {
	unit := " points"
	if p.MaxLossRelative {
		unit = " %"
	}
	if loss == nil {
		return "no loss defined: the base got nothing right"
	}
	number := func(v *float64) string {
		return optional(v, func(v float64) string { return percent(v+0, n) })
	}
	end := number(low)
	if low == nil {
		end = "without bound"
	}
	return "loss " + strings.TrimPrefix(points(loss, n), "+") + unit + " (" + end + " to " + number(high) + ")"
}

// niceStep divides a span into about four steps of 1, 2 or 5 times a power of ten.
func niceStep(span float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(span/4)))
	for _, f := range []float64{5, 2} {
		if span/(step*f) >= 3 {
			return step * f
		}
	}
	return step
}

// Tensor is one entry of a calibration cache.
type Tensor struct {
	Name      string
	Amax      float32
	Histogram *calib.Histogram // nil where the entry has none of its own
}

// columns is how many bars a histogram has on the page, at most.
const columns = 96

// histogram is a tensor's picture.
type histogram struct {
	Columns      int
	Linear, Log  string // paths in a box Columns wide and 100 high
	Threshold    percentage
	Beyond       percentage // width from the threshold to the right edge
	Label        tick
	High         string // the right edge's value
	CutOff       string // share of the first bar where it is higher than the linear picture, else empty
	Clipped, Max string
}

// newHistogram draws |x| from 0 to the largest value or the threshold, whichever is larger.
func newHistogram(t Tensor) *histogram {
	h := t.Histogram
	if h == nil || !(h.Range > 0) || h.Total() == 0 {
		return nil
	}
	width := float64(h.Width())
	last := max(float64(h.Max), float64(t.Amax)) * 1.03
	bins := int(math.Ceil(last / width))
	perColumn := max(1, (bins+columns-1)/columns)
	n := max(1, (bins+perColumn-1)/perColumn)
	counts := make([]float64, n)
	for j, c := range h.Counts {
		if i := j / perColumn; i < n {
			counts[i] += float64(c)
		}
	}
	right := float64(n*perColumn) * width
	out := &histogram{
		Columns: n, Threshold: percentage(min(100, 100*float64(t.Amax)/right)),
		High: shortFloat(right), Max: shortFloat(float64(h.Max)), Clipped: share(h.ShareAbove(t.Amax)),
	}
	out.Beyond = 100 - out.Threshold
	out.Label = tick{At: out.Threshold, Anchor: out.Threshold.anchor(), Text: shortFloat(float64(t.Amax))}

	// A rectifier's zeros tower over everything else; the linear picture is scaled to the second highest bar then.
	top := slices.Max(counts)
	if n > 1 && counts[0] == top {
		if second := slices.Max(counts[1:]); second > 0 && top > 3*second {
			top = 1.25 * second
			out.CutOff = share(counts[0] / float64(h.Total()))
		}
	}
	out.Linear = steps(counts, func(c float64) float64 { return min(1, c/top) })
	most := math.Log1p(slices.Max(counts))
	out.Log = steps(counts, func(c float64) float64 { return math.Log1p(c) / most })
	return out
}

// steps is the outline of bars whose heights are 0..1.
func steps(counts []float64, height func(float64) float64) string {
	var b strings.Builder
	b.WriteString("M0 100")
	run := 0
	last := ""
	flush := func() {
		if run > 0 {
			b.WriteString("V" + last + "h" + strconv.Itoa(run))
		}
	}
	for _, c := range counts {
		y := 0.0
		if c > 0 {
			y = max(1, 100*height(c)) // what is there is seen
		}
		s := strconv.FormatFloat(math.Round(10*(100-y))/10, 'f', -1, 64)
		if s != last {
			flush()
			run, last = 0, s
		}
		run++
	}
	flush()
	b.WriteString("V100Z")
	return b.String()
}

func shortFloat(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// share prints a share of values in percent, a small one with two significant digits.
func share(v float64) string {
	if v == 0 {
		return "0 %"
	}
	if v >= 0.1 {
		return strconv.FormatFloat(100*v, 'f', 1, 64) + " %"
	}
	return strconv.FormatFloat(100*v, 'g', 2, 64) + " %"
}
