package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/meter"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

// Calibration is the outcome of pass A for one model.
type Calibration struct {
	Cache   *calib.Cache
	Results []calib.Result // by observed tensor; nil when the cache was read
	// Max is max|x| by entry name where it is known: what decides whether float16 can hold a tensor.
	Max map[string]float32
	// FromCache is the cache of another run that the thresholds were read from, or ""; with one, Images and Batches are 0.
	FromCache string
	ranges    func(byEntry map[string]float32) map[string]float32 // adds the tensors' names to the entries'
	Images    int
	Batches   int
	Warnings  []string
}

// amax returns the thresholds by entry and by tensor name.
func (c *Calibration) amax() map[string]float32 {
	m := make(map[string]float32, len(c.Cache.Table.Entries))
	for _, e := range c.Cache.Table.Entries {
		m[e.Name] = e.Amax
	}
	return c.ranges(m)
}

// calibrate feeds the calibration images to the tapped FP32 model and returns a cache with an entry for every line of plan.
//
// Every image is run by itself, on one thread, and observed by a private shard, so memory does not grow with the batch size and
// an activation's bits depend on its image alone; the collector puts batches together as TensorRT sees them.
func (r *run) calibrate(ctx context.Context, m *prepared, plan *onnx.CalibrationPlan) (*Calibration, error) {
	timing := r.begin(stageCalibrate)
	session, sources, err := r.openObserved(ctx, m, plan)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	chunk := m.chunk()

	collector, indices, constants, err := newCollector(r.job.Method, plan, sources)
	if err != nil {
		return nil, err
	}
	taps := make([]*tap, r.job.Workers)
	ran, counted := timing.engine(FP32, session), timing.part(partHistogram)
	for i := range taps {
		taps[i] = &tap{Binding: bind(session), shard: collector.NewShard(), sources: indices, ran: ran, counted: counted}
		defer taps[i].Close()
	}

	o := r.loadOptions(m)
	loader := r.job.Data.Load(ctx, r.split.Calib, o)
	defer loader.Close()
	timing.decode(loader, 1)
	progress := r.Report.Stage("calibrate "+m.name, "images", len(r.split.Calib), 0)
	defer progress.Done()
	result := &Calibration{ranges: plan.Ranges}
	for {
		waited := timing.wait()
		batch, err := loader.Next(ctx)
		waited()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		r.noteBad(m, batch.Bad)
		if len(batch.Items) == 0 {
			batch.Release()
			continue
		}
		if err := observeBatch(ctx, collector, taps, batch.X, chunk, constants); err != nil {
			return nil, fmt.Errorf("calibrate on batch %d: %w", batch.Index, err)
		}
		if result.Batches == 0 { // all the others have their memory by now
			defer boundGarbage(o.InFlight(1) * r.batchBytes(m))()
		}
		result.Images += len(batch.Items)
		result.Batches++
		progress.Add(len(batch.Items))
		batch.Release()
	}
	if result.Images == 0 {
		return nil, errors.New("calibrate: no readable image among those chosen: check them with quantgate dataset verify")
	}
	r.timed(m, timing, result.Images)

	timing = r.begin(stageSearch)
	if result.Results, err = collector.Results(); err != nil {
		return nil, err
	}
	r.timed(m, timing, 0)
	result.Max = map[string]float32{}
	known := map[string]bool{} // a constant of the model is no news
	for _, e := range plan.Entries {
		known[e.Name] = e.Const
	}
	for _, t := range result.Results {
		result.Max[t.Name] = t.Max
		if !known[t.Name] {
			result.Warnings = append(result.Warnings, t.Warnings...)
		}
	}
	version, err := calib.Version(r.job.CacheVersion)
	if err != nil {
		return nil, err
	}
	result.Cache = &calib.Cache{
		Header: calib.Header{Version: version, Calibrator: r.job.Method.Calibrator()},
		Table:  table(plan, result.Results),
	}
	return result, nil
}

// chunk is how many images calibration gives the engine at once: one, or what the model is fixed to.
func (p *prepared) chunk() int { return max(1, int(p.input.Shape[0])) }

// openObserved opens a model whose outputs hold the values that plan's entries are made of, as sources says.
func (r *run) openObserved(ctx context.Context, m *prepared, plan *onnx.CalibrationPlan) (engine.Session, []onnx.Source, error) {
	sources := plan.Sources(true)
	if err := r.checkFunctions(ctx, m, plan, sources); err != nil {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		r.Report.Debugf("%s: what functions make of tensors is taken from the engine: %v", m.name, err)
		sources = plan.Sources(false)
	}
	data, err := tapped(m.model, tensorsOf(sources))
	if err != nil {
		return nil, nil, err
	}
	s, err := r.openTapped(ctx, m, engine.Model{Name: m.name, Data: data}, engine.Options{Threads: 1, NoTF32: true, Batch: m.chunk()})
	return s, sources, err
}

// OpenObserved opens the session that Calibrate runs on a model, for measurements of what that costs by itself.
func OpenObserved(ctx context.Context, env Env, spec Model) (engine.Session, error) {
	m, err := load(spec)
	if err != nil {
		return nil, err
	}
	plan, err := onnx.Plan(m.model)
	if err != nil {
		return nil, err
	}
	r := &run{Env: env, job: Job{BatchSize: 1}}
	s, _, err := r.openObserved(ctx, m, plan)
	return s, err
}

// checkFunctions is nil if the engine computes, to the bit, what the sources' views compute themselves: then that need not be tapped.
func (r *run) checkFunctions(ctx context.Context, m *prepared, plan *onnx.CalibrationPlan, sources []onnx.Source) error {
	var tensors []string
	output := map[string]int{} // by tensor
	tap := func(tensor string) {
		if _, ok := output[tensor]; !ok {
			output[tensor] = len(tensors)
			tensors = append(tensors, tensor)
		}
	}
	ofEntry := map[string]string{}
	for _, e := range plan.Entries {
		ofEntry[e.Name] = e.Tensor
	}
	type check struct {
		x, y int // outputs
		f    calib.Func
	}
	var checks []check
	for _, s := range sources {
		for _, v := range s.Views {
			if v.Func.Op != "" && math.IsInf(float64(v.Low), -1) && math.IsInf(float64(v.High), 1) {
				tap(s.Tensor)
				tap(ofEntry[v.Entry])
				checks = append(checks, check{output[s.Tensor], output[ofEntry[v.Entry]], function(v.Func)})
			}
		}
	}
	if len(checks) == 0 {
		return nil
	}
	if _, ok := r.Backend.(engine.Optimizer); !ok { // where opening a session may take minutes
		return errors.New("the engine is not asked how it computes them")
	}
	data, err := tapped(m.model, tensors)
	if err != nil {
		return err
	}
	s, err := r.Backend.Open(ctx, engine.Model{Name: m.name, Data: data}, engine.Options{Threads: 1, NoTF32: true, Batch: m.chunk()})
	if err != nil {
		return err
	}
	defer s.Close()
	bound := bind(s)
	defer bound.Close()
	out, err := bound.Run(ctx, r.noise(m, m.chunk()))
	if err != nil {
		return err
	}
	for _, c := range checks {
		x, want := out[c.x], out[c.y]
		if len(x.Data) != len(want.Data) {
			return fmt.Errorf("%q has %d values, %q %d", tensors[c.y], len(want.Data), tensors[c.x], len(x.Data))
		}
		got := &tensor.Tensor{}
		got.Resize(want.Shape...)
		c.f.Apply(x.Data, got.Data)
		if err := sameBits(want, got); err != nil {
			return fmt.Errorf("%s of %q: quantgate %w", c.f.Kind, tensors[c.x], err)
		}
	}
	return nil
}

// function is what package calib calls a function of package onnx.
func function(f onnx.Func) calib.Func {
	return calib.Func{Kind: calib.FuncKind(f.Op), Alpha: f.Alpha, Beta: f.Beta}
}

// tensorsOf are the sources' tensors.
func tensorsOf(sources []onnx.Source) []string {
	names := make([]string, len(sources))
	for i, s := range sources {
		names[i] = s.Tensor
	}
	return names
}

// tapped is a model whose outputs are those tensors, in their order.
func tapped(m *onnx.Model, tensors []string) ([]byte, error) {
	model, err := onnx.Tap(m, tensors)
	if err != nil {
		return nil, err
	}
	return model.Bytes()
}

// constant is an entry whose values are part of the model.
type constant struct {
	tensor int // index in the collector
	values []float32
}

// newCollector makes a collector for every entry that has a range of its own. indices are the collector's of the sources, which are the
// tapped model's outputs.
func newCollector(method calib.Method, plan *onnx.CalibrationPlan, sources []onnx.Source) (c *calib.Collector, indices []int, constants []constant, err error) {
	var names []string
	index := map[string]int{}
	for _, e := range plan.Entries {
		if e.SharesScaleOf != "" {
			continue
		}
		if e.Const {
			constants = append(constants, constant{tensor: len(names), values: e.Values})
		}
		index[e.Name] = len(names)
		names = append(names, e.Name)
	}
	if c, err = calib.NewCollector(method, names, calib.Options{}); err != nil {
		return nil, nil, nil, err
	}
	for _, s := range sources {
		views := make([]calib.View, len(s.Views))
		for k, v := range s.Views {
			views[k] = calib.View{Tensor: index[v.Entry], Low: v.Low, High: v.High, Func: function(v.Func)}
		}
		i, err := c.Source(views...)
		if err != nil {
			return nil, nil, nil, err
		}
		indices = append(indices, i)
	}
	return c, indices, constants, nil
}

// table orders the results as plan's entries.
func table(plan *onnx.CalibrationPlan, results []calib.Result) calib.Table {
	entries := make(map[string]calib.Entry, len(plan.Entries))
	for _, t := range results {
		entries[t.Name] = calib.Entry{Name: t.Name, Amax: t.Amax, Scale: t.Scale}
	}
	var out calib.Table
	for _, e := range plan.Entries {
		from := e.Name
		if e.SharesScaleOf != "" {
			from = e.SharesScaleOf
		}
		entry := entries[from]
		entry.Name = e.Name
		entries[e.Name] = entry // an entry may share that of one which shares itself
		out.Entries = append(out.Entries, entry)
	}
	return out
}

// tap is one worker's way from an image to its shard.
type tap struct {
	engine.Binding
	shard   *calib.Shard
	sources []int

	ran, counted *meter.Meter // what the engine and the histograms took
}

// run feeds images x[from:to] and gives the values of each source to observe, the latest computed first: they may still be in a cache.
func (t *tap) run(ctx context.Context, x *tensor.Tensor, from, to int, observe func(i int, x []float32)) error {
	span := t.ran.Begin()
	out, err := t.Run(ctx, rows(x, from, to))
	span.End(to - from)
	if err != nil {
		return err
	}
	span = t.counted.Begin()
	for i, o := range slices.Backward(out) {
		observe(t.sources[i], o.Data)
	}
	span.End(to - from)
	return nil
}

// bind returns what runs the session into reused memory, the engine's own where it offers that.
func bind(s engine.Session) engine.Binding {
	if b, ok := s.(engine.Binder); ok {
		return b.Bind()
	}
	p := &plainBinding{session: s}
	for range s.Outputs() {
		p.out = append(p.out, &tensor.Tensor{})
	}
	return p
}

// plainBinding is a Binding of any session.
type plainBinding struct {
	session engine.Session
	out     []*tensor.Tensor
}

func (p *plainBinding) Run(ctx context.Context, in *tensor.Tensor) ([]*tensor.Tensor, error) {
	return p.out, p.session.Run(ctx, in, p.out)
}

func (p *plainBinding) Close() error { return nil }

// rows is the view of images from..to-1 of a batch.
func rows(x *tensor.Tensor, from, to int) *tensor.Tensor {
	width := len(x.Data) / int(x.Shape[0])
	shape := x.Shape.Clone()
	shape[0] = int64(to - from)
	return &tensor.Tensor{Shape: shape, Data: x.Data[from*width : to*width]}
}

// observeBatch spreads one batch over the workers, twice when the batch's maximum must be known before it is counted.
func observeBatch(ctx context.Context, c *calib.Collector, taps []*tap, x *tensor.Tensor, chunk int, constants []constant) error {
	pass := func(observe func(*calib.Shard) func(int, []float32)) error {
		for _, k := range constants {
			observe(taps[0].shard)(k.tensor, k.values)
		}
		n := int(x.Shape[0])
		chunks := make(chan int)
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error {
			defer close(chunks)
			for from := 0; from < n; from += chunk {
				select {
				case chunks <- from:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
		for _, t := range taps {
			g.Go(func() error {
				sink := observe(t.shard)
				for from := range chunks {
					if err := t.run(ctx, x, from, min(from+chunk, n), sink); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return g.Wait()
	}
	if c.NeedsFirstMax() {
		if err := pass(func(s *calib.Shard) func(int, []float32) { return s.ObserveMax }); err != nil {
			return err
		}
		if err := c.EndFirstMax(); err != nil {
			return err
		}
	}
	if err := pass(func(s *calib.Shard) func(int, []float32) { return s.Observe }); err != nil {
		return err
	}
	return c.EndBatch()
}

// aheadBytes bounds what is decoded before the engine asks for it.
const aheadBytes = 256 << 20

// loadOptions are the same in both passes.
func (r *run) loadOptions(m *prepared) dataset.LoadOptions {
	return dataset.LoadOptions{
		Preprocess: m.preprocess, BatchSize: r.job.BatchSize, Workers: r.job.Workers, MaxBad: max(0, r.job.MaxBad-len(m.result.Bad)),
		Ahead: max(1, min(r.job.Workers, aheadBytes/max(1, r.batchBytes(m)))),
	}
}

// batchBytes is the size of a whole batch as the model takes it.
func (r *run) batchBytes(m *prepared) int { return r.job.BatchSize * imageBytes(m) }

// imageBytes is the size of one image as the model takes it; where the model leaves its size open, of what is cut for it.
func imageBytes(m *prepared) int {
	n := 4
	for _, d := range m.input.Shape[1:] {
		if d < 0 {
			d = int64(m.preprocess.InputSize)
		}
		n *= int(d)
	}
	return n
}

// noteBad remembers skipped images and tells the user of each.
func (r *run) noteBad(m *prepared, bad []dataset.BadImage) {
	m.result.Bad = append(m.result.Bad, skips(bad)...)
	for _, b := range bad {
		r.Report.Warnf("skipped an unreadable image: %v", b.Err)
	}
}

// skips are the images that a batch lacks, as the journal and the manifest keep them.
func skips(bad []dataset.BadImage) []accuracy.Skip {
	var out []accuracy.Skip
	for _, b := range bad {
		out = append(out, accuracy.Skip{ID: b.Item.ID, Path: b.Item.Path, Reason: b.Err.Error()})
	}
	return out
}
