package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/internal/ui"
)

// dataFlags say which images are read and how they are split. The zero value of a field is its default.
type dataFlags struct {
	Images       string
	Labels       string
	Format       string
	Limit        int
	BatchSize    int
	CalibBatches int

	imageCache     string
	imageCacheSize string

	preprocessFlags
	source     *sourceFacts    // set by register
	overridden map[string]bool // flags set by override
}

// sourceFacts are what open learns about the images. Copies of the flags share them, so that those made for one model before the
// images are opened know them too.
type sourceFacts struct {
	channels, h, w int  // h and w are 0 where images differ in size
	preprocessed   bool // batch files, fed as they are
}

// preprocessFlags say how an image becomes a model's input. Models of one run may differ in them.
type preprocessFlags struct {
	InputSize     int
	Resize        string
	CropPct       float64
	CropOffset    string
	Interpolation string
	Mean          string
	Std           string
	Preset        string
	ChannelOrder  string
}

// Defaults of the split.
const (
	defaultBatchSize    = 25
	defaultCalibBatches = 50
)

// defaultInputSize is the side in pixels where neither the flags, the model nor the images fix one.
const defaultInputSize = 224

// defaultImageCacheSize holds ImageNet's validation set at 224x224 twice.
const defaultImageCacheSize = "16G"

// defaultCropPct is torchvision's 224 of 256.
const defaultCropPct = 0.875

// register declares the flags on fs.
func (f *dataFlags) register(fs *pflag.FlagSet) {
	f.registerSource(fs)
	f.preprocessFlags.register(fs)
	fs.StringVar(&f.imageCache, "image-cache", or(f.imageCache, "off"), "keep resized and cropped images for later runs, which need not decode them then: off|auto|DIR; auto is quantgate/images in the user's cache folder")
	fs.StringVar(&f.imageCacheSize, "image-cache-size", or(f.imageCacheSize, defaultImageCacheSize), "most that the folder of --image-cache holds, in `MiB`, or with the unit B, K, M or G (an image of 224x224 takes 147K); what was not used for longest makes room")
}

// registerSource declares the flags that say which images are read and how they are split.
func (f *dataFlags) registerSource(fs *pflag.FlagSet) {
	f.source = &sourceFacts{}
	fs.StringVar(&f.Images, "images", f.Images, "`path` of the images: a folder, tar, IDX file, or folder with an IDX pair or batch files")
	fs.StringVar(&f.Labels, "labels", f.Labels, "label `file`: lines of \"file class\"; class folder names in class order; or an IDX labels file")
	fs.StringVar(&f.Format, "format", or(f.Format, "auto"), "what --images is: auto|list|folders|tar|idx|batches")
	fs.IntVar(&f.Limit, "limit", f.Limit, "use the first `N` images only, counted before the split; 0 uses all")
	fs.IntVar(&f.BatchSize, "batch-size", orInt(f.BatchSize, defaultBatchSize), "images a batch")
	fs.IntVar(&f.CalibBatches, "calib-batches", orInt(f.CalibBatches, defaultCalibBatches), "batches that calibrate and are not scored")
}

func (f *preprocessFlags) register(fs *pflag.FlagSet) {
	fs.IntVar(&f.InputSize, "input-size", f.InputSize, "side of the model's input in `pixels` (default: what the model says, else 224)")
	fs.StringVar(&f.Resize, "resize", f.Resize, "`pixels` that the short side is resized to before the crop, or none (default: input size / 0.875, as 256 for 224; none for images stored at the input size)")
	fs.Float64Var(&f.CropPct, "crop-pct", f.CropPct, "resize to input size / this `share`, as timm says it (not with --resize)")
	fs.StringVar(&f.CropOffset, "crop-offset", f.CropOffset, "top and left of the crop in pixels, as `Y,X` (default: the centre)")
	fs.StringVar(&f.Interpolation, "interpolation", or(f.Interpolation, string(dataset.Bilinear)), "filter of the resize: bilinear|bicubic, both antialiased as Pillow's")
	fs.StringVar(&f.Mean, "mean", f.Mean, "mean of each channel on the scale 0..1, as `a,b,c`, in the order of --channel-order")
	fs.StringVar(&f.Std, "std", f.Std, "standard deviation of each channel on the scale 0..1, as `a,b,c`")
	fs.StringVar(&f.Preset, "preset", f.Preset, "mean, std and channel order by name: "+strings.Join(dataset.Presets(), "|")+" (default: imagenet, or unit for 1 channel)")
	fs.StringVar(&f.ChannelOrder, "channel-order", f.ChannelOrder, "order of the channels: rgb|bgr (default: the preset's)")
}

// override gives one model a setting of its own, by the flag's name. It replaces the shared settings that it excludes.
func (f *dataFlags) override(key, value string) error {
	if f.overridden == nil {
		f.overridden = map[string]bool{}
	}
	f.overridden[key] = true
	switch {
	case key == "resize" && !f.overridden["crop-pct"]:
		f.CropPct = 0
	case key == "crop-pct" && !f.overridden["resize"]:
		f.Resize = ""
	case key == "preset" && !f.overridden["mean"] && !f.overridden["std"]:
		f.Mean, f.Std = "", ""
	case (key == "mean" || key == "std") && !f.overridden["preset"]:
		f.Preset = ""
	}
	fs := pflag.NewFlagSet("model", pflag.ContinueOnError)
	f.preprocessFlags.register(fs)
	if fs.Lookup(key) == nil {
		return fmt.Errorf("%s cannot be set for one model", key)
	}
	if err := fs.Set(key, value); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// open opens the images and prints what there is to warn of.
func (f *dataFlags) open(ctx context.Context, u *ui.UI) (*dataset.Dataset, error) {
	cache, err := f.cache()
	if err != nil {
		return nil, err
	}
	cache.Warn = func(message string) { u.Warnf("%s", message) }
	cache.Note = func(message string) { u.Infof("%s", message) }
	d, err := dataset.Open(ctx, dataset.Options{Images: f.Images, Labels: f.Labels, Format: dataset.Format(f.Format), Limit: f.Limit, ImageCache: cache})
	if err != nil {
		return nil, err
	}
	for _, w := range d.Warnings() {
		u.Warnf("%s", w)
	}
	f.source.channels, f.source.preprocessed = d.Channels(), d.Preprocessed()
	f.source.h, f.source.w, _ = d.FixedSize()
	return d, nil
}

// cache says where preprocessed images are kept.
func (f *dataFlags) cache() (c dataset.ImageCache, err error) {
	switch f.imageCache {
	case "", "off":
		return c, nil
	case "auto":
		if c.Dir, err = os.UserCacheDir(); err != nil {
			return c, fmt.Errorf("--image-cache auto: %w: name a folder", err)
		}
		c.Dir = filepath.Join(c.Dir, "quantgate", "images")
	default:
		c.Dir = f.imageCache
	}
	if c.Limit, err = parseSize(or(f.imageCacheSize, defaultImageCacheSize)); err != nil {
		return c, fmt.Errorf("--image-cache-size %q: %w", f.imageCacheSize, err)
	}
	return c, nil
}

// preprocess makes the settings for a model whose input has the given channels, height and width in pixels; a height and
// width of 0 or below are not fixed by the model. Images stored at one size, which open has learnt, are not resized unless
// asked for where that is the input's size.
func (f *dataFlags) preprocess(channels, modelH, modelW int) (dataset.Preprocess, error) {
	if f.source.preprocessed {
		return f.stored(channels, modelH, modelW)
	}
	p, err := f.normalisation(channels)
	if err != nil {
		return p, err
	}
	if modelH > 0 && modelW > 0 && modelH != modelW {
		return p, fmt.Errorf("the model takes images of %dx%d (height x width) and only square inputs can be made: pack them as batch files", modelH, modelW)
	}
	size := max(modelH, modelW)
	square := f.source.h > 0 && f.source.h == f.source.w
	switch {
	case f.InputSize < 0:
		return p, fmt.Errorf("--input-size %d: give a number of pixels", f.InputSize)
	case f.InputSize > 0 && size > 0 && f.InputSize != size:
		return p, fmt.Errorf("--input-size %d: the model takes %dx%d", f.InputSize, size, size)
	case f.InputSize > 0:
		p.InputSize = f.InputSize
	case size > 0:
		p.InputSize = size
	case square:
		p.InputSize = f.source.h
	default:
		p.InputSize = defaultInputSize
	}
	asStored := square && f.source.h == p.InputSize
	switch {
	case f.CropPct != 0 && f.Resize != "":
		return p, errors.New("--crop-pct and --resize exclude each other: give one")
	case f.CropPct != 0:
		p.CropPct = f.CropPct
	case f.Resize == "none" || f.Resize == "" && asStored:
	case f.Resize == "":
		p.CropPct = defaultCropPct
	default:
		if p.Resize, err = strconv.Atoi(f.Resize); err != nil || p.Resize < 1 {
			return p, fmt.Errorf("--resize %q: give a number of pixels, or none", f.Resize)
		}
	}
	if f.CropOffset != "" {
		if p.CropOffset, err = parseOffset(f.CropOffset); err != nil {
			return p, err
		}
	}
	p.Interpolation = dataset.Interpolation(or(f.Interpolation, string(dataset.Bilinear)))
	return p, p.Validate()
}

// stored makes the settings for preprocessed tensors, which must fit the model.
func (f *dataFlags) stored(channels, modelH, modelW int) (dataset.Preprocess, error) {
	if f.Resize != "" || f.CropPct != 0 || f.CropOffset != "" || f.Mean != "" || f.Std != "" || f.Preset != "" || f.ChannelOrder != "" {
		return dataset.Preprocess{}, errors.New("batch files are fed as they are: leave --resize, --crop-pct, --crop-offset, --mean, --std, --preset and --channel-order out")
	}
	h, w := f.source.h, f.source.w
	if f.source.channels != channels || modelH > 0 && modelH != h || modelW > 0 && modelW != w || f.InputSize > 0 && (f.InputSize != h || f.InputSize != w) {
		return dataset.Preprocess{}, fmt.Errorf("the batch files hold images of %dx%dx%d and the model takes %dx%sx%s",
			f.source.channels, h, w, channels, fixedOr(modelH, f.InputSize), fixedOr(modelW, f.InputSize))
	}
	return dataset.Preprocess{Channels: channels}, nil
}

func fixedOr(n, fallback int) string {
	switch {
	case n > 0:
		return strconv.Itoa(n)
	case fallback > 0:
		return strconv.Itoa(fallback)
	}
	return "?"
}

// normalisation makes mean, standard deviation and channel order.
func (f *preprocessFlags) normalisation(channels int) (dataset.Preprocess, error) {
	explicit := f.Mean != "" || f.Std != ""
	switch {
	case explicit && f.Preset != "":
		return dataset.Preprocess{}, errors.New("--preset and --mean/--std exclude each other: give one")
	case explicit && (f.Mean == "" || f.Std == ""):
		return dataset.Preprocess{}, errors.New("--mean and --std belong together: give both")
	}
	preset := f.Preset
	if preset == "" {
		preset = "unit"
		if channels == 3 && !explicit {
			preset = "imagenet"
		}
	}
	p, err := dataset.Preset(preset, channels)
	if err != nil {
		return p, err
	}
	if explicit {
		if p.Mean, err = parseValues("--mean", f.Mean); err != nil {
			return p, err
		}
		if p.Std, err = parseValues("--std", f.Std); err != nil {
			return p, err
		}
	}
	switch f.ChannelOrder {
	case "":
	case "rgb", "bgr":
		if bgr := f.ChannelOrder == "bgr"; bgr != p.BGR {
			if f.Preset == "imagenet" || f.Preset == "caffe" || preset == "imagenet" {
				p.Mean[0], p.Mean[2] = p.Mean[2], p.Mean[0] // a preset's values belong to colours, not to places
				p.Std[0], p.Std[2] = p.Std[2], p.Std[0]
			}
			p.BGR = bgr
		}
	default:
		return p, fmt.Errorf("--channel-order %q: give rgb or bgr", f.ChannelOrder)
	}
	return p, nil
}

// parseValues reads numbers separated by commas.
func parseValues(flag, s string) ([]float32, error) {
	var values []float32
	for part := range strings.SplitSeq(s, ",") {
		v, err := strconv.ParseFloat(strings.TrimSpace(part), 32)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %q is not a number: give one value a channel, such as 0.5,0.5,0.5", flag, s, part)
		}
		values = append(values, float32(v))
	}
	return values, nil
}

// parseOffset reads Y,X.
func parseOffset(s string) (*[2]int, error) {
	y, x, ok := strings.Cut(s, ",")
	top, errY := strconv.Atoi(strings.TrimSpace(y))
	left, errX := strconv.Atoi(strings.TrimSpace(x))
	if !ok || errY != nil || errX != nil || top < 0 || left < 0 {
		return nil, fmt.Errorf("--crop-offset %q: give the top and left of the crop in pixels, such as 1,1", s)
	}
	return &[2]int{top, left}, nil
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

func orInt(n, fallback int) int {
	if n == 0 {
		return fallback
	}
	return n
}
