package dataset

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// cacheSource is a folder of every golden image that is decoded, doubled, and one that cannot be.
func cacheSource(t testing.TB) (images, labels string) {
	t.Helper()
	images = t.TempDir()
	var list strings.Builder
	files, err := filepath.Glob("testdata/golden/decode-*")
	require.NoError(t, err)
	for i, file := range append(files, "golden_test.go") {
		if strings.HasSuffix(file, ".golden.png") || strings.HasSuffix(file, ".grey.png") {
			continue
		}
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		for k := range 2 {
			name := fmt.Sprintf("%03d-%d.JPEG", i, k)
			require.NoError(t, os.WriteFile(filepath.Join(images, name), data, 0o600))
			fmt.Fprintf(&list, "%s %d\n", name, i)
		}
	}
	labels = filepath.Join(t.TempDir(), "labels.txt")
	require.NoError(t, os.WriteFile(labels, []byte(list.String()), 0o600))
	return images, labels
}

// loadAll returns every tensor and bad image of a source, and what its cache said.
func loadAll(t *testing.T, o Options, p Preprocess) (tensors [][]float32, bad, notes, warnings []string) {
	t.Helper()
	var mu sync.Mutex
	note := func(to *[]string) func(string) {
		return func(m string) {
			mu.Lock()
			defer mu.Unlock()
			*to = append(*to, m)
		}
	}
	o.ImageCache.Note, o.ImageCache.Warn = note(&notes), note(&warnings)
	o.ImageCache.Limit = 1 << 30
	d, err := Open(context.Background(), o)
	require.NoError(t, err)
	ids := make([]int, len(d.Items()))
	for i := range ids {
		ids[i] = i
	}
	l := d.Load(context.Background(), ids, LoadOptions{Preprocess: p, BatchSize: 7, MaxBad: 2})
	for b, err := range l.All(context.Background()) {
		require.NoError(t, err)
		for i := range b.Items {
			tensors = append(tensors, append([]float32(nil), b.X.Row(i)...))
		}
		for _, x := range b.Bad {
			bad = append(bad, x.Err.Error())
		}
	}
	require.NoError(t, l.Close())
	require.NoError(t, d.Close())
	return tensors, bad, notes, warnings
}

func TestCacheChangesNothing(t *testing.T) {
	images, labels := cacheSource(t)
	shared := t.TempDir() // one folder for all settings, which must not be mistaken for each other
	for name, change := range map[string]func(p *Preprocess){
		"imagenet": func(*Preprocess) {},
		"mean":     func(p *Preprocess) { p.Mean = []float32{0, 0.1, 0.2} },
		"bgr":      func(p *Preprocess) { p.BGR = true },
		"bicubic":  func(p *Preprocess) { p.Interpolation = Bicubic },
		"padded":   func(p *Preprocess) { p.Resize, p.InputSize = 0, 90 },
		"grey":     func(p *Preprocess) { p.Channels, p.Mean, p.Std = 1, []float32{0.5}, []float32{0.25} },
		"offset":   func(p *Preprocess) { p.InputSize, p.Resize = 5, 0; p.CropOffset = &[2]int{3, 1} },
	} {
		t.Run(name, func(t *testing.T) {
			p := imagenet224(t)
			p.InputSize, p.Resize = 32, 37
			change(&p)
			o := Options{Images: images, Labels: labels}
			want, bad, notes, _ := loadAll(t, o, p)
			require.Empty(t, notes)
			require.Len(t, bad, 2)
			o.ImageCache.Dir = shared
			for range 2 {
				got, gotBad, notes, warnings := loadAll(t, o, p)
				require.Equal(t, want, got)
				require.Equal(t, bad, gotBad)
				require.Len(t, notes, 1)
				require.Empty(t, warnings)
			}
			own := t.TempDir()
			o.ImageCache.Dir = own
			_, _, notes, _ = loadAll(t, o, p)
			require.Contains(t, notes[0], fmt.Sprintf(", %d added", len(want)/2))
			_, _, notes, _ = loadAll(t, o, p)
			require.Equal(t, []string{fmt.Sprintf("image cache %s: %d found, 0 added", own, len(want))}, notes)
		})
	}
}

func TestCacheKnowsAnImageByItsBytes(t *testing.T) {
	images, labels := cacheSource(t)
	o := Options{Images: images, Labels: labels, ImageCache: ImageCache{Dir: t.TempDir()}}
	p := imagenet224(t)
	p.InputSize, p.Resize = 32, 37
	loadAll(t, o, p)

	// Another image under the same name, size and time.
	name := filepath.Join(images, "000-0.JPEG")
	info, err := os.Stat(name)
	require.NoError(t, err)
	data, err := os.ReadFile("testdata/golden/resize-61x43.png")
	require.NoError(t, err)
	require.Less(t, len(data), 1<<20)
	require.NoError(t, os.WriteFile(name, data, 0o600))
	require.NoError(t, os.Chtimes(name, info.ModTime(), info.ModTime()))
	got, _, notes, _ := loadAll(t, o, p)
	require.Contains(t, notes[0], ", 1 added")
	o.ImageCache.Dir = ""
	want, _, _, _ := loadAll(t, o, p)
	require.Equal(t, want, got)
}

func TestCacheFolder(t *testing.T) {
	images, labels := cacheSource(t)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Open(context.Background(), Options{Images: images, Labels: labels, ImageCache: ImageCache{Dir: file}})
	require.ErrorContains(t, err, "image cache: ")
}
