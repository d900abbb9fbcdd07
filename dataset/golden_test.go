package dataset

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// readPNG reads a golden PNG written by testdata/gen_golden.py with the standard library alone.
func readPNG(t *testing.T, name string) raster {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	img, err := png.Decode(bytes.NewReader(data))
	require.NoError(t, err)
	b := img.Bounds()
	r := raster{w: b.Dx(), h: b.Dy(), channels: 3}
	if g, ok := img.(*image.Gray); ok {
		r.channels = 1
		for y := range r.h {
			r.pix = append(r.pix, g.Pix[y*g.Stride:y*g.Stride+r.w]...)
		}
		r.stride = r.w
		return r
	}
	r.stride = 3 * r.w
	for y := range r.h {
		for x := range r.w {
			c, g, bl, _ := img.At(x, y).RGBA()
			r.pix = append(r.pix, byte(c>>8), byte(g>>8), byte(bl>>8))
		}
	}
	return r
}

// turboOrSkip opens libjpeg-turbo.
func turboOrSkip(t testing.TB) *turboJPEG {
	t.Helper()
	lib, err := openTurboJPEG("")
	if err != nil {
		t.Skipf("needs libjpeg-turbo (Debian: apt install libturbojpeg0): %v", err)
	}
	return lib
}

// asRGB repeats grey.
func asRGB(r raster) raster {
	if r.channels == 3 {
		return r
	}
	out := raster{w: r.w, h: r.h, channels: 3, stride: 3 * r.w}
	for _, v := range r.pix {
		out.pix = append(out.pix, v, v, v)
	}
	return out
}

func TestDecodeEqualsPillow(t *testing.T) {
	turbo := turboOrSkip(t)
	files, err := filepath.Glob("testdata/golden/decode-*")
	require.NoError(t, err)
	n := 0
	for _, file := range files {
		if strings.HasSuffix(file, ".png") {
			continue
		}
		n++
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			d := &decoder{turbo: turbo}
			defer d.close()
			got, err := d.decode(data)
			require.NoError(t, err)
			stem := strings.TrimSuffix(file, filepath.Ext(file))
			want := readPNG(t, stem+".golden.png")
			requireSamePixels(t, asRGB(want), asRGB(got))

			grey, err := os.Stat(stem + ".grey.png")
			if err != nil {
				return
			}
			if got.channels == 3 {
				got = toGrey(got, nil)
			}
			requireSamePixels(t, readPNG(t, filepath.Join("testdata/golden", grey.Name())), got)
		})
	}
	require.Greater(t, n, 25, "golden files are missing: run testdata/gen_golden.py")
}

func requireSamePixels(t *testing.T, want, got raster) {
	t.Helper()
	require.Equal(t, [3]int{want.w, want.h, want.channels}, [3]int{got.w, got.h, got.channels}, "width, height, channels")
	different, largest := 0, 0
	for y := range want.h {
		w, g := want.row(y), got.row(y)
		for x := range w {
			if d := int(w[x]) - int(g[x]); d != 0 {
				different++
				largest = max(largest, d, -d)
			}
		}
	}
	require.Zero(t, different, "samples that differ, at most by %d", largest)
}

var resizeName = regexp.MustCompile(`^(resize-\d+x\d+)\.(\d+)x(\d+)\.(\w+)\.png$`)

func TestResizeEqualsPillow(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/resize-*")
	require.NoError(t, err)
	var r resizer // one for all, so that a stale coefficient shows
	n := 0
	for _, file := range files {
		m := resizeName.FindStringSubmatch(filepath.Base(file))
		if m == nil {
			continue
		}
		n++
		t.Run(m[0], func(t *testing.T) {
			var w, h int
			_, err := fmt.Sscanf(m[2]+" "+m[3], "%d %d", &w, &h)
			require.NoError(t, err)
			src := readPNG(t, "testdata/golden/"+m[1]+".png")
			want := readPNG(t, file)
			got := r.resize(src, h, w, window{0, 0, h}, window{0, 0, w}, Interpolation(m[4]))
			requireSamePixels(t, want, got)

			// A window of the result is the same pixels.
			for _, win := range [][2]window{
				{{h / 4, 0, h - h/3}, {w / 3, 0, w - w/2}}, {{h - 1, 0, 1}, {0, 0, w}}, {{0, 0, h}, {w - 1, 0, 1}},
			} {
				y, x := win[0], win[1]
				part := raster{w: x.n, h: y.n, channels: want.channels, stride: x.n * want.channels}
				for row := y.from; row < y.from+y.n; row++ {
					part.pix = append(part.pix, want.pix[(row*w+x.from)*want.channels:(row*w+x.from+x.n)*want.channels]...)
				}
				requireSamePixels(t, part, r.resize(src, h, w, y, x, Interpolation(m[4])))
			}
		})
	}
	require.Greater(t, n, 20, "golden files are missing: run testdata/gen_golden.py")
}
