package dataset

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/quantgate/quantgate/internal/digest"
)

// idxUint8 is the type code of bytes in an IDX header (http://yann.lecun.com/exdb/mnist: 0, 0, type, number of dimensions,
// then each dimension as a big-endian uint32).
const idxUint8 = 0x08

// idxImagesName matches names such as train-images-idx3-ubyte.gz and t10k-images.idx3-ubyte.
var idxImagesName = regexp.MustCompile(`(?i)^(.*)images([-._])idx3([-._]ubyte)?(\.gz)?$`)

func isIDXImages(name string) bool { return idxImagesName.MatchString(name) }

// idxHeader is an IDX file's header.
type idxHeader struct {
	dims []int
	size int // of the header in bytes
}

// count is the number of bytes after the header.
func (h idxHeader) count() int {
	n := 1
	for _, d := range h.dims {
		n *= d
	}
	return n
}

// readIDXHeader reads the header of an IDX file of bytes with the given number of dimensions.
func readIDXHeader(r io.Reader, dims int) (idxHeader, error) {
	h := idxHeader{size: 4 + 4*dims}
	buf := make([]byte, h.size)
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the file ends inside its header")
		}
		return h, fmt.Errorf("%w: IDX: %w", ErrFormat, err)
	}
	switch {
	case buf[0] != 0 || buf[1] != 0:
		return h, fmt.Errorf("%w: not an IDX file: it starts with % x", ErrFormat, buf[:4])
	case buf[2] != idxUint8:
		return h, fmt.Errorf("%w: IDX element type 0x%02x: only bytes (0x08) are read", ErrFormat, buf[2])
	case int(buf[3]) != dims:
		return h, fmt.Errorf("%w: IDX file of %d dimensions: expected %d", ErrFormat, buf[3], dims)
	}
	total := uint64(1)
	for i := range dims {
		d := binary.BigEndian.Uint32(buf[4+4*i:])
		if d > 1<<31-1 || i > 0 && (d == 0 || d > maxInputSize) {
			return h, fmt.Errorf("%w: IDX dimension %d is %d", ErrFormat, i, d)
		}
		total *= uint64(d)
		if total > 1<<40 {
			return h, fmt.Errorf("%w: IDX file of %d bytes or more", ErrFormat, total)
		}
		h.dims = append(h.dims, int(d))
	}
	return h, nil
}

// idxFile is an opened IDX file: its values, wherever they are.
type idxFile struct {
	idxHeader
	name string
	data io.ReaderAt // the whole file, unpacked
	file *os.File    // nil where the data are in memory
}

// openIDXFile opens an IDX file; a gzipped one is unpacked into memory.
func openIDXFile(name string, dims int) (x *idxFile, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	x = &idxFile{name: name, data: f, file: f}
	defer func() {
		if err != nil || x.file == nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	magic := make([]byte, 2)
	if _, err := f.ReadAt(magic, 0); err == nil && magic[0] == 0x1F && magic[1] == 0x8B {
		data, err := gunzip(f, dims)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		x.data, x.file, size = bytes.NewReader(data), nil, int64(len(data))
	}
	if x.idxHeader, err = readIDXHeader(io.NewSectionReader(x.data, 0, size), dims); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if want := int64(x.size) + int64(x.count()); size != want {
		return nil, fmt.Errorf("%s: %w: IDX header promises %d bytes and the file has %d: it is damaged or cut", name, ErrFormat, want, size)
	}
	return x, nil
}

// gunzip unpacks an IDX file, reading no more than one byte beyond what its header promises.
func gunzip(f io.Reader, dims int) ([]byte, error) {
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%w: gzip: %w", ErrFormat, err)
	}
	var head bytes.Buffer
	h, err := readIDXHeader(io.TeeReader(z, &head), dims)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(&head, io.LimitReader(z, int64(h.count())+1)); err != nil {
		return nil, fmt.Errorf("%w: gzip: %w", ErrFormat, err)
	}
	return head.Bytes(), nil
}

func (x *idxFile) Close() error {
	if x.file == nil {
		return nil
	}
	return x.file.Close()
}

// pixels implements rasterSource.
func (x *idxFile) pixels(i int, dst []byte) error {
	if _, err := x.data.ReadAt(dst, int64(x.size)+int64(i)*int64(len(dst))); err != nil {
		return fmt.Errorf("%s: %w", x.name, err)
	}
	return nil
}

// openIDX opens a pair of IDX files.
func openIDX(images, labels string) (c *contents, err error) {
	if info, err := os.Stat(images); err != nil {
		return nil, err
	} else if info.IsDir() {
		if images, err = findIDXImages(images); err != nil {
			return nil, err
		}
	}
	if labels == "" {
		if labels, err = findIDXLabels(images); err != nil {
			return nil, err
		}
	}
	y, err := openIDXFile(labels, 1)
	if err != nil {
		return nil, err
	}
	classes := make([]byte, y.dims[0])
	err = y.pixels(0, classes)
	if err = errors.Join(err, y.Close()); err != nil {
		return nil, err
	}
	labelsDigest, err := digest.File(labels)
	if err != nil {
		return nil, err
	}
	imagesDigest, err := digest.File(images)
	if err != nil {
		return nil, err
	}
	x, err := openIDXFile(images, 3)
	if err != nil {
		return nil, err
	}
	if x.dims[0] != len(classes) {
		err := fmt.Errorf("%w: %s holds %d images and %s %d labels: they are not a pair", ErrLabels, images, x.dims[0], labels, len(classes))
		return nil, errors.Join(err, x.Close())
	}
	c = &contents{
		format: IDX, stored: true, channels: 1, h: x.dims[1], w: x.dims[2],
		raster: x, closer: x, labelsDigest: labelsDigest, imagesDigest: imagesDigest,
	}
	base := filepath.Base(images)
	for i, class := range classes {
		c.paths, c.labels = append(c.paths, fmt.Sprintf("%s#%d", base, i)), append(c.labels, int(class))
	}
	return c, nil
}

// findIDXImages finds the only images file in a folder.
func findIDXImages(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var found []string
	for _, e := range entries {
		if isIDXImages(e.Name()) {
			found = append(found, e.Name())
		}
	}
	switch len(found) {
	case 1:
		return filepath.Join(dir, found[0]), nil
	case 0:
		return "", fmt.Errorf("%s: %w: no IDX images file such as t10k-images-idx3-ubyte.gz: name it (--images)", dir, ErrEmpty)
	}
	return "", fmt.Errorf("%s holds several IDX images files (%s): name one (--images)", dir, some(found))
}

// findIDXLabels finds the labels file beside an images file, by MNIST's names.
func findIDXLabels(images string) (string, error) {
	dir, base := filepath.Split(images)
	m := idxImagesName.FindStringSubmatch(base)
	if m == nil {
		return "", fmt.Errorf("%w: the name of %s does not tell its labels file: name it (--labels)", ErrLabels, images)
	}
	stem := m[1] + "labels" + m[2] + "idx1" + m[3]
	for _, name := range []string{stem + m[4], stem + ".gz", stem} {
		labels := filepath.Join(dir, name)
		if _, err := os.Stat(labels); err == nil {
			return labels, nil
		}
	}
	return "", fmt.Errorf("%w: %s has no %s beside it: name its labels file (--labels)", ErrLabels, images, strings.TrimSuffix(stem+m[4], ".gz")+"[.gz]")
}
