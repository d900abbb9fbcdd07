package trt_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/engine/enginetest"
	"github.com/quantgate/quantgate/trt"
)

// TestConformanceOnGPU runs the table that every backend passes on the real TensorRT. The fakes know no ONNX, so it needs a GPU and
// QUANTGATE_TENSORRT_LIB; scripts/gpu/run carries it to one.
func TestConformanceOnGPU(t *testing.T) {
	if os.Getenv(trt.EnvLibrary) == "" {
		t.Skipf("SKIPPED, this tests nothing: %s names no folder with TensorRT's libraries", trt.EnvLibrary)
	}
	m := &messages{}
	b, err := trt.New(trt.Options{Batch: 6, TacticSources: "-CUBLAS,-CUBLAS_LT,-CUDNN", Level: 0, Leveled: true, CacheDir: t.TempDir(), Log: m.log})
	require.NotErrorIs(t, err, engine.ErrUnavailable)
	require.NoError(t, err)
	enginetest.Test(t, b)
	require.Zero(t, m.count("TensorRT: error"), "%q", m.lines)
}
