// Command fashionmnist writes the default validation set: 50,000 labelled images of Fashion-MNIST that the models in
// testdata/models were not trained on, as one IDX pair. They are the 10,000 test images, then training images 0..39,999.
package main

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// keepTrain is how many of the training images, from the first, belong to the validation set.
const keepTrain = 40000

// classes are the names of labels 0..9, as the data set's own README lists them.
const classes = `T-shirt/top
Trouser
Pullover
Dress
Coat
Sandal
Shirt
Sneaker
Bag
Ankle boot
`

func main() {
	source := flag.String("source", "/usr/share/datasets/fashion-mnist", "folder with the four gzipped IDX files of Fashion-MNIST")
	out := flag.String("out", ".data/fashion-mnist", "folder to write to")
	flag.Parse()
	if err := write(*source, *out, keepTrain); err != nil {
		fmt.Fprintln(os.Stderr, "fashionmnist:", err)
		os.Exit(1)
	}
}

// write makes the IDX pair and the list of class names in out, each file whole or not at all.
func write(source, out string, keep int) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	files := []struct{ suffix, name string }{
		{"images-idx3-ubyte.gz", "val50000-images-idx3-ubyte"},
		{"labels-idx1-ubyte.gz", "val50000-labels-idx1-ubyte"},
	}
	for _, f := range files {
		test, err := readIDX(filepath.Join(source, "t10k-"+f.suffix))
		if err != nil {
			return err
		}
		train, err := readIDX(filepath.Join(source, "train-"+f.suffix))
		if err != nil {
			return err
		}
		joined, err := join(test, train, keep)
		if err != nil {
			return fmt.Errorf("join %s of %s: %w", f.suffix, source, err)
		}
		if err := renameio.WriteFile(filepath.Join(out, f.name), joined.bytes(), 0o644); err != nil {
			return err
		}
	}
	return renameio.WriteFile(filepath.Join(out, "classes.txt"), []byte(classes), 0o644)
}

// idx is an IDX file of unsigned bytes: the sizes of its axes, the first counting items, and the items one after another.
type idx struct {
	dims []uint32
	data []byte
}

// readIDX reads a gzipped IDX file of unsigned bytes.
func readIDX(path string) (a *idx, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", path, err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", path, err)
	}
	a, err = parseIDX(raw)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return a, nil
}

// parseIDX reads the header: two zero bytes, the element type (8 is unsigned byte), the number of axes, their sizes as
// big-endian uint32.
func parseIDX(raw []byte) (*idx, error) {
	if len(raw) < 4 || raw[0] != 0 || raw[1] != 0 || raw[2] != 8 || raw[3] == 0 {
		return nil, errors.New("not an IDX file of unsigned bytes")
	}
	head := 4 + 4*int(raw[3])
	if len(raw) < head {
		return nil, errors.New("IDX header cut short")
	}
	a := &idx{data: raw[head:]}
	size := uint64(1)
	for at := 4; at < head; at += 4 {
		d := binary.BigEndian.Uint32(raw[at:])
		a.dims = append(a.dims, d)
		size *= uint64(d)
	}
	if size != uint64(len(a.data)) || size == 0 {
		return nil, fmt.Errorf("%d bytes of data where the header %v says %d", len(a.data), a.dims, size)
	}
	return a, nil
}

// join returns all items of a, then the first keep of b.
func join(a, b *idx, keep int) (*idx, error) {
	if len(a.dims) != len(b.dims) {
		return nil, fmt.Errorf("items differ in shape: %v and %v", a.dims, b.dims)
	}
	item := 1
	for i, d := range a.dims[1:] {
		if d != b.dims[i+1] {
			return nil, fmt.Errorf("items differ in shape: %v and %v", a.dims, b.dims)
		}
		item *= int(d)
	}
	if int(b.dims[0]) < keep {
		return nil, fmt.Errorf("%d items where %d are needed", b.dims[0], keep)
	}
	dims := append([]uint32{a.dims[0] + uint32(keep)}, a.dims[1:]...)
	data := append(append(make([]byte, 0, len(a.data)+keep*item), a.data...), b.data[:keep*item]...)
	return &idx{dims, data}, nil
}

// bytes returns the file.
func (a *idx) bytes() []byte {
	out := []byte{0, 0, 8, byte(len(a.dims))}
	for _, d := range a.dims {
		out = binary.BigEndian.AppendUint32(out, d)
	}
	return append(out, a.data...)
}
