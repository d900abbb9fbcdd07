package dataset

import "fmt"

// worker turns images into inputs. It owns a decoder and all scratch memory, and serves one goroutine.
type worker struct {
	d       *Dataset
	p       Preprocess
	decoder decoder
	file    []byte
	grey    []byte
	resizer resizer
	lookup  [][256]float32
}

func newWorker(d *Dataset, p Preprocess) *worker {
	w := &worker{d: d, p: p, decoder: decoder{turbo: d.turbo}}
	if d.tensors == nil {
		w.lookup = p.lookup()
	}
	return w
}

func (w *worker) close() { w.decoder.close() }

// load fills dst, C x H x W values, with the input made of item id.
func (w *worker) load(id int, dst []float32) error {
	if w.d.tensors != nil {
		return w.d.tensors.tensor(w.d.at[id], dst)
	}
	img, err := w.image(id)
	if err == nil {
		err = w.prepare(img, dst)
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", w.d.items[id].Path, err)
	}
	return nil
}

// image decodes item id; the pixels are valid until the next call.
func (w *worker) image(id int) (raster, error) {
	at := w.d.at[id]
	if w.d.raster != nil {
		img := newRaster(w.d.w, w.d.h, 1, w.file)
		w.file = img.pix
		return img, w.d.raster.pixels(at, img.pix)
	}
	var err error
	if w.file, err = w.d.encoded.read(at, w.file); err != nil {
		return raster{}, err
	}
	return w.decoder.decode(w.file)
}

// prepare resizes, crops and normalises img into dst.
func (w *worker) prepare(img raster, dst []float32) error {
	rh, rw := w.p.resized(img.h, img.w)
	y, x, err := w.p.crop(rh, rw)
	if err != nil {
		return err
	}
	if w.p.Channels == 1 && img.channels == 3 {
		img = toGrey(img, w.grey)
		w.grey = img.pix
	}
	crop := w.resizer.resize(img, rh, rw, y, x, w.p.Interpolation)
	w.normalise(crop, y, x, dst)
	return nil
}

// normalise writes the crop's pixels into the planes of dst; what the crop does not cover is black, as torchvision pads.
func (w *worker) normalise(crop raster, y, x window, dst []float32) {
	side, planes := w.p.InputSize, w.p.Channels
	padded := y.n < side || x.n < side
	for c := range planes {
		table := &w.lookup[c]
		plane := dst[c*side*side : (c+1)*side*side]
		if padded {
			for i := range plane {
				plane[i] = table[0]
			}
		}
		from := 0
		if crop.channels == 3 {
			from = c
			if w.p.BGR {
				from = 2 - c
			}
		}
		for r := range crop.h {
			src := crop.row(r)
			out := plane[(y.to+r)*side+x.to:][:crop.w]
			if crop.channels == 1 {
				for i, v := range src {
					out[i] = table[v]
				}
				continue
			}
			for i := range out {
				out[i] = table[src[3*i+from]]
			}
		}
	}
}

// grow returns a slice of n bytes with unspecified content, in buf where its capacity suffices.
func grow(buf []byte, n int) []byte {
	if cap(buf) < n {
		return make([]byte, n)
	}
	return buf[:n]
}
