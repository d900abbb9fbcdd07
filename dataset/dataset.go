// Package dataset reads labelled image sets and turns them into the batches that a classifier is fed.
//
// A Dataset lists the images of a source (a folder with a label list, class folders, a tar, IDX files or sampleINT8 batch
// files) in a fixed order; Split divides them into calibration and score; a Loader decodes, resizes, crops and normalises
// them on all cores, ahead of its consumer. The pixels are those of Pillow and the geometry is torchvision's.
package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrLabels says that labels and images do not fit together: a label is missing, doubled, malformed or out of range.
	ErrLabels = errors.New("bad labels")
	// ErrEmpty says that the source holds no image.
	ErrEmpty = errors.New("no images")
	// ErrTooFew says that the images do not suffice for the split that was asked for.
	ErrTooFew = errors.New("too few images")
	// ErrFormat says that a file is not what its format requires.
	ErrFormat = errors.New("bad format")
	// ErrTooManyBad says that more images are unreadable than LoadOptions.MaxBad allows.
	ErrTooManyBad = errors.New("too many unreadable images")
	// ErrTruncated says that an image's data end too early.
	ErrTruncated = errors.New("truncated image")
)

// Format names a kind of source.
type Format string

// The formats, as the --format flag spells them.
const (
	Auto    Format = "auto"
	List    Format = "list"    // a folder and a list of "file class" lines
	Folders Format = "folders" // one folder a class
	Tar     Format = "tar"     // an uncompressed tar, read in place
	IDX     Format = "idx"     // MNIST's pair of files, gzipped or not
	Batches Format = "batches" // sampleINT8's batch0, batch1, ...: preprocessed tensors
)

// ParseFormat reads a format's name; the empty string is Auto.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case "":
		return Auto, nil
	case Auto, List, Folders, Tar, IDX, Batches:
		return f, nil
	}
	return "", fmt.Errorf("unknown data format %q: give auto, list, folders, tar, idx or batches", s)
}

// maxClass bounds a label, so that a mistaken column (an id, a size) is an error and not a class.
const maxClass = 1 << 20

// Options say what Open opens.
type Options struct {
	// Images is the folder, tar, IDX images file, or folder with an IDX pair or batch files.
	Images string
	// Labels is the label file. list and tar: lines of "file class". folders: lines that start with a folder's name, the
	// class being the line's number from 0 (synset_words.txt). idx: the labels file, found by its name when empty.
	// batches: one class a line in the order stored, for files that hold no labels.
	Labels string
	// Format is detected when it is empty or Auto.
	Format Format
	// Limit keeps the first images in dataset order only; 0 keeps all. It counts before any split.
	Limit int
	// JPEGLibrary is the TurboJPEG library to open, and "none" decodes with image/jpeg. Where it is empty, JPEGLibraryEnv says
	// the same, else JPEGLibraries are tried, and without any image/jpeg decodes with a warning.
	JPEGLibrary string
	// ImageCache keeps preprocessed images between runs; its zero value keeps none.
	ImageCache ImageCache
}

// Item is one labelled image.
type Item struct {
	// ID is the position in dataset order, from 0.
	ID int `json:"id"`
	// Path is the path inside the source, with forward slashes; "file#index" inside IDX and batch files.
	Path string `json:"path"`
	// Label is the class, from 0.
	Label int `json:"label"`
}

// encodedSource holds image files.
type encodedSource interface {
	// read returns the bytes of image i, in buf where its capacity suffices.
	read(i int, buf []byte) ([]byte, error)
}

// rasterSource holds 8-bit grey pixels of one size.
type rasterSource interface {
	// pixels fills dst, one byte a pixel, with image i.
	pixels(i int, dst []byte) error
}

// tensorSource holds preprocessed tensors of one size.
type tensorSource interface {
	// tensor fills dst with image i in CHW order.
	tensor(i int, dst []float32) error
}

// Dataset is an opened source. It is safe for concurrent use.
type Dataset struct {
	format   Format
	items    []Item
	at       []int // position in the source of each item
	classes  int
	channels int
	h, w     int // 0 where images differ in size

	// one of these is set
	encoded encodedSource
	raster  rasterSource
	tensors tensorSource

	closer       io.Closer
	labelsDigest string
	imagesDigest string
	decoder      string
	turbo        *turboJPEG // nil: image/jpeg decodes
	cache        ImageCache
	warnings     []string
}

// contents is what opening a source yields.
type contents struct {
	format       Format
	paths        []string // in the source's order
	labels       []int    // of each path
	stored       bool     // the source's order is the dataset's order
	channels     int
	h, w         int
	encoded      encodedSource
	raster       rasterSource
	tensors      tensorSource
	closer       io.Closer
	labelsDigest string
	imagesDigest string
	warnings     []string
}

// Open lists the images of a source with their labels. No image is decoded. Images are ordered by base file name whatever
// their folder (by path where base names are equal), and as stored in IDX and batch files.
// The error wraps ErrLabels, ErrEmpty or ErrFormat where one of them is the cause.
func Open(ctx context.Context, o Options) (*Dataset, error) {
	if o.Images == "" {
		return nil, errors.New("no images: name a folder, tar, IDX file or folder of batch files (--images)")
	}
	if o.Limit < 0 {
		return nil, fmt.Errorf("limit %d is negative: give a number of images, or 0 for all", o.Limit)
	}
	if _, err := os.Stat(o.Images); err != nil {
		return nil, fmt.Errorf("images (--images): %w", err)
	}
	if o.Labels != "" {
		if _, err := os.Stat(o.Labels); err != nil {
			return nil, fmt.Errorf("labels (--labels): %w", err)
		}
	}
	format, err := ParseFormat(string(o.Format))
	if err != nil {
		return nil, err
	}
	if format == Auto {
		if format, err = detect(o.Images, o.Labels); err != nil {
			return nil, err
		}
	}
	var c *contents
	switch format {
	case List:
		c, err = openList(ctx, o.Images, o.Labels)
	case Folders:
		c, err = openFolders(ctx, o.Images, o.Labels)
	case Tar:
		c, err = openTar(ctx, o.Images, o.Labels)
	case IDX:
		c, err = openIDX(o.Images, o.Labels)
	case Batches:
		c, err = openBatches(o.Images, o.Labels)
	}
	if err != nil {
		return nil, err
	}
	d := newDataset(c, o.Limit)
	d.cache = o.ImageCache
	if len(d.items) == 0 {
		return nil, errors.Join(fmt.Errorf("%s: %w", o.Images, ErrEmpty), d.Close())
	}
	if err := d.openDecoder(o.JPEGLibrary); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := d.cache.prepare(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// newDataset puts the images of a source into dataset order.
func newDataset(c *contents, limit int) *Dataset {
	d := &Dataset{
		format: c.format, channels: c.channels, h: c.h, w: c.w,
		encoded: c.encoded, raster: c.raster, tensors: c.tensors,
		closer: c.closer, labelsDigest: c.labelsDigest, imagesDigest: c.imagesDigest, warnings: c.warnings,
	}
	d.at = make([]int, len(c.paths))
	for i := range d.at {
		d.at[i] = i
	}
	if !c.stored {
		sortByBase(d.at, c.paths)
	}
	if limit > 0 && limit < len(d.at) {
		d.at = d.at[:limit]
	}
	d.items = make([]Item, len(d.at))
	for id, at := range d.at {
		d.items[id] = Item{ID: id, Path: c.paths[at], Label: c.labels[at]}
		d.classes = max(d.classes, c.labels[at]+1)
	}
	return d
}

// openDecoder chooses what decodes JPEG.
func (d *Dataset) openDecoder(library string) error {
	if d.encoded == nil {
		d.decoder = "none (pixels as stored)"
		return nil
	}
	if library == "" {
		library = os.Getenv(JPEGLibraryEnv)
	}
	if library == "none" {
		d.decoder = goDecoder
		return nil
	}
	turbo, err := openTurboJPEG(library)
	switch {
	case err == nil:
		d.turbo, d.decoder = turbo, turbo.version
	case library != "":
		return err
	default:
		d.decoder = goDecoder
		d.warnings = append(d.warnings, fmt.Sprintf(
			"JPEG is decoded by Go's image/jpeg, whose pixels differ from Pillow's by a few levels: install libjpeg-turbo (Debian: apt install libturbojpeg0) or name it in %s: %v",
			JPEGLibraryEnv, err))
	}
	return nil
}

// Items lists the images in dataset order; Items()[i].ID is i. The slice must not be changed.
func (d *Dataset) Items() []Item { return d.items }

// Format is the source's format, as detected where Auto was asked for.
func (d *Dataset) Format() Format { return d.format }

// Classes is the highest label plus one.
func (d *Dataset) Classes() int { return d.classes }

// Channels is the number of channels that the source's images have: 1 for IDX, as stored for batch files, else 3.
func (d *Dataset) Channels() int { return d.channels }

// FixedSize returns the height and width in pixels that all images share by construction (IDX, batch files).
func (d *Dataset) FixedSize() (h, w int, ok bool) { return d.h, d.w, d.h > 0 }

// Preprocessed reports whether the source holds tensors that are fed as they are (batch files).
func (d *Dataset) Preprocessed() bool { return d.tensors != nil }

// Decoder names what decodes JPEG, with its version: "libjpeg-turbo 2.1.5 (build 20230203)". Results of different decoders
// must not be mixed.
func (d *Dataset) Decoder() string { return d.decoder }

// Warnings are notes that the user should see once.
func (d *Dataset) Warnings() []string { return d.warnings }

// ImagesDigest is the SHA-256 of the images file in hex where one file holds them all and is read anyway (IDX), else "".
func (d *Dataset) ImagesDigest() string { return d.imagesDigest }

// LabelsDigest is the SHA-256 of the labels file in hex, "" where there is none.
func (d *Dataset) LabelsDigest() string { return d.labelsDigest }

// ListDigest is the SHA-256, in hex, of the lines "path label\n" of all items in dataset order.
func (d *Dataset) ListDigest() string {
	h := sha256.New()
	var line []byte
	for _, it := range d.items {
		line = append(line[:0], it.Path...)
		line = append(line, ' ')
		line = strconv.AppendInt(line, int64(it.Label), 10)
		line = append(line, '\n')
		h.Write(line)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Close closes the source's files. No loader may be in use.
func (d *Dataset) Close() error {
	if d.closer == nil {
		return nil
	}
	c := d.closer
	d.closer = nil
	return c.Close()
}
