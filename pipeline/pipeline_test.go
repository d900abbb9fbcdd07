package pipeline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/engine/fake"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

const (
	images     = 103 // a last batch of 3
	batchSize  = 10
	calibCount = 2 // batches
	side       = 28
)

// writeIDX writes a pair of IDX files with noise for images and labels 0..9 in turn.
func writeIDX(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	header := func(magic uint32, dims ...uint32) []byte {
		b := binary.BigEndian.AppendUint32(nil, magic)
		for _, d := range dims {
			b = binary.BigEndian.AppendUint32(b, d)
		}
		return b
	}
	pixels := header(0x803, images, side, side)
	labels := header(0x801, images)
	state := uint32(1)
	for i := range images {
		for range side * side {
			state = state*1664525 + 1013904223 // Numerical Recipes' generator
			pixels = append(pixels, byte(state>>24))
		}
		labels = append(labels, byte(i%10))
		if i%4 != 0 { // the pixel that backend's logit of the label reads: most images are classified rightly
			pixels[len(pixels)-side*side+(i%10*71)%(side*side)] = 255
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "t10k-images-idx3-ubyte"), pixels, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "t10k-labels-idx1-ubyte"), labels, 0o644))
	return dir
}

func open(t *testing.T, path string) *dataset.Dataset {
	t.Helper()
	d, err := dataset.Open(t.Context(), dataset.Options{Images: path})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func unit(channels, h, _ int) (dataset.Preprocess, error) {
	p, err := dataset.Preset("unit", channels)
	p.InputSize, p.Channels = h, channels
	return p, err
}

func tiny(name string) Model {
	return Model{Path: filepath.Join("..", "testdata", "models", "tiny", name+".onnx"), Preprocess: unit}
}

func testJob(t *testing.T, d *dataset.Dataset) Job {
	return Job{
		Tool: "quantgate test", Command: []string{"quantgate", "run"}, Data: d, Models: []Model{tiny("relu_mlp")},
		BatchSize: batchSize, CalibBatches: calibCount, Method: calib.Entropy, Precisions: []string{FP32, FP16, INT8},
		Out: t.TempDir(), CacheVersion: "8.6.1", Workers: 2,
	}
}

// backend answers every model that the pipeline opens with a function of image, model name and output, so that precisions differ.
func backend() *fake.Backend {
	return &fake.Backend{Describe: func(m engine.Model, o engine.Options) (fake.Model, error) {
		model, err := onnx.Parse(m.Data, m.Name)
		if err != nil {
			return fake.Model{}, err
		}
		names := o.Outputs
		if names == nil {
			for _, p := range model.Outputs() {
				names = append(names, p.Name)
			}
		}
		in, err := model.ImageInput()
		if err != nil {
			return fake.Model{}, err
		}
		out := fake.Model{Input: engine.Port{Name: in.Name, DType: in.DType, Shape: in.Shape}}
		for _, name := range names {
			h := fnv.New32a()
			fmt.Fprint(h, m.Name, name)
			seed := float32(h.Sum32()%97) / 97
			out.Outputs = append(out.Outputs, fake.Output{
				Port: engine.Port{Name: name, DType: tensor.Float32, Shape: tensor.Shape{tensor.Dynamic, 10}},
				Compute: func(image, out []float32) {
					for k := range out {
						out[k] = image[(k*71)%len(image)] * (1 + seed*float32(k%3)/8)
					}
				},
			})
		}
		return out, nil
	}}
}

// recorder is a Reporter that keeps what it is told.
type recorder struct {
	mu       sync.Mutex
	warnings []string
	stages   []string
	debug    []string
	images   int
}

func (r *recorder) Stage(stage, _ string, _, done int) Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stages = append(r.stages, stage)
	r.images += done
	return r
}

func (r *recorder) Add(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images += n
}

func (r *recorder) Done() {}

func (r *recorder) Warnf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
}

func (r *recorder) Infof(string, ...any) {}
func (r *recorder) Debugf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.debug = append(r.debug, fmt.Sprintf(format, args...))
}

// contents reads the files that must not depend on how a run came about.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range []string{
		OutcomesName, "relu_mlp.entropy.cache", "relu_mlp.histograms.csv.gz", "relu_mlp.int8.onnx", "relu_mlp.fp16.onnx",
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		out[name] = string(b)
	}
	return out
}

func TestRunScoresWhatDidNotCalibrate(t *testing.T) {
	job := testJob(t, open(t, writeIDX(t)))
	rec := &recorder{}
	res, err := Run(t.Context(), Env{backend(), rec}, job)
	require.NoError(t, err)

	require.Equal(t, []string{FP32, FP16, INT8}, res.Outcomes.Precisions)
	records := res.Outcomes.Models[0].Records
	require.Len(t, records, images-calibCount*batchSize)
	for i, r := range records {
		require.Equal(t, calibCount*batchSize+i, r.ID, "images are scored in order and none that calibrated")
		require.Equal(t, r.ID%10, r.Label)
	}
	require.Equal(t, calibCount*batchSize, res.Models[0].Calibration.Images)
	require.Equal(t, images, rec.images, "progress counts every image once")
	require.NoFileExists(t, filepath.Join(job.Out, JournalName))
	for _, f := range res.Files {
		require.FileExists(t, f)
	}

	m, err := ReadManifest(job.Out)
	require.NoError(t, err)
	require.Len(t, m.Calibration.IDs, calibCount*batchSize)
	require.Len(t, m.Calibration.Paths, calibCount*batchSize)
	for _, f := range []*ManifestFile{m.Models[0].Cache, m.Models[0].Histograms, m.Models[0].INT8, m.Models[0].FP16, m.Outcomes} {
		require.True(t, f.intact(job.Out), "%+v", f)
	}
}

func TestResultsDoNotDependOnWorkers(t *testing.T) {
	d := open(t, writeIDX(t))
	var want map[string]string
	for _, workers := range []int{1, 2, 7} {
		job := testJob(t, d)
		job.Workers = workers
		_, err := Run(t.Context(), Env{backend(), &recorder{}}, job)
		require.NoError(t, err)
		if want == nil {
			want = contents(t, job.Out)
		}
		require.Equal(t, want, contents(t, job.Out), "%d workers", workers)
	}
}

// cancelFrom interrupts a run at the given call of the engine.
func cancelFrom(call int, cancel func()) fake.Hook {
	return func(ctx context.Context, c fake.Call) error {
		if c.Number >= call {
			cancel()
			return ctx.Err()
		}
		return nil
	}
}

// TestResume interrupts a run at every kind of place and continues it.
func TestResume(t *testing.T) {
	d := open(t, writeIDX(t))
	whole := testJob(t, d)
	full := backend()
	_, err := Run(t.Context(), Env{full, &recorder{}}, whole)
	require.NoError(t, err)
	want := contents(t, whole.Out)
	calls := full.Stats().Runs

	// The first batch calibrates twice, one image a call; the others once.
	calibCalls := (calibCount + 1) * batchSize
	for _, stop := range []int{3, calibCalls, calibCalls + 1, calibCalls + 8, calls - 1} {
		t.Run(fmt.Sprintf("after %d of %d calls", stop, calls), func(t *testing.T) {
			job := testJob(t, d)
			job.Out = t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			b := backend()
			b.Hook = cancelFrom(stop, cancel)
			_, err := Run(ctx, Env{b, &recorder{}}, job)
			require.ErrorIs(t, err, context.Canceled)
			require.NoFileExists(t, filepath.Join(job.Out, OutcomesName))

			job.Resume = true
			job.Workers = 3
			second := backend()
			_, err = Run(t.Context(), Env{second, &recorder{}}, job)
			require.NoError(t, err)
			require.Equal(t, want, contents(t, job.Out))
			if stop > calibCalls {
				require.Less(t, second.Stats().Runs, calls-calibCalls+1, "calibration is not repeated")
			}
		})
	}
}

func TestResumeRefusesAnotherRun(t *testing.T) {
	d := open(t, writeIDX(t))
	job := testJob(t, d)
	_, err := Run(t.Context(), Env{backend(), &recorder{}}, job)
	require.NoError(t, err)
	job.Resume = true
	for _, c := range []struct {
		change func(*Job)
		want   string
	}{
		{func(j *Job) { j.Method = calib.MinMax }, "method was entropy, is minmax"},
		{func(j *Job) { j.BatchSize = 5 }, "batch size was 10, is 5"},
		{func(j *Job) { j.Models[0] = tiny("tied_logits") }, "model 1 was relu_mlp "},
		{func(j *Job) { j.Precisions = []string{FP32, INT8} }, "precisions of relu_mlp was [fp32 fp16 int8], is [fp32 int8]"},
	} {
		other := job
		other.Models = append([]Model(nil), job.Models...)
		c.change(&other)
		_, err := Run(t.Context(), Env{backend(), &recorder{}}, other)
		require.ErrorIs(t, err, ErrOtherRun)
		require.ErrorContains(t, err, c.want)
	}
}

func TestStartingOverDropsTheJournal(t *testing.T) {
	job := testJob(t, open(t, writeIDX(t)))
	b := backend()
	b.Hook = fake.FailAt((calibCount+1)*batchSize+5, errors.New("the engine broke"))
	_, err := Run(t.Context(), Env{b, &recorder{}}, job)
	require.ErrorContains(t, err, "relu_mlp: batch ")
	require.ErrorContains(t, err, "the engine broke")
	require.FileExists(t, filepath.Join(job.Out, JournalName))

	rec := &recorder{}
	_, err = Run(t.Context(), Env{backend(), rec}, job)
	require.NoError(t, err)
	require.Contains(t, strings.Join(rec.warnings, "\n"), "--resume would have continued it")
}

func TestOneProcessAFolder(t *testing.T) {
	job := testJob(t, open(t, writeIDX(t)))
	b := backend()
	var second error
	var once sync.Once
	b.Hook = func(context.Context, fake.Call) error {
		once.Do(func() { _, second = Run(t.Context(), Env{backend(), &recorder{}}, job) })
		return nil
	}
	_, err := Run(t.Context(), Env{b, &recorder{}}, job)
	require.NoError(t, err)
	require.ErrorContains(t, second, "in use by another quantgate")
}

func TestUseCache(t *testing.T) {
	d := open(t, writeIDX(t))
	job := testJob(t, d)
	first, err := Run(t.Context(), Env{backend(), &recorder{}}, job)
	require.NoError(t, err)
	cache := filepath.Join(job.Out, "relu_mlp.entropy.cache")

	again := testJob(t, d)
	again.UseCache = cache
	again.CalibBatches = 5 // the manifest beside the cache decides, not this
	rec := &recorder{}
	second, err := Run(t.Context(), Env{backend(), rec}, again)
	require.NoError(t, err)
	require.Equal(t, first.Outcomes, second.Outcomes)
	require.Empty(t, rec.warnings)
	require.Equal(t, again.UseCache, second.Models[0].Calibration.FromCache)

	other := again
	other.Models = []Model{tiny("relu_mlp")}
	other.Models[0].Preprocess = func(c, h, w int) (dataset.Preprocess, error) {
		p, err := unit(c, h, w)
		p.Mean = []float32{0.5}
		return p, err
	}
	_, err = Run(t.Context(), Env{backend(), &recorder{}}, other)
	require.ErrorContains(t, err, "calibrated with other preprocessing")

	other.Models = []Model{tiny("tied_logits")}
	_, err = Run(t.Context(), Env{backend(), &recorder{}}, other)
	require.ErrorContains(t, err, "calibrated on another model")

	// Away from its manifest nothing is known of a cache: the first batches are withheld, with a warning.
	lone := filepath.Join(t.TempDir(), "lone.cache")
	b, err := os.ReadFile(cache)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(lone, b, 0o644))
	again.UseCache, again.Out = lone, t.TempDir()
	rec = &recorder{}
	third, err := Run(t.Context(), Env{backend(), rec}, again)
	require.NoError(t, err)
	require.Contains(t, strings.Join(rec.warnings, "\n"), "no manifest")
	require.Len(t, third.Outcomes.Models[0].Records, images-5*batchSize)
}

func TestEvaluateLeavesOutWhatCalibrated(t *testing.T) {
	d := open(t, writeIDX(t))
	job := testJob(t, d)
	_, err := Calibrate(t.Context(), Env{backend(), &recorder{}}, job)
	require.NoError(t, err)

	eval := testJob(t, d)
	eval.Candidates = []Candidate{{Name: "int8", Path: filepath.Join(job.Out, "relu_mlp.int8.onnx")}}
	res, err := Evaluate(t.Context(), Env{backend(), &recorder{}}, eval)
	require.NoError(t, err)
	require.Equal(t, []string{"base", "int8"}, res.Outcomes.Precisions)
	require.Len(t, res.Outcomes.Models[0].Records, images-calibCount*batchSize)

	eval.Out = t.TempDir()
	eval.Candidates[0] = Candidate{Name: "same", Path: tiny("tied_logits").Path}
	res, err = Evaluate(t.Context(), Env{backend(), &recorder{}}, eval)
	require.NoError(t, err)
	require.Len(t, res.Outcomes.Models[0].Records, images)

	eval.Candidates = append(eval.Candidates, eval.Candidates[0])
	_, err = Evaluate(t.Context(), Env{backend(), &recorder{}}, eval)
	require.ErrorContains(t, err, `two models are called "same"`)

	eval.Candidates = []Candidate{{Name: "rgb", Path: tiny("rgb").Path}}
	_, err = Evaluate(t.Context(), Env{backend(), &recorder{}}, eval)
	require.ErrorContains(t, err, "compare models that take the same images")
}

// TestBadImages has one unreadable image among those that calibrate and one among those that are scored.
func TestBadImages(t *testing.T) {
	dir := t.TempDir()
	list := ""
	for i := range 40 {
		img := image.NewGray(image.Rect(0, 0, side, side))
		for p := range img.Pix {
			img.Pix[p] = uint8((p*i + i) % 251)
		}
		img.SetGray(0, 0, color.Gray{Y: uint8(i)})
		name := fmt.Sprintf("img%03d.png", i)
		f, err := os.Create(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NoError(t, png.Encode(f, img))
		require.NoError(t, f.Close())
		list += fmt.Sprintf("%s %d\n", name, i%10)
	}
	labels := filepath.Join(t.TempDir(), "labels.txt")
	require.NoError(t, os.WriteFile(labels, []byte(list), 0o644))
	for _, bad := range []string{"img003.png", "img025.png"} {
		require.NoError(t, os.Truncate(filepath.Join(dir, bad), 60))
	}
	d, err := dataset.Open(t.Context(), dataset.Options{Images: dir, Labels: labels})
	require.NoError(t, err)
	defer d.Close()

	job := testJob(t, d)
	_, err = Run(t.Context(), Env{backend(), &recorder{}}, job)
	require.ErrorContains(t, err, "img003.png")

	job.MaxBad = 1
	_, err = Run(t.Context(), Env{backend(), &recorder{}}, job)
	require.ErrorContains(t, err, "img025.png")

	job.MaxBad, job.Out = 2, t.TempDir()
	rec := &recorder{}
	res, err := Run(t.Context(), Env{backend(), rec}, job)
	require.NoError(t, err)
	require.Len(t, res.Outcomes.Models[0].Records, 19)
	require.Len(t, res.Models[0].Bad, 2)
	require.Equal(t, 19, res.Models[0].Calibration.Images)
	require.Len(t, rec.warnings, 2)

	resumed := job
	resumed.Resume = true
	second, err := Run(t.Context(), Env{backend(), &recorder{}}, resumed)
	require.NoError(t, err)
	require.Equal(t, res.Outcomes, second.Outcomes)
	require.Equal(t, res.Models[0].Bad[:1], second.Models[0].Bad[:1], "a resumed run knows the calibration image that was skipped")
}

func TestJobErrors(t *testing.T) {
	d := open(t, writeIDX(t))
	dir := t.TempDir()
	twin := filepath.Join(dir, "relu_mlp.onnx")
	b, err := os.ReadFile(tiny("relu_mlp").Path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(twin, b, 0o644))
	for name, c := range map[string]struct {
		change func(*Job)
		want   string
	}{
		"no model":        {func(j *Job) { j.Models = nil }, "no model given"},
		"equal stems":     {func(j *Job) { j.Models = append(j.Models, Model{Path: twin, Preprocess: unit}) }, "have the same stem"},
		"cache of two":    {func(j *Job) { j.Models = append(j.Models, tiny("tied_logits")); j.Cache = "x" }, "give one model with --cache"},
		"too few left":    {func(j *Job) { j.CalibBatches = 11 }, "left to score"},
		"missing model":   {func(j *Job) { j.Models[0].Path = "nowhere.onnx" }, "nowhere.onnx"},
		"corrupt model":   {func(j *Job) { j.Models[0] = tiny("truncated") }, "truncated.onnx"},
		"escaping model":  {func(j *Job) { j.Models[0] = tiny("escape") }, "escape.onnx"},
		"no image input":  {func(j *Job) { j.Models[0] = tiny("no_image_input") }, "no_image_input"},
		"unwritable out":  {func(j *Job) { j.Out = twin }, "output folder"},
		"missing cache":   {func(j *Job) { j.UseCache = "nowhere.cache" }, "nowhere.cache"},
		"foreign cache":   {func(j *Job) { j.UseCache = filepath.Join("testdata", "foreign.cache") }, "belongs to another model"},
		"no batch size":   {func(j *Job) { j.BatchSize = 0 }, "batch size 0"},
		"no calibration":  {func(j *Job) { j.CalibBatches = 0 }, "need at least one"},
		"FP32 alone, -5":  {func(j *Job) { j.Precisions, j.BatchSize = []string{FP32}, -5 }, "batch size -5"},
		"wrong precision": {func(j *Job) { j.Precisions = []string{FP32, "fp4"} }, `precision "fp4"`},
	} {
		t.Run(name, func(t *testing.T) {
			job := testJob(t, d)
			c.change(&job)
			_, err := Run(t.Context(), Env{backend(), &recorder{}}, job)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func FuzzReadManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"models":[{"name":"m","cache":{"file":"m.cache","sha256":"00"}}]}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, ManifestName), data, 0o644))
		m, err := ReadManifest(dir)
		if err != nil {
			return
		}
		require.NotEmpty(t, m.key())
		for i := range m.Models {
			m.Models[i].Cache.intact(dir)
		}
		m.differences(&Manifest{})
	})
}
