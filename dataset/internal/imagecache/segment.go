package imagecache

import (
	"errors"
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
	if info.Size() == 0 {
		return nil, errors.New("damaged: empty")
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	return &segment{path: path, data: data}, nil
}

var pageSize = os.Getpagesize()

// read copies record n into dst and checks the copy.
func (s *segment) read(n int, crc uint32, dst []byte) error {
	at := n * len(dst)
	if err := guard(func() error { copy(dst, s.data[at:]); return nil }); err != nil {
		return err
	}
	// The pages stay in the system's cache, but do not pile up in this process, whose memory is to stay flat.
	_ = unix.Madvise(s.data[at-at%pageSize:at+len(dst)], unix.MADV_DONTNEED)
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
