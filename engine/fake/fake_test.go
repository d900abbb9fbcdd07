package fake_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/x448/float16"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/engine/enginetest"
	"github.com/quantgate/quantgate/engine/fake"
	"github.com/quantgate/quantgate/tensor"
)

// tableModels are the conformance table's models as Go functions.
func tableModels() map[string]fake.Model {
	const dyn = tensor.Dynamic
	port := func(name string, d tensor.DType, dims ...int64) engine.Port {
		return engine.Port{Name: name, DType: d, Shape: dims}
	}
	linear := func(batch int64, more ...fake.Output) fake.Model {
		return fake.Model{
			Input: port("x", tensor.Float32, batch, 1, 2, 2),
			Outputs: append([]fake.Output{
				{Port: port("scaled", tensor.Float32, batch, 4), Compute: enginetest.Scaled},
				{Port: port("logits", tensor.Float32, batch, 3), Compute: enginetest.Logits},
			}, more...),
		}
	}
	class := fake.Output{Port: port("class", tensor.Int64, dyn), Compute: func(_, _ []float32) {}}
	return map[string]fake.Model{
		enginetest.Linear: linear(dyn),
		enginetest.Fixed4: linear(4),
		enginetest.Labels: linear(dyn, class),
		enginetest.Total4: {
			Input:   port("x", tensor.Float32, 4, 1, 2, 2),
			Outputs: []fake.Output{{Port: port("total", tensor.Float32, 1, 4), Compute: enginetest.Scaled}},
		},
		enginetest.Half: {
			Input: port("x", tensor.Float16, dyn, 1, 2, 2),
			Outputs: []fake.Output{{Port: port("y", tensor.Float16, dyn, 1, 2, 2), Compute: func(image, out []float32) {
				for i, v := range image {
					out[i] = float16.Fromfloat32(2 * float16.Fromfloat32(v).Float32()).Float32()
				}
			}}},
		},
		enginetest.Integers: {Input: port("x", tensor.Uint8, dyn, 1, 2, 2)},
	}
}

func TestConformance(t *testing.T) {
	b := fake.New(tableModels())
	known := b.Describe
	b.Describe = func(m engine.Model, o engine.Options) (fake.Model, error) {
		if m.Name == enginetest.TwoInputs {
			return fake.Model{}, errors.New("it has 2 inputs where one is needed (it has left, right)")
		}
		return known(m, o)
	}
	enginetest.Test(t, b)
	s := b.Stats()
	require.Zero(t, s.Open, "sessions left open")
	require.Positive(t, s.Opened)
}

func openClassifier(t *testing.T, b *fake.Backend) engine.Session {
	t.Helper()
	b.Describe = fake.New(map[string]fake.Model{"m": fake.Classifier(tensor.Shape{3, 2, 2}, 10)}).Describe
	s, err := b.Open(context.Background(), engine.Model{Name: "m"}, engine.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func runBatch(ctx context.Context, s engine.Session, n int64) ([]float32, error) {
	x := tensor.New(n, 3, 2, 2)
	for i := range x.Data {
		x.Data[i] = float32(i % 12)
	}
	out := []*tensor.Tensor{{}}
	err := s.Run(ctx, x, out)
	return out[0].Data, err
}

func TestClassifierTellsClassesApart(t *testing.T) {
	s := openClassifier(t, &fake.Backend{})
	logits, err := runBatch(context.Background(), s, 1)
	require.NoError(t, err)
	require.Len(t, logits, 10)
	seen := map[float32]bool{}
	for _, v := range logits {
		seen[v] = true
	}
	require.Greater(t, len(seen), 3, "logits %v", logits)
}

func TestFailAt(t *testing.T) {
	boom := errors.New("boom")
	b := &fake.Backend{Hook: fake.FailAt(3, boom)}
	s := openClassifier(t, b)
	for call := 1; call <= 4; call++ {
		_, err := runBatch(context.Background(), s, 2)
		if call == 3 {
			require.ErrorIs(t, err, boom)
			require.EqualError(t, err, "model m: boom")
		} else {
			require.NoError(t, err)
		}
	}
	require.Equal(t, fake.Stats{Opened: 1, Open: 1, Runs: 4, Images: 8, MaxConcurrent: 1}, b.Stats())
}

func TestBlockFromUntilCancelled(t *testing.T) {
	b := &fake.Backend{Hook: fake.BlockFrom(2)}
	s := openClassifier(t, b)
	_, err := runBatch(context.Background(), s, 1)
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() { _, errs[i] = runBatch(ctx, s, 1) })
	}
	require.Eventually(t, func() bool { return b.Stats().MaxConcurrent == 3 }, 10*time.Second, time.Millisecond)
	cancel()
	wg.Wait()
	for _, err := range errs {
		require.ErrorIs(t, err, context.Canceled)
	}
}
