package bench

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/quantgate/quantgate/engine"
)

// Result is the speed of one model in one precision, with all that it stands on. Its exported keys are the JSON of result files and reports.
type Result struct {
	Key
	Model string `json:"model"` // name
	// Images a second: Compute without copies between host and device, absent on a CPU; EndToEnd with them.
	Compute    *Rate       `json:"compute,omitempty"`
	EndToEnd   Rate        `json:"end_to_end"`
	Latency    Latency     `json:"latency_seconds"`
	Conditions *Conditions `json:"conditions,omitempty"`
	// Layers counts the engine's layers by arithmetic, and Float names those of an INT8 engine that do not run in INT8.
	Layers map[string]int `json:"layers,omitempty"`
	Float  []FloatLayer   `json:"float_layers,omitempty"`
}

// FloatLayer is a layer of an INT8 engine that runs in another arithmetic.
type FloatLayer struct {
	Name      string `json:"name"`
	Type      string `json:"type,omitempty"`
	Precision string `json:"precision"`
}

// Key is what a figure is of: two results with the same key measure the same thing.
type Key struct {
	ModelSHA256 string `json:"model_sha256"`
	Engine      string `json:"engine"` // with its version and the options that change the precision's arithmetic, as EngineFor gives it
	Device      string `json:"device"`
	Precision   string `json:"precision"`
	Batch       int    `json:"batch"`
	Devices     int    `json:"devices"`           // that shared the calls
	Threads     int    `json:"threads,omitempty"` // a call may use, on a CPU
	Parallel    int    `json:"parallel"`          // calls in flight with copies
	// Ranges says what INT8 stands on.
	Ranges string `json:"ranges,omitempty"`
	// Settings are those of the engine, and of the model's open sizes and outputs, that are not the defaults.
	Settings string `json:"settings,omitempty"`
}

// Rate is the result's throughput: without copies where that was measured.
func (r *Result) Rate() *Rate {
	if r.Compute != nil {
		return r.Compute
	}
	return &r.EndToEnd
}

// ImagesPerJoule is throughput over power, in images/s per watt; 0 where power is not known.
func (r *Result) ImagesPerJoule() float64 {
	if r.Conditions == nil || r.Conditions.PowerWatts <= 0 {
		return 0
	}
	return r.Rate().Median / r.Conditions.PowerWatts
}

// Results are figures in the order that Sort gives them.
type Results []Result

// Find returns the figure of a key, nil where there is none.
func (rs Results) Find(k Key) *Result {
	for i := range rs {
		if rs[i].Key == k {
			return &rs[i]
		}
	}
	return nil
}

// Add puts a result in the place of the one with its key, or adds it.
func (rs Results) Add(r Result) Results {
	if old := rs.Find(r.Key); old != nil {
		*old = r
		return rs
	}
	return append(rs, r)
}

// Precisions as results name them. Speed-ups are over Base.
const (
	Base = "fp32"
	FP16 = string(engine.Half)
	INT8 = string(engine.Int8)
)

// EngineFor is the engine of a Key: its name and version without the options that leave engines of the precision as they are.
func EngineFor(name, precision string) string {
	if precision == INT8 {
		return name
	}
	return strings.Replace(name, ", "+engine.Int8WithHalf, "", 1)
}

// WithFP16 reports whether an INT8 engine's layers may run in FP16.
func (r *Result) WithFP16() bool {
	return r.Precision == INT8 && strings.Contains(r.Engine, engine.Int8WithHalf)
}

// In is the figure of the same model in another precision, under the same circumstances; nil where that was not measured.
func (rs Results) In(r *Result, precision string) *Result {
	want := r.Key
	want.Precision, want.Ranges, want.Engine = precision, "", EngineFor(r.Engine, precision)
	var found *Result
	for i := range rs {
		k := rs[i].Key
		k.Engine = EngineFor(k.Engine, k.Precision) // files of earlier versions name all options
		if k == want && (found == nil || rs[i].Engine == r.Engine) {
			found = &rs[i]
		}
	}
	return found
}

// Speedup is a result's throughput over FP32's of the same model under the same circumstances; 0 where that was not measured.
func (rs Results) Speedup(r *Result) float64 {
	base := rs.In(r, Base)
	if base == nil {
		return 0
	}
	return r.Rate().Median / base.Rate().Median
}

// Single is the figure of one device where r is that of several, with as many calls in flight on each; nil where that was not measured.
func (rs Results) Single(r *Result) *Result {
	if r.Devices < 1 || r.Parallel%r.Devices != 0 {
		return nil
	}
	k := r.Key
	k.Devices, k.Parallel = 1, r.Parallel/r.Devices
	return rs.Find(k)
}

// Efficiency is the throughput of several devices over that of one, divided by their number; 0 where one was not measured. copies asks for
// the throughput with copies.
func (rs Results) Efficiency(r *Result, copies bool) float64 {
	one := rs.Single(r)
	if one == nil {
		return 0
	}
	mine, base := r.Rate(), one.Rate()
	if copies {
		mine, base = &r.EndToEnd, &one.EndToEnd
	}
	return mine.Median / base.Median / float64(r.Devices)
}

// ModelMark tells a result's model from another of the same name, by the beginning of its digest; "" where there is none.
func (rs Results) ModelMark(r *Result) string {
	if !slices.ContainsFunc(rs, func(x Result) bool { return x.Model == r.Model && x.ModelSHA256 != r.ModelSHA256 }) {
		return ""
	}
	return " (" + r.ModelSHA256[:min(6, len(r.ModelSHA256))] + ")"
}

// droppedShare is how far below the highest clock of the run a mean clock is told of.
const droppedShare = 0.97

// Warnings tells what makes a figure doubtful: clocks below those of the other figures of the device, reasons that held them down, repeats
// that differ by more than a tenth, and INT8 that is not faster.
func (rs Results) Warnings() []string {
	highest := map[string]int{}
	for _, r := range rs {
		if c := r.Conditions; c != nil {
			highest[r.Device] = max(highest[r.Device], c.ClockMaxMHz)
		}
	}
	var out []string
	for i := range rs {
		r := &rs[i]
		what := rs.title(r)
		if c := r.Conditions; c != nil {
			why := ""
			if len(c.Throttled) > 0 {
				why = " (" + strings.Join(c.Throttled, ", ") + ")"
			}
			switch top := highest[r.Device]; {
			case c.ClockMHz < droppedShare*float64(top):
				out = append(out, fmt.Sprintf("%s: clocks dropped to %.0f MHz in the mean, %d at the lowest, where %d were reached%s", what, c.ClockMHz, c.ClockMinMHz, top, why))
			case why != "":
				out = append(out, fmt.Sprintf("%s: clocks were held down%s, at %.0f MHz in the mean", what, why, c.ClockMHz))
			}
		}
		if s := r.Rate().Spread(); s > 0.1 {
			out = append(out, fmt.Sprintf("%s: the repeats differ by %.0f %% of their median", what, 100*s))
		}
		if up := rs.Speedup(r); r.Precision != Base && up > 0 && up < 1 {
			out = append(out, fmt.Sprintf("%s: slower than FP32: %.2f times its throughput", what, up))
		}
	}
	return out
}

// title names a result among others in messages.
func (rs Results) title(r *Result) string {
	marked := *r
	marked.Model += rs.ModelMark(r)
	return marked.Title()
}

// Title names a result in messages.
func (r *Result) Title() string {
	s := r.Model + " " + r.Precision
	if r.WithFP16() {
		s += " with fp16"
	}
	s += fmt.Sprintf(", batch %d", r.Batch)
	switch {
	case r.Devices > 1:
		s += fmt.Sprintf(", %d devices", r.Devices)
	case r.Threads == 1:
		s += ", 1 thread"
	case r.Threads > 1:
		s += fmt.Sprintf(", %d threads", r.Threads)
	}
	return s
}

// Sort orders results by device and engine, then batch, devices and threads; models and precisions keep the order they were measured in. Engines
// that are one in FP32 are one here, so that each INT8 stands below what it is compared with.
func (rs Results) Sort() {
	place := map[string]int{}
	for _, r := range rs {
		for _, s := range []string{"model " + r.Model + r.ModelSHA256, "precision " + r.Precision} {
			if _, ok := place[s]; !ok {
				place[s] = len(place)
			}
		}
	}
	rank := map[string]int{Base: -3, FP16: -2, INT8: -1}
	for p, n := range rank {
		place["precision "+p] = n
	}
	slices.SortStableFunc(rs, func(a, b Result) int {
		return cmp.Or(
			cmp.Compare(a.Device, b.Device), cmp.Compare(EngineFor(a.Engine, Base), EngineFor(b.Engine, Base)), cmp.Compare(a.Batch, b.Batch),
			cmp.Compare(a.Devices, b.Devices), cmp.Compare(a.Threads, b.Threads),
			cmp.Compare(place["model "+a.Model+a.ModelSHA256], place["model "+b.Model+b.ModelSHA256]),
			cmp.Compare(place["precision "+a.Precision], place["precision "+b.Precision]), cmp.Compare(a.Engine, b.Engine),
		)
	})
}

// FileVersion is the version of result files; a reader takes every 1.x.
const FileVersion = "1.0"

type file struct {
	SchemaVersion string  `json:"schema_version"`
	Results       Results `json:"results"`
}

// MarshalIndent writes results as a result file.
func (rs Results) MarshalIndent() ([]byte, error) {
	if rs == nil {
		rs = Results{}
	}
	data, err := json.MarshalIndent(file{FileVersion, rs}, "", "  ")
	return append(data, '\n'), err
}

// Load reads a result file. The error of a file that is not there wraps fs.ErrNotExist.
func Load(path string) (Results, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	rs, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("read results: %s: %w: it is not a file that quantgate bench wrote", path, err)
	}
	return rs, nil
}

func parse(data []byte) (Results, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(f.SchemaVersion, "1.") {
		return nil, fmt.Errorf("schema version %q where 1.x is read", f.SchemaVersion)
	}
	if f.Results == nil {
		return nil, errors.New("no results are in it")
	}
	for i := range f.Results {
		r := &f.Results[i]
		rates := []Rate{r.EndToEnd}
		if r.Compute != nil {
			rates = append(rates, *r.Compute)
		}
		for _, rate := range rates {
			if !(rate.Median > 0) || !(rate.Min > 0) || rate.Max < rate.Min {
				return nil, fmt.Errorf("result %d: throughput %g (%g to %g) is none", i, rate.Median, rate.Min, rate.Max)
			}
		}
		if r.Model == "" || r.ModelSHA256 == "" || r.Precision == "" || r.Batch < 1 || r.Devices < 1 {
			return nil, fmt.Errorf("result %d: model, precision, batch or devices are missing", i)
		}
	}
	return f.Results, nil
}

// Save writes results so that the file is whole at any moment.
func Save(path string, rs Results) error {
	data, err := rs.MarshalIndent()
	if err == nil {
		err = renameio.WriteFile(path, data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}
