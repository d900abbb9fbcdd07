package calib

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
)

// ErrCorrupt is wrapped by the errors about a cache or histogram file whose content is wrong.
var ErrCorrupt = errors.New("corrupt file")

// maxFile bounds what is read of one cache or histograms file, unpacked.
const maxFile = 256 << 20

// Format is a kind of cache file.
type Format string

// The cache formats.
const (
	TensorRT Format = "tensorrt" // TensorRT's text
	ORTJSON  Format = "ort-json" // ONNX Runtime's calibration JSON
	CSV      Format = "csv"
)

// Formats lists every format in the order a help text should.
func Formats() []Format { return []Format{TensorRT, ORTJSON, CSV} }

// ParseFormat returns the format of that name.
func ParseFormat(s string) (Format, error) {
	for _, f := range Formats() {
		if string(f) == s {
			return f, nil
		}
	}
	return "", fmt.Errorf("unknown cache format %q: use one of %s, %s, %s", s, TensorRT, ORTJSON, CSV)
}

// FormatOf returns the format that a file's name suggests: .json and .csv their own, anything else TensorRT's text.
func FormatOf(path string) Format {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".json":
		return ORTJSON
	case ".csv":
		return CSV
	default:
		return TensorRT
	}
}

// Detect returns the format of a cache from its first bytes.
func Detect(data []byte) (Format, error) {
	head := bytes.TrimLeft(bytes.TrimPrefix(data, utf8BOM), " \t\r\n")
	switch {
	case bytes.HasPrefix(head, []byte("TRT-")):
		return TensorRT, nil
	case bytes.HasPrefix(head, []byte("{")):
		return ORTJSON, nil
	case bytes.HasPrefix(head, []byte(csvColumns[0]+",")):
		return CSV, nil
	case len(head) == 0:
		return "", fmt.Errorf("%w: it is empty", ErrCorrupt)
	default:
		return "", fmt.Errorf("%w: neither TensorRT's text (TRT-8601-...), nor ONNX Runtime's JSON, nor a CSV that starts with %q",
			ErrCorrupt, csvColumns[0])
	}
}

var utf8BOM = []byte("\xef\xbb\xbf")

// ReadFile reads a cache of any format and says which it was.
func ReadFile(path string) (*Cache, Format, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", fmt.Errorf("read calibration cache: %w", err)
	}
	defer f.Close()
	data, err := readAll(f, path)
	if err != nil {
		return nil, "", err
	}
	format, err := Detect(data)
	if err != nil {
		return nil, "", fmt.Errorf("read calibration cache %s: %w", path, err)
	}
	c, err := Read(bytes.NewReader(data), path, format)
	return c, format, err
}

// Read reads a cache of the given format; name is what errors call it.
func Read(r io.Reader, name string, f Format) (*Cache, error) {
	switch f {
	case TensorRT:
		return ReadTensorRT(r, name)
	case ORTJSON:
		return ReadORTJSON(r, name)
	case CSV:
		return ReadCSV(r, name)
	default:
		_, err := ParseFormat(string(f))
		return nil, err
	}
}

// Write writes a cache in the given format.
func Write(w io.Writer, c *Cache, f Format) error {
	switch f {
	case TensorRT:
		return WriteTensorRT(w, c)
	case ORTJSON:
		return WriteORTJSON(w, c)
	case CSV:
		return WriteCSV(w, c)
	default:
		_, err := ParseFormat(string(f))
		return err
	}
}

// WriteFile writes a cache whole or not at all.
func WriteFile(path string, c *Cache, f Format) error {
	var buf bytes.Buffer
	if err := Write(&buf, c, f); err != nil {
		return fmt.Errorf("write calibration cache %s: %w", path, err)
	}
	if err := renameio.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write calibration cache %s: %w", path, err)
	}
	return nil
}

// readAll reads r to its end within maxFile.
func readAll(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read %s: %w: more than %d MiB", name, ErrCorrupt, maxFile>>20)
	}
	return data, nil
}

// builder collects the entries of a file being read and refuses what no table may hold.
type builder struct {
	file  string
	table Table
	line  map[string]int // by name
}

func newBuilder(file string) *builder { return &builder{file: file, line: map[string]int{}} }

func (b *builder) errorf(line int, format string, args ...any) error {
	return corrupt(b.file, line, format, args...)
}

func corrupt(file string, line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w: %s", file, line, ErrCorrupt, fmt.Sprintf(format, args...))
}

func (b *builder) add(line int, e Entry) error {
	if e.Name == "" {
		return b.errorf(line, "an entry without a name")
	}
	if first, twice := b.line[e.Name]; twice {
		return b.errorf(line, "tensor %q is there already, in line %d", e.Name, first)
	}
	if !finiteScale(e.Scale) || !finiteScale(e.Amax) {
		return b.errorf(line, "tensor %q: scale %v is not a finite number of 0 or more", e.Name, e.Scale)
	}
	b.line[e.Name] = line
	b.table.Entries = append(b.table.Entries, e)
	return nil
}

// finiteScale holds for what may stand in a table: 0 occurs in TensorRT's caches, for tensors that were always zero.
func finiteScale(x float32) bool { return x >= 0 && x <= math.MaxFloat32 }

// checkTable refuses what a reader would refuse.
func checkTable(t *Table) error {
	b := newBuilder("")
	for _, e := range t.Entries {
		if err := b.add(0, e); err != nil {
			return fmt.Errorf("tensor %q: its name is empty or doubled, or its scale %v is not a finite number of 0 or more", e.Name, e.Scale)
		}
	}
	return nil
}

// amaxOf is a float32 amax that has the given scale, next to 127 times the scale; where no float32 has it, that product.
func amaxOf(scale float32) float32 {
	amax := scale * Levels
	for _, a := range [2]float32{math.Nextafter32(amax, 0), math.Nextafter32(amax, math.MaxFloat32)} {
		if ScaleOf(amax) != scale && ScaleOf(a) == scale {
			return a
		}
	}
	return amax
}

// ReadTensorRT reads TensorRT's text: a line TRT-<version>-<calibrator>, then a line "name: bits" an entry, bits being those of
// the scale as a float32 in eight hexadecimal digits, or 0. Names may hold spaces and colons. A last line that is cut off is
// an error. name is what errors call the file.
func ReadTensorRT(r io.Reader, name string) (*Cache, error) {
	data, err := readAll(r, name)
	if err != nil {
		return nil, err
	}
	c := &Cache{}
	b := newBuilder(name)
	sc := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(data, utf8BOM)))
	sc.Buffer(nil, maxFile)
	line, blank := 0, 0
	for sc.Scan() {
		line++
		text := sc.Text()
		if strings.TrimSpace(text) == "" {
			blank = line
			continue
		}
		if line == 1 {
			if c.Header, err = parseHeader(text); err != nil {
				return nil, b.errorf(line, "%v", err)
			}
			continue
		}
		if blank > 0 {
			return nil, b.errorf(blank, "an empty line before the end")
		}
		e, err := parseLine(text)
		if err != nil {
			return nil, b.errorf(line, "%v", err)
		}
		if err := b.add(line, e); err != nil {
			return nil, err
		}
	}
	if err := sc.Err(); err != nil {
		return nil, b.errorf(line+1, "%v", err)
	}
	if c.Version == "" {
		return nil, b.errorf(1, "it is empty")
	}
	if len(b.table.Entries) == 0 {
		return nil, b.errorf(line, "no entry after the first line: the file was cut off")
	}
	if !bytes.HasSuffix(data, []byte("\n")) {
		return nil, b.errorf(line, "the last line has no line end: the file was cut off")
	}
	c.Table = b.table
	return c, nil
}

func parseHeader(text string) (Header, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), "TRT-")
	version, calibrator, dash := strings.Cut(rest, "-")
	h := Header{Version: version, Calibrator: calibrator}
	if !ok || !dash {
		return Header{}, fmt.Errorf("first line %q is not TRT-<version>-<calibrator>", text)
	}
	return h, h.check()
}

// check refuses a header that TensorRT could not have written.
func (h Header) check() error {
	if !digits(h.Version) {
		return fmt.Errorf("version %q in the first line is no number such as %s", h.Version, DefaultVersion)
	}
	if h.Calibrator == "" || strings.ContainsFunc(h.Calibrator, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("calibrator %q in the first line is no name such as %s", h.Calibrator, CalibratorEntropy2)
	}
	return nil
}

func parseLine(text string) (Entry, error) {
	colon := strings.LastIndexByte(text, ':')
	if colon < 0 {
		return Entry{}, fmt.Errorf("%q is not \"name: scale\"", text)
	}
	digits := strings.TrimSpace(text[colon+1:])
	bits, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || len(digits) != 8 && digits != "0" {
		return Entry{}, fmt.Errorf("%q after the last colon is not the eight hexadecimal digits of a float32", digits)
	}
	scale := math.Float32frombits(uint32(bits))
	return Entry{Name: text[:colon], Scale: scale, Amax: amaxOf(scale)}, nil
}

// WriteTensorRT writes TensorRT's text, byte for byte as TensorRT does. The header must be complete.
func WriteTensorRT(w io.Writer, c *Cache) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := checkTable(&c.Table); err != nil {
		return err
	}
	var buf bytes.Buffer
	fmt.Fprintf(&buf, "TRT-%s-%s\n", c.Version, c.Calibrator)
	for _, e := range c.Entries {
		if strings.ContainsAny(e.Name, "\r\n") {
			return fmt.Errorf("tensor %q: a name with a line break cannot stand in a TensorRT cache: rename the tensor", e.Name)
		}
		fmt.Fprintf(&buf, "%s: %s\n", e.Name, ScaleBits(e.Scale))
	}
	_, err := w.Write(buf.Bytes())
	return err
}
