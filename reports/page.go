package reports

import (
	"bytes"
	"cmp"
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/bench"
)

//go:embed page.html.tmpl
var pageSource string

// Bounds of the page, so that it stays below 3 MB whatever the run: beyond them it says how many more there are.
const (
	mostPictures = 300  // histograms of all models together
	mostRows     = 3000 // threshold rows of all models together
	mostLines    = 200  // warnings, nodes, classes: of one list
	openTensors  = 6    // histograms of a model that are not folded away
)

// MostFlips is how many flipped images the page of a run of that many models shows of each: 60 together.
func MostFlips(models int) int { return max(1, 60/max(1, models)) }

// ThumbnailSide is the side in pixels that the page's pictures of images fit into.
const ThumbnailSide = 96

// HTML writes the report as one page that needs no other file and no network. Equal reports give equal bytes.
func HTML(w io.Writer, r *Report) error {
	v, err := newPage(r)
	if err != nil {
		return err
	}
	t, err := template.New("page").Parse(pageSource)
	if err != nil {
		return fmt.Errorf("the page's template: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return fmt.Errorf("make the page: %w", err)
	}
	_, err = b.WriteTo(w)
	return err
}

// page is what the template prints; every text is ready but for its escaping.
type page struct {
	*Report
	Title, Headline string
	Mark, Word      string
	Margin          string
	Confidence      string
	Accuracy, Looks sheet
	Plot            template.URL
	PlotWide        bool // too wide to be shrunk to a phone's width
	Speed           sheet
	SpeedNotes      []string
	SpeedPlot       template.URL
	ScalingPlot     template.URL
	Nets            []network
	AllWarnings     []string
	MoreWarnings    int
	HasTensors      bool
	HasFlips        bool
	HasClasses      bool
	HasNotes        bool
	Computed        []string // what was computed in which type
	Stopped         bool     // the run could stop early
}

// sheet is a table.
type sheet struct {
	Columns []cell
	Rows    [][]cell
}

type cell struct {
	Text   string
	Label  string // the column's header
	Number bool
	Wide   bool // takes a phone's whole width
	Class  string
}

// network is one model's part of the page.
type network struct {
	*Model
	Short      string
	Images     string
	Set        string // images of the set, where the run could stop early
	Mark, Word string
	Intervals  *intervals
	Classes    []classTable
	Thresholds *thresholds
	Gallery    *gallery
	Float      []floatList
}

// Decided reports whether a candidate, as it is printed, decides the model's verdict.
func (n network) Decided(candidate string) bool {
	for _, p := range n.Precisions {
		for _, l := range p.Looks {
			if l.Primary && accuracy.DisplayName(p.Name) == candidate {
				return true
			}
		}
	}
	return false
}

// classTable is the classes of one candidate that lost.
type classTable struct {
	Candidate, Sentence string
	Rows                []classRow
	More                int
}

type classRow struct {
	Name, N, Lost, Gained, Loss, P string
	Significant                    bool
}

// thresholds are a model's tensors.
type thresholds struct {
	Open, Folded []tensorView
	Rows         []tensorView // without a picture
	More         int
	Total        int
	NoHistograms bool
}

type tensorView struct {
	Name, Amax string
	*histogram
}

// panel is one of a tensor's two pictures.
type panel struct {
	*tensorView
	Scale, Path string
}

// Panel is the linear or the logarithmic picture.
func (t tensorView) Panel(scale string) panel {
	if scale == "log" {
		return panel{&t, scale, t.Log}
	}
	return panel{&t, scale, t.Linear}
}

// gallery is the images that changed their class.
type gallery struct {
	Base, Candidate     string
	Lost, Gained, Other string
	All, Shown          string
	Cards               []card
}

type card struct {
	Path, ID, Label string
	Base, Cand      string
	BaseOK, CandOK  bool
	Picture         template.URL
	W, H            int
}

// floatList is what one precision left in float.
type floatList struct {
	Precision, File string
	Rewritten       int
	Nodes           []FloatNode
	More            int
}

var marks = map[accuracy.Verdict]string{accuracy.Pass: "✓", accuracy.Fail: "✗", accuracy.Inconclusive: "?", accuracy.None: "–"}

func newPage(r *Report) (*page, error) {
	v := &page{
		Report: r, Title: "Quantisation verdict: " + string(r.Verdict), Headline: r.headline(),
		Mark: marks[r.Verdict], Word: verdictWord(r.Verdict),
		Margin: r.Policy.margin(), Confidence: trim(r.Policy.Confidence * 100),
		Accuracy: newSheet(accuracyTable(r)), Looks: newSheet(lookTable(r)),
		AllWarnings: r.warnings(), Computed: r.computed(),
	}
	v.AllWarnings, v.MoreWarnings = bounded(v.AllWarnings)
	var err error
	if v.Plot, err = accuracyPlot(r); err != nil {
		return nil, err
	}
	v.PlotWide = len(r.Models) > 4
	if err := v.addSpeed(r.Throughput); err != nil {
		return nil, err
	}
	for i := range r.Models {
		m := &r.Models[i]
		n := network{
			Model: m, Short: clip(m.Name), Images: grouped(m.N), Set: grouped(m.SetSize), Mark: marks[m.Verdict], Word: verdictWord(m.Verdict),
			Intervals: newIntervals(r.Policy, m), Thresholds: newThresholds(m.Tensors, len(r.Models)),
		}
		for _, p := range m.Precisions {
			if len(p.Classes) > 0 {
				n.Classes = append(n.Classes, r.classTable(m, p))
				v.HasClasses = true
			}
		}
		for _, q := range m.Quantization {
			f := floatList{Precision: accuracy.DisplayName(q.Precision), File: q.File, Rewritten: q.Rewritten}
			f.Nodes, f.More = bounded(q.Float)
			n.Float = append(n.Float, f)
		}
		if n.Gallery, err = r.gallery(m.Flips); err != nil {
			return nil, fmt.Errorf("model %s: %w", m.Name, err)
		}
		v.HasTensors = v.HasTensors || n.Thresholds != nil
		v.HasNotes = v.HasNotes || len(v.Computed) > 0 || r.Dataset != nil || m.Calibration != nil || len(m.Quantization) > 0
		v.Stopped = v.Stopped || m.SetSize > 0
		v.HasFlips = v.HasFlips || n.Gallery != nil
		v.Nets = append(v.Nets, n)
	}
	return v, nil
}

// addSpeed adds what was measured of the models' speed.
func (v *page) addSpeed(rs bench.Results) error {
	if len(rs) == 0 {
		return nil
	}
	v.Speed, v.SpeedNotes = newSheet(throughputTable(rs)), throughputNotes(rs)
	for _, x := range []struct {
		to   *template.URL
		plot func(bench.Results) ([]byte, error)
	}{{&v.SpeedPlot, ThroughputPlot}, {&v.ScalingPlot, ScalingPlot}} {
		data, err := x.plot(rs)
		if err != nil {
			return err
		}
		if data != nil {
			*x.to = dataURL("image/svg+xml", data)
		}
	}
	return nil
}

func verdictWord(v accuracy.Verdict) string {
	if v == accuracy.None {
		return "NOT COMPARED"
	}
	return strings.ToUpper(string(v))
}

// headline is the verdict over all models in a sentence.
func (r *Report) headline() string {
	if len(r.Models) == 1 {
		return r.Models[0].Sentence
	}
	var parts []string
	for _, x := range []struct {
		verdict   accuracy.Verdict
		one, many string
	}{
		{accuracy.Fail, "fails", "fail"}, {accuracy.Inconclusive, "is inconclusive", "are inconclusive"},
		{accuracy.Pass, "passes", "pass"}, {accuracy.None, "was not compared", "were not compared"},
	} {
		var names []string
		for _, m := range r.Models {
			if m.Verdict == x.verdict {
				names = append(names, clip(m.Name))
			}
		}
		n, words := len(names), x.many
		switch {
		case n == 0:
			continue
		case n == 1:
			words = x.one
		case n > 8:
			names = append(names[:8], "…")
		}
		parts = append(parts, fmt.Sprintf("%d of %d networks %s (%s)", n, len(r.Models), words, strings.Join(names, ", ")))
	}
	return strings.Join(parts, "; ") + ", at a margin of " + r.Policy.margin() + "."
}

// bounded returns the first of a list's entries and how many more there are.
func bounded[T any](list []T) (first []T, more int) {
	if len(list) <= mostLines {
		return list, 0
	}
	return list[:mostLines], len(list) - mostLines
}

func newSheet(t table) sheet {
	s := sheet{}
	labels := make([]string, len(t.header))
	precision := "" // stands in the first of its columns only
	for i, c := range t.header {
		s.Columns = append(s.Columns, cell{Text: c, Number: i >= t.left})
		labels[i] = c
		if name, ok := strings.CutSuffix(c, " top-1"); ok && name != "Δ" {
			precision = name
		} else if precision != "" {
			labels[i] = precision + " " + c
		}
	}
	for _, row := range t.rows {
		var cells []cell
		for i, c := range row {
			x := cell{Text: clip(c), Label: labels[i], Number: i >= t.left, Wide: strings.HasSuffix(t.header[i], "interval")}
			if v := accuracy.Verdict(strings.ToLower(c)); i == 2 && t.left > 2 && marks[v] != "" {
				x.Text, x.Class = marks[v]+" "+c, string(v)
			}
			cells = append(cells, x)
		}
		s.Rows = append(s.Rows, cells)
	}
	return s
}

func (r *Report) classTable(m *Model, p Precision) classTable {
	t := classTable{Candidate: accuracy.DisplayName(p.Name)}
	level := trim((1 - r.Policy.Confidence) * 100)
	switch p.ClassesLost {
	case 0:
		t.Sentence = "no class lost significantly at " + level + " %; those nearest to it:"
	case 1:
		t.Sentence = "1 class lost significantly at " + level + " %"
	default:
		t.Sentence = fmt.Sprintf("%d classes lost significantly at %s %%", p.ClassesLost, level)
	}
	var classes []Class
	classes, t.More = bounded(p.Classes)
	for _, c := range classes {
		loss := percent(c.Loss, m.N)
		t.Rows = append(t.Rows, classRow{
			Name: r.className(c.Class), N: grouped(c.N), Lost: grouped(c.BaseOnly), Gained: grouped(c.CandOnly),
			Loss: loss, P: pValue(c.PAdjusted), Significant: c.PAdjusted <= 1-r.Policy.Confidence,
		})
	}
	return t
}

// newThresholds chooses which of a model's tensors get a picture; nil where there are no tensors.
func newThresholds(tensors []Tensor, models int) *thresholds {
	if len(tensors) == 0 {
		return nil
	}
	t := &thresholds{Total: len(tensors)}
	type drawn struct {
		at      int
		clipped float64
	}
	var withPicture []drawn
	views := make([]tensorView, len(tensors))
	for i, x := range tensors {
		views[i] = tensorView{Name: clip(x.Name), Amax: shortFloat(float64(x.Amax))}
		if h := newHistogram(x); h != nil {
			views[i].histogram = h
			withPicture = append(withPicture, drawn{i, x.Histogram.ShareAbove(x.Amax)})
		}
	}
	t.NoHistograms = len(withPicture) == 0
	quota := max(1, mostPictures/models)
	byShare := slices.Clone(withPicture)
	slices.SortStableFunc(byShare, func(a, b drawn) int {
		switch {
		case a.clipped > b.clipped:
			return -1
		case a.clipped < b.clipped:
			return 1
		}
		return 0
	})
	open := len(byShare)
	if open > 2*openTensors {
		open = openTensors
	}
	place := map[int]*[]tensorView{}
	for i, d := range byShare {
		switch {
		case i < open:
			place[d.at] = &t.Open
		case i < quota:
			place[d.at] = &t.Folded
		}
	}
	rows := max(1, mostRows/models)
	for i, x := range views {
		list := place[i]
		switch {
		case list != nil:
			*list = append(*list, x)
		case len(t.Rows) < rows:
			t.Rows = append(t.Rows, x)
		default:
			t.More++
		}
	}
	return t
}

// gallery prepares flips; nil where there are none to tell of.
func (r *Report) gallery(f *Flips) (*gallery, error) {
	if f == nil {
		return nil, nil
	}
	g := &gallery{
		Base: accuracy.DisplayName(f.Base), Candidate: accuracy.DisplayName(f.Candidate),
		Lost: grouped(f.Lost), Gained: grouped(f.Gained), Other: grouped(f.Other),
		All: grouped(f.Lost + f.Gained + f.Other), Shown: grouped(len(f.Images)),
	}
	prediction := func(p Prediction) string {
		if p.Class < 0 {
			return "NaN"
		}
		return fmt.Sprintf("%s (%s\u00a0%%)", r.className(p.Class), strconv.FormatFloat(100*float64(p.Prob), 'f', 0, 64))
	}
	g.Cards = make([]card, len(f.Images))
	errs := make([]error, len(f.Images))
	var encoding sync.WaitGroup
	for i, x := range f.Images {
		c := &g.Cards[i]
		*c = card{
			Path: clip(x.Path), ID: strconv.Itoa(x.ID), Label: r.className(x.Label),
			Base: prediction(x.Base), Cand: prediction(x.Cand),
			BaseOK: x.Base.Class == x.Label, CandOK: x.Cand.Class == x.Label,
		}
		if x.Picture == nil {
			continue
		}
		size := x.Picture.Bounds().Size()
		c.W, c.H = size.X, size.Y
		encoding.Go(func() {
			var err error
			if c.Picture, err = encode(x.Picture); err != nil {
				errs[i] = fmt.Errorf("image %s: %w", x.Path, err)
			}
		})
	}
	encoding.Wait()
	if err := cmp.Or(errs...); err != nil {
		return nil, err
	}
	return g, nil
}

// encode makes a data URL of a picture, as PNG where it is small and as JPEG, which takes less, where it is not.
func encode(m image.Image) (template.URL, error) {
	var b bytes.Buffer
	size := m.Bounds().Size()
	if size.X*size.Y <= 32*32 {
		if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, m); err != nil {
			return "", fmt.Errorf("encode the picture: %w", err)
		}
		return dataURL("image/png", b.Bytes()), nil
	}
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 80}); err != nil {
		return "", fmt.Errorf("encode the picture: %w", err)
	}
	return dataURL("image/jpeg", b.Bytes()), nil
}
