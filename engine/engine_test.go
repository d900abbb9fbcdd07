package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
)

func TestMessagesListSomePorts(t *testing.T) {
	var outs []engine.Port
	for i := range 11 {
		outs = append(outs, engine.Port{Name: fmt.Sprintf("out%d", i), DType: tensor.Float32})
	}
	_, err := engine.ChooseOutputs(outs, []string{"logits"})
	require.EqualError(t, err, `it has no output "logits" (it has out0, out1, out2, out3, out4, out5, out6, out7, and 3 more)`)
	_, err = engine.OneInput(nil)
	require.EqualError(t, err, "it has 0 inputs where one is needed")
	_, err = engine.OneInput([]engine.Port{{Name: "x", DType: tensor.Float32}})
	require.EqualError(t, err, `input "x" has no dimensions where a batch of images is needed`)
	_, err = engine.OneInput([]engine.Port{{Name: "x", DType: tensor.Float32, Shape: tensor.Shape{0, 3}}})
	require.EqualError(t, err, `input "x" has the shape 0x3, a batch of nothing`)
}

// TestRunPieces runs 7 images through pieces of 3 and looks at what each piece holds.
func TestRunPieces(t *testing.T) {
	x := tensor.New(7, 2)
	for i := range x.Data {
		x.Data[i] = float32(i / 2)
	}
	var fed [][]float32
	copied := 0
	negate := func(in *tensor.Tensor, out []*tensor.Tensor) error {
		if at := (len(fed) % 3) * 6; at+6 > len(x.Data) || &in.Data[0] != &x.Data[at] {
			copied++
		}
		require.Equal(t, tensor.Shape{3, 2}, in.Shape)
		fed = append(fed, append([]float32{}, in.Data...))
		out[0].Resize(3, 1)
		for r := range out[0].Data {
			out[0].Data[r] = -in.Row(r)[0]
		}
		return nil
	}
	outputs := []engine.Port{{Name: "y"}}
	out := []*tensor.Tensor{{}}
	var p engine.Pieces
	require.NoError(t, p.RunPieces(context.Background(), 3, outputs, x, out, negate))
	require.Equal(t, [][]float32{{0, 0, 1, 1, 2, 2}, {3, 3, 4, 4, 5, 5}, {6, 6, 6, 6, 6, 6}}, fed, "the last piece is padded with its last image")
	require.Equal(t, 1, copied, "whole pieces are the batch's own memory")
	require.Equal(t, tensor.Shape{7, 1}, out[0].Shape)
	require.Equal(t, []float32{0, -1, -2, -3, -4, -5, -6}, out[0].Data)

	t.Run("a failure tells the images", func(t *testing.T) {
		boom := errors.New("boom")
		calls := 0
		err := p.RunPieces(context.Background(), 3, outputs, x, out, func(in *tensor.Tensor, out []*tensor.Tensor) error {
			if calls++; calls == 3 {
				return boom
			}
			return negate(in, out)
		})
		require.ErrorIs(t, err, boom)
		require.EqualError(t, err, "images 6 to 6 of 7: boom")
	})
	t.Run("cancelled between pieces", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		calls := 0
		err := p.RunPieces(ctx, 3, outputs, x, out, func(in *tensor.Tensor, out []*tensor.Tensor) error {
			calls++
			cancel()
			return negate(in, out)
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 1, calls)
	})
	t.Run("a scalar output", func(t *testing.T) {
		err := p.RunPieces(context.Background(), 3, outputs, x, out, func(_ *tensor.Tensor, out []*tensor.Tensor) error {
			out[0].Resize()
			return nil
		})
		require.ErrorIs(t, err, engine.ErrShape)
		require.ErrorContains(t, err, `output "y" has the shape scalar`)
	})
}
