package dataset

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGeometryIsTorchvisions(t *testing.T) {
	// Sizes from torchvision: int(256 * long / short), and round((size - crop) / 2) with Python's rounding of halves to even.
	for _, c := range []struct{ h, w, rh, rw, top, left int }{
		{375, 500, 256, 341, 16, 58},
		{500, 375, 341, 256, 58, 16},
		{333, 500, 256, 384, 16, 80},
		{500, 334, 383, 256, 80, 16}, // 79.5 to 80
		{227, 227, 256, 256, 16, 16},
		{251, 333, 256, 339, 16, 58}, // 57.5 to 58
		{1, 1000, 256, 256000, 16, 127888},
	} {
		p := Preprocess{InputSize: 224, Resize: 256}
		rh, rw := p.resized(c.h, c.w)
		y, x, err := p.crop(rh, rw)
		require.NoError(t, err)
		require.Equal(t, []any{c.rh, c.rw, window{c.top, 0, 224}, window{c.left, 0, 224}}, []any{rh, rw, y, x})
	}
	require.Equal(t, 2, centre(227, 224)) // 1.5 to 2
	require.Equal(t, 0, centre(225, 224)) // 0.5 to 0
	require.Equal(t, 2, centre(229, 224)) // 2.5 to 2
	require.Equal(t, window{0, 1, 221}, centred(221, 224))

	// timm: floor(224 / 0.875) = 256, floor(224 / 0.9) = 248
	require.Equal(t, 256, Preprocess{InputSize: 224, CropPct: 0.875}.short())
	require.Equal(t, 248, Preprocess{InputSize: 224, CropPct: 0.9}.short())
}

func TestPaddingIsBlackBeforeNormalisation(t *testing.T) {
	p, err := Preset("tf", 3)
	require.NoError(t, err)
	p.InputSize, p.BGR = 4, true
	w := newWorker(&Dataset{}, p)
	img := raster{pix: []byte{255, 0, 51, 255, 0, 51}, w: 1, h: 2, channels: 3, stride: 3}
	dst := make([]float32, 3*16)
	require.NoError(t, w.prepare(img, dst))
	for c, v := range []float32{-0.6, -1, 1} { // blue, green, red
		for i, got := range dst[16*c : 16*c+16] {
			want := float32(-1)
			if i == 4*1+1 || i == 4*2+1 {
				want = v
			}
			require.InDelta(t, want, got, 1e-6, "channel %d, pixel %d", c, i)
		}
	}
}

func TestPresets(t *testing.T) {
	for _, name := range Presets() {
		p, err := Preset(name, 3)
		require.NoError(t, err)
		p.InputSize = 224
		require.NoError(t, p.Validate())
		tolerance := 1e-6
		if name == "caffe" {
			tolerance *= 255 // its values are on the scale 0..255
		}
		for v, got := range p.lookup()[0] {
			x := float64(v)
			want := map[string]float64{"imagenet": (x/255 - 0.485) / 0.229, "tf": (x - 127.5) / 127.5, "unit": x / 255, "caffe": x - 103.939}[name]
			require.InDelta(t, want, got, tolerance)
		}
		require.Equal(t, name == "caffe", p.BGR)
	}
	_, err := Preset("imagenet", 1)
	require.ErrorContains(t, err, "--mean")
	_, err = Preset("Imagenet", 3)
	require.ErrorContains(t, err, "imagenet, tf, unit, caffe")
	_, err = Preset("unit", 4)
	require.ErrorContains(t, err, "4 channels")
}

func TestValidate(t *testing.T) {
	good := imagenet224(t)
	require.NoError(t, good.Validate())
	nan := float32(math.NaN())
	for want, change := range map[string]func(p *Preprocess){
		"input size 0":            func(p *Preprocess) { p.InputSize = 0 },
		"both a resize":           func(p *Preprocess) { p.CropPct = 0.875 },
		"crop_pct 1.5":            func(p *Preprocess) { p.Resize, p.CropPct = 0, 1.5 },
		"crop_pct NaN":            func(p *Preprocess) { p.Resize, p.CropPct = 0, math.NaN() },
		"resizes to":              func(p *Preprocess) { p.Resize, p.CropPct = 0, 1e-9 },
		"resize -1":               func(p *Preprocess) { p.Resize = -1 },
		"smaller than the input":  func(p *Preprocess) { p.Resize = 223 },
		"crop offset -1,0":        func(p *Preprocess) { p.CropOffset = &[2]int{-1, 0} },
		`interpolation "nearest"`: func(p *Preprocess) { p.Interpolation = "nearest" },
		"2 channels":              func(p *Preprocess) { p.Channels = 2 },
		"std has 2 values":        func(p *Preprocess) { p.Std = p.Std[:2] },
		"std 0 is not":            func(p *Preprocess) { p.Std = []float32{1, 0, 1} },
		"std NaN":                 func(p *Preprocess) { p.Std = []float32{1, nan, 1} },
		"mean NaN":                func(p *Preprocess) { p.Mean = []float32{nan, 0, 0} },
		"mean 124 is not on the scale 0..1: divide by 255: 0.4863": func(p *Preprocess) { p.Mean = []float32{124, 116, 104} },
		"mean -1.6 is not on": func(p *Preprocess) { p.Mean = []float32{0, -1.6, 0} },
		"std 58.395 is not on the scale 0..1: divide by 255: 0.229": func(p *Preprocess) { p.Std = []float32{58.395, 57.12, 57.375} },
		"mean +Inf":   func(p *Preprocess) { p.Mean = []float32{0, 0, float32(math.Inf(1))} },
		"bgr needs 3": func(p *Preprocess) { p.Channels, p.Mean, p.Std, p.BGR = 1, []float32{0}, []float32{1}, true },
	} {
		p := good
		change(&p)
		require.ErrorContains(t, p.Validate(), want)
	}
}

func TestPreprocessDigest(t *testing.T) {
	p := imagenet224(t)
	require.Equal(t, "resize 256 bilinear, crop 224 at centre, rgb, mean 0.485,0.456,0.406, std 0.229,0.224,0.225", p.String())
	same := p
	same.Interpolation = Bilinear
	require.Equal(t, p.Digest(), same.Digest())
	same.Resize, same.CropPct = 0, 0.875 // the same 256
	require.Equal(t, p.Digest(), same.Digest())
	other := p
	other.Mean = []float32{0.485, 0.456, 0.4060001}
	require.NotEqual(t, p.Digest(), other.Digest())
}

// labelled makes a data set of items with the given labels.
func labelled(labels ...int) *Dataset {
	d := &Dataset{}
	for i, l := range labels {
		d.items = append(d.items, Item{ID: i, Label: l})
	}
	return d
}

func TestSplitTakesTheFirst(t *testing.T) {
	d := labelled(0, 1, 2, 0, 2, 1, 1, 0, 2, 0)
	s, err := d.Split(2, 3)
	require.NoError(t, err)
	require.Equal(t, Split{Calib: []int{0, 1, 2, 3, 4, 5}, Score: []int{6, 7, 8, 9}}, s)
	s, err = d.Split(3, 0)
	require.NoError(t, err)
	require.Len(t, s.Score, 10)

	_, err = d.Split(2, 5)
	require.ErrorIs(t, err, ErrTooFew)
	require.ErrorContains(t, err, "5 batches of 2")
	_, err = d.Split(0, 1)
	require.ErrorContains(t, err, "batch size 0")
	_, err = d.Split(math.MaxInt, math.MaxInt)
	require.ErrorIs(t, err, ErrTooFew)
}

func TestSplitDrawsByClassFromAGroupedOrder(t *testing.T) {
	var labels []int
	for c := range 10 {
		for range 30 + c%3 {
			labels = append(labels, c)
		}
	}
	d := labelled(labels...)
	s, err := d.Split(10, 5)
	require.NoError(t, err)
	require.True(t, s.Stratified)
	require.NotZero(t, s.Seed)
	again, err := d.Split(10, 5)
	require.NoError(t, err)
	require.Equal(t, s, again, "the draw is seeded")

	perClass := map[int]int{}
	for _, i := range s.Calib {
		perClass[labels[i]]++
	}
	for c := range 10 { // 50 of about 310: 4.8 to 5.2 a class
		require.InDelta(t, 5, perClass[c], 1, "class %d", c)
	}
	all := append(slices.Clone(s.Calib), s.Score...)
	slices.Sort(all)
	require.Equal(t, ids(len(labels)), all, "every image is in one part")
	require.True(t, slices.IsSorted(s.Score))
	require.False(t, slices.IsSorted(s.Calib), "the first batch must not be of the first classes")
}

// The draw must not change between versions and machines: manifests name its images.
func TestStratifiedDrawIsFixed(t *testing.T) {
	items := labelled(0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1).items
	require.Equal(t, []int{8, 3, 0, 7}, stratified(items, 4, defaultSeed))
}

func TestGroupedByClass(t *testing.T) {
	random := make([]int, 1000)
	for i := range random {
		random[i] = i * 7919 % 1009 % 10
	}
	sorted := slices.Clone(random)
	slices.Sort(sorted)
	for _, c := range []struct {
		labels []int
		want   bool
	}{
		{[]int{0, 0, 1, 1, 2, 2}, true},
		{[]int{2, 2, 0, 1, 1}, true},
		{[]int{0, 1, 0, 1, 0, 1}, false},
		{[]int{0, 1, 2, 3}, false},
		{[]int{5, 5, 5}, false},
		{[]int{0}, false},
		{[]int{0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1}, true}, // class folders of two merged sets
		{random, false},
		{sorted, true},
	} {
		require.Equal(t, c.want, groupedByClass(labelled(c.labels...).items), "%v", c.labels[:min(len(c.labels), 16)])
	}
}
