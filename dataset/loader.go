package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quantgate/quantgate/dataset/internal/imagecache"
	"github.com/quantgate/quantgate/internal/meter"
	"github.com/quantgate/quantgate/tensor"
)

// LoadOptions tune a Loader.
type LoadOptions struct {
	// Preprocess makes the inputs. Of a Preprocessed source only Channels and InputSize are looked at, and only where they
	// are not 0: they must be the stored size.
	Preprocess Preprocess
	// BatchSize is the number of images a batch, at least 1.
	BatchSize int
	// Workers is the number of goroutines that decode; 0 means one a CPU.
	Workers int
	// MaxBad is the number of unreadable images that are skipped; one more is an error. 0 skips none.
	MaxBad int
	// Ahead is the number of batches decoded ahead of the consumer; 0 means 2.
	Ahead int
	// Memory is where batches lie, each in one of the slices, which hold BatchSize images; batches beyond them lie in Go's memory. The loader
	// and its batches use it until the loader is closed and every batch is released.
	Memory [][]float32
}

func (o LoadOptions) ahead() int {
	if o.Ahead == 0 {
		return 2
	}
	return o.Ahead
}

// InFlight is the number of batches that there are at most while the consumer holds so many: those ahead, one that is handed out and one that
// waits to be dispatched.
func (o LoadOptions) InFlight(held int) int { return o.ahead() + held + 2 }

// BadImage is an image that was skipped.
type BadImage struct {
	Item Item
	Err  error
}

// Batch is a number of images as one tensor.
type Batch struct {
	// Index counts the loader's batches from 0.
	Index int
	// Items are the images in X, in its order.
	Items []Item
	// X has the shape N,C,H,W with N = len(Items), which may be 0 where every image was skipped.
	X *tensor.Tensor
	// Bad lists the images that were asked for and are not in X.
	Bad []BadImage

	loader  *Loader
	asked   []Item
	errs    []error
	pending atomic.Int32
	done    chan struct{} // holds one value when every image is in
}

// Loader decodes images ahead of its consumer and yields them as batches in the order of its ids. Next may be called from one
// goroutine at a time; the batches may be used and released anywhere.
type Loader struct {
	d       *Dataset
	ids     []int
	o       LoadOptions
	c, h, w int
	err     error // found before the first batch

	cancel context.CancelFunc
	ctx    context.Context
	order  chan *Batch // dispatched batches; its capacity bounds what is decoded ahead
	jobs   chan job
	wg     sync.WaitGroup
	bad    int
	spent  meter.Meter
	cache  *imagecache.Cache // nil: every image is decoded

	mu   sync.Mutex // guards free
	free []*Batch   // whose memory the next batches take
}

type job struct {
	b *Batch
	i int
}

// Load starts to decode the items with the given ids. There are no more batches than LoadOptions.InFlight says. An error of the options is
// returned by the first Next. The loader must be closed.
func (d *Dataset) Load(ctx context.Context, ids []int, o LoadOptions) *Loader {
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	o.Ahead = o.ahead()
	l := &Loader{d: d, ids: ids, o: o}
	l.ctx, l.cancel = context.WithCancel(ctx)
	if l.err = l.prepare(); l.err != nil {
		return l
	}
	l.cache = d.openCache(o.Preprocess)
	l.order = make(chan *Batch, o.Ahead)
	l.jobs = make(chan job, o.Workers)
	for _, memory := range o.Memory {
		b := l.newBatch()
		b.X.Data = memory[:0]
		l.free = append(l.free, b)
	}
	l.wg.Add(1 + o.Workers)
	go l.dispatch()
	for range o.Workers {
		go l.work()
	}
	return l
}

// prepare checks the options and fixes the batches' shape.
func (l *Loader) prepare() error {
	o := &l.o
	switch {
	case o.BatchSize < 1:
		return fmt.Errorf("batch size %d: give at least 1 (--batch-size)", o.BatchSize)
	case o.Workers < 0 || o.Ahead < 0 || o.MaxBad < 0:
		return fmt.Errorf("workers %d, batches ahead %d, unreadable images %d: none may be negative", o.Workers, o.Ahead, o.MaxBad)
	}
	for _, id := range l.ids {
		if id < 0 || id >= len(l.d.items) {
			return fmt.Errorf("image id %d: the data set has %d images", id, len(l.d.items))
		}
	}
	p := o.Preprocess
	if l.d.tensors != nil {
		l.c, l.h, l.w = l.d.channels, l.d.h, l.d.w
		if p.Channels != 0 && p.Channels != l.c {
			return fmt.Errorf("batch files hold %d channels and the model takes %d", l.c, p.Channels)
		}
		if p.InputSize != 0 && (p.InputSize != l.h || p.InputSize != l.w) {
			return fmt.Errorf("batch files hold images of %dx%d and the model takes %dx%d (height x width)", l.h, l.w, p.InputSize, p.InputSize)
		}
		return nil
	}
	if err := p.Validate(); err != nil {
		return err
	}
	l.c, l.h, l.w = p.Channels, p.InputSize, p.InputSize
	return nil
}

// dispatch hands out the images, batch after batch.
func (l *Loader) dispatch() {
	defer l.wg.Done()
	defer close(l.order)
	defer close(l.jobs)
	for index, from := 0, 0; from < len(l.ids); index, from = index+1, from+l.o.BatchSize {
		b := l.batch(index, l.ids[from:min(from+l.o.BatchSize, len(l.ids))])
		select {
		case l.order <- b:
		case <-l.ctx.Done():
			return
		}
		for i := range b.asked {
			select {
			case l.jobs <- job{b, i}:
			case <-l.ctx.Done():
				return
			}
		}
	}
}

// batch returns an empty batch for ids, with the memory of a released one where there is any.
func (l *Loader) batch(index int, ids []int) *Batch {
	b := l.recycled()
	n := len(ids)
	b.Index, b.Items, b.Bad = index, nil, nil
	b.X.Resize(int64(n), int64(l.c), int64(l.h), int64(l.w))
	b.asked, b.errs = b.asked[:0], b.errs[:0]
	for _, id := range ids {
		b.asked, b.errs = append(b.asked, l.d.items[id]), append(b.errs, nil)
	}
	b.pending.Store(int32(n))
	return b
}

func (l *Loader) newBatch() *Batch {
	return &Batch{loader: l, X: &tensor.Tensor{}, done: make(chan struct{}, 1)}
}

// recycled is the batch released last, whose memory is the likeliest to be in a cache, or a new one.
func (l *Loader) recycled() *Batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.free)
	if n == 0 {
		return l.newBatch()
	}
	b := l.free[n-1]
	l.free = l.free[:n-1]
	return b
}

// work decodes images until there are no more.
func (l *Loader) work() {
	defer l.wg.Done()
	w := newWorker(l.d, l.o.Preprocess)
	w.cache = l.cache
	defer w.close()
	for j := range l.jobs {
		if l.ctx.Err() == nil {
			span := l.spent.Begin()
			j.b.errs[j.i] = w.load(j.b.asked[j.i].ID, j.b.X.Row(j.i))
			span.End(1)
		}
		if j.b.pending.Add(-1) == 0 {
			j.b.done <- struct{}{}
		}
	}
}

// Next returns the next batch, which may be shorter than the batch size at the end or where images were skipped. It returns
// io.EOF after the last one. Any other error, which names the file that caused it or is a context's, ends the loader.
// Batches, errors and skipped images do not depend on the number of workers.
func (l *Loader) Next(ctx context.Context) (*Batch, error) {
	if l.err != nil {
		return nil, l.err
	}
	b, err := l.next(ctx)
	if err != nil {
		l.err = err
		l.cancel()
		return nil, err
	}
	return b, nil
}

func (l *Loader) next(ctx context.Context) (*Batch, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := l.ctx.Err(); err != nil {
		return nil, err
	}
	var b *Batch
	select {
	case b = <-l.order:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if b == nil {
		if err := l.ctx.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	}
	if err := l.ctx.Err(); err != nil { // the workers leave images out from then on
		return nil, err
	}
	return b, l.settle(b)
}

// settle takes the images that could not be read out of a finished batch.
func (l *Loader) settle(b *Batch) error {
	n := 0
	for i, err := range b.errs {
		if err == nil {
			if n != i {
				copy(b.X.Row(n), b.X.Row(i))
				b.asked[n], b.asked[i] = b.asked[i], b.asked[n]
			}
			n++
			continue
		}
		l.bad++
		switch {
		case l.o.MaxBad == 0:
			return err
		case l.bad > l.o.MaxBad:
			return fmt.Errorf("%w: %d are allowed, and the next is %w", ErrTooManyBad, l.o.MaxBad, err)
		}
		b.Bad = append(b.Bad, BadImage{b.asked[i], err})
	}
	b.Items = b.asked[:n]
	if n < len(b.asked) {
		b.X.Resize(int64(n), int64(l.c), int64(l.h), int64(l.w))
	}
	return nil
}

// All yields the remaining batches and then, unless the images ended, the error. Each batch is released when the next is asked for.
func (l *Loader) All(ctx context.Context) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		for {
			b, err := l.Next(ctx)
			if errors.Is(err, io.EOF) || !yield(b, err) || err != nil {
				return
			}
			b.Release()
		}
	}
}

// Release gives the batch's memory back to its loader; the batch and its tensor must not be used afterwards. A batch that is
// never released is left to the garbage collector.
func (b *Batch) Release() {
	l := b.loader
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, b)
}

// Spent is what the workers have done so far: on how many images, how long it took them, summed over all, and how much of a processor
// they had, 0 where the system does not tell it.
func (l *Loader) Spent() (images int, elapsed, cpu time.Duration) {
	w := l.spent.Total()
	return w.Count, w.Elapsed, w.CPU
}

// Close stops decoding and waits for the workers. It may be called at any time from the goroutine that calls Next, and twice.
func (l *Loader) Close() error {
	l.cancel()
	l.wg.Wait()
	if l.cache != nil {
		l.d.closeCache(l.cache)
		l.cache = nil
	}
	return nil
}
