package dataset

import (
	"os"
	"path/filepath"
	"testing"

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

// BenchmarkPreprocess measures full-size JPEGs: the bare decode, and all of decode, resize, crop and normalise.
func BenchmarkPreprocess(b *testing.B) {
	files, err := filepath.Glob(filepath.Join(sharedOrSkip(b, "imagenet/val20-original"), "*"))
	require.NoError(b, err)
	var images [][]byte
	for _, f := range files {
		data, err := os.ReadFile(f)
		require.NoError(b, err)
		images = append(images, data)
	}
	d := &Dataset{turbo: turboOrSkip(b)}
	w := newWorker(d, imagenet224(b))
	defer w.close()
	dst := make([]float32, 3*224*224)
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			if _, err := w.decoder.decode(images[i%len(images)]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			img, err := w.decoder.decode(images[i%len(images)])
			if err == nil {
				err = w.prepare(img, dst)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
