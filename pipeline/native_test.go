package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
)

// quantizing is the fake engine with a calibrator of its own, which writes how many images it saw.
type quantizing struct {
	engine.Backend
	calibrations int
	opened       map[string]engine.Options // by the model's name
	fail         error
}

type inspected struct {
	engine.Session
	layers []engine.Layer
}

func (s inspected) Layers() ([]engine.Layer, error) { return s.layers, nil }

func (q *quantizing) Open(ctx context.Context, m engine.Model, o engine.Options) (engine.Session, error) {
	q.opened[m.Name] = o
	s, err := q.Backend.Open(ctx, m, o)
	return inspected{s, []engine.Layer{{Name: "a", Precision: "int8"}, {Name: "b", Precision: "fp32"}}}, err
}

func (q *quantizing) Calibrate(ctx context.Context, _ engine.Model, c engine.Calibration) ([]byte, error) {
	q.calibrations++
	n := 0
	for {
		x, err := c.Next(ctx)
		if errors.Is(err, io.EOF) {
			return fmt.Appendf(nil, "TRT-8601-EntropyCalibration2\nx: %08x\n", n), q.fail
		}
		if err != nil {
			return nil, err
		}
		n += int(x.Shape[0])
	}
}

func TestFourWaysOnAnEngineThatQuantizes(t *testing.T) {
	q := &quantizing{Backend: backend(), opened: map[string]engine.Options{}}
	job := testJob(t, open(t, writeIDX(t)))
	job.Precisions = []string{FP32, FP16, INT8, INT8Native, INT8Cache, INT8QDQ, FP16Model}
	report := &recorder{}
	result, err := Run(t.Context(), Env{Backend: q, Report: report}, job)
	require.NoError(t, err)
	require.Equal(t, 1, q.calibrations, "what several precisions stand on is made once")

	native := "TRT-8601-EntropyCalibration2\nx: 00000014\n" // 20 images
	written, err := os.ReadFile(filepath.Join(job.Out, "relu_mlp.native.cache"))
	require.NoError(t, err)
	require.Equal(t, native, string(written), "the engine's bytes")
	require.Equal(t, engine.AsStated, q.opened["relu_mlp fp32"].Precision)
	require.Equal(t, engine.Half, q.opened["relu_mlp fp16"].Precision)
	require.Equal(t, engine.Half, q.opened["relu_mlp fp16-model"].Precision)
	require.Equal(t, native, string(q.opened["relu_mlp int8"].Cache))
	require.Equal(t, native, string(q.opened["relu_mlp int8-native"].Cache))
	ours, err := os.ReadFile(filepath.Join(job.Out, "relu_mlp.entropy.cache"))
	require.NoError(t, err)
	require.Equal(t, string(ours), string(q.opened["relu_mlp int8-cache"].Cache))
	require.Equal(t, engine.Int8, q.opened["relu_mlp int8-qdq"].Precision)
	require.Nil(t, q.opened["relu_mlp int8-qdq"].Cache, "its ranges are in the model")
	require.Equal(t, job.Precisions, result.Outcomes.Precisions)
	require.Len(t, result.Models[0].Layers, len(job.Precisions))
	require.Contains(t, report.warnings, "relu_mlp: none of the 2 layers of fp16 runs in fp16")

	job.Resume = true
	_, err = Calibrate(t.Context(), Env{Backend: q, Report: report}, job)
	require.NoError(t, err)
	require.Equal(t, 1, q.calibrations, "kept")

	job.Resume, job.OwnCalibrator = false, true
	job.Precisions = []string{FP32, INT8}
	_, err = Run(t.Context(), Env{Backend: q, Report: report}, job)
	require.NoError(t, err)
	require.Equal(t, 1, q.calibrations)
	require.Equal(t, string(ours), string(q.opened["relu_mlp int8"].Cache))
}

func TestNativeCalibrationFails(t *testing.T) {
	q := &quantizing{Backend: backend(), opened: map[string]engine.Options{}, fail: errors.New("no kernel")}
	job := testJob(t, open(t, writeIDX(t)))
	_, err := Run(t.Context(), Env{Backend: q, Report: &recorder{}}, job)
	require.ErrorContains(t, err, "no kernel")
	require.NoFileExists(t, filepath.Join(job.Out, "relu_mlp.native.cache"))

	job.Precisions = []string{FP32, INT8QDQ}
	_, err = Run(t.Context(), Env{Backend: backend(), Report: &recorder{}}, job)
	require.ErrorContains(t, err, "--engine tensorrt")
}
