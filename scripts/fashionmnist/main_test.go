package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func gz(t *testing.T, path string, raw []byte) {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(raw)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
}

// source writes two test items and three training items of 1x2 bytes.
func source(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	gz(t, filepath.Join(dir, "t10k-images-idx3-ubyte.gz"), []byte{0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 10, 11, 12, 13})
	gz(t, filepath.Join(dir, "t10k-labels-idx1-ubyte.gz"), []byte{0, 0, 8, 1, 0, 0, 0, 2, 1, 2})
	gz(t, filepath.Join(dir, "train-images-idx3-ubyte.gz"), []byte{0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 20, 21, 22, 23, 24, 25})
	gz(t, filepath.Join(dir, "train-labels-idx1-ubyte.gz"), []byte{0, 0, 8, 1, 0, 0, 0, 3, 3, 4, 5})
	return dir
}

func TestWrite(t *testing.T) {
	out := filepath.Join(t.TempDir(), "new", "folder")
	require.NoError(t, write(source(t), out, 2))

	images, err := os.ReadFile(filepath.Join(out, "val50000-images-idx3-ubyte"))
	require.NoError(t, err)
	require.Equal(t, []byte{0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 10, 11, 12, 13, 20, 21, 22, 23}, images)
	labels, err := os.ReadFile(filepath.Join(out, "val50000-labels-idx1-ubyte"))
	require.NoError(t, err)
	require.Equal(t, []byte{0, 0, 8, 1, 0, 0, 0, 4, 1, 2, 3, 4}, labels)
	names, err := os.ReadFile(filepath.Join(out, "classes.txt"))
	require.NoError(t, err)
	require.Equal(t, 10, bytes.Count(names, []byte("\n")))
}

func TestWriteErrors(t *testing.T) {
	tests := []struct {
		name  string
		file  string // replaced in the source
		bytes []byte // nil removes it
		keep  int
		want  string
	}{
		{"missing", "t10k-labels-idx1-ubyte.gz", nil, 2, "no such file"},
		{"too few", "", nil, 4, "3 items where 4 are needed"},
		{"not IDX", "train-images-idx3-ubyte.gz", []byte("hello"), 2, "not an IDX file"},
		{"float elements", "train-images-idx3-ubyte.gz", []byte{0, 0, 13, 1, 0, 0, 0, 0}, 2, "not an IDX file"},
		{"header cut", "train-images-idx3-ubyte.gz", []byte{0, 0, 8, 3, 0, 0}, 2, "header cut short"},
		{"data cut", "train-labels-idx1-ubyte.gz", []byte{0, 0, 8, 1, 0, 0, 0, 3, 3, 4}, 2, "2 bytes of data where the header [3] says 3"},
		{"other size", "train-images-idx3-ubyte.gz", []byte{0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 20, 21}, 2, "differ in shape"},
		{"other axes", "train-images-idx3-ubyte.gz", []byte{0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 2, 20, 21, 22, 23}, 2, "differ in shape"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := source(t)
			if tt.file != "" {
				require.NoError(t, os.Remove(filepath.Join(dir, tt.file)))
				if tt.bytes != nil {
					gz(t, filepath.Join(dir, tt.file), tt.bytes)
				}
			}
			require.ErrorContains(t, write(dir, t.TempDir(), tt.keep), tt.want)
		})
	}
}

func TestNotGzip(t *testing.T) {
	dir := source(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "t10k-images-idx3-ubyte.gz"), []byte("plain text"), 0o600))
	require.ErrorContains(t, write(dir, t.TempDir(), 2), "unpack")
}
