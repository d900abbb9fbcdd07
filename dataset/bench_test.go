package dataset

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sharedOrSkip returns the path of material that lies beside the repository and cannot be part of it.
func sharedOrSkip(t testing.TB, name string) string {
	t.Helper()
	root := os.Getenv("QUANTGATE_SHARED")
	if root == "" {
		root = filepath.Join("..", "..", "shared")
	}
	path := filepath.Join(root, name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("SKIPPED, needs real ImageNet images: %v (set QUANTGATE_SHARED)", err)
	}
	return path
}

// imagenet224 is torchvision's evaluation transform of ImageNet models.
func imagenet224(t testing.TB) Preprocess {
	p, err := Preset("imagenet", 3)
	require.NoError(t, err)
	p.InputSize, p.Resize = 224, 256
	return p
}

// originals reads full-size ImageNet JPEGs.
func originals(b *testing.B) [][]byte {
	files, err := filepath.Glob(filepath.Join(sharedOrSkip(b, "imagenet/val20-original"), "*"))
	require.NoError(b, err)
	var images [][]byte
	for _, f := range files {
		data, err := os.ReadFile(f)
		require.NoError(b, err)
		images = append(images, data)
	}
	return images
}

// BenchmarkImages takes full-size JPEGs through a part of the way to a tensor: decode is libjpeg-turbo alone, all is everything
// but the reading of the file. One operation is one image, the next one each time.
func BenchmarkImages(b *testing.B) {
	images := originals(b)
	w := newWorker(&Dataset{turbo: turboOrSkip(b)}, imagenet224(b))
	defer w.close()
	dst := make([]float32, 3*224*224)
	for _, part := range []struct {
		name string
		do   func(data []byte) error
	}{
		{"decode", func(data []byte) error { _, err := w.decoder.decode(data); return err }},
		{"all", func(data []byte) error {
			img, err := w.decoder.decode(data)
			if err != nil {
				return err
			}
			return w.prepare(img, dst)
		}},
	} {
		b.Run(part.name, func(b *testing.B) {
			for _, data := range images { // the buffers have their size then
				require.NoError(b, part.do(data))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := part.do(images[i%len(images)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkResize shrinks to 256 pixels and crops 224, in Go and with the kernels.
func BenchmarkResize(b *testing.B) {
	p := imagenet224(b)
	for _, size := range [][2]int{{500, 375}, {375, 500}, {2816, 2112}} {
		img := noise(size[0], size[1], 3, 1)
		rh, rw := p.resized(img.h, img.w)
		y, x, err := p.crop(rh, rw)
		require.NoError(b, err)
		for _, plain := range []bool{true, false} {
			name := map[bool]string{true: "go", false: "simd"}[plain]
			b.Run(fmt.Sprintf("%dx%d/%s", img.w, img.h, name), func(b *testing.B) {
				if !plain && !simd {
					b.Skip("no kernels for this machine")
				}
				r := newResizer(plain)
				r.resize(img, rh, rw, y, x, p.Interpolation)
				b.ReportAllocs()
				b.SetBytes(int64(len(img.pix)))
				for b.Loop() {
					r.resize(img, rh, rw, y, x, p.Interpolation)
				}
			})
		}
	}
}

// BenchmarkNormalise turns a crop into planes of floats.
func BenchmarkNormalise(b *testing.B) {
	w := newWorker(&Dataset{}, imagenet224(b))
	crop := noise(224, 224, 3, 1)
	dst := make([]float32, 3*224*224)
	b.ReportAllocs()
	b.SetBytes(int64(len(crop.pix)))
	for b.Loop() {
		w.normalise(crop, window{0, 0, 224}, window{0, 0, 224}, dst)
	}
}

// BenchmarkBatchFiles takes images of 3x224x224 out of a batch file that the system has in memory, and reads others bare from the open
// file. Both take turns; tensor/bare is how many times as long the first takes.
func BenchmarkBatchFiles(b *testing.B) {
	const n = 100
	dir := b.TempDir()
	labels := make([]float32, n)
	write(b, filepath.Join(dir, "batch0"), batchBytes(n, 3, 224, 224, make([]float32, n*3*224*224), labels))
	d := open(b, Options{Images: dir})
	f, err := os.Open(filepath.Join(dir, "batch0"))
	require.NoError(b, err)
	defer f.Close()
	dst, raw := make([]float32, 3*224*224), make([]byte, 4*3*224*224)
	var took [2]time.Duration
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		if err := d.tensors.tensor(i%n, dst); err != nil {
			b.Fatal(err)
		}
		between := time.Now()
		if _, err := f.ReadAt(raw, batchHeaderSize+int64((i+n/2)%n*len(raw))); err != nil {
			b.Fatal(err)
		}
		took[0], took[1] = took[0]+between.Sub(began), took[1]+time.Since(between)
	}
	b.ReportMetric(float64(took[0].Nanoseconds())/1e3/float64(b.N), "tensor-us/image")
	b.ReportMetric(float64(took[0])/float64(took[1]), "tensor/bare")
	b.ReportAllocs()
}
