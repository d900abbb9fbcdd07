package dataset

import (
	"fmt"

	"github.com/quantgate/quantgate/dataset/internal/imagecache"
)

// worker turns images into inputs. It owns a decoder and all scratch memory, and serves one goroutine.
type worker struct {
	d       *Dataset
	p       Preprocess
	decoder decoder
	file    []byte
	grey    []byte
	resizer resizer
	lookup  [][256]float32
	norm    []float32         // nil: lookup normalises
	cache   *imagecache.Cache // nil: every image is decoded
	record  raster            // of the cache
}

func newWorker(d *Dataset, p Preprocess) *worker {
	w := &worker{d: d, p: p, decoder: decoder{turbo: d.turbo}}
	if d.tensors == nil {
		w.lookup = p.lookup()
		w.norm = p.norm(w.lookup)
	}
	return w
}

func (w *worker) close() { w.decoder.close() }

// load fills dst, C x H x W values, with the input made of item id.
func (w *worker) load(id int, dst []float32) error {
	if w.d.tensors != nil {
		return w.d.tensors.tensor(w.d.at[id], dst)
	}
	var err error
	if w.cache != nil {
		err = w.cached(id, dst)
	} else {
		var img raster
		if img, err = w.image(id); err == nil {
			err = w.prepare(img, dst)
		}
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", w.d.items[id].Path, err)
	}
	return nil
}

// image decodes item id; the pixels are valid until the next call.
func (w *worker) image(id int) (raster, error) {
	if w.d.raster != nil {
		img := newRaster(w.d.w, w.d.h, 1, w.file)
		w.file = img.pix
		return img, w.d.raster.pixels(w.d.at[id], img.pix)
	}
	if err := w.readFile(id); err != nil {
		return raster{}, err
	}
	return w.decoder.decode(w.file)
}

// readFile reads the file of item id.
func (w *worker) readFile(id int) (err error) {
	w.file, err = w.d.encoded.read(w.d.at[id], w.file)
	return err
}

// prepare resizes, crops and normalises img into dst.
func (w *worker) prepare(img raster, dst []float32) error {
	crop, y, x, err := w.crop(img)
	if err != nil {
		return err
	}
	w.normalise(crop, y, x, dst)
	return nil
}

// crop resizes img and crops it to the windows y and x. The result is valid until the next call.
func (w *worker) crop(img raster) (crop raster, y, x window, err error) {
	rh, rw := w.p.resized(img.h, img.w)
	if y, x, err = w.p.crop(rh, rw); err != nil {
		return crop, y, x, err
	}
	if w.p.Channels == 1 && img.channels == 3 {
		img = toGrey(img, w.grey)
		w.grey = img.pix
	}
	return w.resizer.resize(img, rh, rw, y, x, w.p.Interpolation), y, x, nil
}

// normalise writes the crop's pixels into the planes of dst; what the crop does not cover is black, as torchvision pads.
func (w *worker) normalise(crop raster, y, x window, dst []float32) {
	side, planes := w.p.InputSize, w.p.Channels
	padded := y.n < side || x.n < side
	if padded {
		for c := range planes {
			plane := dst[c*side*side : (c+1)*side*side]
			for i := range plane {
				plane[i] = w.lookup[c][0]
			}
		}
	}
	to := func(c, row int) []float32 { return dst[c*side*side+(y.to+row)*side+x.to:][:crop.w] }
	rgb := w.p.colours()
	if w.norm != nil && crop.channels == 3 && crop.w >= narrowest && crop.h > 0 {
		simdPlanes(crop, to(rgb[0], 0), to(rgb[1], 0), to(rgb[2], 0), side, w.norm)
		return
	}
	for r := range crop.h {
		src := crop.row(r)
		if crop.channels == 3 {
			toPlanes(src, to(rgb[0], r), to(rgb[1], r), to(rgb[2], r), &w.lookup[rgb[0]], &w.lookup[rgb[1]], &w.lookup[rgb[2]])
			continue
		}
		for c := range planes {
			table, out := &w.lookup[c], to(c, r)
			for i, v := range src {
				out[i] = table[v]
			}
		}
	}
}

// toPlanes looks the red, green and blue of a row's pixels up, each in its own table.
func toPlanes(src []byte, red, green, blue []float32, ofRed, ofGreen, ofBlue *[256]float32) {
	green, blue = green[:len(red)], blue[:len(red)]
	for i := range red {
		if len(src) < 3 {
			return
		}
		red[i], green[i], blue[i] = ofRed[src[0]], ofGreen[src[1]], ofBlue[src[2]]
		src = src[3:]
	}
}

// grow returns a slice of n bytes with unspecified content, in buf where its capacity suffices.
func grow(buf []byte, n int) []byte {
	if cap(buf) < n {
		return make([]byte, n)
	}
	return buf[:n]
}
