// Package reports writes finished results: text, Markdown, CSV, LaTeX, JSON, JUnit XML and a self-contained HTML page. It
// decides nothing. Rates and losses are fractions 0..1 in the structs and in JSON and CSV, and percent or points only where
// they are printed for people.
package reports

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/bench"
)

// SchemaVersion is the version of the JSON report; docs/report.schema.json describes it.
const SchemaVersion = "1.0"

// Report is everything a run or a gate has to say. New fills what comes from the outcomes; the rest is the caller's.
type Report struct {
	SchemaVersion string           `json:"schema_version"`
	Tool          string           `json:"tool,omitempty"` // name and version of the program
	Verdict       accuracy.Verdict `json:"verdict"`
	Policy        Policy           `json:"policy"`
	Models        []Model          `json:"models"`
	Warnings      []string         `json:"warnings"`
	Dataset       *Dataset         `json:"dataset,omitempty"`
	Manifest      *File            `json:"manifest,omitempty"`
	Throughput    bench.Results    `json:"throughput,omitempty"` // what was measured of the models' speed

	// The HTML page alone shows these.
	Facts      []Fact   `json:"-"` // what the manifest says, for reading
	ClassNames []string `json:"-"` // by class; classes beyond its end are printed as numbers
}

// Fact is one line about how the figures were made.
type Fact struct{ Name, Value string }

// Policy is what the verdict was decided by.
type Policy struct {
	MaxLoss         string  `json:"max_loss"` // as the flag spells it: 0.5pp, 0.5%rel
	MaxLossFraction float64 `json:"max_loss_fraction"`
	MaxLossRelative bool    `json:"max_loss_relative"`
	Confidence      float64 `json:"confidence"`
	Primary         string  `json:"primary"`
	Rule            string  `json:"rule"`
	GateAll         bool    `json:"gate_all"`
	Target          string  `json:"target"` // what the verdict is about: population or set
}

// Model is one network's part of the report.
type Model struct {
	Name         string           `json:"name"`
	Base         string           `json:"base"`               // name of the base precision
	N            int              `json:"n"`                  // images scored
	SetSize      int              `json:"set_size,omitempty"` // where the run could stop early: the images it chose from
	Verdict      accuracy.Verdict `json:"verdict"`
	Sentence     string           `json:"sentence"` // the primary look's verdict in one sentence
	Precisions   Precisions       `json:"precisions"`
	Calibration  *Calibration     `json:"calibration,omitempty"`
	Quantization []Quantization   `json:"quantization,omitempty"`
	Layers       []Layers         `json:"layers,omitempty"`
	Files        []File           `json:"files,omitempty"`

	// The HTML page alone shows these.
	Tensors []Tensor `json:"-"`
	Flips   *Flips   `json:"-"`
}

// Precisions are a model's precisions, base first. In JSON they are an object by name, in the same order.
type Precisions []Precision

// Precision is what was measured on one precision. The pointers are nil, and absent in JSON, at the base.
type Precision struct {
	Name        string  `json:"-"`
	Top1        float64 `json:"top1"`
	Top5        float64 `json:"top5"`
	N           int     `json:"n"`
	CorrectTop1 int     `json:"correct_top1"`
	CorrectTop5 int     `json:"correct_top5"`
	TiedTop1    int     `json:"tied_top1"` // images whose hit hangs on how a tie is broken
	TiedTop5    int     `json:"tied_top5"`
	NaN         int     `json:"nan"` // images with a NaN logit
	// Computed says what was computed in which type, where that is known.
	Computed string `json:"computed,omitempty"`
	// ECE is the expected calibration error of the top-1 probabilities, nil where no image has one.
	ECE *float64 `json:"ece,omitempty"`

	DeltaTop1      *float64 `json:"delta_top1,omitempty"` // candidate minus base
	DeltaTop5      *float64 `json:"delta_top5,omitempty"`
	Agreement      *float64 `json:"agreement,omitempty"` // share of images with the base's top-1 class
	MeanKL         *float64 `json:"mean_kl,omitempty"`   // nats, over the images where it is finite
	InfiniteKL     *int     `json:"infinite_kl,omitempty"`
	MaxLogitChange *float64 `json:"max_logit_change,omitempty"` // absent where it is infinite
	Looks          []Look   `json:"looks,omitempty"`

	ClassesLost int     `json:"classes_lost,omitempty"` // classes with an adjusted p-value of at most 1 - confidence
	Classes     []Class `json:"classes,omitempty"`      // those, and the next ones up to a short list, by adjusted p-value
}

// Class is what one class's images lost at top-1.
type Class struct {
	Class     int     `json:"class"`
	N         int     `json:"n"` // images of the class
	BaseOnly  int     `json:"base_only"`
	CandOnly  int     `json:"cand_only"`
	Loss      float64 `json:"loss"`
	P         float64 `json:"p"`          // one-sided exact McNemar, of a loss
	PAdjusted float64 `json:"p_adjusted"` // Holm's over the candidate's classes
}

// Look is one paired comparison with the base.
type Look struct {
	Metric           string           `json:"metric"` // top1 or top5
	Primary          bool             `json:"primary"`
	Both             int              `json:"both"`
	BaseOnly         int              `json:"base_only"`
	CandOnly         int              `json:"cand_only"`
	Neither          int              `json:"neither"`
	Loss             float64          `json:"loss"` // base minus candidate
	LossInterval     Interval         `json:"loss_interval"`
	RelLoss          *float64         `json:"relative_loss"` // null where the base got nothing right
	RelInterval      Interval         `json:"relative_loss_interval"`
	McNemarExact     float64          `json:"mcnemar_exact_p"`
	McNemarMidP      float64          `json:"mcnemar_mid_p"`
	PWithin          float64          `json:"p_within"` // one-sided, of a loss at the margin or beyond
	PBeyond          float64          `json:"p_beyond"` // one-sided, of a loss at the margin or below
	PWithinAdjusted  float64          `json:"p_within_adjusted"`
	PBeyondAdjusted  float64          `json:"p_beyond_adjusted"`
	PassesMarginFrom *float64         `json:"passes_margin_from"` // these images would have passed this margin and larger ones
	FailsMarginBelow *float64         `json:"fails_margin_below"` // and failed smaller ones than this; null where none
	Settle           *Settle          `json:"settle,omitempty"`
	Stop             *Stop            `json:"stop,omitempty"` // where the run could stop early
	Verdict          accuracy.Verdict `json:"verdict"`
	Sentence         string           `json:"sentence"`
}

// Interval is a range; an unbounded end is nil, null in JSON.
type Interval struct {
	Low  *float64 `json:"low"`
	High *float64 `json:"high"`
}

// Settle is how many images would settle an inconclusive look with 90 % chance; nil where no number would.
type Settle struct {
	Images    *int `json:"images"`  // at the observed loss
	AtLow     *int `json:"at_low"`  // if the loss were the interval's low end
	AtHigh    *int `json:"at_high"` // if it were the high end
	Practical bool `json:"practical"`
}

// Stop says when a look's verdict was reached in a run that could stop early.
type Stop struct {
	Settled *int   `json:"settled"`        // images after which it stood; nil where it was not reached
	Rule    string `json:"rule,omitempty"` // betting or certain; absent where it was not reached
}

// Dataset says what was scored and what was kept for calibration.
type Dataset struct {
	Source        string  `json:"source"`
	Format        string  `json:"format,omitempty"`
	Images        int     `json:"images"`
	Calibration   int     `json:"calibration"`
	Scored        int     `json:"scored"`
	Skipped       int     `json:"skipped"` // unreadable images left out
	Classes       int     `json:"classes,omitempty"`
	Preprocessing string  `json:"preprocessing,omitempty"`
	Decoder       string  `json:"decoder,omitempty"`
	SplitSeed     *uint64 `json:"split_seed,omitempty"` // where the calibration images were drawn, not the first ones
}

// Calibration says how a model's thresholds were found.
type Calibration struct {
	Method    string   `json:"method"`
	Images    int      `json:"images"`
	Batches   int      `json:"batches,omitempty"`
	BatchSize int      `json:"batch_size,omitempty"`
	Tensors   int      `json:"tensors"`
	Cache     string   `json:"cache,omitempty"` // file name
	FromCache bool     `json:"from_cache,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

// Quantization says what was rewritten for one precision and what was not.
type Quantization struct {
	Precision string      `json:"precision"`
	File      string      `json:"file,omitempty"`
	Rewritten int         `json:"rewritten"` // nodes
	Following int         `json:"following"` // nodes in the kernel or at the scale of the one before them
	Float     []FloatNode `json:"float"`     // nodes left in float
	Warnings  []string    `json:"warnings,omitempty"`
}

// Layers says which arithmetic the layers of one precision's engine really run in.
type Layers struct {
	Precision string         `json:"precision"` // as it was asked for
	Counts    map[string]int `json:"counts"`    // of the layers that compute, by arithmetic: int8, fp16, fp32
	Layers    []Layer        `json:"layers"`
}

// Layer is one layer of an engine.
type Layer struct {
	Name      string `json:"name"`
	Type      string `json:"type,omitempty"`
	Precision string `json:"precision"`
	Kernel    string `json:"kernel,omitempty"`
}

// FloatNode is a node that was left in float.
type FloatNode struct {
	Node   string `json:"node"`
	Op     string `json:"op"`
	Reason string `json:"reason"`
}

// File names a file that belongs to the results.
type File struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256,omitempty"`
	What   string `json:"what,omitempty"`
}

// New makes a report of a summary.
func New(s *accuracy.Summary) *Report {
	p := s.Policy
	r := &Report{
		SchemaVersion: SchemaVersion,
		Verdict:       s.Verdict,
		Policy:        newPolicy(p),
		Warnings:      append([]string{}, s.Warnings...),
	}
	for i := range s.Models {
		m := &s.Models[i]
		rm := Model{Name: m.Name, Base: m.Precisions[0].Name, N: m.N, SetSize: m.SetSize, Verdict: m.Verdict, Sentence: sentence(m)}
		for _, ps := range m.Precisions {
			rm.Precisions = append(rm.Precisions, newPrecision(ps, 1-p.Confidence))
		}
		r.Models = append(r.Models, rm)
	}
	return r
}

func newPolicy(p accuracy.Policy) Policy {
	return Policy{
		MaxLoss: p.MaxLoss.String(), MaxLossFraction: p.MaxLoss.Value, MaxLossRelative: p.MaxLoss.Relative,
		Confidence: p.Confidence, Primary: p.Primary.String(), Rule: string(p.Rule), GateAll: p.GateAll,
		Target: string(p.Target),
	}
}

// sentence is the primary look's verdict.
func sentence(m *accuracy.ModelSummary) string {
	if look := m.Primary(); look != nil {
		return look.Reason
	}
	return "only " + accuracy.DisplayName(m.Precisions[0].Name) + " was scored, so nothing was compared."
}

// shortList is how many classes are listed though they may not have lost.
const shortList = 20

func newPrecision(s accuracy.PrecisionSummary, level float64) Precision {
	p := Precision{
		Name: s.Name, N: s.N, NaN: s.NaN,
		Top1: s.Top1.Rate, CorrectTop1: s.Top1.Correct, TiedTop1: s.Top1.Tied,
		Top5: s.Top5.Rate, CorrectTop5: s.Top5.Correct, TiedTop5: s.Top5.Tied, ECE: finite(s.ECE),
	}
	if c := s.Candidate; c != nil {
		agreement := float64(c.Agree) / float64(s.N)
		p.DeltaTop1, p.DeltaTop5, p.Agreement = &c.DeltaTop1, &c.DeltaTop5, &agreement
		p.MeanKL, p.InfiniteKL, p.MaxLogitChange = &c.MeanKL, &c.InfiniteKL, finite(float64(c.MaxLogitChange))
		for _, l := range c.Looks {
			p.Looks = append(p.Looks, newLook(l))
		}
		for i, x := range c.Classes {
			lost := x.PAdjusted <= level
			if lost {
				p.ClassesLost++
			}
			if lost || i < shortList {
				p.Classes = append(p.Classes, Class(x))
			}
		}
	}
	return p
}

func newLook(l accuracy.Look) Look {
	r := Look{
		Metric: l.Metric(), Primary: l.Primary,
		Both: l.Table.Both, BaseOnly: l.Table.BaseOnly, CandOnly: l.Table.CandOnly, Neither: l.Table.Neither,
		Loss: l.Loss, LossInterval: newInterval(l.LossInterval),
		RelLoss: finite(l.RelLoss), RelInterval: newInterval(l.RelInterval),
		McNemarExact: l.McNemarExact, McNemarMidP: l.McNemarMidP,
		PWithin: l.PWithin, PBeyond: l.PBeyond, PWithinAdjusted: l.PWithinAdjusted, PBeyondAdjusted: l.PBeyondAdjusted,
		PassesMarginFrom: finite(max(0, l.Settled.High)),
		Verdict:          l.Verdict, Sentence: l.Reason,
	}
	if l.Settled.Low > 0 {
		r.FailsMarginBelow = finite(l.Settled.Low)
	}
	if s := l.Stop; s != nil {
		r.Stop = &Stop{Settled: positive(s.Settled), Rule: string(s.Rule)}
	}
	if s := l.Settle; s != nil {
		r.Settle = &Settle{Images: positive(s.Images), AtLow: positive(s.AtLow), AtHigh: positive(s.AtHigh), Practical: s.Practical}
	}
	return r
}

func newInterval(i accuracy.Interval) Interval {
	return Interval{Low: finite(i.Low), High: finite(i.High)}
}

// finite is a pointer to v, nil where JSON has no number for it.
func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func positive(n int) *int {
	if n <= 0 {
		return nil
	}
	return &n
}

// MarshalJSON writes an object by name, base first.
func (ps Precisions) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range ps {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(p.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads what MarshalJSON writes, keeping the order.
func (ps *Precisions) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("precisions: want an object by name")
	}
	*ps = nil
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name, ok := t.(string)
		if !ok {
			return fmt.Errorf("precisions: want an object by name")
		}
		p := Precision{}
		if err := d.Decode(&p); err != nil {
			return fmt.Errorf("precision %s: %w", name, err)
		}
		p.Name = name
		*ps = append(*ps, p)
	}
	return nil
}

// JSON writes the report as docs/report.schema.json describes it.
func JSON(w io.Writer, r *Report) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Format is a way of writing a report.
type Format string

// The formats.
const (
	FormatText     Format = "text"
	FormatMarkdown Format = "markdown"
	FormatCSV      Format = "csv"
	FormatLaTeX    Format = "latex"
	FormatJSON     Format = "json"
	FormatJUnit    Format = "junit"
	FormatHTML     Format = "html"
)

var writers = []struct {
	format Format
	write  func(io.Writer, *Report) error
}{
	{FormatText, Text}, {FormatMarkdown, Markdown}, {FormatCSV, CSV}, {FormatLaTeX, LaTeX}, {FormatJSON, JSON},
	{FormatJUnit, JUnit}, {FormatHTML, HTML},
}

// Formats lists the formats.
func Formats() []string {
	names := make([]string, len(writers))
	for i, w := range writers {
		names[i] = string(w.format)
	}
	return names
}

// ParseFormat reads a format's name.
func ParseFormat(s string) (Format, error) {
	if !slices.Contains(Formats(), s) {
		return "", fmt.Errorf("report format %q: want one of %s", s, strings.Join(Formats(), ", "))
	}
	return Format(s), nil
}

// Write writes a report in one of the formats.
func Write(w io.Writer, r *Report, f Format) error {
	for _, x := range writers {
		if x.format == f {
			return x.write(w, r)
		}
	}
	_, err := ParseFormat(string(f))
	return err
}
