package dataset

import (
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// VerifyOptions tune Verify.
type VerifyOptions struct {
	// BatchSize and CalibBatches make the batch plan, as in Split.
	BatchSize, CalibBatches int
	// Workers is the number of goroutines that decode; 0 means one a CPU.
	Workers int
	// Progress, when not nil, is called with the number of images done since its last call. It may be called from several
	// goroutines at once.
	Progress func(n int)
}

// VerifyReport says what a data set holds and what is wrong with it.
type VerifyReport struct {
	Format     Format      `json:"format"`
	Images     int         `json:"images"`
	Classes    int         `json:"classes"`        // highest label + 1
	Labelled   int         `json:"labels_in_use"`  // classes with at least one image
	PerClass   Range       `json:"images_a_class"` // over the classes in use
	Height     Range       `json:"height"`         // pixels
	Width      Range       `json:"width"`
	Sizes      int         `json:"sizes"` // different sizes
	Duplicates []Duplicate `json:"duplicates"`
	Unreadable []Problem   `json:"unreadable"`
	Plan       *BatchPlan  `json:"plan,omitempty"`       // nil where there is none
	PlanError  string      `json:"plan_error,omitempty"` // why
	Decoder    string      `json:"decoder"`
	Warnings   []string    `json:"warnings"`
	List       string      `json:"list_sha256"`
	Labels     string      `json:"labels_sha256"`
}

// Range is a smallest and a largest value.
type Range struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

func (r *Range) add(v int) {
	if r.Max == 0 {
		r.Min = v
	}
	r.Min, r.Max = min(r.Min, v), max(r.Max, v)
}

// Duplicate is a group of images with the same bytes.
type Duplicate struct {
	Paths []string `json:"paths"`
	// Labels are the images' labels; where they differ one of them is wrong.
	Labels []int `json:"labels"`
}

// Problem is an image that cannot be read.
type Problem struct {
	Path  string `json:"path"`
	Error string `json:"error"`
}

// BatchPlan says how many images are fed as what.
type BatchPlan struct {
	BatchSize  int    `json:"batch_size"`
	Batches    int    `json:"batches"` // of all images, a short last one included
	Last       int    `json:"last"`    // images in the last batch
	Calibrate  int    `json:"calibrate_batches"`
	Calibrated int    `json:"calibrated"` // images
	Scored     int    `json:"scored"`
	Stratified bool   `json:"stratified"`
	Seed       uint64 `json:"seed"`
}

// OK reports whether nothing stands in the way of a run: every image is readable and the batch plan works out.
func (r *VerifyReport) OK() bool { return len(r.Unreadable) == 0 && r.PlanError == "" }

// Verify decodes every image once and looks for unreadable and doubled ones. Its error is the context's or, before any image
// is read, that of options which are out of range; what is wrong with the data is in the report.
func Verify(ctx context.Context, d *Dataset, o VerifyOptions) (*VerifyReport, error) {
	if err := checkBatches(o.BatchSize, o.CalibBatches); err != nil {
		return nil, err
	}
	if o.Workers < 0 {
		return nil, fmt.Errorf("workers %d: give at least 1, or 0 for one a CPU", o.Workers)
	}
	r := &VerifyReport{
		Format: d.format, Images: len(d.items), Classes: d.classes, Decoder: d.decoder, Warnings: d.warnings,
		List: d.ListDigest(), Labels: d.labelsDigest, Duplicates: []Duplicate{}, Unreadable: []Problem{},
	}
	perClass := map[int]int{}
	for _, it := range d.items {
		perClass[it.Label]++
	}
	r.Labelled = len(perClass)
	for _, n := range perClass {
		r.PerClass.add(n)
	}
	if s, err := d.Split(o.BatchSize, o.CalibBatches); err != nil {
		r.PlanError = err.Error()
	} else {
		n := len(d.items)
		r.Plan = &BatchPlan{
			BatchSize: o.BatchSize, Batches: (n + o.BatchSize - 1) / o.BatchSize, Last: (n-1)%o.BatchSize + 1,
			Calibrate: o.CalibBatches, Calibrated: len(s.Calib), Scored: len(s.Score), Stratified: s.Stratified, Seed: s.Seed,
		}
	}

	found, err := inspectAll(ctx, d, o)
	if err != nil {
		return nil, err
	}
	first := map[[sha256.Size]byte]int{} // image of each digest
	group := map[int]int{}               // duplicate of each first image
	sizes := map[[2]int]bool{}
	for id, f := range found {
		it := d.items[id]
		if f.err != nil {
			r.Unreadable = append(r.Unreadable, Problem{it.Path, f.err.Error()})
			continue
		}
		r.Height.add(f.h)
		r.Width.add(f.w)
		sizes[[2]int{f.h, f.w}] = true
		same, ok := first[f.sum]
		if !ok {
			first[f.sum] = id
			continue
		}
		g, ok := group[same]
		if !ok {
			g = len(r.Duplicates)
			group[same] = g
			r.Duplicates = append(r.Duplicates, Duplicate{[]string{d.items[same].Path}, []int{d.items[same].Label}})
		}
		r.Duplicates[g].Paths = append(r.Duplicates[g].Paths, it.Path)
		r.Duplicates[g].Labels = append(r.Duplicates[g].Labels, it.Label)
	}
	r.Sizes = len(sizes)
	return r, nil
}

// finding is what one image was found to be.
type finding struct {
	h, w int
	sum  [sha256.Size]byte
	err  error
}

// inspectAll reads every image on all cores.
func inspectAll(ctx context.Context, d *Dataset, o VerifyOptions) ([]finding, error) {
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	found := make([]finding, len(d.items))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			w := newWorker(d, Preprocess{})
			defer w.close()
			for {
				id := int(next.Add(1)) - 1
				if id >= len(found) || ctx.Err() != nil {
					return
				}
				found[id] = w.inspect(id)
				if o.Progress != nil {
					o.Progress(1)
				}
			}
		})
	}
	wg.Wait()
	return found, ctx.Err()
}

// inspect decodes item id and takes the digest of its stored bytes.
func (w *worker) inspect(id int) finding {
	if w.d.tensors != nil {
		values := make([]float32, w.d.channels*w.d.h*w.d.w)
		if err := w.d.tensors.tensor(w.d.at[id], values); err != nil {
			return finding{err: err}
		}
		w.file = w.file[:0]
		for _, v := range values {
			w.file = appendFloat(w.file, v)
		}
		return finding{h: w.d.h, w: w.d.w, sum: sha256.Sum256(w.file)}
	}
	img, err := w.image(id)
	if err != nil {
		return finding{err: fmt.Errorf("image %s: %w", w.d.items[id].Path, err)}
	}
	return finding{h: img.h, w: img.w, sum: sha256.Sum256(w.file)}
}
