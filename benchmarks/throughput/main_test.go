package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/bench"
)

func TestRead(t *testing.T) {
	lines, err := read("h100")
	require.NoError(t, err)
	held := 0
	for _, l := range lines {
		if l.Bar != "" {
			held++
		}
		require.NotNil(t, l.Ratio)
	}
	require.Equal(t, len(networks)*len(precisions), held)
	require.Contains(t, lines[2].Note, "conv2 + relu2 (FP32)")

	_, err = read(t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Figures that a later measurement left beside those of an earlier one are told of, not chosen from.
func TestReadMixedMeasurements(t *testing.T) {
	kept, err := bench.Load("h100/bench.json")
	require.NoError(t, err)
	bare, err := os.ReadFile("h100/bare.txt")
	require.NoError(t, err)
	for want, change := range map[string]func(bench.Results) bench.Results{
		"several figures of vgg19 fp16, batch 128, with 3 and 4 calls in flight": func(rs bench.Results) bench.Results {
			again := rs[slices.IndexFunc(rs, func(r bench.Result) bool { return r.Title() == "vgg19 fp16, batch 128" })]
			again.Parallel = 4
			return append(rs, again)
		},
		"alexnet int8 with fp16, batch 128 was measured under other circumstances": func(rs bench.Results) bench.Results {
			rs[slices.IndexFunc(rs, func(r bench.Result) bool { return r.WithFP16() })].Parallel = 4
			return rs
		},
	} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "bare.txt"), bare, 0o600))
		require.NoError(t, bench.Save(filepath.Join(dir, "bench.json"), change(slices.Clone(kept))))
		_, err := read(dir)
		require.ErrorContains(t, err, want)
	}
}

func TestReadBare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bare.txt")
	require.NoError(t, os.WriteFile(path, []byte("resnet50 throughput int8 batch 128: 60522.1 images/s\n"), 0o600))
	rates, err := readBare(path)
	require.NoError(t, err)
	require.Equal(t, map[[2]string]float64{{"resnet50", "int8"}: 60522.1}, rates)

	require.NoError(t, os.WriteFile(path, []byte("resnet50: exit 124\n"), 0o600))
	_, err = readBare(path)
	require.ErrorContains(t, err, "line 1: want NETWORK throughput")
}
