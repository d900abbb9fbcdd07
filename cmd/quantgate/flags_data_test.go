package main

import (
	"context"
	"io"
	"path/filepath"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/internal/ui"
)

// parsed reads a command line's data flags.
func parsed(t *testing.T, args ...string) *dataFlags {
	t.Helper()
	f := &dataFlags{}
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	f.register(fs)
	require.NoError(t, fs.Parse(args))
	return f
}

func TestPreprocessFlags(t *testing.T) {
	const imagenet = "mean 0.485,0.456,0.406, std 0.229,0.224,0.225"
	for _, c := range []struct {
		args           []string
		channels, h, w int
		want           string
	}{
		{nil, 3, 224, 224, "resize 256 bilinear, crop 224 at centre, rgb, " + imagenet},
		{nil, 1, 28, 28, "resize 32 bilinear, crop 28 at centre, grey, mean 0, std 1"},
		{nil, 3, -1, -1, "resize 256 bilinear, crop 224 at centre, rgb, " + imagenet},
		{[]string{"--resize", "none", "--crop-offset", "1,1"}, 3, 224, 224, "resize none, crop 224 at 1,1, rgb, " + imagenet},
		{[]string{"--input-size", "299", "--crop-pct", "0.9", "--interpolation", "bicubic", "--preset", "tf"}, 3, -1, -1,
			"resize 332 bicubic, crop 299 at centre, rgb, mean 0.5,0.5,0.5, std 0.5,0.5,0.5"},
		{[]string{"--mean", "0.1,0.2,0.3", "--std", "1,0.5,0.25", "--channel-order", "bgr"}, 3, 224, 224,
			"resize 256 bilinear, crop 224 at centre, bgr, mean 0.1,0.2,0.3, std 1,0.5,0.25"},
		{[]string{"--preset", "imagenet", "--channel-order", "bgr"}, 3, 224, 224,
			"resize 256 bilinear, crop 224 at centre, bgr, mean 0.406,0.456,0.485, std 0.225,0.224,0.229"},
		{[]string{"--mean", "0.2860", "--std", "0.3530"}, 1, 28, 28, "resize 32 bilinear, crop 28 at centre, grey, mean 0.286, std 0.353"},
	} {
		p, err := parsed(t, c.args...).preprocess(c.channels, c.h, c.w)
		require.NoError(t, err, c.args)
		require.Equal(t, c.want, p.String(), c.args)
	}
	for want, args := range map[string][]string{
		"--crop-pct and --resize exclude":    {"--crop-pct", "0.9", "--resize", "256"},
		"--preset and --mean/--std exclude":  {"--preset", "tf", "--mean", "1,1,1", "--std", "1,1,1"},
		"belong together":                    {"--mean", "1,1,1"},
		"mean has 2 values for 3 channels":   {"--mean", "1,1", "--std", "1,1"},
		`"x" is not a number`:                {"--mean", "1,x,1", "--std", "1,1,1"},
		`--resize "abc"`:                     {"--resize", "abc"},
		`--crop-offset "1"`:                  {"--crop-offset", "1"},
		`--channel-order "gbr"`:              {"--channel-order", "gbr"},
		`unknown preset "vgg"`:               {"--preset", "vgg"},
		`unknown interpolation "lanczos"`:    {"--interpolation", "lanczos"},
		"--input-size 200: the model takes":  {"--input-size", "200"},
		"resize 100 is smaller than the inp": {"--resize", "100"},
		"std 0 is not a positive number":     {"--mean", "0,0,0", "--std", "0,1,1"},
	} {
		_, err := parsed(t, args...).preprocess(3, 224, 224)
		require.ErrorContains(t, err, want)
	}
	_, err := parsed(t).preprocess(3, 224, 192)
	require.ErrorContains(t, err, "only square inputs")
}

func TestPreprocessFlagsKnowTheSource(t *testing.T) {
	f := parsed(t, "--images", filepath.Join("..", "..", "testdata", "fashion300"))
	copied := *f // as made for one model, before the images are opened
	d, err := f.open(context.Background(), ui.New(io.Discard))
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	p, err := copied.preprocess(1, 28, 28)
	require.NoError(t, err)
	require.Equal(t, "resize none, crop 28 at centre, grey, mean 0, std 1", p.String())
	p, err = copied.preprocess(3, 32, 32)
	require.NoError(t, err)
	require.Equal(t, 36, int(float64(p.InputSize)/p.CropPct))
}

func TestOverride(t *testing.T) {
	f := parsed(t, "--preset", "imagenet", "--resize", "256")
	one := *f
	require.NoError(t, one.override("mean", "0,0,0"))
	require.NoError(t, one.override("std", "1,1,1"))
	require.NoError(t, one.override("crop-pct", "0.8"))
	p, err := one.preprocess(3, 224, 224)
	require.NoError(t, err)
	require.Equal(t, "resize 280 bilinear, crop 224 at centre, rgb, mean 0,0,0, std 1,1,1", p.String())

	p, err = f.preprocess(3, 224, 224)
	require.NoError(t, err)
	require.Equal(t, 256, p.Resize, "the shared flags are as they were")

	both := *f
	require.NoError(t, both.override("mean", "0,0,0"))
	require.NoError(t, both.override("std", "1,1,1"))
	require.NoError(t, both.override("preset", "tf"))
	_, err = both.preprocess(3, 224, 224)
	require.ErrorContains(t, err, "exclude each other", "a model's own settings contradict each other in any order")

	require.ErrorContains(t, one.override("images", "x"), "images cannot be set for one model")
	require.ErrorContains(t, one.override("input-size", "x"), "input-size")
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 48750: "48,750", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		require.Equal(t, want, thousands(n))
	}
	require.Equal(t, "25", span(dataset.Range{Min: 25, Max: 25}))
}
