package accuracy

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The version of the outcomes file. A reader refuses another major version, and skips columns that a newer minor adds.
const (
	OutcomesMajor = 1
	OutcomesMinor = 1
)

const outcomesMagic = "# quantgate outcomes "

// Errors that callers tell apart with errors.Is.
var (
	// ErrOutcomes says that a file is not a well-formed outcomes file.
	ErrOutcomes = errors.New("not a valid outcomes file")
	// ErrVersion says that a file was written in a format that this program does not know.
	ErrVersion = errors.New("unknown format version")
)

var (
	imageColumns = []string{"id", "path", "label", "model"}
	visitColumns = []string{"visit", "set_size"} // version 1.1, of a run that could stop early
	scoreColumns = []string{"_top1", "_top1_prob", "_rank", "_label_prob", "_margin", "_ties_before", "_ties_after"}
	shiftColumns = []string{"_kl", "_max_logit_change"}
)

// Outcomes holds the outcomes of every image on one or more models.
type Outcomes struct {
	Precisions []string // base first; the same for every model
	Models     []ModelOutcomes
	// SetSize is not 0 where the run visited the images in a random order and could stop early: the number of images that it
	// chose from. Every record then has its Visit.
	SetSize int
}

// ModelOutcomes holds one model's records in the order of their ids.
type ModelOutcomes struct {
	Name    string
	Records []Record
}

// Tally counts every model's records.
func (o *Outcomes) Tally() ([]*Tally, error) {
	var tallies []*Tally
	for _, m := range o.Models {
		t := NewTally(m.Name, o.Precisions)
		t.setSize = o.SetSize
		for i := range m.Records {
			if err := t.Add(&m.Records[i]); err != nil {
				return nil, err
			}
		}
		tallies = append(tallies, t)
	}
	return tallies, nil
}

// WriteOutcomes writes an outcomes file. Equal outcomes give equal bytes.
func WriteOutcomes(w io.Writer, o *Outcomes) error {
	ow, err := NewOutcomesWriter(w, o.Precisions, o.SetSize)
	if err != nil {
		return err
	}
	for _, m := range o.Models {
		for i := range m.Records {
			if err := ow.Write(m.Name, &m.Records[i]); err != nil {
				return err
			}
		}
	}
	return ow.Close()
}

// ReadOutcomes reads an outcomes file, gzipped or not. name is what errors call it.
func ReadOutcomes(r io.Reader, name string) (*Outcomes, error) {
	or, err := NewOutcomesReader(r, name)
	if err != nil {
		return nil, err
	}
	o := &Outcomes{Precisions: or.Precisions()}
	np := len(o.Precisions)
	var outcomes []Outcome // slabs, so that a record costs no allocation of its own
	var shifts []Shift
	for {
		if len(outcomes) < np {
			outcomes, shifts = make([]Outcome, 1024*np), make([]Shift, 1024*(np-1))
		}
		rec := Record{Outcomes: outcomes[:0:np], Shifts: shifts[: 0 : np-1]}
		model, err := or.Next(&rec)
		if errors.Is(err, io.EOF) {
			o.SetSize = or.SetSize()
			return o, nil
		}
		if err != nil {
			return nil, err
		}
		outcomes, shifts = outcomes[np:], shifts[np-1:]
		if k := len(o.Models); k == 0 || o.Models[k-1].Name != model {
			o.Models = append(o.Models, ModelOutcomes{Name: model})
		}
		m := &o.Models[len(o.Models)-1]
		m.Records = append(m.Records, rec)
	}
}

// TallyOutcomesFile counts the outcomes file at path without holding its records.
func TallyOutcomesFile(path string) ([]*Tally, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := NewOutcomesReader(f, path)
	if err != nil {
		return nil, err
	}
	var tallies []*Tally
	var rec Record
	for {
		model, err := r.Next(&rec)
		if errors.Is(err, io.EOF) {
			return tallies, nil
		}
		if err != nil {
			return nil, err
		}
		if k := len(tallies); k == 0 || tallies[k-1].model != model {
			tallies = append(tallies, NewTally(model, r.Precisions()))
			tallies[k].setSize = r.SetSize()
		}
		if err := tallies[len(tallies)-1].Add(&rec); err != nil {
			return nil, err
		}
	}
}

// order holds what both the writer and the reader demand of the rows' order.
type order struct {
	model string
	seen  []string
	id    int
}

func (o *order) next(model string, id int) error {
	if len(o.seen) > 0 && model == o.model {
		if id <= o.id {
			return fmt.Errorf("model %s: id %d after id %d: ids must rise", model, id, o.id)
		}
		o.id = id
		return nil
	}
	if slices.Contains(o.seen, model) {
		return fmt.Errorf("model %s: its rows are not together", model)
	}
	o.model, o.id = model, id
	o.seen = append(o.seen, model)
	return nil
}

// OutcomesWriter writes an outcomes file row by row.
type OutcomesWriter struct {
	gz         *gzip.Writer
	precisions int
	setSize    int
	order      order
	line       []byte
}

// NewOutcomesWriter starts a file; precisions names the base first, and setSize is Outcomes.SetSize. Close ends it.
func NewOutcomesWriter(w io.Writer, precisions []string, setSize int) (*OutcomesWriter, error) {
	if err := checkPrecisions(precisions); err != nil {
		return nil, err
	}
	gz, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	line := fmt.Appendf(nil, "%s%d.%d\n%s\n", outcomesMagic, OutcomesMajor, OutcomesMinor, strings.Join(columns(precisions, setSize > 0), ","))
	if _, err := gz.Write(line); err != nil {
		return nil, fmt.Errorf("write outcomes: %w", err)
	}
	return &OutcomesWriter{gz: gz, precisions: len(precisions), setSize: setSize, line: line}, nil
}

// checkPrecisions reports what would make the columns ambiguous.
func checkPrecisions(precisions []string) error {
	if len(precisions) == 0 {
		return fmt.Errorf("outcomes: no precisions: name the base at least")
	}
	for i, p := range precisions {
		if p == "" || strings.ContainsAny(p, ",\" \t\r\n") {
			return fmt.Errorf("precision %q: a name must not be empty or hold commas, quotes or blanks", p)
		}
		if slices.Contains(precisions[:i], p) {
			return fmt.Errorf("precision %s: given twice", p)
		}
	}
	cols := columns(precisions, true)
	slices.Sort(cols)
	for i := range cols[1:] {
		if cols[i] == cols[i+1] {
			return fmt.Errorf("precisions %s: column %s would appear twice: rename one", precisions, cols[i])
		}
	}
	return nil
}

// columns names the columns of a file, in order.
func columns(precisions []string, visits bool) []string {
	cols := slices.Clone(imageColumns)
	if visits {
		cols = append(cols, visitColumns...)
	}
	for i, p := range precisions {
		for _, c := range scoreColumns {
			cols = append(cols, p+c)
		}
		if i > 0 {
			for _, c := range shiftColumns {
				cols = append(cols, p+c)
			}
		}
	}
	return cols
}

// Write adds one row. Rows come model by model, with rising ids. Line breaks in the path are written as spaces.
func (w *OutcomesWriter) Write(model string, r *Record) error {
	if model == "" || len(r.Outcomes) != w.precisions || len(r.Shifts) != w.precisions-1 {
		return fmt.Errorf("outcomes: model %q, image %d: %d outcomes and %d shifts for %d precisions", model, r.ID, len(r.Outcomes), len(r.Shifts), w.precisions)
	}
	if err := w.order.next(model, r.ID); err != nil {
		return fmt.Errorf("outcomes: %w", err)
	}
	b := w.line[:0]
	b = strconv.AppendInt(b, int64(r.ID), 10)
	b = appendText(append(b, ','), r.Path)
	b = strconv.AppendInt(append(b, ','), int64(r.Label), 10)
	b = appendText(append(b, ','), model)
	if w.setSize > 0 {
		b = strconv.AppendInt(append(b, ','), int64(r.Visit), 10)
		b = strconv.AppendInt(append(b, ','), int64(w.setSize), 10)
	}
	for i, o := range r.Outcomes {
		if o.NaN {
			b = append(b, ",,,,,,,"...)
		} else {
			b = strconv.AppendInt(append(b, ','), int64(o.Top1), 10)
			b = appendFloat(append(b, ','), float64(o.Top1Prob), 32)
			b = strconv.AppendInt(append(b, ','), int64(o.Rank), 10)
			b = appendFloat(append(b, ','), float64(o.LabelProb), 32)
			b = appendFloat(append(b, ','), float64(o.Margin), 32)
			b = strconv.AppendInt(append(b, ','), int64(o.TiesBefore), 10)
			b = strconv.AppendInt(append(b, ','), int64(o.TiesAfter), 10)
		}
		if i > 0 {
			s := r.Shifts[i-1]
			b = appendFloat(append(b, ','), s.KL, 64)
			b = appendFloat(append(b, ','), float64(s.MaxLogitChange), 32)
		}
	}
	w.line = append(b, '\n')
	if _, err := w.gz.Write(w.line); err != nil {
		return fmt.Errorf("write outcomes: %w", err)
	}
	return nil
}

// Close ends the file; it does not close the writer under it.
func (w *OutcomesWriter) Close() error {
	if err := w.gz.Close(); err != nil {
		return fmt.Errorf("write outcomes: %w", err)
	}
	return nil
}

// appendFloat writes the shortest text that reads back as the same value, "inf" for +Inf and nothing for NaN.
func appendFloat(b []byte, v float64, bits int) []byte {
	switch {
	case v != v:
		return b
	case math.IsInf(v, 1):
		return append(b, "inf"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, bits)
}

var lineBreaks = strings.NewReplacer("\r", " ", "\n", " ")

// appendText writes a CSV field, quoted where it must be.
func appendText(b []byte, s string) []byte {
	if strings.ContainsAny(s, "\r\n") {
		s = lineBreaks.Replace(s)
	}
	if !strings.ContainsAny(s, ",\"") {
		return append(b, s...)
	}
	b = append(b, '"')
	b = append(b, strings.ReplaceAll(s, `"`, `""`)...)
	return append(b, '"')
}

// OutcomesReader reads an outcomes file row by row.
type OutcomesReader struct {
	name       string
	csv        *csv.Reader
	precisions []string
	index      []int // position in the file of every column that columns(precisions) names
	names      []string
	setSize    int
	visits     bool
	order      order
	line       int // of the last row
}

// NewOutcomesReader reads the version and the columns; the rest comes with Next. The file may be gzipped or plain. Errors
// name the file as name, with the line, and wrap ErrOutcomes or ErrVersion.
func NewOutcomesReader(r io.Reader, name string) (*OutcomesReader, error) {
	or := &OutcomesReader{name: name}
	br := bufio.NewReaderSize(r, 1<<16)
	if magic, _ := br.Peek(2); string(magic) == "\x1f\x8b" {
		gz, err := gzip.NewReader(br)
		if err != nil {
			return nil, or.fail(1, err)
		}
		br = bufio.NewReaderSize(gz, 1<<16)
	}
	if err := or.readVersion(br); err != nil {
		return nil, err
	}
	or.line = 2
	or.csv = csv.NewReader(br)
	or.csv.ReuseRecord = true
	if err := or.readColumns(); err != nil {
		return nil, err
	}
	return or, nil
}

// fail makes an error of one line of the file.
func (r *OutcomesReader) fail(line int, err error) error {
	var pe *csv.ParseError
	if errors.As(err, &pe) {
		line, err = pe.Line+1, pe.Err // the version line was read before
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the file ends early: it is cut off")
	}
	return fmt.Errorf("%s:%d: %w: %w", r.name, line, ErrOutcomes, err)
}

func (r *OutcomesReader) readVersion(br *bufio.Reader) error {
	// The line is short; a longer one is another file's, and is not read to its end.
	line := make([]byte, 0, 64)
	for len(line) < cap(line) {
		c, err := br.ReadByte()
		if err != nil && !errors.Is(err, io.EOF) {
			return r.fail(1, err)
		}
		if errors.Is(err, io.EOF) || c == '\n' {
			break
		}
		line = append(line, c)
	}
	version, ok := strings.CutPrefix(strings.TrimSuffix(string(line), "\r"), outcomesMagic)
	if !ok {
		return r.fail(1, fmt.Errorf("it does not start with %q", strings.TrimSpace(outcomesMagic)))
	}
	major, minor, ok := strings.Cut(version, ".")
	if _, err := strconv.ParseUint(minor, 10, 31); !ok || err != nil {
		return r.fail(1, fmt.Errorf("version %q: want MAJOR.MINOR", version))
	}
	m, err := strconv.ParseUint(major, 10, 31)
	if err != nil {
		return r.fail(1, fmt.Errorf("version %q: want MAJOR.MINOR", version))
	}
	if m != OutcomesMajor {
		return fmt.Errorf("%s:1: %w %s: this program reads %d.x: use the release that wrote the file", r.name, ErrVersion, version, OutcomesMajor)
	}
	return nil
}

func (r *OutcomesReader) readColumns() error {
	header, err := r.csv.Read()
	if errors.Is(err, io.EOF) {
		return r.fail(2, errors.New("no column names"))
	}
	if err != nil {
		return r.fail(2, err)
	}
	header = slices.Clone(header)
	at := make(map[string]int, len(header))
	for i, c := range header {
		if _, twice := at[c]; twice {
			return r.fail(2, fmt.Errorf("column %q appears twice", c))
		}
		at[c] = i
	}
	for _, c := range header {
		if p, ok := strings.CutSuffix(c, "_top1"); ok && p != "" {
			r.precisions = append(r.precisions, p)
		}
	}
	if len(r.precisions) == 0 {
		return r.fail(2, errors.New("no column such as fp32_top1: it holds no precision"))
	}
	_, r.visits = at[visitColumns[0]]
	r.names = columns(r.precisions, r.visits)
	for _, c := range r.names {
		i, ok := at[c]
		if !ok {
			return r.fail(2, fmt.Errorf("column %s is missing", c))
		}
		r.index = append(r.index, i)
	}
	return nil
}

// Precisions names the file's precisions, base first.
func (r *OutcomesReader) Precisions() []string { return r.precisions }

// SetSize is Outcomes.SetSize, known once a row was read.
func (r *OutcomesReader) SetSize() int { return r.setSize }

// Next reads one row into rec, whose slices it reuses, and returns the row's model. The error is io.EOF after the last row;
// any other names the file and the line.
func (r *OutcomesReader) Next(rec *Record) (model string, err error) {
	fields, err := r.csv.Read()
	if errors.Is(err, io.EOF) {
		if len(r.order.seen) == 0 {
			return "", r.fail(3, errors.New("no outcomes"))
		}
		return "", io.EOF
	}
	if err != nil {
		return "", r.fail(r.line+1, err)
	}
	line, _ := r.csv.FieldPos(0)
	r.line = line + 1 // the version line was read before
	p := rowParser{fields: fields, index: r.index, names: r.names}
	rec.ID = p.integer(0)
	rec.Path = strings.Clone(p.text())
	rec.Label = p.integer(0)
	model = p.text()
	if model == r.order.model {
		model = r.order.model // one string for all rows
	} else {
		model = strings.Clone(model)
	}
	if p.err == nil && model == "" {
		p.err = errors.New("column model: empty")
	}
	rec.Visit = 0
	if r.visits {
		rec.Visit = p.integer(0)
		size := p.integer(1)
		if r.setSize == 0 {
			r.setSize = size
		}
		if size != r.setSize || rec.Visit >= size {
			p.failf("visit %d of %d images, in a set of %d", rec.Visit, size, r.setSize)
		}
	}
	rec.Outcomes, rec.Shifts = rec.Outcomes[:0], rec.Shifts[:0]
	for i := range r.precisions {
		rec.Outcomes = append(rec.Outcomes, p.outcome(rec.Label))
		if i > 0 {
			rec.Shifts = append(rec.Shifts, Shift{KL: p.float(64, true), MaxLogitChange: float32(p.float(32, true))})
		}
	}
	if p.err == nil {
		p.err = r.order.next(model, rec.ID)
	}
	if p.err != nil {
		return "", r.fail(r.line, p.err)
	}
	return model, nil
}

// rowParser takes one row's fields in the order of names and keeps the first error.
type rowParser struct {
	fields []string
	index  []int
	names  []string
	at     int
	err    error
}

func (p *rowParser) text() string {
	s := p.fields[p.index[p.at]]
	p.at++
	return s
}

func (p *rowParser) failf(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("column %s: %s", p.names[p.at-1], fmt.Sprintf(format, args...))
	}
}

func (p *rowParser) integer(least int) int {
	s := p.text()
	v, err := strconv.ParseInt(s, 10, 32)
	if err != nil || int(v) < least {
		p.failf("%q is not a whole number of at least %d", s, least)
	}
	return int(v)
}

// float reads a number of at least 0 or +Inf; optional admits an empty field as NaN.
func (p *rowParser) float(bits int, optional bool) float64 {
	s := p.text()
	if s == "" && optional {
		return math.NaN()
	}
	v, err := strconv.ParseFloat(s, bits)
	if err != nil || !(v >= 0) || math.Signbit(v) {
		p.failf("%q is not a number of at least 0", s)
	}
	return v
}

func (p *rowParser) probability(unknown bool) float32 {
	v := p.float(32, unknown)
	if v > 1 {
		p.failf("%v is not a probability", v)
	}
	return float32(v)
}

// outcome reads one precision's columns. All are empty for an image with a NaN logit; the probabilities and the margin are, all
// three, where the model told classes only.
func (p *rowParser) outcome(label int) Outcome {
	field := func(i int) string { return p.fields[p.index[p.at+i]] }
	empty := 0
	for i := range scoreColumns {
		if field(i) == "" {
			empty++
		}
	}
	if empty == len(scoreColumns) {
		p.at += empty
		return Outcome{Top1: -1, NaN: true}
	}
	unknown := field(1) == "" && field(3) == "" && field(4) == ""
	o := Outcome{Top1: p.integer(0), Top1Prob: p.probability(unknown)}
	o.Rank = p.integer(1)
	if (o.Rank == 1) != (o.Top1 == label) {
		p.failf("rank %d, but the best class is %d and the label %d", o.Rank, o.Top1, label)
	}
	o.LabelProb = p.probability(unknown)
	o.Margin = float32(p.float(32, unknown))
	o.TiesBefore = p.integer(0)
	if o.TiesBefore >= o.Rank {
		p.failf("%d, but the rank is %d", o.TiesBefore, o.Rank)
	}
	o.TiesAfter = p.integer(0)
	return o
}
