package dataset

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// noise is an image in which every byte matters: random ones, and stretches of 0 and of 255, which clip.
func noise(w, h, channels int, seed uint64) raster {
	img := newRaster(w, h, channels, nil)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range img.pix {
		switch r.IntN(4) {
		case 0:
			img.pix[i] = 0
		case 1:
			img.pix[i] = 255
		default:
			img.pix[i] = byte(r.Uint32())
		}
	}
	return img
}

// newResizer returns a resizer that computes in Go where plain is set, and with the machine's kernels else.
func newResizer(plain bool) *resizer {
	r := &resizer{}
	r.horizontal.plain, r.vertical.plain = plain, plain
	return r
}

func TestSIMDEqualsGo(t *testing.T) {
	if !simd {
		t.Skip("no kernels for this machine")
	}
	fast, plain := newResizer(false), newResizer(true)
	// Widths and heights around the kernels' 4 pixels, 4 rows and 16 bytes; reductions of 1 to 60 taps; enlargements.
	sizes := [][2]int{{1, 1}, {2, 9}, {5, 5}, {6, 4}, {7, 3}, {16, 17}, {33, 8}, {61, 47}, {500, 375}, {375, 500}, {640, 101}, {90, 700}}
	for _, from := range sizes {
		for _, channels := range []int{1, 3} {
			img := noise(from[0], from[1], channels, uint64(from[0]))
			for _, to := range sizes {
				w, h := to[0], to[1]
				for _, filter := range []Interpolation{Bilinear, Bicubic} {
					for _, win := range [][2]window{{{0, 0, h}, {0, 0, w}}, {{h / 3, 0, h - h/2}, {w / 4, 0, w - w/2}}} {
						want := plain.resize(img, h, w, win[0], win[1], filter)
						got := fast.resize(img, h, w, win[0], win[1], filter)
						require.Equal(t, [3]int{want.w, want.h, want.channels}, [3]int{got.w, got.h, got.channels})
						for row := range want.h {
							if !bytes.Equal(want.row(row), got.row(row)) {
								t.Fatalf("%v to %v, %d channels, %s, %v: row %d differs", from, to, channels, filter, win, row)
							}
						}
					}
				}
			}
		}
	}
}

// TestSIMDNormalisesAsGo: planes of crops around the kernel's 8 pixels, alone and padded, of every preset in both orders.
func TestSIMDNormalisesAsGo(t *testing.T) {
	if !simd {
		t.Skip("no kernels for this machine")
	}
	const side = 40
	for _, preset := range Presets() {
		for _, bgr := range []bool{false, true} {
			p, err := Preset(preset, 3)
			require.NoError(t, err)
			p.InputSize, p.BGR = side, bgr
			fast, plain := newWorker(&Dataset{}, p), newWorker(&Dataset{}, p)
			require.NotNil(t, fast.norm, "%s: the kernel gives other values than the table", preset)
			plain.norm = nil
			for _, size := range [][2]int{{side, side}, {1, 1}, {7, side}, {8, 1}, {9, 3}, {16, 5}, {39, 2}} {
				crop := noise(size[0], size[1], 3, 7)
				var got, want [3 * side * side]float32
				y, x := centred(size[1], side), centred(size[0], side)
				fast.normalise(crop, y, x, got[:])
				plain.normalise(crop, y, x, want[:])
				require.Equal(t, want, got, "%s, bgr %v, %v", preset, bgr, size)
			}
		}
	}
}

// TestSIMDLeavesWhatItWouldRoundOtherwise: a std whose reciprocal no float32 holds is left to the table.
func TestSIMDLeavesWhatItWouldRoundOtherwise(t *testing.T) {
	p, err := Preset("unit", 3)
	require.NoError(t, err)
	p.InputSize, p.Std = 8, []float32{1, 1, 1e-45}
	require.NoError(t, p.Validate())
	require.Nil(t, p.norm(p.lookup()))
}

func FuzzSIMD(f *testing.F) {
	if !simd {
		f.Skip("no kernels for this machine")
	}
	f.Add(uint16(500), uint16(375), uint16(341), uint16(256), uint16(58), uint16(16), true, false, uint64(1))
	f.Add(uint16(3), uint16(200), uint16(40), uint16(7), uint16(0), uint16(1), false, true, uint64(2))
	f.Fuzz(func(t *testing.T, w, h, rw, rh, left, top uint16, colour, cubic bool, seed uint64) {
		side := func(v uint16) int { return 1 + int(v)%800 }
		channels, filter := 1, Bilinear
		if colour {
			channels = 3
		}
		if cubic {
			filter = Bicubic
		}
		img := noise(side(w), side(h), channels, seed)
		y, x := window{int(top) % side(rh), 0, 0}, window{int(left) % side(rw), 0, 0}
		y.n, x.n = 1+int(seed%1000)*(side(rh)-y.from-1)/1000, side(rw)-x.from
		want := newResizer(true).resize(img, side(rh), side(rw), y, x, filter)
		got := newResizer(false).resize(img, side(rh), side(rw), y, x, filter)
		require.Equal(t, want.w, got.w)
		require.Equal(t, want.h, got.h)
		for r := range want.h {
			require.Equal(t, want.row(r), got.row(r), "row %d", r)
		}
	})
}
