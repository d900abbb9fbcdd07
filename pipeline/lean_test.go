package pipeline

import (
	"context"
	"errors"
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
	c, err := scoredTwin("cnn fp16", FP16, "", inHalf, twin)
	require.NoError(t, err)
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
	require.NoError(t, sameBits(t.Context(), plain, s, r.noise(p)))
	if len(notes.debug) == 0 {
		t.Skip("SKIPPED, this tests nothing more: ONNX Runtime has no blocked layout on this processor")
	}
	require.Contains(t, notes.debug[0], "changes of layout saved")

	notes = &recorder{}
	r.Env = Env{bent{b}, notes}
	s, err = r.openLean(t.Context(), p, c, o)
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, sameBits(t.Context(), plain, s, r.noise(p)))
	require.Len(t, notes.debug, 1)
	require.Contains(t, notes.debug[0], "cnn fp16: computed as the engine lays it out: the shorter form gives")

	notes = &recorder{}
	r.Env = Env{secretive{b}, notes}
	s, err = r.openLean(t.Context(), p, c, o)
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, sameBits(t.Context(), plain, s, r.noise(p)))
	require.Equal(t, []string{"cnn fp16: computed as the engine lays it out: no room"}, notes.debug)
}
