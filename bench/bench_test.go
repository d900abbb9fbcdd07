package bench_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/bench"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
)

// session is an engine whose batches take a known time on a clock of its own: no test here waits.
type session struct {
	now   time.Time
	calls []time.Duration // of Run, over and over
	runs  int
	batch int64
	err   error
}

func (s *session) Now() time.Time { return s.now }
func (s *session) Inputs() []engine.Port {
	return []engine.Port{{Name: "x", Shape: tensor.Shape{s.batch, 3, tensor.Dynamic, 4}}}
}
func (*session) Outputs() []engine.Port { return []engine.Port{{Name: "y"}} }
func (*session) Close() error           { return nil }
func (s *session) Run(_ context.Context, in *tensor.Tensor, _ []*tensor.Tensor) error {
	if in.Shape[2] != 7 {
		return engine.ErrShape
	}
	s.now = s.now.Add(s.calls[s.runs%len(s.calls)])
	s.runs++
	return s.err
}

// device is a session that runs without copies too: n batches take start and then each a time of its repeat.
type device struct {
	session
	start   time.Duration
	each    []time.Duration // by call of Repeat, the last for all later ones
	repeats []int           // what n was
	filled  int
}

func (d *device) Fill(_ context.Context, in *tensor.Tensor) error {
	d.filled = int(in.Shape[0])
	return nil
}

func (d *device) Repeat(_ context.Context, n int) error {
	each := d.each[min(len(d.repeats), len(d.each)-1)]
	d.repeats = append(d.repeats, n)
	d.now = d.now.Add(d.start + time.Duration(n)*each)
	return nil
}

const ms = time.Millisecond

var options = bench.Options{Batch: 4, Warmup: 100 * ms, Duration: 1000 * ms, Repeats: 5, Image: [2]int64{7, 0}}

func TestMeasureRun(t *testing.T) {
	s := &session{batch: tensor.Dynamic, calls: []time.Duration{10 * ms}}
	o := options
	o.Now = s.Now
	watched := 0
	o.Watch = func() func() *bench.Conditions {
		began := s.runs
		return func() *bench.Conditions {
			watched = s.runs - began
			return &bench.Conditions{ClockMHz: 7}
		}
	}
	f, err := bench.Measure(context.Background(), s, o)
	require.NoError(t, err)
	require.Nil(t, f.Compute)
	require.InDelta(t, 400, f.EndToEnd.Median, 1e-9, "4 images in 10 ms")
	require.Equal(t, []float64{400, 400, 400, 400, 400}, f.EndToEnd.Repeats)
	require.Equal(t, bench.Latency{P50: 0.01, P90: 0.01, P99: 0.01, Calls: 100}, f.Latency)
	require.Equal(t, 500, watched, "five seconds of calls, and neither the warm-up nor the latency's")
	require.InDelta(t, 7, f.Conditions.ClockMHz, 0)
	// Latency's warm-up is 10 calls; throughput's is 1+2+4+8 = 15, the first sum of a doubling count that reaches 100 ms.
	require.Equal(t, 10+100+15+500, s.runs)
}

// The percentiles stand on the calls' own times: 90 of 5 ms, 8 of 20 ms and 2 of 50 ms of every 100.
func TestLatency(t *testing.T) {
	s := &session{batch: 4}
	for i := range 100 {
		d := 5 * ms
		if i%10 == 9 {
			d = 20 * ms
		}
		if i%50 == 49 {
			d = 50 * ms
		}
		s.calls = append(s.calls, d)
	}
	o := options
	o.Now, o.Warmup, o.Duration = s.Now, 0, 710*ms // 100 calls take 450+160+100 ms; without a warm-up one call goes before
	f, err := bench.Measure(context.Background(), s, o)
	require.NoError(t, err)
	require.Equal(t, bench.Latency{P50: 0.005, P90: 0.005, P99: 0.05, Calls: 100}, f.Latency)
}

func TestMeasureWithoutCopies(t *testing.T) {
	d := &device{session: session{batch: 4, calls: []time.Duration{20 * ms}}, start: 10 * ms}
	// The warm-up's calls are of 1, 2, 4, 8 and 16 batches of 5 ms: 15+20+30+50 = 115 ms is past 100, so 8 is its last, 50 ms. 160 batches are
	// then taken to fill a second, and take 810 ms; each repeat sets the next one's number.
	d.each = []time.Duration{5 * ms, 5 * ms, 5 * ms, 5 * ms, 5 * ms, 4 * ms, 5 * ms, 10 * ms, 5 * ms}
	o := options
	o.Devices, o.Now = 2, d.Now
	f, err := bench.Measure(context.Background(), d, o)
	require.NoError(t, err)
	require.Equal(t, 4, d.filled)
	require.Equal(t, []int{1, 2, 4, 8, 160, 198, 247, 198, 99}, d.repeats)
	rate := func(n int, each float64) float64 { return float64(n*4*2) / (0.010 + float64(n)*each) }
	require.InDeltaSlice(t, []float64{rate(160, .005), rate(198, .004), rate(247, .005), rate(198, .010), rate(99, .005)}, f.Compute.Repeats, 1e-6)
	require.InDelta(t, rate(160, .005), f.Compute.Median, 1e-6)
	require.InDelta(t, rate(198, .010), f.Compute.Min, 1e-6)
	require.InDelta(t, rate(198, .004), f.Compute.Max, 1e-6)
	require.InDelta(t, 200, f.EndToEnd.Median, 1e-9, "with copies a call is 4 images, whatever device it goes to")
}

func TestMeasureRefuses(t *testing.T) {
	ctx := context.Background()
	broken := errors.New("GPU 1: uncorrectable ECC error")
	for want, change := range map[string]func(*bench.Options, *session){
		"batch 0":                            func(o *bench.Options, _ *session) { o.Batch = 0 },
		"4 repeats: at least 5":              func(o *bench.Options, _ *session) { o.Repeats = 4 },
		"duration 0s":                        func(o *bench.Options, _ *session) { o.Duration = 0 },
		"warm-up -1ns":                       func(o *bench.Options, _ *session) { o.Warmup = -1 },
		"batch 4: the model fixes its batch": func(_ *bench.Options, s *session) { s.batch = 3 },
		"dimension 2 is open":                func(o *bench.Options, _ *session) { o.Image = [2]int64{} },
		"uncorrectable":                      func(_ *bench.Options, s *session) { s.err = broken },
	} {
		s := &session{batch: tensor.Dynamic, calls: []time.Duration{ms}}
		o := options
		o.Now = s.Now
		change(&o, s)
		_, err := bench.Measure(ctx, s, o)
		require.ErrorContains(t, err, want)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	s := &session{batch: 4, calls: []time.Duration{ms}}
	_, err := bench.Measure(cancelled, s, options)
	require.ErrorIs(t, err, context.Canceled)
	s.calls = []time.Duration{0}
	o := options
	o.Now, o.Warmup, o.Duration = s.Now, 0, 1
	_, err = bench.Measure(ctx, s, o)
	require.ErrorContains(t, err, "the clock stood still")
}

// gathering is a session whose calls, from the given one on, return three at a time.
type gathering struct {
	session
	mu      sync.Mutex
	alone   int
	waiting []chan struct{}
}

func (g *gathering) Run(ctx context.Context, _ *tensor.Tensor, _ []*tensor.Tensor) error {
	g.mu.Lock()
	if g.alone > 0 {
		g.alone--
		g.now = g.now.Add(ms)
		g.mu.Unlock()
		return nil
	}
	me := make(chan struct{})
	if g.waiting = append(g.waiting, me); len(g.waiting) == 3 {
		for _, w := range g.waiting {
			close(w)
		}
		g.waiting = nil
		g.now = g.now.Add(ms)
	}
	g.mu.Unlock()
	select {
	case <-me:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gathering) Now() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

func TestParallelRuns(t *testing.T) {
	g := &gathering{session: session{batch: 4}, alone: 1 + 5} // latency's warm-up and its calls; throughput's first guess is three at once already
	o := options
	o.Parallel, o.Warmup, o.Duration, o.Now = 3, 0, 3*ms, g.Now
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	f, err := bench.Measure(ctx, g, o)
	require.NoError(t, err)
	require.InDelta(t, 12000, f.EndToEnd.Median, 1e-6, "three calls of 4 images in each millisecond")

	// A repeat that one call would fill is three calls all the same: fewer would leave some of the three idle.
	g = &gathering{session: session{batch: 4}, alone: 1 + 5}
	o.Duration, o.Now = ms/10, g.Now
	f, err = bench.Measure(ctx, g, o)
	require.NoError(t, err)
	require.InDelta(t, 12000, f.EndToEnd.Median, 1e-6)
}

func TestRandomIsBounded(t *testing.T) {
	for _, batch := range []int{1 << 32, 1 << 62} {
		_, err := bench.Random(tensor.Shape{tensor.Dynamic, 3, 224, 224}, batch, [2]int64{}, 1)
		require.ErrorContains(t, err, "use a smaller batch")
	}
}

func TestPercentileAndMedian(t *testing.T) {
	ten := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for p, want := range map[float64]float64{0: 1, 10: 1, 10.1: 2, 50: 5, 90: 9, 99: 10, 100: 10} {
		require.InDelta(t, want, bench.Percentile(ten, p), 0, "p%g", p)
	}
	require.InDelta(t, 3, bench.Percentile([]float64{3}, 50), 0)
	require.InDelta(t, 3, bench.Median([]float64{9, 1, 3}), 0)
	require.InDelta(t, 2.5, bench.Median([]float64{4, 2, 3, 1}), 0)
}

func TestSummarise(t *testing.T) {
	two := [][]bench.Reading{
		{{ClockMHz: 1980, MemoryClockMHz: 2619, PowerWatts: 300, EnergyJoules: 1000, TemperatureC: 50}, {ClockMHz: 1700, PowerWatts: 700, EnergyJoules: 4000, TemperatureC: 61, Throttled: []string{"SW power cap"}}},
		{{ClockMHz: 1900, PowerWatts: 400, TemperatureC: 70}, {ClockMHz: 1900, PowerWatts: 420, Throttled: []string{"HW slowdown", "SW power cap"}}},
	}
	require.Equal(t, &bench.Conditions{
		ClockMHz: 1870, ClockMinMHz: 1700, ClockMaxMHz: 1980, MemoryClockMHz: 2619, TemperatureC: 70, Readings: 2,
		PowerWatts: 600 + 410, // 3000 J in 5 s, and the mean of a device that counts no energy
		Throttled:  []string{"HW slowdown", "SW power cap"},
	}, bench.Summarise(two, 5*time.Second))
	require.Nil(t, bench.Summarise(nil, time.Second))
	require.Nil(t, bench.Summarise([][]bench.Reading{two[0], nil}, time.Second))
}

type sensor struct {
	reads int
	err   error
}

func (s *sensor) Read() (bench.Reading, error) {
	s.reads++
	return bench.Reading{ClockMHz: 100 * s.reads}, s.err
}

func TestWatch(t *testing.T) {
	s := &sensor{}
	c := bench.Watch([]bench.Sensor{s}, time.Hour, func(err error) { t.Error(err) })()
	require.Equal(t, 2, c.Readings, "one at either end")
	require.InDelta(t, 150, c.ClockMHz, 0)
	lost := errors.New("GPU is lost")
	var got error
	require.Nil(t, bench.Watch([]bench.Sensor{&sensor{err: lost}}, time.Hour, func(err error) { got = err })())
	require.ErrorIs(t, got, lost)
}

func result(precision string, devices int, compute, endToEnd float64) bench.Result {
	r := bench.Result{
		Key:   bench.Key{ModelSHA256: "aa", Engine: "tensorrt 8.6.1", Device: "GPU", Precision: precision, Batch: 8, Devices: devices, Parallel: 3 * devices},
		Model: "net", EndToEnd: bench.Rate{Median: endToEnd, Min: endToEnd, Max: endToEnd, Repeats: []float64{endToEnd}},
	}
	if compute > 0 {
		r.Compute = &bench.Rate{Median: compute, Min: compute, Max: compute}
	}
	return r
}

func TestDerivedFigures(t *testing.T) {
	int8 := result("int8", 1, 4000, 900)
	int8.Ranges = "cache"
	int8.Conditions = &bench.Conditions{ClockMHz: 1500, ClockMinMHz: 1400, ClockMaxMHz: 1600, PowerWatts: 400, Throttled: []string{"SW power cap"}}
	two := result("int8", 2, 7600, 1000)
	two.Ranges = "cache"
	two.Conditions = &bench.Conditions{ClockMHz: 1980, ClockMinMHz: 1980, ClockMaxMHz: 1980}
	slow := result("fp16", 1, 500, 400)
	slow.Compute.Max = 560
	idle := result("int8", 1, 4000, 100) // measured with fewer calls in flight: nothing to compare two devices with
	idle.Ranges, idle.Parallel = "cache", 1
	rs := bench.Results{two, slow, int8, result("fp32", 1, 1000, 500)}
	require.InDelta(t, 1000./900/2, append(bench.Results{idle}, rs...).Efficiency(&two, true), 1e-12)
	leveled := int8.Key
	leveled.Settings = "builder optimisation level 1"
	require.Nil(t, rs.Find(leveled), "another level is another figure")
	require.InDelta(t, 4, rs.Speedup(&int8), 1e-12)
	require.InDelta(t, 1, rs.Speedup(&rs[3]), 1e-12)
	require.Zero(t, rs.Speedup(&two), "FP32 was not measured on two")
	require.InDelta(t, 0.95, rs.Efficiency(&two, false), 1e-12)
	require.InDelta(t, 1000./900/2, rs.Efficiency(&two, true), 1e-12)
	require.Zero(t, rs.Efficiency(&slow, false)-1, "one device over itself")
	require.InDelta(t, 10, int8.ImagesPerJoule(), 1e-12)
	require.Zero(t, slow.ImagesPerJoule())
	require.Equal(t, []string{
		"net fp16, batch 8: the repeats differ by 12 % of their median",
		"net fp16, batch 8: slower than FP32: 0.50 times its throughput",
		"net int8, batch 8: clocks dropped to 1500 MHz in the mean, 1400 at the lowest, where 1980 were reached (SW power cap)",
	}, rs.Warnings())
	rs.Sort()
	require.Equal(t, []string{"fp32", "fp16", "int8", "int8"}, []string{rs[0].Precision, rs[1].Precision, rs[2].Precision, rs[3].Precision})
	require.Equal(t, 2, rs[3].Devices)
}

// An FP32 engine does not depend on what INT8 falls back on, but on all else that the engine's name tells.
func TestBaselines(t *testing.T) {
	of := func(precision, options string, rate float64) bench.Result {
		r := result(precision, 1, rate, rate)
		r.Engine += options
		return r
	}
	const fallback = ", INT8 with FP16"
	require.Equal(t, "tensorrt 8.6.1, no TF32, tactic sources -CUBLAS", bench.EngineFor("tensorrt 8.6.1, no TF32, INT8 with FP16, tactic sources -CUBLAS", "fp32"))
	require.Equal(t, "tensorrt 8.6.1, INT8 with FP16", bench.EngineFor("tensorrt 8.6.1, INT8 with FP16", "int8"))
	for _, x := range []struct {
		base, int8 string
		want       float64
	}{
		{"", fallback, 4},
		{fallback, fallback, 4},
		{fallback, "", 4},
		{", no TF32", ", no TF32" + fallback, 4},
		{", no TF32, tactic sources -CUBLAS", ", no TF32" + fallback + ", tactic sources -CUBLAS", 4},
		{"", ", no TF32" + fallback, 0},
		{", no TF32", fallback, 0},
		{", tactic sources -CUBLAS", fallback, 0},
		{", tactic sources -CUBLAS", fallback + ", tactic sources -CUDNN", 0},
	} {
		rs := bench.Results{of("fp32", x.base, 1000), of("int8", x.int8, 4000)}
		require.InDelta(t, x.want, rs.Speedup(&rs[1]), 1e-12, "%q %q", x.base, x.int8)
	}
	rs := bench.Results{of("fp32", "", 1000), of("int8", fallback, 4000)}
	rs[0].Settings = "builder optimisation level 1"
	require.Zero(t, rs.Speedup(&rs[1]))

	// Where FP32 was measured beside both, each has its own.
	rs = bench.Results{of("fp32", fallback, 2000), of("int8", fallback, 4000), of("fp32", "", 1000), of("int8", "", 4000), of("fp16", "", 5000)}
	for i, want := range []float64{1, 2, 1, 4, 5} {
		require.InDelta(t, want, rs.Speedup(&rs[i]), 1e-12, i)
	}
	require.Equal(t, &rs[4], rs.In(&rs[1], bench.FP16))
	require.Equal(t, "net int8 with fp16, batch 8", rs[1].Title())
	require.True(t, rs[1].WithFP16())
	require.False(t, rs[0].WithFP16(), "it is FP32")
	require.False(t, rs[3].WithFP16())
	rs.Sort()
	var order []string
	for _, r := range rs {
		order = append(order, r.Title())
	}
	require.Equal(t, []string{"net fp32, batch 8", "net fp32, batch 8", "net fp16, batch 8", "net int8, batch 8", "net int8 with fp16, batch 8"}, order)
}

func TestModelsOfOneName(t *testing.T) {
	a, b, c := result("fp32", 1, 10, 5), result("fp32", 1, 10, 5), result("fp32", 1, 10, 5)
	a.ModelSHA256, b.ModelSHA256, b.EndToEnd.Max = "0123456789ab", "123456789abc", 10
	b.Compute, c.Model = nil, "other"
	rs := bench.Results{a, b, c}
	require.Equal(t, " (012345)", rs.ModelMark(&a))
	require.Equal(t, " (123456)", rs.ModelMark(&b))
	require.Empty(t, rs.ModelMark(&c))
	require.Equal(t, []string{"net (123456) fp32, batch 8: the repeats differ by 100 % of their median"}, rs.Warnings())
	require.Empty(t, bench.Results{a, c}.ModelMark(&a))
}

func TestResultFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	_, err := bench.Load(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	rs := bench.Results{}.Add(result("fp32", 1, 10, 5)).Add(result("int8", 1, 30, 6))
	rs = rs.Add(result("fp32", 1, 11, 5)) // measured again
	require.Len(t, rs, 2)
	require.Equal(t, &rs[1], rs.Find(rs[1].Key))
	require.Nil(t, rs.Find(bench.Key{}))
	require.NoError(t, bench.Save(path, rs))
	back, err := bench.Load(path)
	require.NoError(t, err)
	require.Equal(t, rs, back)
	for text, want := range map[string]string{
		"{": "not a file that quantgate bench wrote", `{"schema_version":"2.0"}`: "2.0", `{"schema_version":"1.0"}`: "no results",
		`{"schema_version":"1.0","results":[{"end_to_end":{"median":0}}]}`:                                         "is none",
		`{"schema_version":"1.0","results":[{"end_to_end":{"median":1,"min":1,"max":1}}]}`:                         "missing",
		`{"schema_version":"1.0","results":[{"model":"m","end_to_end":{"median":1,"min":1,"max":1},"batch":"x"}]}`: "not a file",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := bench.Load(path)
		require.ErrorContains(t, err, want)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"schema_version":"1.0","results":[{"model":"m","model_sha256":"a","precision":"fp32","batch":1,"devices":1,"parallel":1,"end_to_end":{"median":1,"min":1,"max":1}}]}`))
	f.Add([]byte(`{"schema_version":"1.0","results":null}`))
	path := filepath.Join(f.TempDir(), "r.json")
	f.Fuzz(func(t *testing.T, data []byte) {
		require.NoError(t, os.WriteFile(path, data, 0o600))
		rs, err := bench.Load(path)
		if err != nil {
			return
		}
		rs.Sort()
		rs.Warnings()
		_, err = rs.MarshalIndent()
		require.NoError(t, err)
	})
}
