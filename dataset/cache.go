package dataset

import (
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"

	"github.com/quantgate/quantgate/dataset/internal/imagecache"
)

// pixelsVersion is raised with every change of the code that changes the pixels of an image, so that no cache outlives it.
const pixelsVersion = 1

// ImageCache says where images are kept after their crop and before their normalisation, as bytes, so that a later run over the same
// files with the same geometry and decoder reads them instead of decoding. An image is known by the SHA-256 of its file's bytes,
// and is the same to the bit whether it was kept or not. Unreadable images are not kept. Sources that hold pixels (IDX, batch
// files) need no cache.
type ImageCache struct {
	// Dir is the folder, which is made where it is missing; empty keeps nothing.
	Dir string
	// Limit bounds the bytes in the folder; what was not used for longest makes room.
	Limit int64
	// Warn, when not nil, is told what is wrong with the cache, and Note what it did, both from any goroutine. Nothing that
	// happens to a cache is an error.
	Warn, Note func(message string)
}

// prepare makes the folder.
func (c *ImageCache) prepare() error {
	if c.Warn == nil {
		c.Warn = func(string) {}
	}
	if c.Note == nil {
		c.Note = func(string) {}
	}
	if c.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("image cache: %w", err)
	}
	return nil
}

// openCache opens what is kept for p; nil where nothing is to be kept.
func (d *Dataset) openCache(p Preprocess) *imagecache.Cache {
	if d.cache.Dir == "" || d.encoded == nil {
		return nil
	}
	c, err := imagecache.Open(imagecache.Options{
		Dir: d.cache.Dir, Limit: d.cache.Limit, Warn: d.cache.Warn, Record: p.Channels * p.InputSize * p.InputSize,
		// Go decodes all but JPEG.
		Key: fmt.Sprintf("pixels %d, %s, %s, %s, %d channels", pixelsVersion, d.decoder, runtime.Version(), p.geometry(), p.Channels),
	})
	if err != nil {
		d.cache.Warn(err.Error())
		return nil
	}
	return c
}

// closeCache puts what was added into its place.
func (d *Dataset) closeCache(c *imagecache.Cache) {
	if found, added := c.Close(); found+added > 0 {
		d.cache.Note(fmt.Sprintf("image cache %s: %d found, %d added", d.cache.Dir, found, added))
	}
}

// cached makes the input of item id with the cache's help.
func (w *worker) cached(id int, dst []float32) error {
	if err := w.readFile(id); err != nil {
		return err
	}
	side := w.p.InputSize
	w.record = newRaster(side, side, w.p.Channels, w.record.pix)
	whole := window{0, 0, side}
	sum := sha256.Sum256(w.file)
	if !w.cache.Get(sum, w.record.pix) {
		img, err := w.decoder.decode(w.file)
		if err != nil {
			return err
		}
		crop, y, x, err := w.crop(img)
		if err != nil {
			return err
		}
		place(w.record, crop, y, x)
		w.cache.Put(sum, w.record.pix)
	}
	w.normalise(w.record, whole, whole, dst)
	return nil
}

// place copies the crop to its place in the input; what it does not cover is black. Grey becomes as many channels as dst has.
func place(dst, crop raster, y, x window) {
	if crop.w < dst.w || crop.h < dst.h {
		clear(dst.pix)
	}
	for r := range crop.h {
		src, out := crop.row(r), dst.row(y.to + r)[x.to*dst.channels:]
		if crop.channels == dst.channels {
			copy(out, src)
			continue
		}
		for i, v := range src {
			out[3*i], out[3*i+1], out[3*i+2] = v, v, v
		}
	}
}
