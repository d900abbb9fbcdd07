package pipeline

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/quantgate/quantgate/calib"
)

// checkOutputs makes sure, before anything is written, that no file of the user's would be replaced: nothing that the job reads,
// and no model or cache in a folder where no earlier run of ours has been.
func (r *run) checkOutputs() error {
	var inputs, planned []string
	for _, m := range r.job.Models {
		inputs = append(inputs, m.Path)
	}
	for _, c := range r.job.Candidates {
		inputs = append(inputs, c.Path)
	}
	for _, path := range []string{r.job.UseCache, r.job.Images, r.job.Labels} {
		if path != "" {
			inputs = append(inputs, path)
		}
	}
	if len(r.job.Candidates) == 0 && r.job.needsCalibration() {
		for _, m := range r.job.Models {
			if r.job.UseCache == "" {
				planned = append(planned, r.cachePath(m.Name()), filepath.Join(r.job.Out, m.Name()+".histograms.csv.gz"))
			}
			planned = append(planned, filepath.Join(r.job.Out, m.Name()+".int8.onnx"), filepath.Join(r.job.Out, m.Name()+".fp16.onnx"))
		}
	}
	_, err := os.Stat(filepath.Join(r.job.Out, ManifestName))
	ours := err == nil
	for _, path := range append(planned, filepath.Join(r.job.Out, OutcomesName), filepath.Join(r.job.Out, ManifestName)) {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		for _, in := range inputs {
			if other, err := os.Stat(in); err == nil && os.SameFile(info, other) {
				return fmt.Errorf("the run would write %s over the file %s that it reads: give another --out or --cache", path, in)
			}
		}
		if !ours && path != r.job.Cache {
			return fmt.Errorf("%s exists, and %s holds no manifest that says a run of quantgate wrote it: move it away, or give another --out", path, r.job.Out)
		}
	}
	return r.checkCacheFile()
}

// checkCacheFile makes sure that a cache can be written where it was asked for.
func (r *run) checkCacheFile() error {
	if r.job.Cache == "" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(r.job.Cache)); err != nil || !info.IsDir() {
		return fmt.Errorf("--cache %s: there is no folder %s", r.job.Cache, filepath.Dir(r.job.Cache))
	}
	if _, err := os.Stat(r.job.Cache); err == nil {
		if _, _, err := calib.ReadFile(r.job.Cache); err != nil {
			return fmt.Errorf("--cache %s: the file exists and holds no calibration cache: move it away, or name another", r.job.Cache)
		}
	}
	return nil
}
