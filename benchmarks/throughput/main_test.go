package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
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
