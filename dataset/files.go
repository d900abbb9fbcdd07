package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// imageSuffixes are the names' endings that make a file an image. A listed file is one whatever its name.
var imageSuffixes = map[string]bool{
	".jpeg": true, ".jpg": true, ".jpe": true, ".jfif": true, ".png": true, ".bmp": true, ".dib": true,
	".gif": true, ".tif": true, ".tiff": true, ".webp": true,
}

func isImageName(name string) bool { return imageSuffixes[strings.ToLower(path.Ext(name))] }

// sortByBase orders the indices of paths by base name, equal base names by path.
func sortByBase(order []int, paths []string) {
	slices.SortStableFunc(order, func(a, b int) int {
		if c := strings.Compare(path.Base(paths[a]), path.Base(paths[b])); c != 0 {
			return c
		}
		return strings.Compare(paths[a], paths[b])
	})
}

// maxDepth bounds how deep folders are looked through, so that links in a circle are an error.
const maxDepth = 32

// walk lists the files below root, as slash-separated paths relative to it in lexical order. Links are followed; hidden files
// and folders are left out.
func walk(ctx context.Context, root string) ([]string, error) {
	var files []string
	var list func(dir string, depth int) error
	list = func(dir string, depth int) error {
		if depth > maxDepth {
			return fmt.Errorf("%s: folders are nested more than %d deep, or link in a circle", filepath.Join(root, dir), maxDepth)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				continue
			}
			name := filepath.Join(dir, e.Name())
			isFolder := e.IsDir()
			if e.Type()&fs.ModeSymlink != 0 {
				info, err := os.Stat(filepath.Join(root, name))
				isFolder = err == nil && info.IsDir() // a dangling link is found unreadable if it is an image
			}
			if !isFolder {
				files = append(files, filepath.ToSlash(name))
			} else if err := list(name, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if err := list("", 0); err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	return files, nil
}

// maxFile bounds the size of an image file in bytes.
const maxFile = 1 << 30

func checkFileSize(n int64) error {
	if n > maxFile {
		return fmt.Errorf("%w: file of %d bytes: images of up to %d are read", ErrFormat, n, maxFile)
	}
	return nil
}

// folder reads image files below root.
type folder struct {
	root  string
	paths []string
}

func (f *folder) read(i int, buf []byte) ([]byte, error) {
	file, err := os.Open(filepath.Join(f.root, filepath.FromSlash(f.paths[i])))
	if err != nil {
		return buf, err
	}
	defer func() { _ = file.Close() }() // nothing was written
	info, err := file.Stat()
	if err != nil {
		return buf, err
	}
	if !info.Mode().IsRegular() {
		return buf, fmt.Errorf("%s is not a regular file", file.Name())
	}
	if err := checkFileSize(info.Size()); err != nil {
		return buf, err
	}
	buf = grow(buf, int(info.Size()))
	if _, err := io.ReadFull(file, buf); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: the file became shorter while it was read", ErrTruncated)
		}
		return buf, err
	}
	return buf, nil
}

// openList opens a folder whose labels are in a list.
func openList(ctx context.Context, images, labels string) (*contents, error) {
	if labels == "" {
		return nil, fmt.Errorf("%s: %w: a folder of images needs a list of \"file class\" lines (--labels), or one folder a class", images, ErrLabels)
	}
	if err := requireFolder(images); err != nil {
		return nil, err
	}
	list, digest, err := readList(labels)
	if err != nil {
		return nil, err
	}
	files, err := walk(ctx, images)
	if err != nil {
		return nil, err
	}
	paths, classes, err := list.match(files, images)
	if err != nil {
		return nil, err
	}
	return &contents{
		format: List, paths: paths, labels: classes, channels: 3,
		encoded: &folder{images, paths}, labelsDigest: digest,
	}, nil
}

// openFolders opens a folder that holds one folder a class.
func openFolders(ctx context.Context, images, labels string) (*contents, error) {
	if err := requireFolder(images); err != nil {
		return nil, err
	}
	files, err := walk(ctx, images)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(images)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if info, err := os.Stat(filepath.Join(images, e.Name())); err == nil && info.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	c, err := classify(files, names, images, labels)
	if err != nil {
		return nil, err
	}
	c.encoded = &folder{images, c.paths}
	return c, nil
}

// classify labels files by the first folder of their path. names are the folders, in any order.
func classify(files, names []string, where, labels string) (*contents, error) {
	c := &contents{format: Folders, channels: 3}
	classes, err := folderClasses(names, where, labels, c)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if !isImageName(f) {
			continue
		}
		name, _, inside := strings.Cut(f, "/")
		if !inside {
			return nil, fmt.Errorf("%s: %w: %s is in no class folder: move it, or give a list of \"file class\" lines (--labels)", where, ErrLabels, f)
		}
		c.paths, c.labels = append(c.paths, f), append(c.labels, classes[name])
	}
	return c, nil
}

func requireFolder(images string) error {
	info, err := os.Stat(images)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s: %w: not a folder", images, ErrFormat)
	}
	return nil
}

// detect finds out a source's format.
func detect(images, labels string) (Format, error) {
	info, err := os.Stat(images)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return detectFile(images)
	}
	entries, err := os.ReadDir(images)
	if err != nil {
		return "", err
	}
	var files, folders, batches, idx int
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		isFolder := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			info, err := os.Stat(filepath.Join(images, name))
			isFolder = err == nil && info.IsDir()
		}
		switch {
		case isFolder:
			folders++
		case isBatchName(name):
			batches++
		case isIDXImages(name):
			idx++
		case isImageName(name):
			files++
		}
	}
	switch {
	case batches > 0 && files == 0:
		return Batches, nil
	case idx > 0 && files == 0:
		return IDX, nil
	case labels != "":
		if folders > 0 && files == 0 {
			if isList, err := looksLikeList(labels); err != nil || !isList {
				return Folders, err
			}
		}
		return List, nil
	case folders > 0 && files == 0:
		return Folders, nil
	case files > 0:
		return "", fmt.Errorf("%s: %w: images without labels: give a list of \"file class\" lines (--labels), or one folder a class", images, ErrLabels)
	}
	return "", fmt.Errorf("%s: %w: the folder holds no images, class folders, IDX or batch files", images, ErrEmpty)
}

// detectFile finds out the format of a source that is one file.
func detectFile(images string) (Format, error) {
	f, err := os.Open(images)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // nothing was written
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", err
	}
	head = head[:n]
	switch {
	case n >= 262 && string(head[257:262]) == "ustar":
		return Tar, nil
	case n >= 4 && head[0] == 0 && head[1] == 0 && head[2] == idxUint8:
		return IDX, nil
	case n >= 2 && head[0] == 0x1F && head[1] == 0x8B:
		if name := strings.ToLower(images); strings.HasSuffix(name, ".tar.gz") || strings.HasSuffix(name, ".tgz") {
			return Tar, nil // which says what is wrong with it
		}
		return IDX, nil
	case strings.HasSuffix(strings.ToLower(images), ".tar"):
		return Tar, nil
	}
	return "", fmt.Errorf("%s: %w: neither a tar nor an IDX file; a folder of images or batch files is named by its folder", images, ErrFormat)
}
