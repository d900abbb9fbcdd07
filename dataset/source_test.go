package dataset

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tinyPNG is a grey image of one value.
func tinyPNG(t testing.TB, value byte) []byte {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, 4, 4))
	for i := range img.Pix {
		img.Pix[i] = value
	}
	img.SetGray(0, 0, color.Gray{Y: 255 - value})
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, img))
	return b.Bytes()
}

// write makes a file with its folders.
func write(t testing.TB, path string, data []byte) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, data, 0o666))
	return path
}

// imageFolder makes image i of value i at each path below a new folder.
func imageFolder(t testing.TB, paths ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i, p := range paths {
		write(t, filepath.Join(dir, p), tinyPNG(t, byte(i)))
	}
	return dir
}

func listFile(t testing.TB, lines ...string) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), "labels.txt"), []byte(strings.Join(lines, "\n")+"\n"))
}

// open opens a data set that is closed with the test.
func open(t testing.TB, o Options) *Dataset {
	t.Helper()
	d, err := Open(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// lines prints items as path and label.
func lines(items []Item) []string {
	var s []string
	for i, it := range items {
		if it.ID != i {
			s = append(s, fmt.Sprintf("item %d has the id %d", i, it.ID))
		}
		s = append(s, fmt.Sprintf("%s %d", it.Path, it.Label))
	}
	return s
}

func TestListOrdersByBaseName(t *testing.T) {
	dir := imageFolder(t, "z/a.png", "a/c.png", "b.png", "a/d d.png", "b/d d.png", ".hidden/x.png", "notes.txt")
	labels := listFile(t, "a/c.png 2", "", "b.png 7", "a.png 0", "a/d d.png 1", "b/d d.png 3")
	d := open(t, Options{Images: dir, Labels: labels})
	require.Equal(t, List, d.Format())
	require.Equal(t, []string{"z/a.png 0", "b.png 7", "a/c.png 2", "a/d d.png 1", "b/d d.png 3"}, lines(d.Items()))
	require.Equal(t, 8, d.Classes())
	require.Equal(t, 3, d.Channels())
	require.False(t, d.Preprocessed())
	_, _, fixed := d.FixedSize()
	require.False(t, fixed)
	require.Len(t, d.LabelsDigest(), 64)

	// printf 'z/a.png 0\nb.png 7\n' | sha256sum
	two := open(t, Options{Images: dir, Labels: labels, Limit: 2})
	require.Equal(t, "3eb8eb6d2c963775baf8bcb3a21d025cca4764f72f03480afc25d71da24e5042", two.ListDigest())
}

func TestOpenNamesTheOption(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "nope")
	for _, format := range []Format{Auto, List, Folders, Tar, IDX, Batches} {
		_, err := Open(context.Background(), Options{Images: missing, Format: format})
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorContains(t, err, "images (--images): stat "+missing)
		_, err = Open(context.Background(), Options{Images: t.TempDir(), Labels: missing, Format: format})
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorContains(t, err, "labels (--labels): stat "+missing)
	}
}

func TestListErrors(t *testing.T) {
	dir := imageFolder(t, "a.png", "b.png", "sub/c.png")
	twins := imageFolder(t, "x/a.png", "y/a.png")
	cases := []struct {
		name, dir string
		list      []string
		want      string
	}{
		{"image without label", dir, []string{"a.png 1", "b.png 2"}, "1 image without a label"},
		{"label without image", dir, []string{"a.png 1", "b.png 2", "c.png 3", "d.png 4"}, "does not hold: d.png (line 4)"},
		{"labelled twice", dir, []string{"a.png 1", "b.png 2", "c.png 3", "a.png 1"}, "lines 1 and 4 both label a.png"},
		{"labelled twice by two names", dir, []string{"a.png 1", "b.png 2", "c.png 3", "sub/c.png 3"}, "lines 3 and 4 both label sub/c.png"},
		{"negative", dir, []string{"a.png -1"}, "class -1 is out of range"},
		{"huge", dir, []string{"a.png 99999999"}, "out of range"},
		{"word", dir, []string{"a.png cat"}, `class "cat" is not a whole number`},
		{"no class", dir, []string{"a.png"}, `line 1: "a.png" is not "file class": give a file's name, a space and its class from 0, such as: val_00000001.JPEG 65`},
		{"csv", dir, []string{"a.png,3"}, `line 1: "a.png,3" is not "file class": give a file's name, a space and its class`},
		{"nothing", dir, []string{""}, `holds no "file class" line`},
		{"ambiguous", twins, []string{"a.png 1"}, "names both x/a.png and y/a.png"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(context.Background(), Options{Images: c.dir, Labels: listFile(t, c.list...), Format: List})
			require.ErrorIs(t, err, ErrLabels)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestOpenErrors(t *testing.T) {
	pics := imageFolder(t, "a.png")
	empty := t.TempDir()
	garbage := write(t, filepath.Join(t.TempDir(), "x.bin"), []byte("garbage"))
	cases := []struct {
		name string
		o    Options
		is   error
		want string
	}{
		{"no images", Options{}, nil, "--images"},
		{"absent", Options{Images: filepath.Join(empty, "x")}, os.ErrNotExist, "x"},
		{"empty folder", Options{Images: empty}, ErrEmpty, "no images"},
		{"no labels", Options{Images: pics}, ErrLabels, "--labels"},
		{"labels absent", Options{Images: pics, Labels: filepath.Join(empty, "l.txt")}, os.ErrNotExist, "labels"},
		{"garbage", Options{Images: garbage}, ErrFormat, "neither a tar nor an IDX file"},
		{"unknown format", Options{Images: pics, Format: "zip"}, nil, `unknown data format "zip"`},
		{"negative limit", Options{Images: pics, Limit: -1}, nil, "limit -1"},
		{"file as folder", Options{Images: garbage, Labels: garbage, Format: List}, ErrFormat, "not a folder"},
		{"folder as tar", Options{Images: pics, Format: Tar}, nil, "directory"},
		{"JPEG library", Options{Images: pics, Labels: listFile(t, "a.png 1"), JPEGLibrary: "libabsent.so"}, nil, "libabsent.so: cannot open shared object"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(context.Background(), c.o)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
		})
	}
}

func TestFolders(t *testing.T) {
	t.Run("names in order", func(t *testing.T) {
		dir := imageFolder(t, "n02/b.png", "n02/d.png", "n01/c.png", "n03/sub/a.png")
		d := open(t, Options{Images: dir})
		require.Equal(t, Folders, d.Format())
		require.Equal(t, []string{"n03/sub/a.png 2", "n02/b.png 1", "n01/c.png 0", "n02/d.png 1"}, lines(d.Items()))
	})
	t.Run("numbers", func(t *testing.T) {
		d := open(t, Options{Images: imageFolder(t, "10/a.png", "9/b.png", "007/c.png")})
		require.Equal(t, []string{"10/a.png 10", "9/b.png 9", "007/c.png 7"}, lines(d.Items()))
	})
	t.Run("links", func(t *testing.T) {
		dir := imageFolder(t, "cat/a.png")
		require.NoError(t, os.Symlink(imageFolder(t, "b.png"), filepath.Join(dir, "dog")))
		require.Equal(t, []string{"cat/a.png 0", "dog/b.png 1"}, lines(open(t, Options{Images: dir}).Items()))

		require.NoError(t, os.Symlink(dir, filepath.Join(dir, "cat", "circle")))
		_, err := Open(context.Background(), Options{Images: dir})
		require.ErrorContains(t, err, "link in a circle")
	})
	t.Run("a list of the names", func(t *testing.T) {
		dir := imageFolder(t, "n01440764/b.png", "n01484850/a.png")
		require.NotEmpty(t, open(t, Options{Images: dir}).Warnings())
		names := listFile(t, "n01440764 tench, Tinca tinca", "n01443537 goldfish", "n01484850 great white shark")
		d := open(t, Options{Images: dir, Labels: names})
		require.Equal(t, Folders, d.Format())
		require.Equal(t, []string{"n01484850/a.png 2", "n01440764/b.png 0"}, lines(d.Items()))
		require.Empty(t, d.Warnings())

		_, err := Open(context.Background(), Options{Images: dir, Labels: listFile(t, "n01440764 tench")})
		require.ErrorIs(t, err, ErrLabels)
		require.ErrorContains(t, err, "n01484850")
	})
	for name, paths := range map[string][]string{
		"folder 1 is a class number and cat is not": {"1/a.png", "cat/b.png"},
		"are the same class":                        {"1/a.png", "01/b.png"},
		"is in no class folder":                     {"cat/a.png", "b.png"},
		"class -3 is out of range":                  {"-3/a.png"},
	} {
		_, err := Open(context.Background(), Options{Images: imageFolder(t, paths...), Format: Folders})
		require.ErrorIs(t, err, ErrLabels)
		require.ErrorContains(t, err, name)
	}
}

// tarOf packs files, in the order given, as name and content in turn.
func tarOf(t testing.TB, format tar.Format, files ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		name, data := files[i].(string), files[i+1].([]byte)
		h := &tar.Header{Name: name, Size: int64(len(data)), Mode: 0o666, Typeflag: tar.TypeReg, Format: format}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write(data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestTar(t *testing.T) {
	one, two, three := tinyPNG(t, 1), tinyPNG(t, 2), tinyPNG(t, 3)
	long := strings.Repeat("long", 40) + ".png"
	for _, format := range []tar.Format{tar.FormatGNU, tar.FormatPAX} {
		t.Run(format.String(), func(t *testing.T) {
			file := write(t, filepath.Join(t.TempDir(), "val.tar"), tarOf(t, format, "./val/", []byte{}, "./val/b.JPEG", one, "val/"+long, two, "val/a.JPEG", three, "val/README", []byte("x")))
			d := open(t, Options{Images: file, Labels: listFile(t, "a.JPEG 5", long+" 6", "b.JPEG 7")})
			require.Equal(t, Tar, d.Format())
			require.Equal(t, []string{"val/a.JPEG 5", "val/b.JPEG 7", "val/" + long + " 6"}, lines(d.Items()))
			for i, want := range [][]byte{three, one, two} {
				got, err := d.encoded.read(d.at[i], nil)
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
		})
	}
	t.Run("class folders", func(t *testing.T) {
		file := write(t, filepath.Join(t.TempDir(), "val.tar"), tarOf(t, tar.FormatUSTAR, "val/dog/a.png", one, "val/cat/b.png", two))
		d := open(t, Options{Images: file})
		require.Equal(t, []string{"val/dog/a.png 1", "val/cat/b.png 0"}, lines(d.Items()))
	})
	whole := tarOf(t, tar.FormatUSTAR, "a.png", one, "b.png", bytes.Repeat(two, 50))
	labels := listFile(t, "a.png 1", "b.png 2")
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write(whole)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"cut":        {whole[:3000], "the tar ends inside"},
		"cut header": {whole[:1024+100], "the tar ends inside"},
		"gzipped":    {zipped.Bytes(), "gunzip it first"},
		"twice":      {tarOf(t, tar.FormatUSTAR, "a.png", one, "a.png", two), "a.png is stored twice"},
	} {
		file := write(t, filepath.Join(t.TempDir(), "val.tar"), c.data)
		_, err := Open(context.Background(), Options{Images: file, Labels: labels, Format: Tar})
		require.ErrorIs(t, err, ErrFormat, name)
		require.ErrorContains(t, err, c.want, name)
	}
}

// idxBytes builds an IDX file of bytes.
func idxBytes(data []byte, dims ...int) []byte {
	b := []byte{0, 0, 8, byte(len(dims))}
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, uint32(d))
	}
	return append(b, data...)
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(data)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

func TestIDX(t *testing.T) {
	pix := make([]byte, 3*2*2)
	for i := range pix {
		pix[i] = byte(10 * i)
	}
	images, labels := idxBytes(pix, 3, 2, 2), idxBytes([]byte{4, 0, 9}, 3)
	for _, zip := range []bool{false, true} {
		for _, names := range [][2]string{
			{"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}, {"train-images.idx3-ubyte", "train-labels.idx1-ubyte"},
		} {
			dir := t.TempDir()
			x, y, suffix := images, labels, ""
			if zip {
				x, y, suffix = gzipped(t, images), gzipped(t, labels), ".gz"
			}
			file := write(t, filepath.Join(dir, names[0]+suffix), x)
			write(t, filepath.Join(dir, names[1]+suffix), y)
			for _, o := range []Options{{Images: dir}, {Images: file}, {Images: file, Labels: filepath.Join(dir, names[1]+suffix)}} {
				d := open(t, o)
				require.Equal(t, IDX, d.Format())
				base := names[0] + suffix
				require.Equal(t, []string{base + "#0 4", base + "#1 0", base + "#2 9"}, lines(d.Items()))
				h, w, ok := d.FixedSize()
				require.Equal(t, [3]any{2, 2, true}, [3]any{h, w, ok})
				require.Equal(t, 1, d.Channels())
				got := make([]byte, 4)
				require.NoError(t, d.raster.pixels(1, got))
				require.Equal(t, pix[4:8], got)
			}
		}
	}

	for name, c := range map[string]struct {
		x, y []byte
		want string
		is   error
	}{
		"counts differ": {images, idxBytes([]byte{1, 2}, 2), "holds 3 images", ErrLabels},
		"short":         {images[:len(images)-1], labels, "promises 28 bytes and the file has 27", ErrFormat},
		"long":          {append(bytes.Clone(images), 0), labels, "the file has 29", ErrFormat},
		"short gzip":    {gzipped(t, images[:20]), labels, "the file has 20", ErrFormat},
		"long gzip":     {gzipped(t, append(bytes.Clone(images), 0, 0, 0)), labels, "the file has 29", ErrFormat},
		"cut gzip":      {gzipped(t, images)[:30], labels, "IDX", ErrFormat},
		"swapped":       {labels, images, "dimensions", ErrFormat},
		"floats":        {append([]byte{0, 0, 0x0D, 3}, images[4:]...), labels, "element type 0x0d", ErrFormat},
		"no header":     {[]byte{0, 0}, labels, "ends inside its header", ErrFormat},
		"zero width":    {idxBytes(nil, 3, 2, 0), labels, "dimension 2 is 0", ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			x := write(t, filepath.Join(dir, "x-images-idx3-ubyte"), c.x)
			y := write(t, filepath.Join(dir, "y"), c.y)
			_, err := Open(context.Background(), Options{Images: x, Labels: y, Format: IDX})
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.want)
		})
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "train-images-idx3-ubyte.gz"), images)
	_, err := Open(context.Background(), Options{Images: dir})
	require.ErrorIs(t, err, ErrLabels)
	require.ErrorContains(t, err, "train-labels-idx1-ubyte")
	write(t, filepath.Join(dir, "t10k-images-idx3-ubyte.gz"), images)
	_, err = Open(context.Background(), Options{Images: dir})
	require.ErrorContains(t, err, "several IDX images files")
}

// batchBytes builds a batch file; labels may be nil.
func batchBytes(n, c, h, w int, values, labels []float32) []byte {
	var b []byte
	for _, v := range []int{n, c, h, w} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	for _, v := range append(append([]float32{}, values...), labels...) {
		b = appendFloat(b, v)
	}
	return b
}

func TestBatchFiles(t *testing.T) {
	dir := t.TempDir()
	values := func(from, n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(from + i)
		}
		return v
	}
	for i := range 12 { // batch10 comes after batch9
		n := 2
		if i == 11 {
			n = 1
		}
		labels := []float32{float32(i), float32(i + 100)}[:n]
		write(t, filepath.Join(dir, fmt.Sprintf("batch%d", i)), batchBytes(n, 3, 2, 1, values(100*i, 6*n), labels))
	}
	d := open(t, Options{Images: dir})
	require.Equal(t, Batches, d.Format())
	require.True(t, d.Preprocessed())
	require.Len(t, d.Items(), 23)
	require.Equal(t, Item{ID: 21, Path: "batch10#1", Label: 110}, d.Items()[21])
	require.Equal(t, 112, d.Classes()+1)
	got := make([]float32, 6)
	require.NoError(t, d.tensors.tensor(21, got))
	require.Equal(t, values(1006, 6), got)
	littleEndian = !littleEndian // as on the other kind of machine
	require.NoError(t, d.tensors.tensor(21, got))
	littleEndian = !littleEndian
	if littleEndian {
		require.Equal(t, values(1006, 6), got, "the conversion is to the same")
	}
	got[0] = 0
	allocs := testing.AllocsPerRun(5, func() { _ = d.tensors.tensor(21, got) })
	require.Less(t, allocs, 12.0, "of opening a file: none is for the values")

	for name, c := range map[string]struct {
		files map[string][]byte
		want  string
		is    error
	}{
		"gap":         {map[string][]byte{"batch0": batchBytes(1, 1, 1, 1, values(0, 1), values(0, 1)), "batch2": nil}, "batch1 is missing", ErrFormat},
		"twice":       {map[string][]byte{"batch1": nil, "batch01": nil}, "have the same number", ErrFormat},
		"short":       {map[string][]byte{"batch0": batchBytes(2, 1, 1, 1, values(0, 1), nil)}, "does not hold the 2x1x1x1", ErrFormat},
		"odd":         {map[string][]byte{"batch0": append(batchBytes(1, 1, 1, 1, values(0, 1), nil), 1)}, "does not hold", ErrFormat},
		"header":      {map[string][]byte{"batch0": {1, 2, 3}}, "has no header", ErrFormat},
		"negative":    {map[string][]byte{"batch0": batchBytes(-1, 1, 1, 1, nil, nil)}, "header says -1x1x1x1", ErrFormat},
		"unlabelled":  {map[string][]byte{"batch0": batchBytes(1, 1, 1, 1, values(0, 1), nil)}, "holds no labels", ErrLabels},
		"half label":  {map[string][]byte{"batch0": batchBytes(1, 1, 1, 1, values(0, 1), []float32{0.5})}, "label 0 is 0.5", ErrLabels},
		"NaN label":   {map[string][]byte{"batch0": batchBytes(1, 1, 1, 1, values(0, 1), []float32{float32(math.NaN())})}, "label 0 is NaN", ErrLabels},
		"other shape": {map[string][]byte{"batch0": batchBytes(1, 1, 1, 2, values(0, 2), values(0, 1)), "batch1": batchBytes(1, 1, 2, 1, values(0, 2), values(0, 1))}, "images of 1x2x1, and of 1x1x2", ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for f, data := range c.files {
				write(t, filepath.Join(dir, f), data)
			}
			_, err := Open(context.Background(), Options{Images: dir, Format: Batches})
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.want)
		})
	}

	bare := t.TempDir()
	write(t, filepath.Join(bare, "batch0"), batchBytes(2, 1, 1, 1, values(0, 2), nil))
	require.Equal(t, []string{"batch0#0 3", "batch0#1 1"}, lines(open(t, Options{Images: bare, Labels: listFile(t, "3", "1")}).Items()))
	_, err := Open(context.Background(), Options{Images: bare, Labels: listFile(t, "3")})
	require.ErrorContains(t, err, "holds 1 classes for 2 images")
}
