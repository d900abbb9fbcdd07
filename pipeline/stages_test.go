package pipeline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
)

// hands is a clock that stands where it is set.
type hands struct{ elapsed, cpu time.Duration }

func (h *hands) read() (elapsed, cpu time.Duration) { return h.elapsed, h.cpu }

func (h *hands) advance(elapsed, cpu time.Duration) { h.elapsed += elapsed; h.cpu += cpu }

// device is a session that took fixed times.
type device struct {
	engine.Session
	copied, computed time.Duration
}

func (d device) Spent() (copying, computing time.Duration) { return d.copied, d.computed }

// decoded stands for a loader.
type decoded struct {
	images       int
	elapsed, cpu time.Duration
}

func (d decoded) Spent() (images int, elapsed, cpu time.Duration) { return d.images, d.elapsed, d.cpu }

func TestTiming(t *testing.T) {
	h := &hands{elapsed: time.Hour}
	s := begin("score", 2, h.read)
	a, b := s.engine("fp32", nil), s.engine("int8", device{copied: 100 * time.Millisecond, computed: 300 * time.Millisecond})
	s.loader = decoded{images: 10, elapsed: 4 * time.Second, cpu: 3 * time.Second}

	waited := s.wait()
	h.advance(3*time.Second, 0)
	waited()
	span := a.Begin()
	h.advance(2*time.Second, 1*time.Second)
	span.End(10)
	span = b.Begin()
	h.advance(1*time.Second, 250*time.Millisecond)
	span.End(10)

	require.Equal(t, Stage{
		Name: "score", Images: 10, Seconds: 6, Workers: 2,
		Waited: 1.5, // 3 s, by one of two workers
		Parts: []Part{
			{"decode", 10, 4, 3},
			{"engine fp32", 10, 2, 1},
			{"engine int8", 10, 0.75, 0.25}, // 1 s, a quarter of it for copies
			{"transfer", 10, 0.25, 0},
		},
	}, s.end(10))
}

func TestTimingOfStageWithoutParts(t *testing.T) {
	h := &hands{}
	s := begin("rewrite", 2, h.read)
	h.advance(time.Second, time.Second)
	got := s.end(0)
	require.Equal(t, Stage{Name: "rewrite", Seconds: 1}, got)
	require.Empty(t, got.bottleneck(2))
}

func TestRates(t *testing.T) {
	s := Stage{Images: 100, Seconds: 4, Workers: 2}
	p := Part{Images: 100, Seconds: 5}
	require.InDelta(t, 25, s.Rate(), 0)
	require.InDelta(t, 2.5, s.Share(p), 0)
	require.InDelta(t, 40, s.PartRate(p), 0)
	require.Zero(t, s.PartRate(Part{Images: 100}))
}

func TestBottleneck(t *testing.T) {
	for _, c := range []struct {
		name  string
		stage Stage
		cores int
		want  string
	}{
		{
			// Two cores for 10 s are 20 s; 3 + 5 + 11 = 19 of them went to the parts.
			name: "processor", cores: 2,
			stage: Stage{Seconds: 10, Workers: 2, Parts: []Part{{"decode", 9, 6, 3}, {"engine fp32", 9, 7, 5}, {"engine int8", 9, 13, 11}}},
			want:  "engine int8: 58 % of the CPU time, with 2 cores 95 % busy",
		},
		{
			// Decoding has most of the cores, although the workers never wait: they share them.
			name: "processor, decoding", cores: 2,
			stage: Stage{Seconds: 10, Workers: 2, Parts: []Part{{"decode", 9, 18, 10}, {"engine fp32", 9, 20, 9}}},
			want:  "decode: 53 % of the CPU time, with 2 cores 95 % busy",
		},
		{
			// A slow disk: readers are always under way and use no processor.
			name: "waiting for images", cores: 4,
			stage: Stage{Seconds: 10, Workers: 4, Waited: 7, Parts: []Part{{"decode", 9, 39, 4}, {"engine fp32", 9, 12, 12}}},
			want:  "decode: the engine waits for images 70 % of the time",
		},
		{
			// A GPU: workers sit in the engine, and use no processor.
			name: "waiting for the engine", cores: 16,
			stage: Stage{Seconds: 10, Workers: 16, Waited: 0.5, Parts: []Part{{"decode", 9, 40, 40}, {"engine fp32", 9, 90, 1}, {"engine int8", 9, 50, 1}, {"transfer", 9, 12, 0}}},
			want:  "engine fp32: 56 % of the workers' time",
		},
		{
			name: "copies", cores: 16,
			stage: Stage{Seconds: 10, Workers: 16, Parts: []Part{{"decode", 9, 40, 40}, {"engine fp32", 9, 40, 1}, {"transfer", 9, 96, 0}}},
			want:  "transfer: 60 % of the workers' time",
		},
		{
			// No processor time is told: 95 % of two decoders against 60 % of two workers.
			name: "without processor time", cores: 2,
			stage: Stage{Seconds: 10, Workers: 2, Waited: 4, Parts: []Part{{"decode", 9, 19, 0}, {"engine fp32", 9, 12, 0}}},
			want:  "decode: the engine waits for images 40 % of the time",
		},
		{name: "one core", cores: 1, stage: Stage{Seconds: 10, Workers: 1, Parts: []Part{{"histogram", 9, 9, 9}}}, want: "histogram: 100 % of the CPU time, with 1 core 90 % busy"},
		{name: "decoding alone", cores: 4, stage: Stage{Seconds: 10, Workers: 4, Waited: 1, Parts: []Part{{"decode", 9, 10, 1}}}},
		{name: "no time", cores: 4, stage: Stage{Parts: []Part{{"decode", 0, 0, 0}}}},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, c.stage.bottleneck(c.cores)) })
	}
}

func TestStagesOfSeveralModelsAddUp(t *testing.T) {
	var all []Stage
	all = addStage(all, Stage{Name: "score", Images: 10, Seconds: 2, Workers: 2, Waited: 0.5, Parts: []Part{{"decode", 10, 1, 1}}, Bottleneck: "decode"})
	all = addStage(all, Stage{Name: "rewrite", Seconds: 1})
	all = addStage(all, Stage{Name: "score", Images: 5, Seconds: 1, Workers: 2, Waited: 0.25, Parts: []Part{{"decode", 5, 1, 0.5}, {"engine fp32", 5, 2, 2}}})
	require.Equal(t, []Stage{
		{Name: "score", Images: 15, Seconds: 3, Workers: 2, Waited: 0.75, Parts: []Part{{"decode", 15, 2, 1.5}, {"engine fp32", 5, 2, 2}}},
		{Name: "rewrite", Seconds: 1},
	}, all)
	r := Result{Stages: []Stage{{Name: "calibrate", Seconds: 1}, {Name: "search thresholds", Seconds: 2}}}
	require.Equal(t, "search thresholds", r.Bottleneck())
	require.Empty(t, (&Result{}).Bottleneck())
}

// A run notes every stage with its parts, in the result and in the manifest, and every image in every part.
func TestRunIsTimed(t *testing.T) {
	job := testJob(t, open(t, writeIDX(t)))
	result, err := Run(t.Context(), Env{Backend: backend(), Report: &recorder{}}, job)
	require.NoError(t, err)
	var names []string
	for _, s := range result.Stages {
		names = append(names, s.Name)
		for _, p := range s.Parts {
			names = append(names, "  "+p.Name)
			require.Positive(t, p.Seconds, p.Name)
			if s.Name == stageCalibrate && p.Name != partDecode {
				require.GreaterOrEqual(t, p.Images, s.Images, p.Name) // the first batch may run twice: for its maximum, then for its counts
				continue
			}
			require.Equal(t, s.Images, p.Images, "%s, %s", s.Name, p.Name)
		}
	}
	require.Equal(t, []string{
		"calibrate", "  decode", "  engine fp32", "  histogram", "search thresholds", "rewrite",
		"open", "score", "  decode", "  engine fp32", "  engine fp16", "  engine int8",
	}, names)
	require.Len(t, result.Manifest.Models[0].Stages, 5)
	require.Equal(t, result.Stages[4].Parts, result.Manifest.Models[0].Stages[4].Parts)
	require.NotEmpty(t, result.Bottleneck())
	read, err := ReadManifest(job.Out)
	require.NoError(t, err)
	require.Equal(t, result.Manifest.Models[0].Stages, read.Models[0].Stages)
}
