package accuracy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// ErrPredictions says that a file does not hold one model's predictions.
var ErrPredictions = errors.New("not a valid predictions file")

// Predictions are what one model said about every image, made outside this program: logits, or classes alone.
type Predictions struct {
	N     int
	Width int // logits of an image, or classes of an image, best first
	// One of the two holds N*Width values, image by image. Probabilities may stand for logits: they rank alike.
	Logits  []float32
	Classes []int
	// Paths name the images where the file does, else nil.
	Paths []string
}

// PredictionsOptions say how to read a file.
type PredictionsOptions struct {
	// Kind is "logits", "classes", or "auto": whole numbers, one an image, are classes, and all else is logits.
	Kind string
	// Output picks one of several tensors by its name.
	Output string
}

// ReadPredictions reads one model's predictions for all images in order. The format is told by the content:
//
//   - NPY (NumPy's format version 1 to 3): an array of N or N x width numbers (float16, float32, float64, or integers; further
//     dimensions of size 1 are dropped), in C or Fortran order;
//   - JSON: a list of lists; an object from output names to such lists or to tensors, {"dims": [N, width], "data": [...]} as ONNX
//     Runtime's JavaScript binding prints them; a list of {"name", "dimensions": "Nxwidth", "values": [...]} as trtexec
//     --exportOutput writes it. nan and inf are taken as numbers, though JSON has none;
//   - CSV, otherwise: a row an image, with commas, semicolons, tabs or blanks between the numbers; the first row may name the columns,
//     and a column called path, file, filename or image names the images, id is skipped.
//
// Errors wrap ErrPredictions and name the file as name.
func ReadPredictions(r io.Reader, name string, o PredictionsOptions) (*Predictions, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	var a *array
	switch text := bytes.TrimLeft(data, " \t\r\n\ufeff"); {
	case bytes.HasPrefix(data, []byte(npyMagic)):
		a, err = parseNPY(data)
	case len(text) > 0 && (text[0] == '[' || text[0] == '{'):
		a, err = parseJSON(text, o.Output)
	default:
		a, err = parseCSV(data)
	}
	if err == nil {
		var p *Predictions
		if p, err = a.predictions(o.Kind); err == nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%s: %w: %w", name, ErrPredictions, err)
}

// array is what every format is read to.
type array struct {
	shape  []int
	values []float64 // in C order
	paths  []string
}

// predictions squeezes a to N x width.
func (a *array) predictions(kind string) (*Predictions, error) {
	if len(a.shape) == 0 {
		return nil, errors.New("a single number: want one row an image")
	}
	p := &Predictions{N: a.shape[0], Width: 1, Paths: a.paths}
	for _, d := range a.shape[1:] {
		if d != 1 && p.Width != 1 {
			return nil, fmt.Errorf("shape %v: want N or N x classes", a.shape)
		}
		p.Width *= d
	}
	if p.N == 0 || p.Width == 0 {
		return nil, fmt.Errorf("shape %v: it holds no prediction", a.shape)
	}
	whole := !slices.ContainsFunc(a.values, func(v float64) bool { return v != math.Trunc(v) || v < 0 || v > 1<<30 })
	switch kind {
	case "classes":
	case "logits":
		whole = false
	case "auto", "":
		whole = whole && p.Width == 1
	default:
		return nil, fmt.Errorf("kind %q: want auto, logits or classes", kind)
	}
	if whole {
		p.Classes = make([]int, len(a.values))
		for i, v := range a.values {
			p.Classes[i] = int(v)
		}
		return p, nil
	}
	if kind == "classes" {
		return nil, errors.New("classes must be whole numbers of at least 0")
	}
	if p.Width == 1 {
		return nil, errors.New("one number an image, and not a whole one: want a class, or the logits of every class")
	}
	p.Logits = make([]float32, len(a.values))
	for i, v := range a.values {
		p.Logits[i] = float32(v)
	}
	return p, nil
}

// Append adds the images of q behind p's. Both must be of one kind and width.
func (p *Predictions) Append(q *Predictions) error {
	if p.Width != q.Width || (p.Logits == nil) != (q.Logits == nil) || (p.Paths == nil) != (q.Paths == nil) {
		return fmt.Errorf("%w: %s after %s", ErrPredictions, q.kind(), p.kind())
	}
	p.N += q.N
	p.Logits, p.Classes, p.Paths = append(p.Logits, q.Logits...), append(p.Classes, q.Classes...), append(p.Paths, q.Paths...)
	return nil
}

func (p *Predictions) kind() string {
	if p.Logits != nil {
		return fmt.Sprintf("%d logits an image", p.Width)
	}
	return count(p.Width, "class") + " an image"
}

// outcome scores image i. Of classes alone a probability is unknown (NaN), and a label that is not among them counts as a miss
// at every k of Metrics.
func (p *Predictions) outcome(i, label, classOffset int) (Outcome, error) {
	from, to := i*p.Width, (i+1)*p.Width
	if p.Logits != nil {
		return Score(p.Logits[from:to], label, classOffset)
	}
	classes := p.Classes[from:to]
	if classes[0] < classOffset {
		return Outcome{}, fmt.Errorf("%w: class %d with class offset %d", ErrLabel, classes[0], classOffset)
	}
	unknown := float32(math.NaN())
	o := Outcome{Top1: classes[0] - classOffset, Top1Prob: unknown, LabelProb: unknown, Margin: unknown}
	o.Rank = 1 + slices.Index(classes, label+classOffset)
	if o.Rank == 0 {
		o.Rank = 1 + max(p.Width, Metrics[len(Metrics)-1])
	}
	return o, nil
}

// Labels are the true classes of a set of images, in order.
type Labels struct {
	Classes []int
	Paths   []string // nil where the file names no images
}

// ReadLabels reads labels: an NPY array of whole numbers, or text with a line an image that ends in its class, after its path
// if it names one. Blank lines and those that start with # are skipped, and so is a first line that ends in no number.
func ReadLabels(r io.Reader, name string) (*Labels, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if bytes.HasPrefix(data, []byte(npyMagic)) {
		p, err := ReadPredictions(bytes.NewReader(data), name, PredictionsOptions{Kind: "classes"})
		if err != nil {
			return nil, err
		}
		if p.Width != 1 {
			return nil, fmt.Errorf("%s: %d numbers an image: want one class", name, p.Width)
		}
		return &Labels{Classes: p.Classes}, nil
	}
	l := &Labels{}
	sc := bufio.NewScanner(bytes.NewReader(data))
	sc.Buffer(nil, 1<<20)
	for line := 1; sc.Scan(); line++ {
		text := strings.TrimSpace(strings.TrimPrefix(sc.Text(), "\ufeff"))
		if text == "" || text[0] == '#' {
			continue
		}
		at := strings.LastIndexAny(text, ", \t;")
		class, err := strconv.ParseInt(strings.Trim(text[at+1:], `"`), 10, 32)
		if err != nil || class < 0 {
			if line == 1 && err != nil {
				continue
			}
			return nil, fmt.Errorf("%s:%d: %w: %q does not end in a class, a whole number of at least 0", name, line, ErrLabel, text)
		}
		p := strings.Trim(strings.TrimRight(text[:max(at, 0)], ", \t;"), `"`)
		if len(l.Classes) > 0 && (p == "") != (l.Paths == nil) {
			return nil, fmt.Errorf("%s:%d: some lines name their image and some do not", name, line)
		}
		if p != "" {
			l.Paths = append(l.Paths, p)
		}
		l.Classes = append(l.Classes, int(class))
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(l.Classes) == 0 {
		return nil, fmt.Errorf("%s: no labels", name)
	}
	return l, nil
}

// Score makes outcomes of predictions, the base's first, under the precisions' names. Where labels and predictions name their
// images, the names (without folders) must agree row by row. A divergence that needs logits that are not there is NaN.
func (l *Labels) Score(model string, precisions []string, all []*Predictions, classOffset int) (*Outcomes, error) {
	for i, p := range all {
		if p.N != len(l.Classes) {
			return nil, fmt.Errorf("%s: predictions for %s, but labels for %d", precisions[i], count(p.N, "image"), len(l.Classes))
		}
		if p.Logits != nil && all[0].Logits != nil && p.Width != all[0].Width {
			return nil, fmt.Errorf("%s: %w: %d logits an image, but %s has %d", precisions[i], ErrWidth, p.Width, precisions[0], all[0].Width)
		}
		for k := range p.Paths {
			if l.Paths != nil && path.Base(p.Paths[k]) != path.Base(l.Paths[k]) {
				return nil, fmt.Errorf("%s: row %d is of %s, but the label there of %s: bring both into one order", precisions[i], k+1, p.Paths[k], l.Paths[k])
			}
		}
	}
	o := &Outcomes{Precisions: precisions, Models: []ModelOutcomes{{Name: model}}}
	for k, label := range l.Classes {
		r := Record{ID: k, Label: label}
		if l.Paths != nil {
			r.Path = l.Paths[k]
		}
		for i, p := range all {
			out, err := p.outcome(k, label, classOffset)
			if err != nil {
				return nil, fmt.Errorf("%s, row %d: %w", precisions[i], k+1, err)
			}
			r.Outcomes = append(r.Outcomes, out)
			if i == 0 {
				continue
			}
			shift := Shift{KL: math.NaN(), MaxLogitChange: float32(math.NaN())}
			if base := all[0]; p.Logits != nil && base.Logits != nil {
				from, to := k*p.Width, (k+1)*p.Width
				if shift, err = CompareLogits(base.Logits[from:to], p.Logits[from:to], classOffset); err != nil {
					return nil, fmt.Errorf("%s, row %d: %w", precisions[i], k+1, err)
				}
			}
			r.Shifts = append(r.Shifts, shift)
		}
		o.Models[0].Records = append(o.Models[0].Records, r)
	}
	return o, nil
}
