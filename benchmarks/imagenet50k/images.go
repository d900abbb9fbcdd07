package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/disintegration/imaging"
	"golang.org/x/sync/errgroup"
)

// original is one photograph that the images are variations of.
type original struct {
	class string
	image image.Image
}

// readOriginals reads the shared photographs at their full sizes.
func readOriginals(shared string) ([]original, error) {
	list := filepath.Join(shared, "imagenet", "val20-original.txt")
	f, err := os.Open(list)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []original
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, class, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			return nil, fmt.Errorf("%s: line %q is not \"file class\"", list, lines.Text())
		}
		im, err := imaging.Open(filepath.Join(shared, "imagenet", "val20-original", name))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, original{class, im})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no photograph", list)
	}
	return out, nil
}

// vary makes image i, counted from 0: a part of a photograph, mirrored or not, in a size and a quality that give files of 116 kB on
// average, where ImageNet's 50,000 have 135. It depends on seed and i alone.
func vary(from []original, seed uint64, i int) ([]byte, error) {
	rng := rand.New(rand.NewPCG(seed, uint64(i)))
	src := from[i%len(from)].image
	between := func(low, high float64) float64 { return low + (high-low)*rng.Float64() }
	size := src.Bounds().Size()
	w, h := int(between(0.6, 1)*float64(size.X)), int(between(0.6, 1)*float64(size.Y))
	x, y := rng.IntN(size.X-w+1), rng.IntN(size.Y-h+1)
	im := imaging.Crop(src, image.Rect(x, y, x+w, y+h).Add(src.Bounds().Min))
	if rng.IntN(2) == 1 {
		im = imaging.FlipH(im)
	}
	long := int(between(420, 640)) // most of ImageNet's files have 500
	if rng.IntN(50) == 0 {
		long = int(between(1000, 2000))
	}
	if w >= h {
		im = imaging.Resize(im, long, 0, imaging.Linear)
	} else {
		im = imaging.Resize(im, 0, long, imaging.Linear)
	}
	var out image.Image = im
	if rng.IntN(50) == 0 { // some of ImageNet's are grey
		grey := image.NewGray(im.Bounds())
		for p := range grey.Pix {
			grey.Pix[p] = im.Pix[4*p+1]
		}
		out = grey
	}
	var b bytes.Buffer
	err := jpeg.Encode(&b, out, &jpeg.Options{Quality: 94 + rng.IntN(6)})
	return b.Bytes(), err
}

func entryName(i int) string { return fmt.Sprintf("ILSVRC2012_val_%08d.JPEG", i+1) }

// makeTar writes the images and their labels, or what an interrupted call left to do, and returns both paths.
func (o options) makeTar(ctx context.Context) (images, labels string, err error) {
	images = filepath.Join(o.out, fmt.Sprintf("images-%d-seed%d.tar", o.n, o.seed))
	labels = filepath.Join(o.out, fmt.Sprintf("labels-%d.txt", o.n))
	if _, err := os.Stat(images); err == nil {
		return images, labels, nil
	}
	from, err := readOriginals(o.shared)
	if err != nil {
		return "", "", err
	}
	var text bytes.Buffer
	for i := range o.n {
		fmt.Fprintf(&text, "%s %s\n", entryName(i), from[i%len(from)].class)
	}
	if err := os.WriteFile(labels, text.Bytes(), 0o644); err != nil {
		return "", "", err
	}
	part := images + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	done, err := whole(f)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", part, err)
	}
	if err := o.append(ctx, f, from, done); err != nil {
		return "", "", err
	}
	return images, labels, os.Rename(part, images)
}

// whole counts the complete entries of a tar that may be cut off, and leaves f behind the last of them.
func whole(f *os.File) (entries int, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	var end int64
	for r := tar.NewReader(f); ; entries++ {
		h, err := r.Next()
		if err != nil { // the end, or where the file was cut
			break
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return 0, err
		}
		next := at + (h.Size+511)/512*512
		if next > info.Size() {
			break
		}
		end = next
	}
	if err := f.Truncate(end); err != nil {
		return 0, err
	}
	_, err = f.Seek(end, io.SeekStart)
	return entries, err
}

// append makes the images from number done on, on every core, and writes them in order.
func (o options) append(ctx context.Context, f *os.File, from []original, done int) error {
	buffered := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(buffered)
	cores := runtime.GOMAXPROCS(0)
	const round = 200 // images that are made before they are written
	began, bytes := time.Now(), 0
	for first := done; first < o.n; first += round {
		made := make([][]byte, min(round, o.n-first))
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(cores)
		for k := range made {
			g.Go(func() (err error) {
				if err := ctx.Err(); err != nil {
					return err
				}
				made[k], err = vary(from, o.seed, first+k)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return errors.Join(err, buffered.Flush())
		}
		for k, data := range made {
			h := &tar.Header{Name: entryName(first + k), Mode: 0o644, Size: int64(len(data)), Format: tar.FormatUSTAR}
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			if _, err := w.Write(data); err != nil {
				return err
			}
			bytes += len(data)
		}
		if n := first + len(made); n%5000 == 0 || n == o.n {
			fmt.Fprintf(os.Stderr, "imagenet50k: %d of %d images, %.0f kB each, %.0f/s\n", n, o.n, float64(bytes)/1000/float64(n-done), float64(n-done)/time.Since(began).Seconds())
		}
	}
	return errors.Join(w.Close(), buffered.Flush(), f.Sync())
}
