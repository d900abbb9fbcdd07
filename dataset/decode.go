package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"runtime"
	"strings"

	"github.com/disintegration/imaging"
	_ "golang.org/x/image/webp" // registers the decoder
)

// goDecoder is the name of the fallback decoder.
var goDecoder = "image/jpeg (" + runtime.Version() + ")"

// maxPixels bounds the size of one image, as Pillow's decompression bomb error does.
const maxPixels = 2 * (1024 * 1024 * 1024 / 4 / 3)

// raster is an image of 8-bit pixels, interleaved: 1 channel (grey) or 3 (RGB).
type raster struct {
	pix      []byte
	w, h     int
	channels int
	stride   int // bytes from row to row
}

// newRaster returns an image without gaps between its rows, in buf where its capacity suffices.
func newRaster(w, h, channels int, buf []byte) raster {
	return raster{pix: grow(buf, w*h*channels), w: w, h: h, channels: channels, stride: w * channels}
}

func (r raster) row(y int) []byte { return r.pix[y*r.stride : y*r.stride+r.w*r.channels] }

// decoder turns image files into rasters with the values of Pillow's convert("RGB"): orientation is ignored, alpha dropped.
// It serves one goroutine; its zero value decodes JPEG with image/jpeg.
type decoder struct {
	turbo  *turboJPEG
	handle *turboHandle
	enough int // pixels that the longer side of a JPEG must have, more of which are not wanted; 0: all are
	pix    []byte
	cmyk   []byte
}

func (d *decoder) close() {
	if d.handle != nil {
		d.handle.close()
		d.handle = nil
	}
}

// decode decodes one file, whatever its name says. The pixels are valid until the next call.
func (d *decoder) decode(data []byte) (raster, error) {
	switch {
	case len(data) == 0:
		return raster{}, errors.New("file is empty")
	case bytes.HasPrefix(data, []byte{0xFF, 0xD8, 0xFF}):
		return d.jpeg(data)
	}
	cfg, format, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return raster{}, decodeError(format, err)
	}
	if err := checkSize(cfg.Width, cfg.Height); err != nil {
		return raster{}, err
	}
	img, err := imaging.Decode(bytes.NewReader(data))
	if err != nil {
		return raster{}, decodeError(format, err)
	}
	if format == "webp" {
		switch m := img.(type) {
		case *image.YCbCr:
			out := fromWebP(m, d.pix)
			d.pix = out.pix
			return out, nil
		case *image.NYCbCrA:
			out := fromWebP(&m.YCbCr, d.pix)
			d.pix = out.pix
			return out, nil
		}
	}
	return d.convert(img)
}

func decodeError(format string, err error) error {
	switch {
	case errors.Is(err, image.ErrFormat):
		return fmt.Errorf("%w: not a JPEG, PNG, GIF, BMP, TIFF or WebP image", ErrFormat)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF),
		errors.Is(err, png.FormatError("not enough pixel data")), errors.Is(err, jpeg.FormatError("short Huffman data")):
		return fmt.Errorf("%w: %s data end too early", ErrTruncated, format)
	}
	return fmt.Errorf("%s: %w", format, err)
}

func checkSize(w, h int) error {
	if w < 1 || h < 1 {
		return fmt.Errorf("%w: image of %dx%d pixels", ErrFormat, w, h)
	}
	if h > maxPixels/w {
		return fmt.Errorf("%w: image of %dx%d pixels is larger than the %d that are decoded", ErrFormat, w, h, maxPixels)
	}
	return nil
}

// jpeg decodes a JPEG file.
func (d *decoder) jpeg(data []byte) (raster, error) {
	head, err := readJPEGHeader(data)
	if err != nil {
		return raster{}, err
	}
	if err := checkSize(head.w, head.h); err != nil {
		return raster{}, err
	}
	if d.turbo == nil {
		img, err := jpeg.Decode(bytes.NewReader(data))
		if err != nil {
			return raster{}, decodeError("jpeg", err)
		}
		return d.convert(img)
	}
	if d.handle == nil {
		if d.handle, err = d.turbo.newHandle(); err != nil {
			return raster{}, err
		}
	}
	buf := &d.pix
	if head.components == 4 {
		buf = &d.cmyk
	}
	w, h := head.w, head.h
	if d.enough > 0 {
		w, h = reduced(w, h, d.enough)
	}
	img := newRaster(w, h, head.components, *buf)
	*buf = img.pix
	warning, err := d.handle.decode(data, img.pix, img.w, img.h, img.channels)
	switch {
	case err != nil:
		return raster{}, err
	case warning == "":
	case strings.Contains(strings.ToLower(warning), "premature end"):
		return raster{}, fmt.Errorf("%w: libjpeg-turbo: %s", ErrTruncated, warning)
	case !jpegEnds(data):
		// libjpeg keeps the text of the first warning only, and here it is another.
		return raster{}, fmt.Errorf("%w: the JPEG has no end marker (libjpeg-turbo: %s)", ErrTruncated, warning)
	}
	if img.channels == 4 {
		img = d.fromCMYK(img.pix, img.w, img.h, 0xFF)
	}
	return img, nil
}

// reduced is the smallest size in which every JPEG decoder can bring out an image of w x h pixels without computing all of them, a half, a
// quarter or an eighth, and in which the longer side still has that many pixels.
func reduced(w, h, enough int) (int, int) {
	for part := 8; part > 1; part /= 2 {
		if (max(w, h)+part-1)/part >= enough {
			return (w + part - 1) / part, (h + part - 1) / part
		}
	}
	return w, h
}

// jpegHeader is what a JPEG's frame header tells.
type jpegHeader struct{ w, h, components int }

// readJPEGHeader finds the frame header.
func readJPEGHeader(data []byte) (jpegHeader, error) {
	for i := 2; ; {
		marker, body, next := jpegSegment(data, i)
		switch {
		case next < 0 || marker == 0xD9:
			return jpegHeader{}, fmt.Errorf("%w: JPEG ends before its image size", ErrTruncated)
		case marker == 0xDA:
			return jpegHeader{}, fmt.Errorf("%w: JPEG has no frame header before its first scan", ErrFormat)
		case marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC:
			if len(body) < 6 {
				return jpegHeader{}, fmt.Errorf("%w: JPEG frame header of %d bytes", ErrFormat, len(body))
			}
			h := jpegHeader{h: int(body[1])<<8 | int(body[2]), w: int(body[3])<<8 | int(body[4]), components: int(body[5])}
			if body[0] != 8 {
				return h, fmt.Errorf("%w: JPEG of %d bits a sample: only 8 are decoded", ErrFormat, body[0])
			}
			if h.components != 1 && h.components != 3 && h.components != 4 {
				return h, fmt.Errorf("%w: JPEG of %d components: only 1, 3 and 4 are decoded", ErrFormat, h.components)
			}
			return h, nil
		}
		i = next
	}
}

// jpegEnds reports whether the end marker follows the scans.
func jpegEnds(data []byte) bool {
	for i := 2; ; {
		marker, _, next := jpegSegment(data, i)
		if next < 0 {
			return false
		}
		if marker == 0xD9 {
			return true
		}
		i = next
	}
}

// jpegSegment reads the first marker at or after data[i] with its segment; entropy-coded data and stray bytes before it are
// skipped. next is where the segment ends, -1 where the data end first.
func jpegSegment(data []byte, i int) (marker byte, body []byte, next int) {
	for {
		if i >= len(data) {
			return 0, nil, -1
		}
		skip := bytes.IndexByte(data[i:], 0xFF)
		if skip < 0 {
			return 0, nil, -1
		}
		i += skip
		for i < len(data) && data[i] == 0xFF {
			i++
		}
		if i >= len(data) {
			return 0, nil, -1
		}
		marker = data[i]
		i++
		switch {
		case marker == 0 || marker == 1 || marker >= 0xD0 && marker <= 0xD8: // stuffing, and markers without a segment
			continue
		case marker == 0xD9:
			return marker, nil, i
		}
		if i+2 > len(data) {
			return 0, nil, -1
		}
		size := int(data[i])<<8 | int(data[i+1])
		if size < 2 {
			continue
		}
		if i+size > len(data) {
			return 0, nil, -1
		}
		return marker, data[i+2 : i+size], i + size
	}
}

// fromCMYK converts CMYK to RGB with Pillow's formula (libImaging/Convert.c, cmyk2rgb). invert is 0xFF where the bytes are as
// in an Adobe JPEG, 255 for no ink, and 0 otherwise; Pillow takes every four-component JPEG for Adobe's.
func (d *decoder) fromCMYK(cmyk []byte, w, h int, invert byte) raster {
	img := newRaster(w, h, 3, d.pix)
	d.pix = img.pix
	out := img.pix
	for i := range w * h {
		p := cmyk[4*i : 4*i+4]
		paper := 255 - int(p[3]^invert)
		for c := range 3 {
			t := int(p[c]^invert)*paper + 128 // MULDIV255
			out[3*i+c] = byte(max(0, paper-(t>>8+t)>>8))
		}
	}
	return img
}

// convert takes the pixels of a decoded image as Pillow's convert("RGB") does: alpha is dropped and not composited, palettes
// are looked up, 16-bit colour keeps its high byte, and 16-bit grey is clipped at 255.
func (d *decoder) convert(img image.Image) (raster, error) {
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	if err := checkSize(w, h); err != nil {
		return raster{}, err
	}
	if m, ok := img.(*image.CMYK); ok {
		d.cmyk = d.cmyk[:0]
		for y := range h {
			d.cmyk = append(d.cmyk, m.Pix[y*m.Stride:y*m.Stride+4*w]...)
		}
		return d.fromCMYK(d.cmyk, w, h, 0), nil
	}
	channels := 3
	switch img.(type) {
	case *image.Gray, *image.Gray16:
		channels = 1
	}
	out := newRaster(w, h, channels, d.pix)
	d.pix = out.pix
	for y := range h {
		row := out.row(y)
		switch m := img.(type) {
		case *image.Gray:
			copy(row, m.Pix[y*m.Stride:])
		case *image.Gray16:
			src := m.Pix[y*m.Stride:]
			for x := range row {
				if row[x] = src[2*x+1]; src[2*x] != 0 {
					row[x] = 255
				}
			}
		case *image.NRGBA:
			takeRGB(row, m.Pix[y*m.Stride:], 4, 1)
		case *image.RGBA:
			takeRGB(row, m.Pix[y*m.Stride:], 4, 1)
		case *image.NRGBA64:
			takeRGB(row, m.Pix[y*m.Stride:], 8, 2)
		case *image.RGBA64:
			takeRGB(row, m.Pix[y*m.Stride:], 8, 2)
		case *image.Paletted:
			if err := takePalette(row, m.Pix[y*m.Stride:y*m.Stride+w], m.Palette); err != nil {
				return raster{}, err
			}
		default:
			for x := range w {
				row[3*x], row[3*x+1], row[3*x+2] = rgbOf(img.At(b.Min.X+x, b.Min.Y+y))
			}
		}
	}
	return out, nil
}

// takeRGB copies the colours of pixels of size bytes with a sample every step bytes, the high byte first.
func takeRGB(row, src []byte, size, step int) {
	for x := range len(row) / 3 {
		p := src[x*size:]
		row[3*x], row[3*x+1], row[3*x+2] = p[0], p[step], p[2*step]
	}
}

func takePalette(row, src []byte, palette color.Palette) error {
	for x, v := range src {
		if int(v) >= len(palette) {
			return fmt.Errorf("%w: palette has %d colours and a pixel names number %d", ErrFormat, len(palette), v)
		}
		row[3*x], row[3*x+1], row[3*x+2] = rgbOf(palette[v])
	}
	return nil
}

// rgbOf returns a colour's red, green and blue without its alpha.
func rgbOf(c color.Color) (r, g, b byte) {
	n, ok := c.(color.NRGBA)
	if !ok {
		n, _ = color.NRGBAModel.Convert(c).(color.NRGBA)
	}
	return n.R, n.G, n.B
}

// toGrey converts RGB to grey with Pillow's integer formula (libImaging/Convert.c, L24: ITU-R 601-2), into buf where its
// capacity suffices.
func toGrey(img raster, buf []byte) raster {
	grey := newRaster(img.w, img.h, 1, buf)
	for i := range grey.pix {
		p := img.pix[3*i : 3*i+3]
		grey.pix[i] = byte((19595*uint32(p[0]) + 38470*uint32(p[1]) + 7471*uint32(p[2]) + 0x8000) >> 16)
	}
	return grey
}
