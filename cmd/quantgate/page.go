package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/bench"
	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/pipeline"
	"github.com/quantgate/quantgate/reports"
)

// pageFlags gather what the HTML page shows beside the report.
type pageFlags struct {
	classNames string
	bench      string

	speeds bench.Results
	names  []string
	flips  map[string]*reports.Flips // by model
}

func (f *pageFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.classNames, "class-names", "", "`file` with one class name a line, such as synset_words.txt, for report.html")
	fs.StringVar(&f.bench, "bench", "", "`file` of quantgate bench, whose figures of these models join the report")
}

// load reads the files that the flags name, before anything that takes long.
func (f *pageFlags) load() error {
	if f.bench != "" {
		var err error
		if f.speeds, err = bench.Load(f.bench); err != nil {
			return fmt.Errorf("--bench: %w", err)
		}
	}
	if f.classNames == "" {
		return nil
	}
	file, err := os.Open(f.classNames)
	if err != nil {
		return fmt.Errorf("--class-names: %w", err)
	}
	defer file.Close()
	if f.names, err = reports.ReadClassNames(file, f.classNames); err != nil {
		return fmt.Errorf("--class-names: %w", err)
	}
	return nil
}

// addSpeeds adds the figures of the report's models: by digest where the manifest tells it, else by name.
func (f *pageFlags) addSpeeds(r *reports.Report, m *pipeline.Manifest) error {
	if f.bench == "" {
		return nil
	}
	var known []string
	if m != nil {
		for i := range m.Models {
			known = append(known, m.Models[i].SHA256)
			known = slices.AppendSeq(known, maps.Values(m.Models[i].Candidates))
		}
	}
	for _, s := range f.speeds {
		named := slices.ContainsFunc(r.Models, func(x reports.Model) bool { return x.Name == s.Model })
		if slices.Contains(known, s.ModelSHA256) || m == nil && named {
			r.Throughput = append(r.Throughput, s)
		}
	}
	if len(r.Throughput) == 0 {
		return fmt.Errorf("--bench %s: holds no figure of this run's models", f.bench)
	}
	r.Throughput.Sort()
	return nil
}

// pictured is do, followed by thumbnails of the images whose class changed while the images are still open.
func (f *pageFlags) pictured(p accuracy.Policy, do pipelineFunc) pipelineFunc {
	return func(ctx context.Context, env pipeline.Env, job pipeline.Job) (*pipeline.Result, error) {
		result, err := do(ctx, env, job)
		if err != nil {
			return nil, err
		}
		o := result.Outcomes
		for _, m := range o.Models {
			if picker := f.picker(o.Precisions, p.Primary, len(o.Models)); picker != nil {
				for i := range m.Records {
					picker.Add(&m.Records[i])
				}
				f.keep(m.Name, picker.Flips())
			}
		}
		if err := f.draw(job.Data); err != nil {
			env.Report.Warnf("report.html has no pictures of the flipped images: %v", err)
		}
		return result, nil
	}
}

// picker compares the candidate that decides with the base; nil where there is none.
func (*pageFlags) picker(precisions []string, p accuracy.Primary, models int) *reports.FlipPicker {
	name := p.Candidate
	if name == "" {
		name = pipeline.INT8
	}
	at := slices.Index(precisions, name)
	if at < 1 {
		at = len(precisions) - 1
	}
	if at < 1 {
		return nil
	}
	return reports.NewFlipPicker(precisions, at, reports.MostFlips(models))
}

func (f *pageFlags) keep(model string, flips *reports.Flips) {
	if f.flips == nil {
		f.flips = map[string]*reports.Flips{}
	}
	f.flips[model] = flips
}

// draw adds the thumbnails, each of which takes as long as decoding its image.
func (f *pageFlags) draw(d *dataset.Dataset) error {
	items := d.Items()
	var all []*reports.Flip
	for _, flips := range f.flips {
		for i := range flips.Images {
			x := &flips.Images[i]
			if x.ID >= len(items) || items[x.ID].Path != x.Path || items[x.ID].Label != x.Label {
				return fmt.Errorf("thumbnails: image %d of the outcomes, %s of class %d, is not that of the images given: give the images that were scored", x.ID, x.Path, x.Label)
			}
			all = append(all, x)
		}
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, x := range all {
		g.Go(func() (err error) {
			if x.Picture, err = d.Thumbnail(x.ID, reports.ThumbnailSide); err != nil {
				return fmt.Errorf("thumbnails: %w", err)
			}
			return nil
		})
	}
	return g.Wait()
}

// fill completes a report for the page: names, flips, thresholds and histograms from the files in dir, the manifest's facts.
func (f *pageFlags) fill(r *reports.Report, dir string, m *pipeline.Manifest) error {
	r.ClassNames = f.names
	for i := range r.Models {
		x := &r.Models[i]
		x.Flips = f.flips[x.Name]
		if m == nil {
			continue
		}
		if entry := slices.IndexFunc(m.Models, func(e pipeline.ManifestModel) bool { return e.Name == x.Name }); entry >= 0 {
			var err error
			if x.Tensors, err = tensors(dir, &m.Models[entry]); err != nil {
				return err
			}
		}
	}
	if m != nil {
		r.Facts = facts(m)
	}
	return nil
}

// tensors reads a model's thresholds and histograms; none where the run wrote no cache.
func tensors(dir string, m *pipeline.ManifestModel) ([]reports.Tensor, error) {
	if m.Cache == nil {
		return nil, nil
	}
	cache, _, err := calib.ReadFile(m.Cache.Path(dir))
	if err != nil {
		return nil, err
	}
	var histograms map[string]*calib.Histogram
	if m.Histograms != nil {
		hs, err := calib.ReadHistogramsFile(m.Histograms.Path(dir))
		if err != nil {
			return nil, err
		}
		histograms = calib.HistogramsByName(hs)
	}
	var out []reports.Tensor
	for _, e := range cache.Entries {
		out = append(out, reports.Tensor{Name: e.Name, Amax: e.Amax, Histogram: histograms[e.Name]})
	}
	return out, nil
}

// facts are what a manifest says, without what changes from one run of the same inputs to the next.
func facts(m *pipeline.Manifest) []reports.Fact {
	var out []reports.Fact
	add := func(name, value string) {
		if value != "" {
			out = append(out, reports.Fact{Name: name, Value: value})
		}
	}
	add("program", m.Tool)
	add("engine", m.Engine)
	add("images", fmt.Sprintf("%s (%s, %s)", m.Images.Path, m.Images.Format, thousands(m.Images.Count)))
	add("image list, sha256", m.Images.ListSHA256)
	add("labels, sha256", m.Images.LabelsSHA256)
	add("image decoder", m.Images.Decoder)
	add("calibration", m.Calibration.Method)
	add("batches", fmt.Sprintf("%d of %d images", m.Calibration.Batches, m.Calibration.BatchSize))
	if ids := m.Calibration.IDs; len(ids) > 0 {
		which := fmt.Sprintf("%s, ids %d to %d", thousands(len(ids)), slices.Min(ids), slices.Max(ids))
		if m.Calibration.Stratified {
			which += fmt.Sprintf(", drawn by class with seed %d", m.Calibration.Seed)
		}
		add("calibration images", which)
	}
	if m.StopEarly != nil {
		add("early stopping", m.StopEarly.String())
	}
	for _, e := range m.Models {
		add(e.Name+", sha256", e.SHA256)
		add(e.Name+", preprocessing", e.Preprocess.String())
		if e.Output != "" {
			add(e.Name+", output", e.Output)
		}
		if e.ClassOffset != 0 {
			add(e.Name+", class offset", strconv.Itoa(e.ClassOffset))
		}
		for _, f := range []*pipeline.ManifestFile{e.Cache, e.Histograms, e.INT8, e.FP16} {
			if f != nil {
				add(filepath.Base(f.File)+", sha256", f.SHA256)
			}
		}
	}
	if m.Outcomes != nil {
		add(m.Outcomes.File+", sha256", m.Outcomes.SHA256)
	}
	return out
}

// manifestOf reads the manifest of the run that wrote an outcomes file; nil where the folder has none, or where it belongs to
// other outcomes.
func manifestOf(outcomes string) (*pipeline.Manifest, error) {
	m, err := pipeline.ReadManifest(filepath.Dir(outcomes))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || m.Outcomes == nil {
		return nil, err
	}
	if same, err := m.Outcomes.Describes(outcomes); err != nil || !same {
		return nil, err
	}
	return m, nil
}
