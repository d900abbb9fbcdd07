package nvinfer

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSlotsAgainstHeaders compares slots.h with NVIDIA's headers in the folders that TENSORRT_INCLUDE names, separated by colons.
// It was run with those of 8.5.3, 8.6.0, 8.6.1, the 19 releases from 10.0.0 to 10.16, 11.0 and 11.1: no value differs.
// The parser's own headers were those of 8.5, 8.6, 10.0, 10.1, 10.14 to 10.16 and 11; the nearest older one served the others.
func TestSlotsAgainstHeaders(t *testing.T) {
	list := os.Getenv("TENSORRT_INCLUDE")
	if list == "" {
		t.Skip("SKIPPED: TENSORRT_INCLUDE names no folder with TensorRT's headers (make slots fetches 10.16's)")
	}
	for _, include := range filepath.SplitList(list) {
		t.Run(filepath.Base(include), func(t *testing.T) {
			t.Parallel()
			program := filepath.Join(t.TempDir(), "slots")
			out, err := exec.Command("c++", "-std=c++17", "-w", "-I.", "-Itestdata/stub", "-I"+include, "testdata/slots.cpp", "-o", program).CombinedOutput()
			require.NoError(t, err, "%s", out)
			out, err = exec.Command(program).CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), "0 differ")
			t.Logf("%s", out[len(out)-min(len(out), 60):])
		})
	}
}

func TestVersion(t *testing.T) {
	for number, want := range map[int]string{8601: "8.6.1", 8503: "8.5.3", 9300: "9.3.0", 100001: "10.0.1", 101501: "10.15.1", 110000: "11.0.0"} {
		require.Equal(t, want, versionOf(number).String())
	}
	require.Equal(t, "8601", Version{8, 6, 1}.CacheNumber())
	require.Equal(t, "101501", Version{10, 15, 1}.CacheNumber())
	for _, v := range []Version{{8, 5, 3}, {8, 6, 1}, {10, 0, 0}, {10, 16, 2}} {
		require.NoError(t, v.Verified())
	}
	for _, v := range []Version{{8, 4, 3}, {9, 3, 0}, {10, 17, 0}, {11, 0, 0}} {
		require.ErrorContains(t, v.Verified(), v.String())
	}
}
