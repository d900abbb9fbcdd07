package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/pipeline"
)

// originals stand for the shared photographs.
func originals() []original {
	var out []original
	for k := range 2 {
		im := image.NewNRGBA(image.Rect(0, 0, 60+20*k, 50))
		for y := range 50 {
			for x := range im.Rect.Dx() {
				im.SetNRGBA(x, y, color.NRGBA{uint8(4 * x), uint8(5 * y), uint8(x * y), 255})
			}
		}
		out = append(out, original{"7", im})
	}
	return out
}

func TestVariationsDifferAndRepeat(t *testing.T) {
	seen := map[string]int{}
	for i := range 10 {
		data, err := vary(originals(), 1, i)
		require.NoError(t, err)
		again, err := vary(originals(), 1, i)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, again), "image %d differs from itself", i)
		other, known := seen[string(data)]
		require.False(t, known, "images %d and %d are equal", i, other)
		seen[string(data)] = i
		_, err = jpeg.DecodeConfig(bytes.NewReader(data))
		require.NoError(t, err)
	}
	other, err := vary(originals(), 2, 0)
	require.NoError(t, err)
	require.NotContains(t, seen, string(other))
}

func TestTarGoesOnWhereItWasCut(t *testing.T) {
	dir := t.TempDir()
	o := options{n: 4, seed: 1}
	write := func(f *os.File) {
		done, err := whole(f)
		require.NoError(t, err)
		require.NoError(t, o.append(t.Context(), f, originals(), done))
		require.NoError(t, f.Close())
	}
	open := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		require.NoError(t, err)
		return f
	}
	write(open("whole.tar"))
	want, err := os.ReadFile(filepath.Join(dir, "whole.tar"))
	require.NoError(t, err)
	n := 0
	for r := tar.NewReader(bytes.NewReader(want)); ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Equal(t, entryName(n), h.Name)
	}
	require.Equal(t, o.n, n)
	for _, cut := range []int{0, 512, 700, len(want) / 2, len(want) - 1024} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cut.tar"), want[:cut], 0o600))
		write(open("cut.tar"))
		got, err := os.ReadFile(filepath.Join(dir, "cut.tar"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "cut at %d", cut)
	}
}

func TestParseStatus(t *testing.T) {
	s, err := parseStatus("Name:\tquantgate\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\nRssAnon:\t   51200 kB\n")
	require.NoError(t, err)
	require.Equal(t, sample{peak: 200, rss: 100, anonymous: 50}, s)
	_, err = parseStatus("Name:\tgone\nState:\tZ (zombie)\n")
	require.Error(t, err)
	_, err = parseStatus("VmRSS:\tmuch\n")
	require.ErrorContains(t, err, "VmRSS")
}

func TestLines(t *testing.T) {
	var samples []sample
	for i := range 101 {
		rss := 100.0
		if i > 60 {
			rss = 110
		}
		samples = append(samples, sample{seconds: float64(i), rss: rss, peak: rss + 5})
	}
	got := lines([]pipeline.Stage{
		{Name: "calibrate", Images: 25, Seconds: 1, Workers: 2, Parts: []pipeline.Part{{Name: "decode", Images: 25, Seconds: 1, CPUSeconds: 0.5}}},
		{Name: "score", Images: 975, Seconds: 99, Workers: 2},
	}, samples, 1000, 100, false)
	require.Len(t, got, 5)
	require.InDelta(t, 115, got[0].Ours, 0)
	require.InDelta(t, 1.1, *got[1].Ratio, 1e-9)
	require.InDelta(t, 40, got[2].Ours, 0)
	require.Equal(t, ">= 40", got[2].Bar)
	require.InDelta(t, 10, got[3].Ours, 0)
	require.InDelta(t, 50, got[4].Ours, 0) // 25 images in 1 s on one of two workers
	require.Contains(t, got[4].Note, "calibrate took 1.0 s for 25 images: decode 0.5 s (0.5 CPU s)")
	require.Len(t, lines(nil, samples, 1000, 100, true), 3)
}
