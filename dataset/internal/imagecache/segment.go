package imagecache

import (
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// segment is a complete file, mapped into memory.
type segment struct {
	path string
	data []byte
	used atomic.Bool
	bad  atomic.Bool
	read atomic.Int64 // bytes since the mapping's pages were given back
}

func openSegment(path string) (*segment, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 { // which cannot be mapped, and which parse refuses
		return &segment{path: path}, nil
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap %s: %w", path, err)
	}
	return &segment{path: path, data: data}, nil
}

// residentLimit is how much is read from a segment before its pages are given back. The system keeps them cached, but in this
// process, whose memory is to stay flat, they must not pile up.
const residentLimit = 32 << 20

// get copies record n into dst and checks the copy.
func (s *segment) get(n int, crc uint32, dst []byte) error {
	if err := guard(func() error { copy(dst, s.data[n*len(dst):]); return nil }); err != nil {
		return err
	}
	if s.read.Add(int64(len(dst))) > residentLimit {
		s.read.Store(0)
		_ = unix.Madvise(s.data, unix.MADV_DONTNEED) // a hint; another goroutine that reads meanwhile maps its pages again
	}
	if crc32.Checksum(dst, castagnoli) != crc {
		return fmt.Errorf("damaged: wrong checksum of record %d", n)
	}
	return nil
}

// fault is what a goroutine with SetPanicOnFault panics with.
type fault interface {
	runtime.Error
	Addr() uintptr
}

// guard turns a fault on mapped memory, of a file that was cut or cannot be read, into an error.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case fault:
			err = fmt.Errorf("cannot be read: %w", r)
		default:
			panic(r)
		}
	}()
	return f()
}
