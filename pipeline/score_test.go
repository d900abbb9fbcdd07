package pipeline

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/meter"
	"github.com/quantgate/quantgate/tensor"
)

// meeting is a session whose runs go on in pairs only.
type meeting struct {
	engine.Session
	partner chan bool
}

func (s meeting) Run(_ context.Context, in *tensor.Tensor, out []*tensor.Tensor) error {
	select {
	case s.partner <- true:
	case <-s.partner:
	case <-time.After(time.Minute):
		return context.DeadlineExceeded
	}
	out[0].Resize(in.Shape[0], 1)
	out[0].Data[0] = in.Data[0]
	return nil
}

// TestWorkersShareABatch: two workers run one batch together, each image once, and one of them is told that it is done.
func TestWorkersShareABatch(t *testing.T) {
	session := meeting{partner: make(chan bool)}
	s := &scorer{sessions: []engine.Session{session, session}, engines: []*meter.Meter{{Clock: meter.System}, {Clock: meter.System}}, piece: 1}
	x := &tensor.Tensor{}
	x.Resize(3, 1, 1, 1)
	copy(x.Data, []float32{5, 6, 7})
	b := s.begin(&dataset.Batch{Items: make([]dataset.Item, 3), X: x})
	var wg sync.WaitGroup
	var mu sync.Mutex
	finished := 0
	for range 2 {
		require.Equal(t, b, s.join())
		wg.Go(func() {
			done, err := s.run(t.Context(), b)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if done {
				finished++
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, finished)
	require.Nil(t, s.join(), "nothing is left to take")
	for _, logits := range b.logits {
		for k, v := range x.Data {
			require.Equal(t, []float32{v}, logits[k].Data)
		}
	}
}

// TestNoReadableImage: a batch of which no image could be read takes no call, and is done.
func TestNoReadableImage(t *testing.T) {
	s := &scorer{sessions: make([]engine.Session, 2), piece: 1}
	b := s.begin(&dataset.Batch{X: &tensor.Tensor{Shape: tensor.Shape{0, 1, 1, 1}}})
	done, err := s.run(t.Context(), b)
	require.NoError(t, err)
	require.True(t, done)
	require.Nil(t, s.join())
}
