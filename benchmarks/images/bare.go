package main

/*
typedef void *(*init_fn)(void);
typedef int (*header_fn)(void *handle, const unsigned char *jpeg, unsigned long size, int *width, int *height, int *sampling, int *space);
typedef int (*decompress_fn)(void *handle, const unsigned char *jpeg, unsigned long size, unsigned char *dst,
	int width, int pitch, int height, int format, int flags);

static void *bare_init(void *f) { return ((init_fn)f)(); }
static int bare_header(void *f, void *handle, const unsigned char *jpeg, unsigned long size, int *width, int *height) {
	int sampling, space;
	return ((header_fn)f)(handle, jpeg, size, width, height, &sampling, &space);
}
// 4096 is TJFLAG_ACCURATEDCT, Pillow's DCT; RGB is format 0.
static int bare_decode(void *f, void *handle, const unsigned char *jpeg, unsigned long size, unsigned char *dst, int width, int height) {
	return ((decompress_fn)f)(handle, jpeg, size, dst, width, 0, height, 0, 4096);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/internal/dl"
)

// bare decodes files in memory to RGB with libjpeg-turbo and nothing else: what it takes is the least that a decoder on that
// library can take.
type bare struct {
	decompress, handle unsafe.Pointer
	files              [][]byte
	w, h               []C.int
	pix                []byte
}

func newBare(paths []string) (*bare, error) {
	var lib *dl.Library
	var tried []error
	names := dataset.JPEGLibraries()
	if name := os.Getenv(dataset.JPEGLibraryEnv); name != "" {
		names = []string{name}
	}
	for _, name := range names {
		var err error
		if lib, err = dl.Open(name); err == nil {
			break
		}
		tried = append(tried, err)
	}
	if lib == nil {
		return nil, errors.Join(tried...)
	}
	var found [3]unsafe.Pointer
	for i, symbol := range []string{"tjInitDecompress", "tjDecompressHeader3", "tjDecompress2"} {
		var err error
		if found[i], err = lib.Symbol(symbol); err != nil {
			return nil, err
		}
	}
	b := &bare{decompress: found[2], handle: C.bare_init(found[0])}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var w, h C.int
		if C.bare_header(found[1], b.handle, (*C.uchar)(&data[0]), C.ulong(len(data)), &w, &h) != 0 {
			return nil, fmt.Errorf("%s: libjpeg-turbo cannot read its header", path)
		}
		b.files, b.w, b.h = append(b.files, data), append(b.w, w), append(b.h, h)
		if n := 3 * int(w) * int(h); n > len(b.pix) {
			b.pix = make([]byte, n)
		}
	}
	return b, nil
}

// run decodes every file, repeats times over.
func (b *bare) run(repeats int) error {
	for range repeats {
		for i, data := range b.files {
			if C.bare_decode(b.decompress, b.handle, (*C.uchar)(&data[0]), C.ulong(len(data)), (*C.uchar)(&b.pix[0]), b.w[i], b.h[i]) != 0 {
				return fmt.Errorf("file %d: libjpeg-turbo cannot decode it", i)
			}
		}
	}
	return nil
}
