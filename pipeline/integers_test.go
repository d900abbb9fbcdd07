package pipeline

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/orttest"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

// saturated is ONNX Runtime on a processor whose kernels for uint8 activations, or for int8 ones too, are not exact.
type saturated struct {
	engine.Backend
	int8s bool
}

func (b saturated) Open(ctx context.Context, m engine.Model, o engine.Options) (engine.Session, error) {
	s, err := b.Backend.Open(ctx, m, o)
	if err != nil || !o.IntegerKernels {
		return s, err
	}
	model, err := onnx.Parse(m.Data, m.Name)
	if err != nil {
		return nil, err
	}
	if _, n, err := onnx.Uint8Activations(model); err != nil || n > 0 && !b.int8s {
		return s, err
	}
	return bentSession{s}, nil
}

// TestIntegers: a Q/DQ model is scored with uint8 activations where those are exact, and with int8 ones, to the same logits, where not.
func TestIntegers(t *testing.T) {
	ort := orttest.Backend(t)
	m, err := onnx.Load("../testdata/models/resnet_bn.onnx")
	require.NoError(t, err)
	plan, err := onnx.Plan(m)
	require.NoError(t, err)
	amax := map[string]float32{}
	for _, e := range plan.Entries {
		amax[e.Name] = 4
	}
	folded, _, err := onnx.FoldBatchNorm(m)
	require.NoError(t, err)
	q, _, err := onnx.InsertQDQ(folded, plan.Ranges(amax), onnx.QDQOptions{})
	require.NoError(t, err)
	in, err := m.ImageInput()
	require.NoError(t, err)
	p := &prepared{input: in}

	form := func(b engine.Backend, model *onnx.Model) (candidate, *tensor.Tensor, *run) {
		r := &run{Env: Env{b, &recorder{}}, job: Job{BatchSize: 2}, result: &Result{}}
		c, err := scored("q", "int8", "", model)
		require.NoError(t, err)
		c, err = r.integers(t.Context(), r.asStated(c, model), model)
		require.NoError(t, err)
		scoredModel, err := onnx.Parse(c.model.Data, "q")
		require.NoError(t, err)
		y, err := r.once(t.Context(), "q", scoredModel, c.options, r.noise(p, 0))
		require.NoError(t, err)
		return c, y, r
	}
	slow, logits, _ := form(saturated{ort, false}, q)
	require.Equal(t, formInt8, slow.form)
	require.Equal(t, inIntegers, slow.computed)
	require.True(t, slow.options.IntegerKernels)

	fast, same, r := form(ort, q)
	if why := r.inexact(t.Context(), true); why != "" {
		t.Logf("this processor saturates: %s", why)
		require.Equal(t, formInt8, fast.form)
	} else {
		require.Equal(t, formUint8, fast.form)
	}
	require.Equal(t, inIntegers, fast.computed)
	require.Equal(t, logits.Data, same.Data)

	neither, _, r := form(saturated{ort, true}, q)
	require.Empty(t, neither.form)
	require.Equal(t, inStated, neither.computed)
	require.False(t, neither.options.IntegerKernels)
	require.Contains(t, r.result.Warnings[0], "the engine's kernels for int8 activations are not exact here (integer Conv probe")

	raised, _, err := onnx.Uint8Activations(q)
	require.NoError(t, err)
	theirs, _, r := form(saturated{ort, false}, raised)
	require.Empty(t, theirs.form)
	require.Contains(t, r.result.Warnings[0], "kernels for uint8 saturate on this processor")
}
