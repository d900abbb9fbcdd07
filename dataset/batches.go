package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/google/renameio/v2"
)

// A batch file of NVIDIA's sampleINT8 holds, little-endian: int32 N, C, H, W; N*C*H*W float32; then, optionally, N float32
// labels. The files are called batch0, batch1, ...

// littleEndian says that memory holds values as batch files do.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// batchHeaderSize is the size of a batch file's header in bytes.
const batchHeaderSize = 16

// batchHeader is a batch file's header, checked against the file's size.
type batchHeader struct {
	n, c, h, w int
	labelled   bool
}

func (b batchHeader) image() int { return b.c * b.h * b.w }

// parseBatchHeader reads the header of a batch file of size bytes.
func parseBatchHeader(head []byte, size int64) (batchHeader, error) {
	if len(head) < batchHeaderSize {
		return batchHeader{}, fmt.Errorf("%w: batch file of %d bytes has no header", ErrFormat, len(head))
	}
	var v [4]int32
	image := int64(1)
	for i := range v {
		v[i] = int32(binary.LittleEndian.Uint32(head[4*i:]))
	}
	for i := range v {
		limit := int32(maxInputSize)
		if i == 0 {
			limit = math.MaxInt32
		}
		if v[i] < 1 || v[i] > limit {
			return batchHeader{}, fmt.Errorf("%w: batch file header says %dx%dx%dx%d", ErrFormat, v[0], v[1], v[2], v[3])
		}
		if i > 0 {
			image *= int64(v[i])
		}
	}
	b := batchHeader{n: int(v[0]), c: int(v[1]), h: int(v[2]), w: int(v[3])}
	n := int64(v[0])
	// Divisions, because the products could overflow.
	switch body := size - batchHeaderSize; {
	case body%(4*n) == 0 && body/(4*n) == image:
	case body%(4*n) == 0 && body/(4*n) == image+1:
		b.labelled = true
	default:
		return b, fmt.Errorf("%w: batch file of %d bytes does not hold the %dx%dx%dx%d float32 values of its header: it is damaged or cut",
			ErrFormat, size, b.n, b.c, b.h, b.w)
	}
	return b, nil
}

// batchNumber returns the number in a batch file's name.
func batchNumber(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, "batch")
	if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil
}

func isBatchName(name string) bool {
	_, ok := batchNumber(name)
	return ok
}

// batchFiles are the batch files of a folder in numeric order.
type batchFiles struct {
	dir   string
	files []string
	image int   // values an image
	file  []int // file of each image
	index []int // position in it
}

// openBatches opens a folder of batch files.
func openBatches(dir, labels string) (*contents, error) {
	if err := requireFolder(dir); err != nil {
		return nil, err
	}
	names, err := listBatches(dir)
	if err != nil {
		return nil, err
	}
	s := &batchFiles{dir: dir, files: names}
	c := &contents{format: Batches, stored: true, tensors: s}
	labelled := true
	for f, name := range names {
		b, classes, err := readBatchLabels(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
		}
		if f == 0 {
			c.channels, c.h, c.w, s.image = b.c, b.h, b.w, b.image()
		} else if b.c != c.channels || b.h != c.h || b.w != c.w {
			return nil, fmt.Errorf("%s: %w: images of %dx%dx%d, and of %dx%dx%d in %s", filepath.Join(dir, name), ErrFormat, b.c, b.h, b.w, c.channels, c.h, c.w, names[0])
		}
		labelled = labelled && b.labelled
		if !labelled && labels == "" {
			return nil, fmt.Errorf("%s: %w: the file holds no labels: give a file with one class a line (--labels)", filepath.Join(dir, name), ErrLabels)
		}
		for i := range b.n {
			c.paths = append(c.paths, fmt.Sprintf("%s#%d", name, i))
			s.file, s.index = append(s.file, f), append(s.index, i)
		}
		c.labels = append(c.labels, classes...)
	}
	if labels != "" {
		if labelled {
			return nil, fmt.Errorf("%s: %w: the batch files hold labels already: leave --labels out", dir, ErrLabels)
		}
		if c.labels, c.labelsDigest, err = readClasses(labels, len(c.paths)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// listBatches lists the batch files of a folder in numeric order.
func listBatches(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	names := map[int]string{}
	for _, e := range entries {
		n, ok := batchNumber(e.Name())
		if !ok {
			continue
		}
		if other, ok := names[n]; ok {
			return nil, fmt.Errorf("%s: %w: %s and %s have the same number", dir, ErrFormat, other, e.Name())
		}
		names[n] = e.Name()
		numbers = append(numbers, n)
	}
	if len(numbers) == 0 {
		return nil, fmt.Errorf("%s: %w: no batch files (batch0, batch1, ...)", dir, ErrEmpty)
	}
	slices.Sort(numbers)
	sorted := make([]string, len(numbers))
	for i, n := range numbers {
		if n != numbers[0]+i {
			return nil, fmt.Errorf("%s: %w: batch%d is missing", dir, ErrFormat, numbers[0]+i)
		}
		sorted[i] = names[n]
	}
	return sorted, nil
}

// readBatchLabels reads a batch file's header and labels, if it has any.
func readBatchLabels(name string) (b batchHeader, classes []int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return b, nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return b, nil, err
	}
	head := make([]byte, batchHeaderSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return b, nil, err
	}
	if b, err = parseBatchHeader(head[:n], info.Size()); err != nil || !b.labelled {
		return b, nil, err
	}
	raw := make([]byte, 4*b.n)
	if _, err := f.ReadAt(raw, info.Size()-int64(len(raw))); err != nil {
		return b, nil, err
	}
	classes, err = parseBatchLabels(raw)
	return b, classes, err
}

func parseBatchLabels(raw []byte) ([]int, error) {
	classes := make([]int, len(raw)/4)
	for i := range classes {
		v := math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		if !(v >= 0 && v <= maxClass) || v != float32(int(v)) {
			return nil, fmt.Errorf("%w: label %d is %v: not a class from 0 to %d", ErrLabels, i, v, maxClass)
		}
		classes[i] = int(v)
	}
	return classes, nil
}

// readClasses reads a file of n lines with one class each.
func readClasses(name string, n int) ([]int, string, error) {
	data, digest, err := readLabelFile(name)
	if err != nil {
		return nil, "", err
	}
	var classes []int
	err = eachLine(data, name, func(line int, text string) error {
		class, err := parseClass(text)
		if err != nil {
			return fmt.Errorf("%w: %s: line %d: %w", ErrLabels, name, line, err)
		}
		classes = append(classes, class)
		return nil
	})
	if err == nil && len(classes) != n {
		err = fmt.Errorf("%w: %s holds %d classes for %d images", ErrLabels, name, len(classes), n)
	}
	return classes, digest, err
}

// tensor implements tensorSource.
func (s *batchFiles) tensor(i int, dst []float32) error {
	name := filepath.Join(s.dir, s.files[s.file[i]])
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written
	// Read to where the values are wanted.
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), 4*len(dst))
	if _, err := f.ReadAt(raw, batchHeaderSize+int64(s.index[i])*int64(len(raw))); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: the file became shorter while it was read", ErrFormat)
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	if !littleEndian {
		for j := range dst {
			dst[j] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*j:]))
		}
	}
	return nil
}

// WriteBatches writes batches as sampleINT8's batch files batch0, batch1, ... with labels into a folder, which is made and
// must hold no batch file yet. A batch is not kept; the writer does not release it. It returns the number of files written:
// all of them or, with an error, none. They are written into a hidden folder inside and moved when the last one is complete.
func WriteBatches(dir string, batches iter.Seq2[*Batch, error]) (files int, err error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return 0, err
		}
		defer func() {
			if err != nil {
				_ = os.Remove(dir) // which leaves a folder alone that is not empty
			}
		}()
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if isBatchName(e.Name()) {
			return 0, fmt.Errorf("%s holds %s already: give an empty folder", dir, e.Name())
		}
	}
	unfinished, err := os.MkdirTemp(dir, ".unfinished-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(unfinished)) }()
	var buf []byte
	for b, err := range batches {
		if err != nil {
			return 0, err
		}
		if len(b.Items) == 0 {
			continue
		}
		buf = appendBatch(buf[:0], b)
		name := batchName(files)
		if err := renameio.WriteFile(filepath.Join(unfinished, name), buf, 0o666); err != nil {
			return 0, fmt.Errorf("writing %s: %w", filepath.Join(dir, name), err)
		}
		files++
	}
	for i := range files {
		name := filepath.Join(dir, batchName(i))
		if err := os.Rename(filepath.Join(unfinished, batchName(i)), name); err != nil {
			for j := range i {
				err = errors.Join(err, os.Remove(filepath.Join(dir, batchName(j))))
			}
			return 0, fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return files, nil
}

func batchName(i int) string { return "batch" + strconv.Itoa(i) }

// appendBatch appends a batch file's bytes to buf.
func appendBatch(buf []byte, b *Batch) []byte {
	for _, d := range b.X.Shape {
		buf = binary.LittleEndian.AppendUint32(buf, uint32(d))
	}
	for _, v := range b.X.Data {
		buf = appendFloat(buf, v)
	}
	for _, it := range b.Items {
		buf = appendFloat(buf, float32(it.Label))
	}
	return buf
}

func appendFloat(buf []byte, v float32) []byte {
	return binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
}
