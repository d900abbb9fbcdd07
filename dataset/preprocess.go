package dataset

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Interpolation is the filter of a resize, as torchvision and timm name it.
type Interpolation string

// The interpolations. Both are antialiased: the filter widens with the reduction.
const (
	Bilinear Interpolation = "bilinear"
	Bicubic  Interpolation = "bicubic"
)

// maxInputSize bounds the side of a model's input in pixels.
const maxInputSize = 1 << 14

// maxNormal bounds the magnitude of a mean and a standard deviation, which are on the scale 0..1, so that values on the scale
// 0..255 are an error and not a model that sees next to nothing.
const maxNormal = 1.5

// Preprocess says how an image becomes a model's input: resize the short side, crop, scale to 0..1, subtract the mean and
// divide by the standard deviation. It does not apply to sources that are Preprocessed.
type Preprocess struct {
	// InputSize is the side of the square crop in pixels.
	InputSize int `json:"input_size"`
	// Resize is the length in pixels that the short side is resized to; 0 leaves the size alone.
	Resize int `json:"resize"`
	// CropPct is InputSize/Resize as timm states it: Resize is floor(InputSize/CropPct). 0 where Resize says it.
	CropPct float64 `json:"crop_pct,omitempty"`
	// CropOffset is the top and left of the crop in pixels; nil crops the centre as torchvision does.
	CropOffset *[2]int `json:"crop_offset,omitempty"`
	// Interpolation is the filter of the resize; empty means Bilinear.
	Interpolation Interpolation `json:"interpolation"`
	// Mean and Std are on the scale 0..1, one value a channel in the order of the tensor's channels.
	Mean []float32 `json:"mean"`
	Std  []float32 `json:"std"`
	// BGR puts the channels into the order blue, green, red.
	BGR bool `json:"bgr"`
	// Channels is the number of channels of the tensor: 3, or 1 for grey.
	Channels int `json:"channels"`
}

// Presets lists the names that Preset knows.
func Presets() []string { return []string{"imagenet", "tf", "unit", "caffe"} }

// Preset returns the normalisation of a family of models for a number of channels; the other fields are zero.
//
//	imagenet  torchvision's and timm's mean and standard deviation of RGB
//	tf        -1..1: (x/255-0.5)/0.5
//	unit      0..1
//	caffe     BGR 0..255 less the mean of Keras's and Caffe's VGG: 103.939, 116.779, 123.68
func Preset(name string, channels int) (Preprocess, error) {
	p := Preprocess{Channels: channels}
	if channels != 1 && channels != 3 {
		return p, fmt.Errorf("%d channels: only 1 and 3 are known", channels)
	}
	switch name {
	case "tf":
		p.Mean, p.Std = repeat(0.5, channels), repeat(0.5, channels)
	case "unit":
		p.Mean, p.Std = repeat(0, channels), repeat(1, channels)
	case "imagenet", "caffe":
		if channels != 3 {
			return p, fmt.Errorf("preset %s is for 3 channels and the model has %d: give --mean and --std, or --preset tf or unit", name, channels)
		}
		if name == "imagenet" {
			p.Mean, p.Std = []float32{0.485, 0.456, 0.406}, []float32{0.229, 0.224, 0.225}
		} else {
			p.Mean, p.Std = []float32{103.939 / 255, 116.779 / 255, 123.68 / 255}, repeat(1.0/255, 3)
			p.BGR = true
		}
	default:
		return p, fmt.Errorf("unknown preset %q: give %s", name, strings.Join(Presets(), ", "))
	}
	return p, nil
}

func repeat(v float32, n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = v
	}
	return s
}

// Validate reports what is wrong with the settings.
func (p Preprocess) Validate() error {
	switch {
	case p.InputSize < 1 || p.InputSize > maxInputSize:
		return fmt.Errorf("input size %d: give 1 to %d pixels", p.InputSize, maxInputSize)
	case p.Resize < 0 || p.Resize > maxInputSize:
		return fmt.Errorf("resize %d: give 1 to %d pixels, or none", p.Resize, maxInputSize)
	case p.CropPct != 0 && p.Resize != 0:
		return errors.New("both a resize and a crop share (crop_pct) are given: give one")
	case p.CropPct < 0 || p.CropPct > 1 || math.IsNaN(p.CropPct):
		return fmt.Errorf("crop_pct %v: give a share above 0 and up to 1", p.CropPct)
	case p.short() > maxInputSize:
		return fmt.Errorf("crop_pct %v resizes to %d pixels: at most %d", p.CropPct, p.short(), maxInputSize)
	case p.short() != 0 && p.short() < p.InputSize:
		return fmt.Errorf("resize %d is smaller than the input size %d: the crop would leave the image", p.Resize, p.InputSize)
	case p.CropOffset != nil && (p.CropOffset[0] < 0 || p.CropOffset[1] < 0):
		return fmt.Errorf("crop offset %d,%d is negative", p.CropOffset[0], p.CropOffset[1])
	case p.Interpolation != "" && p.Interpolation != Bilinear && p.Interpolation != Bicubic:
		return fmt.Errorf("unknown interpolation %q: give bilinear or bicubic", p.Interpolation)
	case p.Channels != 1 && p.Channels != 3:
		return fmt.Errorf("%d channels: only 1 and 3 are known", p.Channels)
	case len(p.Mean) != p.Channels:
		return fmt.Errorf("mean has %d values for %d channels: give one a channel", len(p.Mean), p.Channels)
	case len(p.Std) != p.Channels:
		return fmt.Errorf("std has %d values for %d channels: give one a channel", len(p.Std), p.Channels)
	case p.BGR && p.Channels != 3:
		return errors.New("channel order bgr needs 3 channels")
	}
	for c := range p.Channels {
		if m := float64(p.Mean[c]); math.IsNaN(m) || math.IsInf(m, 0) {
			return fmt.Errorf("mean %v is not a finite number", p.Mean[c])
		}
		if s := float64(p.Std[c]); !(s > 0) || math.IsInf(s, 0) {
			return fmt.Errorf("std %v is not a positive number", p.Std[c])
		}
		if m := p.Mean[c]; m < -maxNormal || m > maxNormal {
			return fmt.Errorf("mean %v is not on the scale 0..1: divide by 255: %.4g", m, m/255)
		}
		if s := p.Std[c]; s > maxNormal {
			return fmt.Errorf("std %v is not on the scale 0..1: divide by 255: %.4g", s, s/255)
		}
	}
	return nil
}

// short is the length that the short side is resized to, 0 for none.
func (p Preprocess) short() int {
	if p.CropPct > 0 {
		return int(math.Floor(float64(p.InputSize) / p.CropPct)) // timm data/transforms_factory.py
	}
	return p.Resize
}

// String states the settings in one line; equal settings give equal lines.
func (p Preprocess) String() string {
	order := "rgb"
	switch {
	case p.Channels == 1:
		order = "grey"
	case p.BGR:
		order = "bgr"
	}
	return fmt.Sprintf("%s, %s, mean %s, std %s", p.geometry(), order, joinFloats(p.Mean), joinFloats(p.Std))
}

// geometry states resize and crop, in the same way.
func (p Preprocess) geometry() string {
	var b strings.Builder
	if s := p.short(); s == 0 {
		b.WriteString("resize none")
	} else {
		filter := p.Interpolation
		if filter == "" {
			filter = Bilinear
		}
		fmt.Fprintf(&b, "resize %d %s", s, filter)
	}
	fmt.Fprintf(&b, ", crop %d at ", p.InputSize)
	if p.CropOffset == nil {
		b.WriteString("centre")
	} else {
		fmt.Fprintf(&b, "%d,%d", p.CropOffset[0], p.CropOffset[1])
	}
	return b.String()
}

// Digest is the SHA-256 of String in hex.
func (p Preprocess) Digest() string {
	sum := sha256.Sum256([]byte(p.String()))
	return hex.EncodeToString(sum[:])
}

func joinFloats(v []float32) string {
	s := make([]string, len(v))
	for i, x := range v {
		s[i] = strconv.FormatFloat(float64(x), 'g', -1, 32)
	}
	return strings.Join(s, ",")
}

// lookup returns the normalised value of each byte for each channel: ToTensor divides by 255, Normalize subtracts the mean
// and divides by the standard deviation, each step rounded to float32 (torchvision transforms/functional.py, _functional_tensor.py).
func (p Preprocess) lookup() [][256]float32 {
	t := make([][256]float32, p.Channels)
	for c := range t {
		for v := range t[c] {
			unit := float32(v) / 255
			centred := float32(unit - p.Mean[c])
			t[c][v] = centred / p.Std[c]
		}
	}
	return t
}

// colours are the channels of red, green and blue.
func (p Preprocess) colours() [3]int {
	if p.BGR {
		return [3]int{2, 1, 0}
	}
	return [3]int{0, 1, 2}
}

// resized is the size of an image of h x w pixels after the short side was resized: the long side is truncated
// (torchvision transforms/functional.py, _compute_resized_image_output_size).
func (p Preprocess) resized(h, w int) (rh, rw int) {
	s := p.short()
	switch {
	case s == 0:
		return h, w
	case w <= h:
		return s * h / w, s
	default:
		return s, s * w / h
	}
}

// centre is the offset of a centred crop: half the difference, halves rounded to the even number as Python's round does
// (torchvision transforms/functional.py, center_crop).
func centre(size, crop int) int {
	d := size - crop
	half := d / 2
	if d%2 == 1 && half%2 == 1 {
		half++
	}
	return half
}

// window is where the crop lies along one axis: pixels from..from+n of the resized image become to..to+n of the input, the
// rest is padding.
type window struct{ from, to, n int }

// crop places the input on a resized image of rh x rw pixels.
func (p Preprocess) crop(rh, rw int) (y, x window, err error) {
	s := p.InputSize
	if o := p.CropOffset; o != nil {
		if o[0]+s > rh || o[1]+s > rw {
			return y, x, fmt.Errorf("crop of %dx%d at %d,%d leaves the image of %dx%d (height x width)", s, s, o[0], o[1], rh, rw)
		}
		return window{o[0], 0, s}, window{o[1], 0, s}, nil
	}
	return centred(rh, s), centred(rw, s), nil
}

// centred is the window of a centre crop; where the image is smaller it is padded, the odd pixel after it.
func centred(size, crop int) window {
	if size < crop {
		return window{0, (crop - size) / 2, size}
	}
	return window{centre(size, crop), 0, crop}
}
