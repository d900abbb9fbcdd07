package dataset

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// tarIndex lists the regular files of a tar with the place of their data.
type tarIndex struct {
	names   []string
	offsets []int64
	sizes   []int64
}

// indexTar reads the headers of a tar of size bytes; the data are skipped. Hidden files are left out, as in folders.
func indexTar(ctx context.Context, r io.ReaderAt, size int64, name string) (*tarIndex, error) {
	section := io.NewSectionReader(r, 0, size)
	tr := tar.NewReader(section)
	x := &tarIndex{}
	seen := map[string]bool{}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return x, nil
		}
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, fmt.Errorf("%s: %w: the tar ends inside %s: copy it again", name, ErrFormat, afterLast(x.names))
			}
			return nil, fmt.Errorf("%s: %w: %s: %w", name, ErrFormat, afterLast(x.names), err)
		}
		file := path.Clean(strings.TrimLeft(h.Name, "/"))
		if hiddenPath(file) {
			continue
		}
		switch h.Typeflag {
		case tar.TypeReg:
		case tar.TypeDir, tar.TypeXGlobalHeader:
			continue
		default:
			if isImageName(file) {
				return nil, fmt.Errorf("%s: %w: %s is a link or special file: only plain files are read in place", name, ErrFormat, file)
			}
			continue
		}
		if isSparse(h) {
			return nil, fmt.Errorf("%s: %w: %s is stored as a sparse file, which cannot be read in place", name, ErrFormat, file)
		}
		offset, err := section.Seek(0, io.SeekCurrent) // the reader takes whole headers and no more
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if h.Size > size-offset {
			return nil, fmt.Errorf("%s: %w: the tar ends inside %s: copy it again", name, ErrFormat, file)
		}
		if seen[file] {
			return nil, fmt.Errorf("%s: %w: %s is stored twice", name, ErrFormat, file)
		}
		seen[file] = true
		x.names, x.offsets, x.sizes = append(x.names, file), append(x.offsets, offset), append(x.sizes, h.Size)
	}
}

func isSparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

func hiddenPath(file string) bool {
	for part := range strings.SplitSeq(file, "/") {
		if strings.HasPrefix(part, ".") && part != "." {
			return true
		}
	}
	return false
}

func afterLast(names []string) string {
	if len(names) == 0 {
		return "its first file"
	}
	return "the file after " + names[len(names)-1]
}

// tarFile reads image files inside a tar.
type tarFile struct {
	f  *os.File
	x  *tarIndex
	at []int // index entry of each image
}

func (t *tarFile) read(i int, buf []byte) ([]byte, error) {
	e := t.at[i]
	if err := checkFileSize(t.x.sizes[e]); err != nil {
		return buf, err
	}
	buf = grow(buf, int(t.x.sizes[e]))
	if _, err := t.f.ReadAt(buf, t.x.offsets[e]); err != nil {
		return buf, fmt.Errorf("%s: %w", t.f.Name(), err)
	}
	return buf, nil
}

// openTar opens a tar whose labels are in a list, or are its folders.
func openTar(ctx context.Context, images, labels string) (c *contents, err error) {
	f, err := os.Open(images)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	head := make([]byte, 2)
	if _, err := f.ReadAt(head, 0); err == nil && head[0] == 0x1F && head[1] == 0x8B {
		return nil, fmt.Errorf("%s: %w: a compressed tar cannot be read in place: gunzip it first", images, ErrFormat)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	x, err := indexTar(ctx, f, info.Size(), images)
	if err != nil {
		return nil, err
	}
	if len(x.names) == 0 {
		return nil, fmt.Errorf("%s: %w", images, ErrEmpty)
	}
	isList := labels != ""
	if isList {
		if isList, err = looksLikeList(labels); err != nil {
			return nil, err
		}
	}
	if isList {
		list, digest, err := readList(labels)
		if err != nil {
			return nil, err
		}
		c = &contents{labelsDigest: digest, channels: 3}
		if c.paths, c.labels, err = list.match(x.names, images); err != nil {
			return nil, err
		}
	} else if c, err = x.classify(images, labels); err != nil {
		return nil, err
	}
	entry := make(map[string]int, len(x.names))
	for i, name := range x.names {
		entry[name] = i
	}
	t := &tarFile{f: f, x: x}
	for _, p := range c.paths {
		t.at = append(t.at, entry[p])
	}
	c.format, c.encoded, c.closer = Tar, t, f
	return c, nil
}

// classify labels the images by their folder in the tar; a folder that holds everything is looked through.
func (x *tarIndex) classify(images, labels string) (*contents, error) {
	names := x.names
	prefix := ""
	for {
		first, _, ok := strings.Cut(names[0][len(prefix):], "/")
		if !ok {
			break
		}
		deeper := prefix + first + "/"
		all := true
		for _, n := range names {
			rest, below := strings.CutPrefix(n, deeper)
			all = all && below && strings.Contains(rest, "/")
		}
		if !all {
			break
		}
		prefix = deeper
	}
	inside := make([]string, len(names))
	folders := map[string]bool{}
	var list []string
	for i, n := range names {
		inside[i] = n[len(prefix):]
		if folder, _, ok := strings.Cut(inside[i], "/"); ok && !folders[folder] {
			folders[folder] = true
			list = append(list, folder)
		}
	}
	c, err := classify(inside, list, images, labels)
	if err != nil {
		return nil, err
	}
	for i := range c.paths {
		c.paths[i] = prefix + c.paths[i]
	}
	return c, nil
}
