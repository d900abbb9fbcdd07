package engine

import (
	"context"
	"fmt"

	"github.com/quantgate/quantgate/tensor"
)

// Pieces is the memory in which RunPieces cuts batches up. The zero value is ready; it serves one call at a time and is reused.
type Pieces struct {
	whole  tensor.Tensor // size images of the batch, in its memory
	padded tensor.Tensor
	out    []*tensor.Tensor
}

// RunPieces runs a batch of any size through a model that takes batches of exactly size images: run is called with one piece after
// another, in the batch's own memory, and a last one with fewer images as a copy that is padded with its last image, whose results are
// dropped. The context is asked before each piece.
// An output whose outermost dimension is not the batch cannot be put together again: that is an error which wraps ErrShape.
func (p *Pieces) RunPieces(ctx context.Context, size int64, outputs []Port, in *tensor.Tensor, out []*tensor.Tensor,
	run func(in *tensor.Tensor, out []*tensor.Tensor) error,
) error {
	p.whole.Shape = append(append(p.whole.Shape[:0], size), in.Shape[1:]...)
	defer func() { p.whole.Data = nil }()
	for len(p.out) < len(out) {
		p.out = append(p.out, &tensor.Tensor{})
	}
	n, step := int(in.Shape[0]), int(size)
	width := len(in.Data) / n
	for first := 0; first < n; first += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows := min(step, n-first)
		x := &p.whole
		x.Data = in.Data[first*width : (first+rows)*width]
		if rows < step {
			x = p.pad(x, rows)
		}
		if err := run(x, p.out[:len(out)]); err != nil {
			return fmt.Errorf("images %d to %d of %d: %w", first, first+rows-1, n, err)
		}
		for i := range out {
			piece := p.out[i]
			if len(piece.Shape) == 0 || piece.Shape[0] != size {
				return fmt.Errorf("batches of %d only: output %q has the shape %s, which does not divide by image, so %d images cannot be run: %w",
					size, outputs[i].Name, piece.Shape, n, ErrShape)
			}
			if first == 0 {
				out[i].Resize(append(tensor.Shape{int64(n)}, piece.Shape[1:]...)...)
			}
			w := len(piece.Data) / step
			copy(out[i].Data[first*w:], piece.Data[:rows*w])
		}
	}
	return nil
}

// pad copies a piece of only so many rows and repeats the last one.
func (p *Pieces) pad(x *tensor.Tensor, rows int) *tensor.Tensor {
	p.padded.Resize(x.Shape...)
	copy(p.padded.Data, x.Data)
	for r := rows; r < int(x.Shape[0]); r++ {
		copy(p.padded.Row(r), p.padded.Row(rows-1))
	}
	return &p.padded
}
