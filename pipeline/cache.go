package pipeline

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/internal/digest"
	"github.com/quantgate/quantgate/onnx"
)

// calibration returns the model's thresholds: read from a cache, kept from an interrupted run, or made.
func (r *run) calibration(ctx context.Context, m *prepared) (*Calibration, error) {
	plan, err := onnx.Plan(m.model)
	if err != nil {
		return nil, err
	}
	if r.job.UseCache != "" {
		cache, _, err := calib.ReadFile(r.job.UseCache)
		if err != nil {
			return nil, err
		}
		c, err := r.checkedCache(m, cache, plan, r.job.UseCache)
		if err != nil {
			return nil, err
		}
		c.FromCache = r.job.UseCache
		return c, nil
	}
	cachePath := r.cachePath(m.name)
	histPath := filepath.Join(r.job.Out, m.name+".histograms.csv.gz")
	if facts := m.manifest.Calibrated; facts != nil && m.manifest.Cache.intact(r.job.Out) && m.manifest.Histograms.intact(r.job.Out) {
		cache, _, err := calib.ReadFile(cachePath)
		if err != nil {
			return nil, err
		}
		r.Report.Infof("%s: calibration kept from the interrupted run (%s)", m.name, cachePath)
		m.result.Bad = slices.Clone(facts.Skipped)
		r.wrote(cachePath)
		r.wrote(histPath)
		c, err := r.checkedCache(m, cache, plan, cachePath)
		if err != nil {
			return nil, err
		}
		c.Images, c.Batches, c.Warnings = facts.Images, facts.Batches, facts.Warnings
		return c, c.readMax(histPath)
	}
	c, err := r.calibrate(ctx, m, plan)
	if err != nil {
		return nil, err
	}
	if err := r.writeCalibration(m, c, cachePath, histPath); err != nil {
		return nil, err
	}
	return c, nil
}

// cachePath is where a model's calibration cache is written.
func (r *run) cachePath(model string) string {
	if r.job.Cache != "" {
		return r.job.Cache
	}
	return filepath.Join(r.job.Out, fmt.Sprintf("%s.%s.cache", model, r.job.Method))
}

// readMax takes max|x| from a histograms file.
func (c *Calibration) readMax(path string) error {
	hist, err := calib.ReadHistogramsFile(path)
	if err != nil {
		return err
	}
	c.Max = make(map[string]float32, len(hist))
	for _, h := range hist {
		c.Max[h.Name] = h.Max
	}
	return nil
}

// maxima returns max|x| by entry name, and the threshold where only that is known.
func (c *Calibration) maxima() map[string]float32 {
	m := c.amax()
	maps.Copy(m, c.ranges(c.Max))
	return m
}

func (r *run) writeCalibration(m *prepared, c *Calibration, cachePath, histPath string) error {
	if err := calib.WriteFile(cachePath, c.Cache, calib.FormatOf(cachePath)); err != nil {
		return err
	}
	var hist []*calib.Histogram
	for _, t := range c.Results {
		if t.Histogram != nil {
			hist = append(hist, t.Histogram)
		}
	}
	if err := calib.WriteHistogramsFile(histPath, hist); err != nil {
		return err
	}
	var err error
	if m.manifest.Cache, err = manifestFile(r.job.Out, cachePath); err != nil {
		return err
	}
	if m.manifest.Histograms, err = manifestFile(r.job.Out, histPath); err != nil {
		return err
	}
	m.manifest.Calibrated = &Calibrated{Images: c.Images, Batches: c.Batches, Skipped: m.result.Bad, Warnings: c.Warnings}
	r.wrote(cachePath)
	r.wrote(histPath)
	return r.manifest.write(r.job.Out)
}

// checkedCache makes sure that a cache that was read names the model's tensors.
func (r *run) checkedCache(m *prepared, cache *calib.Cache, plan *onnx.CalibrationPlan, path string) (*Calibration, error) {
	have := map[string]bool{}
	for _, e := range cache.Table.Entries {
		have[e.Name] = true
	}
	var missing []string
	for _, e := range plan.Entries {
		if !have[e.Name] {
			missing = append(missing, e.Name)
		}
	}
	switch {
	case 2*len(missing) > len(plan.Entries):
		return nil, fmt.Errorf("cache %s names %d of the %d tensors of %s: it belongs to another model", path, len(plan.Entries)-len(missing), len(plan.Entries), m.Path)
	case len(missing) > 0:
		r.warn("cache %s lacks %d of the model's %d tensors (the first is %q): nodes that need them stay in float", path, len(missing), len(plan.Entries), missing[0])
	}
	return &Calibration{Cache: cache, ranges: plan.Ranges}, nil
}

// chooseSplit decides which images calibrate and which are scored.
func (r *run) chooseSplit() (dataset.Split, error) {
	if len(r.job.Candidates) > 0 {
		return r.evaluationSplit()
	}
	if !r.job.needsCalibration() {
		return r.withhold(nil, "")
	}
	if r.job.UseCache == "" {
		return r.job.Data.Split(r.job.BatchSize, r.job.CalibBatches)
	}
	source, err := r.source(r.job.UseCache)
	if err != nil {
		return dataset.Split{}, err
	}
	if source != nil {
		return r.withhold([]*Manifest{source}, "cache "+r.job.UseCache)
	}
	s, err := r.job.Data.Split(r.job.BatchSize, r.job.CalibBatches)
	if err == nil {
		r.warn("cache %s has no manifest that says which images it was calibrated on: the first %d batches of %d are withheld from the score", r.job.UseCache, r.job.CalibBatches, r.job.BatchSize)
	}
	return s, err
}

// withhold leaves out of the score the images that earlier runs calibrated on; what names the file that they made, for messages.
// Images are known by their names: the same image may come from another container now.
func (r *run) withhold(runs []*Manifest, what string) (dataset.Split, error) {
	var s dataset.Split
	used := map[string]bool{}
	named := map[string]bool{}
	for _, m := range runs {
		for _, p := range m.Calibration.Paths {
			used[p], named[imageName(p)] = true, true
		}
		s.Seed, s.Stratified = m.Calibration.Seed, m.Calibration.Stratified
		if was, is := m.Images.Decoder, r.job.Data.Decoder(); was != is && m.Images.Format == r.job.Data.Format() {
			return s, fmt.Errorf("%s was calibrated on images decoded by %s, and here %s decodes: install the same decoder, or calibrate again", what, was, is)
		}
		if was, is := m.Images.FileSHA256, r.job.Data.ImagesDigest(); was != is {
			r.warn("%s was calibrated on another images file than the one given: images are told apart by their places in it", what)
		}
	}
	exact := 0
	for _, item := range r.job.Data.Items() {
		if used[item.Path] {
			exact++
		}
	}
	known := func(item dataset.Item) bool { return used[item.Path] }
	if exact < len(used) {
		known = func(item dataset.Item) bool { return named[imageName(item.Path)] }
	}
	for i, item := range r.job.Data.Items() {
		if known(item) {
			s.Calib = append(s.Calib, i)
		} else {
			s.Score = append(s.Score, i)
		}
	}
	if len(s.Score) == 0 {
		return s, fmt.Errorf("%s was calibrated on every one of the %d images given: nothing is left to score", what, len(s.Calib))
	}
	if len(s.Calib) < len(used) {
		r.warn("%s was calibrated on %d images, of which %d are among those given and withheld: under other names the rest may be scored", what, len(used), len(s.Calib))
	}
	return s, nil
}

// imageName is what is left of an image's path in another container: its base name, without the compression of the file that holds it.
func imageName(path string) string {
	file, index, ok := strings.Cut(filepath.Base(path), "#")
	if ok {
		return strings.TrimSuffix(file, ".gz") + "#" + index
	}
	return file
}

// source returns the run that made a cache or model, as the manifest beside it tells, or nil. A manifest that cannot be read, or
// is another program's, tells nothing.
func (r *run) source(path string) (*Manifest, error) {
	sum, err := digest.File(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	m, err := previousManifest(filepath.Dir(path))
	if err != nil {
		r.warn("what %s was calibrated on is not known: %v", path, err)
		return nil, nil
	}
	if m == nil {
		return nil, nil
	}
	return m.origin(sum), nil
}

// checkUsedCache refuses a cache that its manifest ties to another model or other preprocessing: thresholds made with
// wrong preprocessing destroy a model without any error.
func (r *run) checkUsedCache(models []*prepared) error {
	sum, err := digest.File(r.job.UseCache)
	if err != nil {
		return fmt.Errorf("read cache: %w", err)
	}
	m := models[0]
	m.manifest.UsedCache = sum
	source, err := r.source(r.job.UseCache)
	if err != nil || source == nil {
		return err
	}
	for _, e := range source.Models {
		if e.Cache == nil || e.Cache.SHA256 != sum {
			continue
		}
		remedy := "calibrate again, or copy the cache away from its manifest to use it all the same"
		if e.SHA256 != m.manifest.SHA256 {
			return fmt.Errorf("cache %s was calibrated on another model (%s, sha256 %s, not %s): %s", r.job.UseCache, e.Name, short(e.SHA256), short(m.manifest.SHA256), remedy)
		}
		if e.Preprocess.String() != m.preprocess.String() {
			return fmt.Errorf("cache %s was calibrated with other preprocessing (%s, not %s): %s", r.job.UseCache, e.Preprocess, m.preprocess, remedy)
		}
	}
	return nil
}
