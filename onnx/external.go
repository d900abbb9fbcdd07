package onnx

import (
	"bufio"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

const (
	// externalAlign is where each tensor starts in a weights file: at a page, so that a reader may map it.
	externalAlign = 4096
	// externalMin is the size in bytes below which a tensor stays in the model file.
	externalMin = 1024
)

// eachTensor calls f for every tensor a graph stores: initialisers and attributes, nested graphs included.
func eachTensor(g *pb.GraphProto, f func(*pb.TensorProto) error) error {
	for _, t := range g.Initializer {
		if err := f(t); err != nil {
			return err
		}
	}
	for _, s := range g.SparseInitializer {
		for _, t := range []*pb.TensorProto{s.Values, s.Indices} {
			if t == nil {
				continue
			}
			if err := f(t); err != nil {
				return err
			}
		}
	}
	for _, n := range g.Node {
		for _, a := range n.Attribute {
			tensors := a.Tensors
			if a.T != nil {
				tensors = append([]*pb.TensorProto{a.T}, tensors...)
			}
			for _, t := range tensors {
				if err := f(t); err != nil {
					return err
				}
			}
			for _, sub := range subgraphs(a) {
				if err := eachTensor(sub, f); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func subgraphs(a *pb.AttributeProto) []*pb.GraphProto {
	if a.G != nil {
		return append([]*pb.GraphProto{a.G}, a.Graphs...)
	}
	return a.Graphs
}

func firstExternal(p *pb.ModelProto) (found *pb.TensorProto) {
	stop := errors.New("found")
	_ = eachTensor(p.Graph, func(t *pb.TensorProto) error {
		if t.GetDataLocation() != pb.TensorProto_EXTERNAL {
			return nil
		}
		found = t
		return stop
	})
	return found
}

// loadExternal reads the tensors that lie outside the model at path into the message, and adds the content of their files to sum.
func loadExternal(p *pb.ModelProto, path string, sum hash.Hash) error {
	if firstExternal(p) == nil {
		return nil
	}
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("model %s: open its folder: %w", path, err)
	}
	defer root.Close()
	hashed := map[string]bool{}
	return eachTensor(p.Graph, func(t *pb.TensorProto) error {
		if t.GetDataLocation() != pb.TensorProto_EXTERNAL {
			return nil
		}
		raw, location, err := readExternal(root, t)
		if err != nil {
			return fmt.Errorf("model %s: tensor %q: %w", path, t.GetName(), err)
		}
		t.RawData, t.DataLocation, t.ExternalData = raw, nil, nil
		if hashed[location] {
			return nil
		}
		hashed[location] = true
		f, err := root.Open(location)
		if err != nil {
			return fmt.Errorf("model %s: weights file %s: %w", path, location, err)
		}
		defer f.Close()
		if _, err := io.Copy(sum, f); err != nil {
			return fmt.Errorf("model %s: weights file %s: %w", path, location, err)
		}
		return nil
	})
}

func readExternal(root *os.Root, t *pb.TensorProto) (raw []byte, location string, err error) {
	var offset int64
	length := int64(-1)
	for _, e := range t.ExternalData {
		switch e.GetKey() {
		case "location":
			location = filepath.Clean(filepath.FromSlash(e.GetValue()))
		case "offset":
			offset, err = strconv.ParseInt(e.GetValue(), 10, 64)
		case "length":
			length, err = strconv.ParseInt(e.GetValue(), 10, 64)
			if err == nil && length < 0 {
				err = strconv.ErrRange
			}
		}
		if err != nil || offset < 0 {
			return nil, location, fmt.Errorf("%s %q of its external data is not a number of bytes: %w", e.GetKey(), e.GetValue(), ErrCorrupt)
		}
	}
	if location == "" {
		return nil, location, fmt.Errorf("external data without a location: %w", ErrCorrupt)
	}
	if !filepath.IsLocal(location) {
		return nil, location, fmt.Errorf("weights file %s: %w", location, ErrOutside)
	}
	info, err := root.Stat(location)
	if err != nil {
		return nil, location, rootError(location, err)
	}
	if !info.Mode().IsRegular() {
		return nil, location, fmt.Errorf("weights file %s is not a regular file: %w", location, ErrCorrupt)
	}
	if offset > info.Size() || length > info.Size()-offset {
		return nil, location, fmt.Errorf("bytes %d to %d lie beyond the %d of weights file %s: %w", offset, offset+length, info.Size(), location, ErrCorrupt)
	}
	if length < 0 {
		length = info.Size() - offset
	}
	elem := elemTypes[pb.TensorProto_DataType(t.GetDataType())]
	n, err := elemsOf(t)
	if err != nil {
		return nil, location, err
	}
	if elem.width > 0 && (int64(n) > length || int64(n)*elem.width != length) {
		return nil, location, fmt.Errorf("%d bytes in weights file %s do not fit its shape: %w", length, location, ErrCorrupt)
	}
	f, err := root.Open(location)
	if err != nil {
		return nil, location, rootError(location, err)
	}
	defer f.Close()
	raw = make([]byte, length)
	if _, err := io.ReadFull(io.NewSectionReader(f, offset, length), raw); err != nil {
		return nil, location, fmt.Errorf("weights file %s: %w", location, err)
	}
	return raw, location, nil
}

// rootError tells a path that leaves the folder, which os.Root refuses with an error of its own, from an ordinary failure.
func rootError(location string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "escapes") {
		return fmt.Errorf("weights file %s: %w", location, err)
	}
	return fmt.Errorf("weights file %s: %w", location, ErrOutside)
}

// saveExternal writes the large initialisers of p to a file beside path and returns a message that refers to it.
func saveExternal(p *pb.ModelProto, path string) (*pb.ModelProto, error) {
	location := filepath.Base(path) + ".data"
	out, err := renameio.NewPendingFile(filepath.Join(filepath.Dir(path), location), renameio.WithPermissions(0o644))
	if err != nil {
		return nil, fmt.Errorf("write weights of model %s: %w", path, err)
	}
	defer out.Cleanup() //nolint:errcheck // after a successful replace there is nothing left to clean
	w := bufio.NewWriterSize(out, 1<<20)
	c := copyModel(p)
	offset := 0
	for i, t := range c.Graph.Initializer {
		if len(t.RawData) < externalMin {
			continue
		}
		pad := (externalAlign - offset%externalAlign) % externalAlign
		if _, err := w.Write(make([]byte, pad)); err != nil {
			return nil, fmt.Errorf("write weights of model %s: %w", path, err)
		}
		offset += pad
		if _, err := w.Write(t.RawData); err != nil {
			return nil, fmt.Errorf("write weights of model %s: %w", path, err)
		}
		c.Graph.Initializer[i] = &pb.TensorProto{
			Name: t.Name, DataType: t.DataType, Dims: t.Dims, DocString: t.DocString,
			DataLocation: pb.TensorProto_EXTERNAL.Enum(),
			ExternalData: []*pb.StringStringEntryProto{
				entry("location", location), entry("offset", strconv.Itoa(offset)), entry("length", strconv.Itoa(len(t.RawData))),
			},
		}
		offset += len(t.RawData)
	}
	if err := w.Flush(); err != nil {
		return nil, fmt.Errorf("write weights of model %s: %w", path, err)
	}
	if err := out.CloseAtomicallyReplace(); err != nil {
		return nil, fmt.Errorf("write weights of model %s: %w", path, err)
	}
	return c, nil
}

func entry(key, value string) *pb.StringStringEntryProto {
	return &pb.StringStringEntryProto{Key: &key, Value: &value}
}
