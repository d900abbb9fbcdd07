package dataset

import (
	"archive/tar"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSteadyStateAllocatesNothing takes JPEGs of several sizes and kinds out of a tar, again and again. (A folder costs the
// allocations of os.Open an image; what is not a JPEG is decoded by libraries that allocate.)
func TestSteadyStateAllocatesNothing(t *testing.T) {
	turboOrSkip(t)
	files, err := filepath.Glob("testdata/golden/decode-*.jp*g")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var members []any
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		members = append(members, "class/"+filepath.Base(file), data)
	}
	archive := filepath.Join(t.TempDir(), "images.tar")
	require.NoError(t, os.WriteFile(archive, tarOf(t, tar.FormatGNU, members...), 0o600))
	p := imagenet224(t)
	p.InputSize, p.Resize = 32, 37
	for name, cache := range map[string]ImageCache{"decoded": {}, "cached": {Dir: t.TempDir(), Limit: 1 << 30}} {
		d, err := Open(context.Background(), Options{Images: archive, ImageCache: cache})
		require.NoError(t, err)
		defer d.Close()
		dst := make([]float32, 3*32*32)
		all := func(w *worker) {
			for id := range d.items {
				if err := w.load(id, dst); err != nil {
					t.Fatal(err)
				}
			}
		}
		w := newWorker(d, p)
		if w.cache = d.openCache(p); w.cache != nil {
			all(w)
			d.closeCache(w.cache)
			w.cache = d.openCache(p)
			defer w.cache.Close()
		}
		defer w.close()
		all(w) // buffers get their size
		allocs := 1.0
		for try := 0; try < 5 && allocs > 0; try++ { // the runtime's own are counted too, now and then
			allocs = testing.AllocsPerRun(5, func() { all(w) })
		}
		require.Zero(t, allocs, "%s, %s", name, strings.Join(files, " "))
	}
}
