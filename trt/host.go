package trt

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"unsafe"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/trt/internal/cuda"
)

// errInUse says that memory was to be freed from which a batch is being copied.
var errInUse = errors.New("the memory is in use by a running batch")

// hostMemory is the pinned memory that callers of AllocHost hold. The backends of a group share it: what one GPU's driver context has
// pinned is pinned for all.
type hostMemory struct {
	mu     sync.Mutex
	blocks []*hostBlock
}

type hostBlock struct {
	start, end uintptr // of C's memory, which does not move
	users      int     // batches that are being copied from it
}

var (
	_ engine.HostMemory = (*Backend)(nil)
	_ engine.HostMemory = (*Group)(nil)
	_ engine.Concurrent = (*Backend)(nil)
	_ engine.Concurrent = (*Group)(nil)
)

// AllocHost returns pinned memory for n values. Freeing it while a batch is being copied from it is an error, and frees nothing.
func (b *Backend) AllocHost(n int) (values []float32, free func() error, err error) {
	if n < 1 || n > math.MaxInt/4 {
		return nil, nil, fmt.Errorf("host memory for %d values: at least 1, and no more than fit into memory", n)
	}
	p, err := b.device.NewHost(4 * n)
	if err != nil {
		return nil, nil, fmt.Errorf("pinned host memory: %w", err)
	}
	k := &hostBlock{start: uintptr(p), end: uintptr(p) + uintptr(4*n)}
	b.host.mu.Lock()
	defer b.host.mu.Unlock()
	b.host.blocks = append(b.host.blocks, k)
	return unsafe.Slice((*float32)(p), n), func() error { return b.host.free(b.device, k, p) }, nil
}

// AllocHost returns memory that is pinned for every GPU.
func (g *Group) AllocHost(n int) (values []float32, free func() error, err error) {
	return g.all[0].AllocHost(n)
}

func (h *hostMemory) free(d *cuda.Device, k *hostBlock, p unsafe.Pointer) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(h.blocks, k)
	if i < 0 {
		return nil // freed already
	}
	if k.users > 0 {
		return errInUse
	}
	h.blocks = slices.Delete(h.blocks, i, i+1)
	return d.FreeHost(p)
}

// use finds the block that x lies in wholly and keeps it from being freed until done; nil where x is other memory.
func (h *hostMemory) use(x []float32) *hostBlock {
	if len(x) == 0 {
		return nil
	}
	start := uintptr(unsafe.Pointer(unsafe.SliceData(x)))
	end := start + uintptr(4*len(x))
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.blocks {
		if k.start <= start && end <= k.end {
			k.users++
			return k
		}
	}
	return nil
}

func (h *hostMemory) done(k *hostBlock) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k.users--
}

// Concurrency is twice as many batches as are in flight at once: while those compute and are copied, the next ones wait and the last ones'
// results are looked at.
func (b *Backend) Concurrency() int { return 2 * lanes }

// Concurrency is that of every GPU together.
func (g *Group) Concurrency() int {
	n := 0
	for _, b := range g.all {
		n += b.Concurrency()
	}
	return n
}
