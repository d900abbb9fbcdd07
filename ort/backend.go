// Package ort is the engine.Backend on ONNX Runtime's CPU provider. The library is loaded when New is called and stays loaded.
//
// All arithmetic is ONNX Runtime's own; denormals are kept. A session computes with Options.Threads threads that do not spin while they
// wait. On amd64 an image gives the same bits alone and in any batch, with one thread and with two: tests hold that. ONNX Runtime does not
// promise it, so results that must not depend on the batch are computed one image a call, which is also the fastest: several images a
// call miss the caches. One call a core at a time uses the machine best. Sessions share one arena that grows by what is asked for, so
// memory is flat once every batch shape has been seen.
package ort

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	onnxruntime "github.com/yalue/onnxruntime_go"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
)

// Options choose the library.
type Options struct {
	// Library is the library's file or folder; "" searches as Probe says.
	Library string
	// Verbose lets ONNX Runtime print its own warnings on stderr. Otherwise it prints nothing: its errors come back as Go errors.
	Verbose bool
}

// Backend opens sessions on ONNX Runtime. It is safe for concurrent use.
type Backend struct {
	path    string
	version string
}

var _ engine.Optimizer = (*Backend)(nil)

// environment is ONNX Runtime's one environment, shared by all backends of the process.
var environment struct {
	sync.Mutex
	backend *Backend // nil until the first New that succeeds
}

// New finds and starts ONNX Runtime. The first call decides which library the process uses: a later call that names another file fails.
// The error is one line, wraps engine.ErrUnavailable, and says what was tried and how to get the library.
func New(o Options) (*Backend, error) {
	environment.Lock()
	defer environment.Unlock()
	if b := environment.backend; b != nil && o.Library == "" {
		return b, setVerbose(o.Verbose)
	}
	if err := errors.Join(silence(), returnLarge()); err != nil {
		return nil, err
	}
	facts := Probe(o.Library)
	if facts.Err != nil {
		return nil, facts.Err
	}
	if b := environment.backend; b != nil {
		if b.path != facts.Path {
			return nil, fmt.Errorf("ONNX Runtime is already loaded from %s: a process cannot use %s too", b.path, facts.Path)
		}
		return b, setVerbose(o.Verbose)
	}
	onnxruntime.SetSharedLibraryPath(facts.Path)
	if err := onnxruntime.InitializeEnvironment(logLevel(o.Verbose)); err != nil {
		return nil, fmt.Errorf("%s: ONNX Runtime %s does not start: %s; %s: %w",
			facts.Path, facts.Version, oneLine(err.Error()), Remedy, engine.ErrUnavailable)
	}
	if err := shareArena(); err != nil {
		_ = onnxruntime.DestroyEnvironment()
		return nil, fmt.Errorf("%s: ONNX Runtime %s: memory arena: %s: %w", facts.Path, facts.Version, oneLine(err.Error()), engine.ErrUnavailable)
	}
	environment.backend = &Backend{path: facts.Path, version: facts.Version}
	return environment.backend, nil
}

// EnvTelemetry is ONNX Runtime's own: Microsoft's builds from 1.29 on report each session and its model to Microsoft, and keep an identifier and
// a database in the user's cache folder, unless it is 1 before the library starts (its pull request 27379).
const EnvTelemetry = "ORT_DISABLE_TELEMETRY"

// silence turns telemetry off, for this process and those that it starts; a value that the user has set stays.
func silence() error {
	if _, chosen := os.LookupEnv(EnvTelemetry); chosen {
		return nil
	}
	return os.Setenv(EnvTelemetry, "1")
}

func logLevel(verbose bool) onnxruntime.EnvironmentOption {
	if verbose {
		return onnxruntime.WithLogLevelWarning()
	}
	return onnxruntime.WithLogLevelFatal()
}

func setVerbose(verbose bool) error {
	level := onnxruntime.LoggingLevel(onnxruntime.LoggingLevelFatal)
	if verbose {
		level = onnxruntime.LoggingLevelWarning
	}
	return onnxruntime.SetEnvironmentLogLevel(level)
}

// shareArena registers the one allocator that every session uses. It grows by what is requested instead of by powers of two.
func shareArena() error {
	const sameAsRequested = 1
	cfg, err := onnxruntime.NewArenaCfg(0, sameAsRequested, -1, -1)
	if err != nil {
		return err
	}
	defer cfg.Destroy()
	info, err := onnxruntime.GetMemoryInfo()
	if err != nil {
		return err
	}
	return onnxruntime.CreateAndRegisterAllocator(info, cfg)
}

// Name returns "ort".
func (b *Backend) Name() string { return "ort" }

// Version returns ONNX Runtime's version, for example "1.30.0".
func (b *Backend) Version() string { return b.version }

// Library returns the file that ONNX Runtime was loaded from.
func (b *Backend) Library() string { return b.path }

// Open loads a model. It has one input, of float32 or float16, whose outermost dimension is the batch; the chosen outputs are float32 or
// float16. A model whose batch is fixed runs any number of images, in pieces of its own size.
func (b *Backend) Open(ctx context.Context, m engine.Model, o engine.Options) (engine.Session, error) {
	s, err := b.open(ctx, m, o, "")
	if err != nil {
		return nil, err
	}
	return s, nil
}

// open is Open; ONNX Runtime's form of the model goes to the file optimized, unless that is "".
func (b *Backend) open(ctx context.Context, m engine.Model, o engine.Options, optimized string) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Precision != engine.AsStated {
		return nil, openError(m, fmt.Errorf("ONNX Runtime computes a model as it states: it cannot lower it to %s", o.Precision))
	}
	ins, outs, err := describe(m)
	if err != nil {
		return nil, openError(m, err)
	}
	input, err := engine.OneInput(ins)
	if err != nil {
		return nil, openError(m, err)
	}
	outputs, err := engine.ChooseOutputs(outs, o.Outputs)
	if err != nil {
		return nil, openError(m, err)
	}
	if err := checkFloat16(input, outputs); err != nil {
		return nil, openError(m, err)
	}
	s := &session{model: modelName(m), input: input, outputs: outputs}
	if err := s.load(m, o, optimized); err != nil {
		return nil, openError(m, err)
	}
	return s, nil
}

// OpenOptimized is Open, and returns ONNX Runtime's own form of the model: folded, fused, and in the layout of this processor's vector
// registers. ONNX Runtime hands it out as a file, which passes through the folder for temporary files.
func (b *Backend) OpenOptimized(ctx context.Context, m engine.Model, o engine.Options) (_ engine.Session, optimized []byte, err error) {
	dir, err := os.MkdirTemp("", "quantgate-ort-")
	if err != nil {
		return nil, nil, openError(m, err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // the system clears its folder for temporary files
	path := filepath.Join(dir, "optimized.onnx")
	s, err := b.open(ctx, m, o, path)
	if err != nil {
		return nil, nil, err
	}
	if optimized, err = os.ReadFile(path); err != nil {
		return nil, nil, errors.Join(openError(m, err), s.Close())
	}
	return s, optimized, nil
}

// checkFloat16 refuses float16 outputs that cannot be bound to memory of a known size: onnxruntime_go returns half the bytes of a
// float16 output that ONNX Runtime allocates.
func checkFloat16(input engine.Port, outputs []engine.Port) error {
	for _, p := range outputs {
		if p.DType != tensor.Float16 {
			continue
		}
		if p.Name == input.Name {
			return fmt.Errorf("float16 output %q is the model's input: choose other outputs", p.Name)
		}
		if len(p.Shape) == 0 {
			return fmt.Errorf("float16 output %q has no declared dimensions: declare them in the model", p.Name)
		}
		if _, err := p.Shape[1:].Elems(); err != nil {
			return fmt.Errorf("float16 output %q has the shape %s where only the batch may be open: fix the others in the model", p.Name, p.Shape)
		}
	}
	return nil
}

// modelName is what messages call the model.
func modelName(m engine.Model) string {
	switch {
	case m.Name != "":
		return m.Name
	case m.Path != "":
		return m.Path
	default:
		return "(unnamed)"
	}
}

func openError(m engine.Model, err error) error {
	return fmt.Errorf("model %s: %w", modelName(m), err)
}

// describe asks ONNX Runtime for the model's inputs and outputs, by loading it once: without optimising it, where that can be asked for.
func describe(m engine.Model) (ins, outs []engine.Port, err error) {
	switch {
	case m.Data != nil:
		if path, done, err := memoryFile(m.Data); err == nil {
			defer done()
			if ins, outs, err = describeFile(path); err == nil {
				return ins, outs, nil
			}
		}
		// No such files here, or a fault of the model, which this tells without the file's name.
		i, o, err := onnxruntime.GetInputOutputInfoWithONNXData(m.Data)
		return ports(i), ports(o), ortError(err)
	case m.Path != "":
		if _, err := os.Stat(m.Path); err != nil {
			return nil, nil, err
		}
		return describeFile(m.Path)
	}
	return nil, nil, errors.New("neither bytes nor a path were given")
}

func describeFile(path string) (ins, outs []engine.Port, err error) {
	opts, err := sessionOptions(engine.Options{NoFusion: true})
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = opts.Destroy() }()
	i, o, err := onnxruntime.GetInputOutputInfoWithOptions(path, opts)
	return ports(i), ports(o), ortError(err)
}

func ports(infos []onnxruntime.InputOutputInfo) []engine.Port {
	out := make([]engine.Port, len(infos))
	for i, info := range infos {
		p := engine.Port{Name: info.Name, Shape: tensor.Shape{}}
		if info.OrtValueType == onnxruntime.ONNXTypeTensor {
			p.DType = dtype(info.DataType)
		}
		for _, d := range info.Dimensions {
			p.Shape = append(p.Shape, max(d, tensor.Dynamic))
		}
		out[i] = p
	}
	return out
}

var dtypes = map[onnxruntime.TensorElementDataType]tensor.DType{
	onnxruntime.TensorElementDataTypeFloat:    tensor.Float32,
	onnxruntime.TensorElementDataTypeFloat16:  tensor.Float16,
	onnxruntime.TensorElementDataTypeBFloat16: tensor.BFloat16,
	onnxruntime.TensorElementDataTypeDouble:   tensor.Float64,
	onnxruntime.TensorElementDataTypeInt8:     tensor.Int8,
	onnxruntime.TensorElementDataTypeUint8:    tensor.Uint8,
	onnxruntime.TensorElementDataTypeInt16:    tensor.Int16,
	onnxruntime.TensorElementDataTypeUint16:   tensor.Uint16,
	onnxruntime.TensorElementDataTypeInt32:    tensor.Int32,
	onnxruntime.TensorElementDataTypeUint32:   tensor.Uint32,
	onnxruntime.TensorElementDataTypeInt64:    tensor.Int64,
	onnxruntime.TensorElementDataTypeUint64:   tensor.Uint64,
	onnxruntime.TensorElementDataTypeBool:     tensor.Bool,
	onnxruntime.TensorElementDataTypeString:   tensor.String,
}

// dtype maps ONNX Runtime's element type; one that quantgate has no name for is Undefined.
func dtype(t onnxruntime.TensorElementDataType) tensor.DType { return dtypes[t] }
