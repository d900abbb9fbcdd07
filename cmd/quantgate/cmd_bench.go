package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quantgate/quantgate/bench"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/networks"
	"github.com/quantgate/quantgate/ort"
	"github.com/quantgate/quantgate/pipeline"
	"github.com/quantgate/quantgate/reports"
	"github.com/quantgate/quantgate/tensor"
	"github.com/quantgate/quantgate/trt"
)

// benchFlags are bench's own.
type benchFlags struct {
	models        []string
	networks      []string
	seed          uint64
	output        string
	engine        string
	ortLibrary    string
	tensorrt      tensorrtFlags
	batchList     string
	precisionList string
	threadList    string
	parallel      int // 0 for the engine's own
	warmup        time.Duration
	duration      time.Duration
	repeats       int
	useCache      string
	inputSize     int
	out           string
	resume        bool
	savePlan      string
	plots         string
	format        string
}

func newBenchCmd(a *app) *cobra.Command {
	f := &benchFlags{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure throughput and latency per precision",
		Long: `bench runs each model on random images in each precision and prints images/s, the time of single calls, and the
speed-up over FP32. Each figure of throughput is the median of --repeats runs of --duration, after --warmup; the least and
the most of them stand beside it. Latency is that of one call with its copies and no other in flight, as percentiles.

With --engine tensorrt each batch size has an engine of its own, built for it; throughput is measured without copies between
host and device and with them, from pinned memory, where run and evaluate have their batches too. GPU clocks, power and
temperature are read while it is. --devices measures one GPU, then two, four, and all of those named, and tells how
throughput scales. With ort, precisions are FP32 and INT8 as quantgate writes it, and --threads are the threads of a call;
FP16 is left out, since ONNX Runtime's CPU computes it in float32.

INT8 stands on --use-cache. Without it ranges come from a few random images: speed does not depend on them, and accuracy
would be meaningless.

Every figure is written to --out as soon as it is there, and the table is that of the whole file, so that it can be made in
several goes: figures of the same kind are replaced, or with --resume not measured again. Built plans are kept in the user's
cache folder.
quantgate report --bench FILE, and run --bench FILE, put the figures beside the accuracy.`,
		Example: `  quantgate bench --model resnet50.onnx --batch 1,8 --threads 1,2,4
  quantgate bench --engine tensorrt --model resnet50.onnx --use-cache resnet50.entropy.cache --batch 1,8,32,128 --noTF32
  quantgate bench --engine tensorrt --model resnet50.onnx --devices all --format markdown

  # the networks of the published comparisons, without their weights
  quantgate bench --engine tensorrt --network alexnet --network googlenet --network resnet50 --network resnet101 --network vgg19 --noTF32`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), a) },
	}
	f.register(cmd.Flags())
	completeFlags(cmd)
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(reports.ThroughputFormats(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (f *benchFlags) register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.models, "model", nil, "ONNX model to measure (repeatable)")
	fs.StringArrayVar(&f.networks, "network", nil, "network to build with random weights and to measure (repeatable): "+strings.Join(networks.Names(), ", "))
	fs.Uint64Var(&f.seed, "seed", 0, "seed of a network's random weights")
	fs.StringVar(&f.output, "output", "", "output of --model to compute, where it has several")
	fs.StringVar(&f.engine, "engine", "ort", "inference engine: ort (ONNX Runtime on the CPU) or tensorrt (an NVIDIA GPU)")
	fs.StringVar(&f.ortLibrary, "ort-library", "", "ONNX Runtime's shared library (default: $"+ort.EnvLibrary+", the project's own, the system's)")
	f.tensorrt.register(fs)
	_ = fs.MarkHidden("engine-batch") // every batch has its engine
	fs.StringVar(&f.batchList, "batch", "", "images a call, as a list such as 1,8,32,128 (default: 1, and 128 with tensorrt)")
	fs.StringVar(&f.precisionList, "precisions", "", "precisions to measure (default: fp32,int8, and fp32,fp16,int8 with tensorrt)")
	fs.StringVar(&f.threadList, "threads", "", "with ort: threads of a call, as a list such as 1,2,4 (default: one a core)")
	fs.IntVar(&f.parallel, "parallel", 0, "calls in flight for throughput with copies, on each GPU with tensorrt (default: as many as keep it busy; 1 with ort)")
	fs.DurationVar(&f.warmup, "warmup", 500*time.Millisecond, "time to run before measuring")
	fs.DurationVar(&f.duration, "duration", time.Second, "time of one repeat")
	fs.IntVar(&f.repeats, "repeats", 5, "repeats of each figure of throughput, 5 at least")
	fs.StringVar(&f.useCache, "use-cache", "", "calibration cache that INT8 stands on (default: ranges of random images, for speed only)")
	fs.IntVar(&f.inputSize, "input-size", defaultInputSize, "side of the images in `pixels` where a model leaves it open")
	fs.StringVar(&f.out, "out", "quantgate-bench.json", "`file` of results: those measured are added to it, and all of them printed")
	fs.BoolVar(&f.resume, "resume", false, "do not measure again what --out holds")
	fs.StringVar(&f.savePlan, "save-plan", "", "with tensorrt: `folder` to copy TensorRT's plans to, as <model>.<precision>.<batch>.plan (int8-fp16 with --int8-fp16)")
	fs.StringVar(&f.plots, "plots", "", "`folder` to write throughput.svg, and scaling.svg of several GPUs, to")
	fs.StringVar(&f.format, "format", string(reports.FormatText), strings.Join(reports.ThroughputFormats(), ", "))
}

// benchJob is what the flags ask for.
type benchJob struct {
	*benchFlags
	app        *app
	subjects   []*pipeline.Subject
	batches    []int
	precisions []string
	cache      []byte // content of --use-cache
	backend    engine.Backend
	group      *trt.Group     // nil on a CPU
	sensors    []bench.Sensor // of the group's GPUs; nil where they cannot be read
	counts     []int          // of devices, or of threads
	device     string
	results    bench.Results
}

func (f *benchFlags) run(ctx context.Context, a *app) error {
	if !slices.Contains(reports.ThroughputFormats(), f.format) {
		return fmt.Errorf("--format %q: want one of %s", f.format, strings.Join(reports.ThroughputFormats(), ", "))
	}
	b := &benchJob{benchFlags: f, app: a}
	if err := b.prepare(); err != nil {
		return err
	}
	for _, batch := range b.batches {
		for _, s := range b.subjects {
			for _, precision := range b.precisions {
				if err := b.measure(ctx, s, precision, batch); err != nil {
					if ctx.Err() != nil && errors.Is(err, context.Canceled) {
						return fmt.Errorf("what was measured is kept in %s; the same command with --resume continues: %w", f.out, context.Canceled)
					}
					return err
				}
			}
		}
	}
	return b.conclude()
}

// prepare checks everything that can be checked before the first engine is built, and opens the engine.
func (b *benchJob) prepare() error {
	if err := b.parse(); err != nil {
		return err
	}
	var err error
	if b.useCache != "" {
		if b.cache, err = os.ReadFile(b.useCache); err != nil {
			return fmt.Errorf("--use-cache: %w", err)
		}
	}
	if err := b.load(); err != nil {
		return err
	}
	if b.results, err = bench.Load(b.out); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--out: %w", err)
	}
	for _, dir := range []string{b.savePlan, b.plots, filepath.Dir(b.out)} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
	}
	if b.engine == "ort" {
		return b.openORT()
	}
	return b.openTensorRT()
}

// parse reads the flags and checks them by themselves.
func (b *benchJob) parse() error {
	tensorRT := b.engine == "tensorrt"
	switch {
	case b.engine != "ort" && !tensorRT:
		return fmt.Errorf("--engine %q: unknown engine: use ort or tensorrt", b.engine)
	case len(b.models)+len(b.networks) == 0:
		return errors.New("no model given: name one with --model FILE, or --network NAME")
	case len(b.models)+len(b.networks) > 1 && b.useCache != "":
		return errors.New("a calibration cache belongs to one model: give one model with --use-cache")
	case b.repeats < bench.MinRepeats:
		return fmt.Errorf("--repeats %d: at least %d are needed for a median with its spread", b.repeats, bench.MinRepeats)
	case b.duration <= 0 || b.warmup < 0:
		return fmt.Errorf("--duration %s and --warmup %s: give times such as 1s", b.duration, b.warmup)
	case b.parallel < 0:
		return fmt.Errorf("--parallel %d: must be at least 1, or 0 for the engine's own", b.parallel)
	case tensorRT && b.threadList != "":
		return errors.New("--threads is for --engine ort: on a GPU there is none to choose")
	case !tensorRT && b.tensorrt.devices != "":
		return errors.New("--devices is for --engine tensorrt: on a CPU choose --threads")
	case !tensorRT && b.savePlan != "":
		return errors.New("--save-plan is for --engine tensorrt: ONNX Runtime has no plans")
	}
	batches, precisions := "1", "fp32,int8"
	if tensorRT {
		batches, precisions = "128", "fp32,fp16,int8"
	}
	var err error
	if b.batches, err = parseCounts("batch", or(b.batchList, batches)); err != nil {
		return err
	}
	if b.precisions, err = parseSpeedPrecisions(or(b.precisionList, precisions), tensorRT); err != nil {
		return err
	}
	if !tensorRT {
		b.counts, err = parseCounts("threads", or(b.threadList, strconv.Itoa(runtime.GOMAXPROCS(0))))
	}
	return err
}

// load loads or builds the models.
func (b *benchJob) load() error {
	for _, path := range b.models {
		s, err := pipeline.LoadSubject(path, b.output)
		if err != nil {
			return err
		}
		b.subjects = append(b.subjects, s)
	}
	for _, name := range b.networks {
		m, err := networks.Build(name, networks.Options{Seed: b.seed})
		if err != nil {
			return fmt.Errorf("--network: %w", err)
		}
		s, err := pipeline.NewSubject(name, "", m)
		if err != nil {
			return err
		}
		b.subjects = append(b.subjects, s)
	}
	for i, s := range b.subjects {
		if b.savePlan != "" && slices.ContainsFunc(b.subjects[:i], func(x *pipeline.Subject) bool { return x.Name == s.Name }) {
			return fmt.Errorf("--save-plan %s: two models are called %s, and so would their plans be: measure them one at a time, into folders of their own", b.savePlan, s.Name)
		}
		for _, batch := range b.batches {
			if n := s.FixedBatch(); n > 0 && n != batch {
				return fmt.Errorf("--batch %d: model %s fixes its batch to %d", batch, s.Name, n)
			}
		}
	}
	return nil
}

func (b *benchJob) openORT() error {
	var err error
	b.device = cpuModel()
	b.backend, err = ort.New(ort.Options{Library: b.ortLibrary, Verbose: b.app.verbose})
	return err
}

// openTensorRT opens TensorRT on the GPUs, and what reads their clocks and power.
func (b *benchJob) openTensorRT() error {
	o, err := b.tensorrt.options(b.app, b.batches[0])
	if err != nil {
		return err
	}
	if b.group, err = b.tensorrt.group(o); err != nil {
		return err
	}
	b.backend, b.device = b.group, b.group.DeviceName()
	found, err := b.group.Sensors()
	if err != nil {
		b.app.ui.Warnf("GPU clocks, power and temperature are not known: %v", err)
	}
	for _, s := range found {
		b.sensors = append(b.sensors, gpuSensor{s})
	}
	for n := 1; n < b.group.Size(); n *= 2 {
		b.counts = append(b.counts, n)
	}
	b.counts = append(b.counts, b.group.Size())
	return nil
}

// measure fills in the figures of one engine: on each number of devices or threads.
func (b *benchJob) measure(ctx context.Context, s *pipeline.Subject, precision string, batch int) error {
	ranges := pipeline.Ranges{
		CacheFile: b.useCache, Cache: b.cache, Kept: b.kept(s),
		Random: func(shape tensor.Shape) (*tensor.Tensor, error) {
			return bench.Random(shape, int(shape[0]), b.image(), 2)
		},
	}
	basis := s.Basis(precision, ranges)
	var todo []bench.Result
	for _, n := range b.counts {
		r := bench.Result{Model: s.Name, Key: bench.Key{
			ModelSHA256: s.SHA256, Engine: bench.EngineFor(b.backend.Name()+" "+b.backend.Version(), precision), Device: b.device,
			Precision: precision, Batch: batch, Devices: 1, Ranges: basis, Settings: b.settings(s),
		}}
		if b.group != nil {
			r.Devices = n
		} else {
			r.Threads = n
		}
		r.Parallel = orInt(b.parallel*r.Devices, concurrency(b.on(r.Devices)))
		if b.resume && b.results.Find(r.Key) != nil {
			b.app.ui.Infof("%s: kept from %s", r.Title(), b.out)
			continue
		}
		todo = append(todo, r)
	}
	if len(todo) == 0 && b.savePlan == "" {
		return nil
	}
	m, o, err := s.Lower(ctx, b.backend, precision, ranges)
	if err != nil {
		return err
	}
	o.Batch = batch
	for _, r := range todo {
		if err := b.figure(ctx, m, o, r); err != nil {
			return fmt.Errorf("%s: %w", r.Title(), err)
		}
	}
	return b.keepPlan(s, m, o, precision)
}

// settings are those that decide speed beside what the key names, where they are not the defaults.
func (b *benchJob) settings(s *pipeline.Subject) string {
	var list []string
	add := func(name, value string) {
		if value != "" {
			list = append(list, name+" "+value)
		}
	}
	if b.group != nil {
		add("builder optimisation level", b.tensorrt.level)
		add("workspace", b.tensorrt.workspace)
		if t := b.tensorrt.timingCache; t != "" {
			add("timing cache", filepath.Base(t)) // it decides kernels; its content grows with each build, and its folder is the machine's
		}
	}
	if s.OpenSize() && b.inputSize != defaultInputSize {
		add("input size", strconv.Itoa(b.inputSize))
	}
	add("output", b.output)
	return strings.Join(list, ", ")
}

func (b *benchJob) image() [2]int64 { return [2]int64{int64(b.inputSize), int64(b.inputSize)} }

// kept is where TensorRT's cache of random images is kept for a model; "" where there is no place.
func (b *benchJob) kept(s *pipeline.Subject) string {
	dir, err := os.UserCacheDir()
	if err != nil || b.group == nil {
		return ""
	}
	return filepath.Join(dir, "quantgate", "bench", fmt.Sprintf("%s%s-%s.random.cache", s.SHA256[:16], url.PathEscape(b.output), b.group.LibraryVersion()))
}

// on is the engine on so many GPUs, or on the CPU.
func (b *benchJob) on(devices int) engine.Backend {
	if b.group == nil {
		return b.backend
	}
	return b.group.First(devices)
}

// concurrency is how many calls keep an engine busy; 1 where it does not tell.
func concurrency(b engine.Backend) int {
	if c, ok := b.(engine.Concurrent); ok {
		return c.Concurrency()
	}
	return 1
}

// figure measures one result and saves it.
func (b *benchJob) figure(ctx context.Context, m engine.Model, o engine.Options, r bench.Result) error {
	backend := b.on(r.Devices)
	o.Threads = r.Threads
	session, err := backend.Open(ctx, m, o)
	if err != nil {
		return err
	}
	defer session.Close()
	options := bench.Options{
		Batch: r.Batch, Devices: r.Devices, Parallel: r.Parallel, Warmup: b.warmup, Duration: b.duration, Repeats: b.repeats, Image: b.image(),
		Warn: func(err error) { b.app.ui.Warnf("%s: %v", r.Title(), err) },
	}
	options.Host, _ = backend.(engine.HostMemory) // nil where any memory serves alike
	if len(b.sensors) > 0 {
		options.Watch = func() func() *bench.Conditions {
			return bench.Watch(b.sensors[:r.Devices], 50*time.Millisecond, options.Warn)
		}
	}
	found, err := bench.Measure(ctx, session, options)
	if err != nil {
		return err
	}
	r.Compute, r.EndToEnd, r.Latency, r.Conditions = found.Compute, found.EndToEnd, found.Latency, found.Conditions
	if err := addLayers(&r, session); err != nil { // no reason to lose the figures
		b.app.ui.Warnf("%s: %v", r.Title(), err)
	}
	b.results = b.results.Add(r)
	b.app.ui.Infof("%s: %.1f images/s", r.Title(), r.Rate().Median)
	return bench.Save(b.out, b.results)
}

// addLayers notes what an engine's layers run in, where it tells.
func addLayers(r *bench.Result, s engine.Session) error {
	inspector, ok := s.(engine.Inspector)
	if !ok {
		return nil
	}
	layers, err := inspector.Layers()
	if err != nil {
		return err
	}
	r.Layers = map[string]int{}
	for _, l := range layers {
		if !l.Computes() {
			continue
		}
		r.Layers[l.Precision]++
		if r.Precision == pipeline.INT8 && l.Precision != string(engine.Int8) {
			r.Float = append(r.Float, bench.FloatLayer{Name: l.Name, Type: l.Type, Precision: l.Precision})
		}
	}
	return nil
}

// keepPlan copies TensorRT's plan to --save-plan.
func (b *benchJob) keepPlan(s *pipeline.Subject, m engine.Model, o engine.Options, precision string) error {
	if b.savePlan == "" {
		return nil
	}
	plan, err := b.group.Plan(m, o)
	if err != nil {
		return fmt.Errorf("--save-plan: %w", err)
	}
	if precision == pipeline.INT8 && b.tensorrt.int8fp16 {
		precision = "int8-fp16" // another engine, which may stand beside INT8's
	}
	path := filepath.Join(b.savePlan, fmt.Sprintf("%s.%s.%d.plan", s.Name, precision, o.Batch))
	if err := renameio.WriteFile(path, plan, 0o644); err != nil {
		return fmt.Errorf("--save-plan: %w", err)
	}
	return nil
}

// conclude prints the table and draws the plots.
func (b *benchJob) conclude() error {
	b.results.Sort()
	if err := bench.Save(b.out, b.results); err != nil {
		return err
	}
	files := []string{b.out}
	for _, w := range b.results.Warnings() {
		b.app.ui.Warnf("%s", w)
	}
	if b.plots != "" {
		for name, draw := range map[string]func(bench.Results) ([]byte, error){"throughput.svg": reports.ThroughputPlot, "scaling.svg": reports.ScalingPlot} {
			data, err := draw(b.results)
			if err != nil {
				return err
			}
			if data == nil {
				continue
			}
			path := filepath.Join(b.plots, name)
			if err := renameio.WriteFile(path, data, 0o644); err != nil {
				return fmt.Errorf("--plots: %w", err)
			}
			files = append(files, path)
		}
	}
	var out bytes.Buffer
	if err := reports.Throughput(&out, b.results, reports.Format(b.format)); err != nil {
		return err
	}
	if _, err := out.WriteTo(b.app.stdout); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	slices.Sort(files)
	b.app.wrote(files)
	return nil
}

// gpuSensor adapts a GPU's sensor to what bench wants.
type gpuSensor struct{ trt.Sensor }

func (s gpuSensor) Read() (bench.Reading, error) {
	r, err := s.Sensor.Read()
	return bench.Reading(r), err
}

// parseCounts reads a list of positive numbers.
func parseCounts(flag, list string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("--%s %q: %q is not a positive number: give a list such as 1,8,32", flag, list, part)
		}
		if slices.Contains(out, n) {
			return nil, fmt.Errorf("--%s %q: %d is named twice", flag, list, n)
		}
		out = append(out, n)
	}
	return out, nil
}

// parseSpeedPrecisions reads the precisions to measure.
func parseSpeedPrecisions(list string, tensorRT bool) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(list, ",") {
		p := strings.ToLower(strings.TrimSpace(part))
		switch {
		case p == pipeline.FP16 && !tensorRT:
			return nil, fmt.Errorf("--precisions %q: ONNX Runtime's CPU computes float16 models in float32, so their speed says nothing: leave fp16 out", list)
		case p != pipeline.FP32 && p != pipeline.FP16 && p != pipeline.INT8:
			return nil, fmt.Errorf("--precisions %q: unknown precision %q: use fp32, fp16, int8", list, p)
		case slices.Contains(out, p):
			return nil, fmt.Errorf("--precisions %q: %s is named twice", list, p)
		}
		out = append(out, p)
	}
	return out, nil
}
