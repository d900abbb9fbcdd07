package trt

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/x448/float16"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
	"github.com/quantgate/quantgate/trt/internal/cuda"
	"github.com/quantgate/quantgate/trt/internal/nvinfer"
)

// lanes is how many batches are in flight at once: while one computes, another is copied.
const lanes = 2

// Session is one engine on the GPU. Run may be called from many goroutines; as many as there are lanes work at once.
type Session struct {
	b       *Backend
	name    string
	engine  *nvinfer.Engine
	input   engine.Port
	outputs []engine.Port
	most    int  // the largest batch
	float32 bool // nothing but float32 was allowed

	mu     sync.RWMutex // held for reading by Run, for writing by Close
	closed bool
	free   chan *lane
	all    []*lane
	pieces sync.Pool // *engine.Pieces

	copying, computing atomic.Int64 // what Run took for either, in nanoseconds
}

var (
	_ engine.Inspector = (*Session)(nil)
	_ engine.Copier    = (*Session)(nil)
)

// lane is what one batch in flight needs.
type lane struct {
	context *nvinfer.Context
	stream  cuda.Stream
	in      *cuda.Buffer
	out     []*cuda.Buffer
	batch   int // that the context is set to
	shapes  []tensor.Shape
	marks   [4]cuda.Event // before the upload, the engine and the download, and after
}

func elementSize(d tensor.DType) int {
	if d == tensor.Float16 {
		return 2
	}
	return 4
}

// toBuffer writes values to a buffer's host side, which is there, in the port's type.
func toBuffer(b *cuda.Buffer, d tensor.DType, x []float32) {
	if d != tensor.Float16 {
		copy(b.Floats(), x)
		return
	}
	h := b.Halves()
	for i, v := range x {
		h[i] = float16.Fromfloat32(v).Bits()
	}
}

func fromBuffer(x []float32, b *cuda.Buffer, d tensor.DType) {
	if d != tensor.Float16 {
		copy(x, b.Floats())
		return
	}
	h := b.Halves()
	for i := range x {
		x[i] = float16.Frombits(h[i]).Float32()
	}
}

// newSession makes a session of an engine, which it frees, also where it fails. The calling thread is bound to the device.
func newSession(b *Backend, name string, e *nvinfer.Engine, o engine.Options) (*Session, error) {
	s := &Session{b: b, name: name, engine: e, free: make(chan *lane, lanes)}
	if err := s.prepare(o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Session) prepare(o engine.Options) error {
	ins, outs := split(s.engine.Ports())
	var err error
	if s.input, err = engine.OneInput(ins); err != nil {
		return err
	}
	if s.outputs, err = engine.ChooseOutputs(outs, o.Outputs); err != nil {
		return err
	}
	s.float32 = o.Precision == engine.AsStated && s.input.DType == tensor.Float32
	s.most = s.b.batch(o)
	if n := s.input.Shape[0]; n != tensor.Dynamic {
		s.most = int(n)
	}
	count := lanes
	if !s.b.has86() && s.input.Shape[0] == tensor.Dynamic {
		count = 1 // 8.5 gives a profile to one context only
	}
	for range count {
		l, err := s.newLane()
		if err != nil {
			return err
		}
		s.free <- l
	}
	return nil
}

// newLane makes a lane, known to the session from the start so that Close frees what there is of it.
func (s *Session) newLane() (*lane, error) {
	l := &lane{}
	s.all = append(s.all, l)
	var err error
	if l.context, err = s.engine.NewContext(); err != nil {
		return nil, err
	}
	if l.stream, err = s.b.device.NewStream(); err != nil {
		return nil, err
	}
	for i := range l.marks {
		if l.marks[i], err = s.b.device.NewEvent(); err != nil {
			return nil, err
		}
	}
	width, err := s.input.Shape[1:].Elems()
	if err != nil {
		return nil, err
	}
	if l.in, err = s.buffer(l, s.input, s.most*width); err != nil {
		return nil, err
	}
	if err := s.setBatch(l, s.most); err != nil {
		return nil, err
	}
	for i, p := range s.outputs {
		n, err := l.shapes[i].Elems()
		if err != nil {
			return nil, fmt.Errorf("output %q has the shape %s, which depends on more than the batch: choose other outputs", p.Name, l.shapes[i])
		}
		b, err := s.buffer(l, p, n)
		if err != nil {
			return nil, err
		}
		l.out = append(l.out, b)
		if err := b.Host(); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// buffer allocates device memory for n values of a port and binds it.
func (s *Session) buffer(l *lane, p engine.Port, n int) (*cuda.Buffer, error) {
	b, err := s.b.device.NewBuffer(max(n, 1) * elementSize(p.DType))
	if err != nil {
		return nil, err
	}
	return b, l.context.SetAddress(p.Name, b.Address)
}

// setBatch tells the lane's context how many images come next.
func (s *Session) setBatch(l *lane, n int) error {
	if l.batch == n {
		return nil
	}
	if err := l.context.SetInputShape(s.input.Name, withBatch(s.input.Shape, n)); err != nil {
		return err
	}
	l.shapes = l.shapes[:0]
	for _, p := range s.outputs {
		l.shapes = append(l.shapes, l.context.Shape(p.Name))
	}
	l.batch = n
	return nil
}

// Inputs returns the model's input.
func (s *Session) Inputs() []engine.Port { return clonePorts([]engine.Port{s.input}) }

// Outputs returns the chosen outputs.
func (s *Session) Outputs() []engine.Port { return clonePorts(s.outputs) }

func clonePorts(ps []engine.Port) []engine.Port {
	out := make([]engine.Port, len(ps))
	for i, p := range ps {
		p.Shape = p.Shape.Clone()
		out[i] = p
	}
	return out
}

// Layers tells which layers the engine has and in which precision each runs.
func (s *Session) Layers() ([]engine.Layer, error) {
	text, err := s.Inspect()
	if err != nil {
		return nil, err
	}
	layers, err := parseLayers(text)
	for i := range layers {
		if layers[i].Precision == unknown && s.float32 {
			layers[i].Precision = "fp32"
		}
	}
	return layers, err
}

// Inspect returns what TensorRT tells of the engine at its largest batch, as JSON.
func (s *Session) Inspect() (string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return "", fmt.Errorf("model %s: %w", s.name, engine.ErrClosed)
	}
	l := <-s.free // a lane is busy for one batch at most
	defer func() { s.free <- l }()
	var text string
	err := s.onDevice(l, s.most, func() (err error) {
		text, err = s.engine.Inspect(l.context)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("model %s: %w", s.name, err)
	}
	return text, nil
}

// Run computes one batch; one larger than the engine's goes in pieces.
func (s *Session) Run(ctx context.Context, in *tensor.Tensor, out []*tensor.Tensor) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return fmt.Errorf("model %s: %w", s.name, engine.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := engine.CheckRun(s.input, len(s.outputs), in, out)
	if err == nil {
		err = s.runBatch(ctx, in, out)
	}
	if err != nil {
		return fmt.Errorf("model %s: %w", s.name, err)
	}
	return nil
}

func (s *Session) runBatch(ctx context.Context, in *tensor.Tensor, out []*tensor.Tensor) error {
	n := int(in.Shape[0])
	if n == s.most || n < s.most && s.input.Shape[0] == tensor.Dynamic {
		return s.runOnce(ctx, in, out)
	}
	p, _ := s.pieces.Get().(*engine.Pieces)
	if p == nil {
		p = &engine.Pieces{}
	}
	defer s.pieces.Put(p)
	return p.RunPieces(ctx, int64(s.most), s.outputs, in, out, func(in *tensor.Tensor, out []*tensor.Tensor) error {
		return s.runOnce(ctx, in, out)
	})
}

// fill copies a batch to the host side of the lane's memory, which is allocated for the first one.
func (s *Session) fill(l *lane, x []float32) error {
	if err := l.in.Host(); err != nil {
		return err
	}
	toBuffer(l.in, s.input.DType, x)
	return nil
}

// runOnce runs a batch that fits the engine: to the device, from the batch's own memory if that is AllocHost's and the model takes float32,
// compute, back. It returns when the device is done with all of the memory, or has failed.
func (s *Session) runOnce(ctx context.Context, in *tensor.Tensor, out []*tensor.Tensor) error {
	l, err := s.lane(ctx)
	if err != nil {
		return err
	}
	defer func() { s.free <- l }()
	began := time.Now()
	var pinned *hostBlock
	if s.input.DType == tensor.Float32 {
		pinned = s.b.host.use(in.Data)
	}
	if pinned != nil {
		defer s.b.host.done(pinned)
	} else if err := s.fill(l, in.Data); err != nil {
		return fmt.Errorf("batch %s: %w", in.Shape, err)
	}
	filled := time.Since(began)

	mark := func(i int) error { return s.b.device.Record(l.marks[i], l.stream) }
	if err := s.onDevice(l, int(in.Shape[0]), func() error {
		if err := mark(0); err != nil {
			return err
		}
		var err error
		if pinned != nil {
			err = l.in.UploadFrom(unsafe.Pointer(unsafe.SliceData(in.Data)), 4*len(in.Data), l.stream)
		} else {
			err = l.in.Upload(len(in.Data)*elementSize(s.input.DType), l.stream)
		}
		if err != nil {
			return err
		}
		if err := mark(1); err != nil {
			return err
		}
		if err := l.context.Enqueue(uint64(l.stream)); err != nil {
			return err
		}
		if err := mark(2); err != nil {
			return err
		}
		for i, p := range s.outputs {
			n, err := l.shapes[i].Elems()
			if err != nil {
				return err
			}
			out[i].Resize(l.shapes[i]...)
			if err := l.out[i].Download(n*elementSize(p.DType), l.stream); err != nil {
				return err
			}
		}
		return mark(3)
	}); err != nil {
		return fmt.Errorf("batch %s: %w", in.Shape, err)
	}
	began = time.Now()
	for i, p := range s.outputs {
		fromBuffer(out[i].Data, l.out[i], p.DType)
	}
	return s.note(l, filled+time.Since(began))
}

// note adds up what a batch that is done took: host is what the copies between Go's memory and the pinned one did.
func (s *Session) note(l *lane, host time.Duration) error {
	var steps [3]time.Duration // upload, engine, download
	for i := range steps {
		var err error
		if steps[i], err = s.b.device.Between(l.marks[i], l.marks[i+1]); err != nil {
			return err
		}
	}
	s.copying.Add(int64(host + steps[0] + steps[2]))
	s.computing.Add(int64(steps[1]))
	return nil
}

// Spent is what the runs so far took for copies between host and device, and what the engine took, without waiting for one another.
func (s *Session) Spent() (copying, computing time.Duration) {
	return time.Duration(s.copying.Load()), time.Duration(s.computing.Load())
}

// onDevice queues work on a lane that is set to n images and waits for it, also where queueing fails: the buffers are in use until then.
func (s *Session) onDevice(l *lane, n int, queue func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := s.b.device.Bind(); err != nil {
		return err
	}
	if err := s.setBatch(l, n); err != nil {
		return s.b.log.reason(err)
	}
	err := queue()
	return errors.Join(s.b.log.reason(err), s.b.device.Wait(l.stream))
}

// Fill puts a batch of the engine's largest size into the memory of every batch in flight, for Repeat.
func (s *Session) Fill(ctx context.Context, in *tensor.Tensor) error {
	return s.held(func() error {
		if err := engine.CheckRun(s.input, 0, in, nil); err != nil {
			return err
		}
		if n := int(in.Shape[0]); n != s.most {
			return fmt.Errorf("the engine's batch is %d images, given %d: %w", s.most, n, engine.ErrShape)
		}
		for range s.all { // a lane that was used goes to the end of the queue
			l, err := s.lane(ctx)
			if err != nil {
				return err
			}
			if err = s.fill(l, in.Data); err == nil {
				err = s.onDevice(l, s.most, func() error { return l.in.Upload(len(in.Data)*elementSize(s.input.DType), l.stream) })
			}
			s.free <- l
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Repeat runs n batches of the engine's largest size on what lies in a lane's memory, without copies, and returns when all are done: what
// the session itself costs beside the engine is in it.
func (s *Session) Repeat(ctx context.Context, n int) error {
	return s.held(func() error {
		l, err := s.lane(ctx)
		if err != nil {
			return err
		}
		defer func() { s.free <- l }()
		return s.onDevice(l, s.most, func() error {
			for i := range n {
				if err := ctx.Err(); err != nil && i%64 == 0 {
					return err
				}
				if err := l.context.Enqueue(uint64(l.stream)); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// held keeps the session open while f works; an error names the model.
func (s *Session) held(f func() error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	err := engine.ErrClosed
	if !s.closed {
		err = f()
	}
	if err != nil {
		return fmt.Errorf("model %s: %w", s.name, err)
	}
	return nil
}

// lane waits for a free one.
func (s *Session) lane(ctx context.Context) (*lane, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case l := <-s.free:
		return l, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close frees the engine and its memory. It waits for calls of Run to end.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := s.b.device.Bind()
	for _, l := range s.all {
		if l.context != nil {
			l.context.Free()
		}
		for _, b := range append(l.out, l.in) {
			if b != nil {
				err = errors.Join(err, b.Free())
			}
		}
		for _, e := range l.marks {
			if e != 0 {
				err = errors.Join(err, s.b.device.FreeEvent(e))
			}
		}
		if l.stream != 0 {
			err = errors.Join(err, s.b.device.FreeStream(l.stream))
		}
	}
	s.engine.Free()
	return err
}
