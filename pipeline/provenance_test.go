package pipeline

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/engine/fake"
)

// What calibrated stays out of the score however often the folder that holds the cache and the models is worked in.
func TestCalibrationImagesAreNeverScored(t *testing.T) {
	d := open(t, writeIDX(t))
	out := t.TempDir()
	job := testJob(t, d)
	job.Out = out
	_, err := Calibrate(t.Context(), Env{backend(), &recorder{}}, job)
	require.NoError(t, err)
	const want = images - calibCount*batchSize

	eval := testJob(t, d)
	eval.Out = out // the folder of the candidate itself
	eval.Candidates = []Candidate{{Name: "int8", Path: filepath.Join(out, "relu_mlp.int8.onnx")}}
	for range 3 {
		res, err := Evaluate(t.Context(), Env{backend(), &recorder{}}, eval)
		require.NoError(t, err)
		require.Len(t, res.Outcomes.Models[0].Records, want)
	}

	used := testJob(t, d)
	used.Out, used.UseCache, used.CalibBatches = out, filepath.Join(out, "relu_mlp.entropy.cache"), 5
	for range 3 {
		rec := &recorder{}
		res, err := Run(t.Context(), Env{backend(), rec}, used)
		require.NoError(t, err)
		require.Len(t, res.Outcomes.Models[0].Records, want)
		require.Empty(t, rec.warnings)
	}
	m, err := ReadManifest(out)
	require.NoError(t, err)
	require.NotEmpty(t, m.Earlier, "the run that made the cache is remembered")

	// Interrupted and resumed, with the cache inside the folder.
	b := backend()
	b.Hook = fake.FailAt(5, os.ErrDeadlineExceeded)
	_, err = Run(t.Context(), Env{b, &recorder{}}, used)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	used.Resume = true
	res, err := Run(t.Context(), Env{backend(), &recorder{}}, used)
	require.NoError(t, err)
	require.Len(t, res.Outcomes.Models[0].Records, want)
}

// The same images in another container are known by their names.
func TestImagesAreKnownInAnotherContainer(t *testing.T) {
	plain := writeIDX(t)
	packed := t.TempDir()
	for _, name := range []string{"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"} {
		b, err := os.ReadFile(filepath.Join(plain, name))
		require.NoError(t, err)
		f, err := os.Create(filepath.Join(packed, name+".gz"))
		require.NoError(t, err)
		z := gzip.NewWriter(f)
		_, err = z.Write(b)
		require.NoError(t, err)
		require.NoError(t, z.Close())
		require.NoError(t, f.Close())
	}
	job := testJob(t, open(t, packed))
	_, err := Calibrate(t.Context(), Env{backend(), &recorder{}}, job)
	require.NoError(t, err)

	eval := testJob(t, open(t, plain))
	eval.Candidates = []Candidate{{Name: "int8", Path: filepath.Join(job.Out, "relu_mlp.int8.onnx")}}
	rec := &recorder{}
	res, err := Evaluate(t.Context(), Env{backend(), rec}, eval)
	require.NoError(t, err)
	require.Len(t, res.Outcomes.Models[0].Records, images-calibCount*batchSize)
	require.Contains(t, strings.Join(rec.warnings, "\n"), "another images file")
	require.Equal(t, rec.warnings, res.Warnings)

	for path, want := range map[string]string{
		"val/a.JPEG": "a.JPEG", "a.JPEG": "a.JPEG", "x-ubyte.gz#12": "x-ubyte#12", "x-ubyte#12": "x-ubyte#12", "d/a.gz": "a.gz",
	} {
		require.Equal(t, want, imageName(path))
	}
}

// A run that had finished scoring is not scored again.
func TestResumeOfAFinishedRun(t *testing.T) {
	job := testJob(t, open(t, writeIDX(t)))
	first, err := Run(t.Context(), Env{backend(), &recorder{}}, job)
	require.NoError(t, err)
	job.Resume = true
	b := backend()
	second, err := Run(t.Context(), Env{b, &recorder{}}, job)
	require.NoError(t, err)
	require.Zero(t, b.Stats().Runs)
	require.Len(t, second.Outcomes.Models[0].Records, len(first.Outcomes.Models[0].Records))
	p := accuracy.DefaultPolicy()
	a, err := accuracy.Evaluate(first.Outcomes, p)
	require.NoError(t, err)
	c, err := accuracy.Evaluate(second.Outcomes, p)
	require.NoError(t, err)
	require.Equal(t, a, c)
}

func TestResumeWithAnotherCacheFile(t *testing.T) {
	job := testJob(t, open(t, writeIDX(t)))
	_, err := Run(t.Context(), Env{backend(), &recorder{}}, job)
	require.NoError(t, err)
	job.Resume = true
	job.Cache = filepath.Join(t.TempDir(), "other.cache")
	_, err = Run(t.Context(), Env{backend(), &recorder{}}, job)
	require.ErrorIs(t, err, ErrOtherRun)
	require.ErrorContains(t, err, "cache file of relu_mlp")
	job.Cache, job.CacheVersion = "", "10.3.0"
	_, err = Run(t.Context(), Env{backend(), &recorder{}}, job)
	require.ErrorContains(t, err, "cache version was 8.6.1, is 10.3.0")
}

// No file that a run reads, and none of another program's, is ever replaced.
func TestNothingOfTheUsersIsReplaced(t *testing.T) {
	d := open(t, writeIDX(t))
	model, err := os.ReadFile(tiny("relu_mlp").Path)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		prepare func(dir string, job *Job) string // returns the file that must stay
		want    string
	}{
		"a model that has the name of a written one": {func(dir string, job *Job) string {
			path := filepath.Join(dir, "m.fp16.onnx")
			require.NoError(t, os.WriteFile(filepath.Join(dir, "m.onnx"), model, 0o644))
			require.NoError(t, os.WriteFile(path, model, 0o644))
			job.Models = []Model{{Path: filepath.Join(dir, "m.onnx"), Preprocess: unit}, {Path: path, Preprocess: unit}}
			return path
		}, "that it reads"},
		"a model where the cache goes": {func(_ string, job *Job) string {
			job.Cache = filepath.Join(t.TempDir(), "k.onnx")
			require.NoError(t, os.WriteFile(job.Cache, model, 0o644))
			return job.Cache
		}, "holds no calibration cache"},
		"somebody's INT8 model": {func(dir string, _ *Job) string {
			path := filepath.Join(dir, "relu_mlp.int8.onnx")
			require.NoError(t, os.WriteFile(path, model, 0o644))
			return path
		}, "holds no manifest that says a run of quantgate wrote it"},
		"another program's manifest": {func(dir string, _ *Job) string {
			path := filepath.Join(dir, ManifestName)
			require.NoError(t, os.WriteFile(path, []byte(`{"name": "web app", "start_url": "."}`), 0o644))
			return path
		}, "belongs to another program or version"},
		"a cache in a folder that is not there": {func(dir string, job *Job) string {
			job.Cache = filepath.Join(dir, "no", "such", "folder.cache")
			return tiny("relu_mlp").Path
		}, "there is no folder"},
	} {
		t.Run(name, func(t *testing.T) {
			job := testJob(t, d)
			path := c.prepare(job.Out, &job)
			before, err := os.ReadFile(path)
			require.NoError(t, err)
			b := backend()
			_, err = Run(t.Context(), Env{b, &recorder{}}, job)
			require.ErrorContains(t, err, c.want)
			require.Zero(t, b.Stats().Runs, "said before any work")
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, before, after)
		})
	}
}

// A manifest that is no manifest of ours tells nothing about a model beside it, and stops nobody from using the model.
func TestForeignManifestBesideACandidate(t *testing.T) {
	dir := t.TempDir()
	model, err := os.ReadFile(tiny("tied_logits").Path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "m.onnx"), model, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ManifestName), []byte("{"), 0o644))
	job := testJob(t, open(t, writeIDX(t)))
	job.Candidates = []Candidate{{Name: "m", Path: filepath.Join(dir, "m.onnx")}}
	rec := &recorder{}
	res, err := Evaluate(t.Context(), Env{backend(), rec}, job)
	require.NoError(t, err)
	require.Len(t, res.Outcomes.Models[0].Records, images)
	require.Contains(t, strings.Join(rec.warnings, "\n"), "not known")
}
