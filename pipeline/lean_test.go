package pipeline

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/orttest"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

// bent is ONNX Runtime, but that sessions on optimised models change one value by its last bit.
type bent struct{ engine.Optimizer }

func (b bent) Open(ctx context.Context, m engine.Model, o engine.Options) (engine.Session, error) {
	s, err := b.Optimizer.Open(ctx, m, o)
	if err == nil && o.NoFusion {
		return bentSession{s}, nil
	}
	return s, err
}

type bentSession struct{ engine.Session }

func (s bentSession) Run(ctx context.Context, in *tensor.Tensor, out []*tensor.Tensor) error {
	err := s.Session.Run(ctx, in, out)
	if err == nil {
		out[0].Data[3] *= 1 + 1./(1<<23)
	}
	return err
}

// secretive is ONNX Runtime, but that it does not show what it makes of a model.
type secretive struct{ engine.Optimizer }

func (secretive) OpenOptimized(context.Context, engine.Model, engine.Options) (engine.Session, []byte, error) {
	return nil, nil, errors.New("no room")
}

// TestOpenLean: a twin runs in its shorter form where that gives the same bits, and as it was where it does not.
func TestOpenLean(t *testing.T) {
	b := orttest.Backend(t)
	m, err := onnx.Load("../testdata/models/cnn.onnx")
	require.NoError(t, err)
	in, err := m.ImageInput()
	require.NoError(t, err)
	twin, _, err := onnx.EmulateFP16(m, onnx.FP16Options{})
	require.NoError(t, err)
	c, err := scored("cnn fp16", FP16, "", twin)
	require.NoError(t, err)
	c.options.LiteralQDQ = true
	p := &prepared{input: in}
	o := c.options
	o.Outputs = []string{c.logits}

	notes := &recorder{}
	r := &run{Env: Env{b, notes}, job: Job{BatchSize: 2}}
	s, err := r.openLean(t.Context(), p, c, o)
	require.NoError(t, err)
	defer s.Close()
	plain, err := b.Open(t.Context(), c.model, o)
	require.NoError(t, err)
	defer plain.Close()
	require.NoError(t, compute(t.Context(), plain, s, r.noise(p, 0), sameBits))
	if len(notes.debug) == 0 {
		t.Skip("SKIPPED, this tests nothing more: ONNX Runtime has no blocked layout on this processor")
	}
	require.Contains(t, notes.debug[0], "changes of layout saved")

	notes = &recorder{}
	r.Env = Env{bent{b}, notes}
	s, err = r.openLean(t.Context(), p, c, o)
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, compute(t.Context(), plain, s, r.noise(p, 0), sameBits))
	require.Len(t, notes.debug, 1)
	require.Contains(t, notes.debug[0], "cnn fp16: computed as the engine lays it out: output 0: the shorter form gives")

	notes = &recorder{}
	r.Env = Env{secretive{b}, notes}
	s, err = r.openLean(t.Context(), p, c, o)
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, compute(t.Context(), plain, s, r.noise(p, 0), sameBits))
	require.Equal(t, []string{"cnn fp16: computed as the engine lays it out: no room"}, notes.debug)
}

// plainly is ONNX Runtime, but that it cannot show what it makes of a model.
type plainly struct{ engine.Backend }

// TestCalibrationInBlocks: tensors that are counted in the engine's own layout give the thresholds that they give in the plain one.
func TestCalibrationInBlocks(t *testing.T) {
	b := orttest.Backend(t)
	d := open(t, writeIDX(t))
	for _, name := range []string{"cnn", "dwsep_hswish", "resnet_bn"} {
		t.Run(name, func(t *testing.T) {
			job := testJob(t, d)
			job.Models = []Model{{Path: "../testdata/models/" + name + ".onnx", Preprocess: unit}}
			notes := &recorder{}
			blocked, err := Calibrate(t.Context(), Env{b, notes}, job)
			require.NoError(t, err)
			job.Out = t.TempDir()
			plain, err := Calibrate(t.Context(), Env{plainly{b}, &recorder{}}, job)
			require.NoError(t, err)
			require.Equal(t, plain.Models[0].Calibration.Cache, blocked.Models[0].Calibration.Cache)
			require.Equal(t, plain.Models[0].Calibration.Results, blocked.Models[0].Calibration.Results)
			if len(notes.debug) == 0 {
				t.Skip("SKIPPED, this compares nothing: ONNX Runtime has no blocked layout on this processor")
			}
			require.Contains(t, notes.debug[0], "changes of layout saved")
		})
	}
}

// fused is ONNX Runtime, but that it computes the last value with one rounding less.
type fused struct{ engine.Optimizer }

func (f fused) Open(ctx context.Context, m engine.Model, o engine.Options) (engine.Session, error) {
	s, err := f.Optimizer.Open(ctx, m, o)
	return fusedSession{s}, err
}

type fusedSession struct{ engine.Session }

func (s fusedSession) Run(ctx context.Context, in *tensor.Tensor, out []*tensor.Tensor) error {
	err := s.Session.Run(ctx, in, out)
	if err == nil {
		y := out[len(out)-1].Data
		y[len(y)-1] += 0x1p-20
	}
	return err
}

// TestObservedFunctions: what functions make of tensors is tapped only where the engine computes it in another way than package calib.
func TestObservedFunctions(t *testing.T) {
	b := orttest.Backend(t)
	m, err := onnx.Load("../testdata/models/dwsep_hswish.onnx")
	require.NoError(t, err)
	in, err := m.ImageInput()
	require.NoError(t, err)
	plan, err := onnx.Plan(m)
	require.NoError(t, err)
	p := &prepared{name: "dwsep_hswish", model: m, input: in}
	for _, c := range []struct {
		name    string
		backend engine.Backend
		tapped  bool
		note    string
	}{
		{"alike", b, false, ""},
		{"with other roundings", fused{b}, true, "dwsep_hswish: what functions make of tensors is taken from the engine: HardSwish of "},
		{"not asked", plainly{b}, true, "dwsep_hswish: what functions make of tensors is taken from the engine: the engine is not asked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			notes := &recorder{}
			r := &run{Env: Env{c.backend, notes}, job: Job{BatchSize: 2}}
			s, sources, err := r.openObserved(t.Context(), p, plan)
			require.NoError(t, err)
			defer s.Close()
			require.Len(t, s.Outputs(), len(sources))
			require.Equal(t, plan.Sources(!c.tapped), sources)
			require.NotEqual(t, plan.Sources(c.tapped), sources)
			if c.note != "" {
				require.Contains(t, strings.Join(notes.debug, "\n"), c.note)
			}
		})
	}
}

func TestSameValues(t *testing.T) {
	x := &tensor.Tensor{Shape: tensor.Shape{4}, Data: []float32{1, -0.5, 0, 3}}
	require.NoError(t, sameValues(x, &tensor.Tensor{Shape: tensor.Shape{2, 2}, Data: []float32{3, 0, 1, -0.5}}))
	for _, other := range [][]float32{{1, -0.5, 0}, {1, -0.5, 0, 3, 0}, {1, 0.5, 0, 3}, {1, 1, 0, 3}, {1, -0.5, 0, 3 + 0x1p-21}} {
		require.Error(t, sameValues(x, &tensor.Tensor{Data: other}), "%v", other)
	}
}
