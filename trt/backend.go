package trt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
	"github.com/quantgate/quantgate/trt/internal/cuda"
	"github.com/quantgate/quantgate/trt/internal/nvinfer"
)

// Backend builds engines and opens sessions on one GPU. It is safe for concurrent use; builds go one at a time, so that kernels are
// timed undisturbed.
type Backend struct {
	opts   Options
	lib    *nvinfer.Library
	device *cuda.Device
	log    *relay
	logger *nvinfer.Logger
	plans  plans
	host   *hostMemory // shared by a group's backends

	building sync.Mutex
	builder  *nvinfer.Builder // made at the first build, which takes seconds
	runtime  *nvinfer.Runtime
}

var _ engine.Quantizer = (*Backend)(nil)

// Remedy ends every message about missing libraries.
const Remedy = "install TensorRT 8.5, 8.6 or 10 and NVIDIA's driver, or name the folder of the libraries in " + EnvLibrary

// New opens TensorRT and a GPU. The error is one line, carries the loader's own text, and wraps engine.ErrUnavailable where a library or
// a GPU is missing.
func New(o Options) (*Backend, error) { return newBackend(o, nil) }

// newBackend is New that shares the log, the plans and the pinned memory of a backend on another GPU, if one is given: TensorRT keeps one logger a process, and
// messages of the others would be lost.
func newBackend(o Options, first *Backend) (*Backend, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("TensorRT: %w", err)
	}
	lib, _, err := nvinfer.Open(o.folder())
	if err != nil {
		return nil, fmt.Errorf("TensorRT is not usable: %s; %s: %w", oneLine(err), Remedy, engine.ErrUnavailable)
	}
	driver, err := cuda.Open(driverFile(o.folder()))
	if err != nil {
		return nil, fmt.Errorf("TensorRT %s is here, but no GPU is usable: %s; %s: %w", lib.Version, oneLine(err), Remedy, engine.ErrUnavailable)
	}
	device, err := driver.Use(o.Device)
	if err != nil {
		return nil, fmt.Errorf("device %d: %s: %w", o.Device, oneLine(err), engine.ErrUnavailable)
	}
	if first != nil {
		return &Backend{opts: o, lib: lib, device: device, log: first.log, logger: first.logger, plans: first.plans, host: first.host}, nil
	}
	b := &Backend{opts: o, lib: lib, device: device, log: newRelay(o), host: &hostMemory{}}
	b.plans = openPlans(o, b.log)
	b.logger = nvinfer.NewLogger(b.log.most(), b.log.message)
	return b, nil
}

// driverFile is a driver that lies in the libraries' folder, or "".
func driverFile(folder string) string { return fileIn(folder, cuda.FileName) }

func fileIn(folder, name string) string {
	if folder == "" {
		return ""
	}
	path := filepath.Join(folder, name)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// Name returns "tensorrt".
func (b *Backend) Name() string { return "tensorrt" }

// Version returns what decides results: TensorRT's version, the GPU's name, and the options that change arithmetic.
func (b *Backend) Version() string {
	v := b.lib.Version.String() + " on " + b.device.Name
	if b.opts.NoTF32 {
		v += ", no TF32"
	}
	if b.opts.INT8FP16 {
		v += ", " + engine.Int8WithHalf
	}
	if b.opts.TacticSources != "" {
		v += ", tactic sources " + b.opts.TacticSources
	}
	return v
}

// LibraryVersion returns TensorRT's version alone, for example "8.6.1": the one in its calibration caches.
func (b *Backend) LibraryVersion() string { return b.lib.Version.String() }

// Memory is the GPU's free memory and all of it, in bytes.
func (b *Backend) Memory() (free, total uint64, err error) { return b.device.Free() }

// batch is the largest batch that an engine takes at once, where the model does not fix it.
func (b *Backend) batch(o engine.Options) int {
	if o.Batch > 0 {
		return o.Batch
	}
	return max(b.opts.Batch, 1)
}

func modelName(m engine.Model) string {
	switch {
	case m.Name != "":
		return m.Name
	case m.Path != "":
		return m.Path
	}
	return "(unnamed)"
}

// Open builds a model's engine, or takes the plan of an earlier build, and loads it.
func (b *Backend) Open(ctx context.Context, m engine.Model, o engine.Options) (engine.Session, error) {
	s, err := b.open(ctx, m, o)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", modelName(m), err)
	}
	return s, nil
}

func (b *Backend) open(ctx context.Context, m engine.Model, o engine.Options) (*Session, error) {
	s, _, err := b.openPlan(ctx, m, o)
	return s, err
}

// openPlan is open that gives the plan too, which other GPUs of the kind can load.
func (b *Backend) openPlan(ctx context.Context, m engine.Model, o engine.Options) (*Session, *plan, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	switch o.Precision {
	case engine.AsStated, engine.Half, engine.Int8:
	default:
		return nil, nil, fmt.Errorf("unknown precision %q", o.Precision)
	}
	if kept := b.kept(m, o); kept != nil {
		s, err := b.load(modelName(m), kept, o)
		if err == nil {
			return s, kept, nil
		}
		b.log.note(LevelWarn, fmt.Sprintf("%s: the kept plan does not load, building it anew: %v", modelName(m), err))
	}
	built, err := b.build(ctx, m, o, nil)
	if err != nil {
		return nil, nil, err
	}
	b.keep(m, o, built)
	s, err := b.load(modelName(m), built, o)
	return s, built, err
}

// Plan returns the plan that is kept of a model, as TensorRT serialised it, for other programs to load.
func (b *Backend) Plan(m engine.Model, o engine.Options) ([]byte, error) {
	if kept := b.kept(m, o); kept != nil {
		return kept.data, nil
	}
	return nil, fmt.Errorf("model %s: no plan of it is kept", modelName(m))
}

// Calibrate builds an INT8 engine with TensorRT's own calibrator and returns the cache exactly as TensorRT wrote it. The plan is kept, so
// that opening the model with that cache builds nothing.
func (b *Backend) Calibrate(ctx context.Context, m engine.Model, c engine.Calibration) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k := &calibration{b: b, ctx: ctx, Calibration: c}
	o := engine.Options{Precision: engine.Int8, Outputs: c.Outputs}
	built, err := b.build(ctx, m, o, k)
	if err != nil {
		return nil, fmt.Errorf("model %s: calibrate: %w", modelName(m), err)
	}
	o.Cache = k.written
	b.keep(m, o, built)
	return k.written, nil
}

// build makes a plan. k feeds a calibrator; without one, INT8 stands on the options' cache or on the model's own Q/DQ pairs.
func (b *Backend) build(ctx context.Context, m engine.Model, o engine.Options, k *calibration) (built *plan, err error) {
	b.building.Lock()
	defer b.building.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := b.device.Bind(); err != nil {
		return nil, err
	}
	b.log.reset()
	defer b.log.summary()
	defer func() { err = b.log.reason(err) }()
	if b.builder == nil {
		if b.builder, err = b.lib.NewBuilder(b.logger); err != nil {
			return nil, err
		}
		b.lib.InitPlugins(b.logger)
	}

	network, err := b.builder.NewNetwork()
	if err != nil {
		return nil, err
	}
	parser, err := b.lib.NewParser(network, b.logger)
	if err != nil {
		network.Free()
		return nil, err
	}
	defer parser.Free()
	defer network.Free()
	if err := parse(parser, m); err != nil {
		return nil, err
	}
	input, outputs, err := choose(network, o.Outputs)
	if err != nil {
		return nil, err
	}

	config, err := b.builder.NewConfig()
	if err != nil {
		return nil, err
	}
	defer config.Free()
	if err := b.configure(config, input, o, k); err != nil {
		return nil, err
	}
	path := b.plans.timingPath(b)
	earlier := b.plans.timings(path)
	timing, err := b.setTimings(config, earlier)
	if err != nil {
		b.log.note(LevelWarn, fmt.Sprintf("kernel timings in %s are not used: %v", path, err))
		earlier = nil
		if timing, err = config.SetTimingCache(nil); err != nil {
			return nil, err
		}
	}
	defer timing.Free()

	calibrator, err := b.calibrator(input, o, k)
	if err != nil {
		return nil, err
	}
	if calibrator != nil {
		defer calibrator.Free()
		if k != nil {
			defer k.free()
		}
		config.SetCalibrator(calibrator)
	}
	if b.lib.CanMonitor() {
		monitor := b.lib.NewMonitor(nvinfer.Watch{
			Phase: func(name, _ string, steps int) {
				b.log.note(LevelDebug, fmt.Sprintf("%s: %s (%d steps)", modelName(m), name, steps))
			},
			Step: func(string, int) bool { return ctx.Err() == nil && (k == nil || !k.failed.Load()) },
		})
		defer monitor.Free()
		config.SetMonitor(monitor)
	}

	began := time.Now()
	b.log.note(LevelInfo, fmt.Sprintf("%s: building TensorRT's engine", modelName(m)))
	data, err := b.builder.Build(network, config)
	// What went wrong in Go comes first: TensorRT only knows that there were no more batches, or that it was told to stop.
	if calibrator != nil && calibrator.Err() != nil {
		return nil, calibrator.Err()
	}
	if k != nil && k.err != nil {
		return nil, k.err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	if k != nil && k.written == nil {
		return nil, errors.New("TensorRT built the engine without writing a calibration cache")
	}
	b.log.note(LevelInfo, fmt.Sprintf("%s: built in %.1f s", modelName(m), time.Since(began).Seconds()))
	if timings, err := timing.Bytes(); err == nil {
		b.plans.storeTimings(path, earlier, timings)
	}
	return &plan{outputs, data}, nil
}

// setTimings gives a build the timings of earlier ones. What TensorRT says about them is no matter for warnings: 8.5 and 8.6 call the part
// for fused subgraphs an error ("Myelin error from unknown graph") whenever there is one, and use the rest.
func (b *Backend) setTimings(config *nvinfer.Config, timings []byte) (*nvinfer.TimingCache, error) {
	b.log.hush(true)
	defer b.log.hush(false)
	return config.SetTimingCache(timings)
}

func parse(p *nvinfer.Parser, m engine.Model) error {
	switch {
	case m.Data != nil:
		if len(m.Data) == 0 {
			return errors.New("the model is empty")
		}
		return p.Parse(m.Data, m.Path)
	case m.Path != "":
		if _, err := os.Stat(m.Path); err != nil {
			return err
		}
		return p.Parse(nil, m.Path)
	}
	return errors.New("neither bytes nor a path were given")
}

// choose checks the network's inputs, drops the outputs that were not asked for, and returns the input and the outputs in order.
func choose(n *nvinfer.Network, wanted []string) (engine.Port, []string, error) {
	ports := n.Ports()
	ins, outs := split(ports)
	input, err := engine.OneInput(ins)
	if err != nil {
		return engine.Port{}, nil, err
	}
	for i, d := range input.Shape[1:] {
		if d < 0 {
			return engine.Port{}, nil, fmt.Errorf("input %q has the shape %s: only the batch may be open, fix dimension %d in the model", input.Name, input.Shape, i+1)
		}
	}
	chosen, err := engine.ChooseOutputs(outs, wanted)
	if err != nil {
		return engine.Port{}, nil, err
	}
	var names []string
	for _, p := range chosen {
		names = append(names, p.Name)
	}
	for _, p := range ports {
		if !p.Input && !slices.Contains(names, p.Name) {
			n.Drop(p)
		}
	}
	return input, names, nil
}

func split(ports []nvinfer.Port) (ins, outs []engine.Port) {
	for _, p := range ports {
		port := engine.Port{Name: p.Name, DType: p.DType, Shape: p.Shape}
		if p.Input {
			ins = append(ins, port)
		} else {
			outs = append(outs, port)
		}
	}
	return ins, outs
}

// withBatch is a port's shape for batches of n.
func withBatch(s tensor.Shape, n int) tensor.Shape {
	s = s.Clone()
	s[0] = int64(n)
	return s
}

// tf32 reports whether an engine may round float32 products to TF32.
func (b *Backend) tf32(o engine.Options) bool { return !b.opts.NoTF32 && !o.NoFusion && !o.NoTF32 }

// configure sets everything but the calibrator.
func (b *Backend) configure(c *nvinfer.Config, input engine.Port, o engine.Options, k *calibration) error {
	c.Detailed()
	if !b.tf32(o) {
		c.NoTF32()
	}
	switch o.Precision {
	case engine.Half:
		c.SetFP16()
	case engine.Int8:
		c.SetINT8()
		if b.opts.INT8FP16 {
			c.SetFP16()
		}
	case engine.AsStated:
		if input.DType == tensor.Float16 { // a float16 model needs the flag to run at all
			c.SetFP16()
		}
	}
	if b.opts.Workspace > 0 {
		c.SetWorkspace(b.opts.Workspace)
	}
	if b.opts.TacticSources != "" {
		mask, err := tactics(b.opts.TacticSources, c.TacticSources())
		if err != nil {
			return err
		}
		if err := c.SetTacticSources(mask); err != nil {
			return err
		}
	}
	if b.has86() {
		c.ShareProfiles()
		if b.opts.Leveled {
			c.SetLevel(b.opts.Level)
		}
	} else if b.opts.Leveled {
		return fmt.Errorf("TensorRT %s has no builder optimisation level: 8.6 and later have", b.lib.Version)
	}
	if input.Shape[0] != tensor.Dynamic {
		return nil
	}
	set := func(smallest, largest int) (*nvinfer.Profile, error) {
		p, err := b.builder.NewProfile()
		if err != nil {
			return nil, err
		}
		most := withBatch(input.Shape, largest)
		return p, p.SetBatch(input.Name, withBatch(input.Shape, smallest), most, most)
	}
	p, err := set(1, b.batch(o))
	if err != nil {
		return err
	}
	if err := c.AddProfile(p); err != nil {
		return err
	}
	if o.Precision != engine.Int8 || k == nil && o.Cache == nil {
		return nil
	}
	n := b.batch(o)
	if k != nil {
		n = max(k.Batch, 1)
	}
	if p, err = set(n, n); err != nil {
		return err
	}
	return c.SetCalibrationProfile(p)
}

// has86 reports whether the builder has what 8.6 added.
func (b *Backend) has86() bool { return b.lib.Version.Major > 8 || b.lib.Version.Minor >= 6 }

// calibrator makes the calibrator of a build: one that feeds batches, one that only reads a cache, or none.
func (b *Backend) calibrator(input engine.Port, o engine.Options, k *calibration) (*nvinfer.Calibrator, error) {
	if k != nil {
		return k.calibrator(input)
	}
	if o.Precision != engine.Int8 || o.Cache == nil {
		return nil, nil
	}
	algorithm, err := algorithmOf(o.Cache, b.lib.Version)
	if err != nil {
		return nil, err
	}
	return b.lib.NewCalibrator(algorithm, b.batch(o), nvinfer.Source{
		Batch: func(string) (uint64, bool) {
			b.log.note(LevelWarn, "TensorRT did not accept the calibration cache: it asked for a batch")
			return 0, false
		},
		Read:  func() []byte { return o.Cache },
		Write: func([]byte) {},
	}), nil
}

// load makes a session from a plan. An engine lists its outputs in an order of its own.
func (b *Backend) load(name string, p *plan, o engine.Options) (*Session, error) {
	o.Outputs = p.outputs
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := b.device.Bind(); err != nil {
		return nil, err
	}
	b.building.Lock()
	defer b.building.Unlock()
	b.log.reset()
	if b.runtime == nil {
		r, err := b.lib.NewRuntime(b.logger)
		if err != nil {
			return nil, b.log.reason(err)
		}
		b.runtime = r
	}
	e, err := b.runtime.Engine(p.data)
	if err != nil {
		return nil, b.log.reason(err)
	}
	s, err := newSession(b, name, e, o)
	return s, b.log.reason(err)
}
