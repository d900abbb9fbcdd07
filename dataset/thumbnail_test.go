package dataset

import (
	"archive/tar"
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"path/filepath"
	"testing"

	"github.com/disintegration/imaging"
	"github.com/stretchr/testify/require"
)

// grey is the level of a pixel.
func grey(t *testing.T, m image.Image, x, y int) uint8 {
	t.Helper()
	g, ok := color.GrayModel.Convert(m.At(x, y)).(color.Gray)
	require.True(t, ok)
	return g.Y
}

func TestThumbnailOfIDX(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "t-images-idx3-ubyte"), idxBytes([]byte{0, 50, 100, 150, 200, 250, 1, 2, 3, 4, 5, 6}, 2, 2, 3))
	write(t, filepath.Join(dir, "t-labels-idx1-ubyte"), idxBytes([]byte{0, 1}, 2))
	d := open(t, Options{Images: dir})
	m, err := d.Thumbnail(0, 28)
	require.NoError(t, err)
	require.Equal(t, image.Rect(0, 0, 3, 2), m.Bounds(), "small images are not enlarged")
	require.Equal(t, []uint8{0, 100, 150, 250}, []uint8{grey(t, m, 0, 0), grey(t, m, 2, 0), grey(t, m, 0, 1), grey(t, m, 2, 1)})
	for _, id := range []int{-1, 2} {
		_, err = d.Thumbnail(id, 28)
		require.ErrorContains(t, err, "there are 2")
	}
}

// stripes is a PNG, left half red and right half blue.
func stripes(t *testing.T, w, h int) []byte {
	t.Helper()
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.NRGBA{R: 255, A: 255}
			if x >= w/2 {
				c = color.NRGBA{B: 255, A: 255}
			}
			m.Set(x, y, c)
		}
	}
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, m))
	return b.Bytes()
}

func TestThumbnailOfFilesAndTar(t *testing.T) {
	dir := t.TempDir()
	data := stripes(t, 400, 200)
	write(t, filepath.Join(dir, "a.png"), data)
	labels := listFile(t, "a.png 1")
	archive := write(t, filepath.Join(t.TempDir(), "x.tar"), tarOf(t, tar.FormatUSTAR, "a.png", data))
	for _, images := range []string{dir, archive} {
		d := open(t, Options{Images: images, Labels: labels})
		m, err := d.Thumbnail(0, 96)
		require.NoError(t, err)
		require.Equal(t, image.Rect(0, 0, 96, 48), m.Bounds())
		require.Equal(t, color.NRGBA{R: 255, A: 255}, color.NRGBAModel.Convert(m.At(10, 20)))
		require.Equal(t, color.NRGBA{B: 255, A: 255}, color.NRGBAModel.Convert(m.At(80, 20)))
	}

	write(t, filepath.Join(dir, "b.png"), data[:len(data)/2])
	d := open(t, Options{Images: dir, Labels: listFile(t, "a.png 1", "b.png 1")})
	_, err := d.Thumbnail(1, 96)
	require.ErrorContains(t, err, "image b.png")
}

// A JPEG is decoded smaller where that is enough, to what shrinking all of its pixels gives but for a few levels.
func TestThumbnailOfReducedJPEG(t *testing.T) {
	for _, size := range [][2]int{{500, 375}, {375, 501}, {98, 200}, {1600, 96}, {60, 40}} {
		w, h := size[0], size[1]
		m := image.NewNRGBA(image.Rect(0, 0, w, h))
		for y := range h {
			for x := range w {
				m.Set(x, y, color.NRGBA{R: uint8(255 * x / w), G: uint8(255 * y / h), B: 100, A: 255})
			}
		}
		var b bytes.Buffer
		require.NoError(t, jpeg.Encode(&b, m, &jpeg.Options{Quality: 95}))
		dir := t.TempDir()
		write(t, filepath.Join(dir, "a.jpg"), b.Bytes())
		got, err := open(t, Options{Images: dir, Labels: listFile(t, "a.jpg 1")}).Thumbnail(0, 96)
		require.NoError(t, err)
		want := imaging.Fit(m, 96, 96, imaging.Box)
		require.Equal(t, want.Bounds(), got.Bounds())
		for y := range want.Bounds().Dy() {
			for x := range want.Bounds().Dx() {
				p, q := want.NRGBAAt(x, y), color.NRGBAModel.Convert(got.At(x, y)).(color.NRGBA)
				for _, d := range []int{int(p.R) - int(q.R), int(p.G) - int(q.G), int(p.B) - int(q.B)} {
					require.LessOrEqual(t, max(d, -d), 12, "%dx%d: pixel %d,%d: %v, want %v", w, h, x, y, q, p)
				}
			}
		}
	}
}

func TestThumbnailOfTensors(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "batch0"), batchBytes(1, 3, 1, 2, []float32{-1, 1, 0, 0, 1, -1}, []float32{4}))
	d := open(t, Options{Images: dir, Format: Batches})
	m, err := d.Thumbnail(0, 28)
	require.NoError(t, err)
	require.Equal(t, color.NRGBA{R: 0, G: 128, B: 255, A: 255}, color.NRGBAModel.Convert(m.At(0, 0)))
	require.Equal(t, color.NRGBA{R: 255, G: 128, B: 0, A: 255}, color.NRGBAModel.Convert(m.At(1, 0)))
}
