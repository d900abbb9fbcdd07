package dataset

import (
	"fmt"
	"image"

	"github.com/disintegration/imaging"
)

// Thumbnail returns image id, before any preprocessing, shrunk to fit into a square of side pixels; a smaller image keeps
// its size. A JPEG is not decoded in full where a part of its pixels is enough, which may round its shorter side otherwise. The values of a preprocessed tensor are stretched over black to white, for nothing says what they mean.
func (d *Dataset) Thumbnail(id, side int) (image.Image, error) {
	if id < 0 || id >= len(d.items) {
		return nil, fmt.Errorf("image %d: there are %d", id, len(d.items))
	}
	w := &worker{d: d, decoder: decoder{turbo: d.turbo, enough: side}}
	defer w.close()
	var img raster
	var err error
	if d.tensors != nil {
		img, err = d.stretched(id)
	} else {
		img, err = w.image(id)
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", d.items[id].Path, err)
	}
	return imaging.Fit(img.picture(), side, side, imaging.Box), nil
}

// picture copies a raster.
func (r raster) picture() image.Image {
	if r.channels == 1 {
		m := image.NewGray(image.Rect(0, 0, r.w, r.h))
		for y := range r.h {
			copy(m.Pix[y*m.Stride:], r.row(y))
		}
		return m
	}
	m := image.NewNRGBA(image.Rect(0, 0, r.w, r.h))
	for y := range r.h {
		out := m.Pix[y*m.Stride:]
		for x, row := 0, r.row(y); x < r.w; x++ {
			out[4*x], out[4*x+1], out[4*x+2], out[4*x+3] = row[3*x], row[3*x+1], row[3*x+2], 255
		}
	}
	return m
}

// stretched makes pixels of a tensor: its least value black, its greatest white.
func (d *Dataset) stretched(id int) (raster, error) {
	x := make([]float32, d.channels*d.h*d.w)
	if err := d.tensors.tensor(d.at[id], x); err != nil {
		return raster{}, err
	}
	low, high := x[0], x[0]
	for _, v := range x {
		low, high = min(low, v), max(high, v)
	}
	channels := 1
	if d.channels >= 3 {
		channels = 3
	}
	img := newRaster(d.w, d.h, channels, nil)
	plane := d.h * d.w
	for c := range channels {
		for i, v := range x[c*plane : (c+1)*plane] {
			if high > low { // false for NaN
				img.pix[i*channels+c] = byte(255*(v-low)/(high-low) + 0.5)
			}
		}
	}
	return img, nil
}
