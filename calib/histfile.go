package calib

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/klauspost/compress/gzip"
)

// ErrVersion is wrapped by the error about a histograms file of a version that this program does not know.
var ErrVersion = errors.New("unknown version of the file format")

// A histograms file is gzipped CSV. Its first record is histogramsKind, histogramsVersion; the second names the columns; then one
// record a tensor. counts holds the 2,048 numbers separated by spaces, each followed by x and a repetition where it occurs
// several times in a row: "5 0x2047".
const (
	histogramsKind    = "quantgate-histograms"
	histogramsVersion = "1"
)

var histogramColumns = []string{"tensor", "range", "max", "nan", "inf", "counts"}

// maxCount bounds a histogram's total: beyond it, a float64 no longer tells neighbouring counts apart.
const maxCount = 1 << 53

// WriteHistograms writes histograms as gzipped CSV. The same histograms give the same bytes.
func WriteHistograms(w io.Writer, hs []*Histogram) error {
	gz, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	cw := csv.NewWriter(gz)
	records := [][]string{{histogramsKind, histogramsVersion}, histogramColumns}
	for _, h := range hs {
		records = append(records, []string{
			h.Name, formatFloat32(h.Range), formatFloat32(h.Max),
			strconv.FormatUint(h.NaN, 10), strconv.FormatUint(h.Inf, 10), formatCounts(&h.Counts),
		})
	}
	if err := cw.WriteAll(records); err != nil {
		return err
	}
	return gz.Close()
}

// WriteHistogramsFile writes a histograms file whole or not at all.
func WriteHistogramsFile(path string, hs []*Histogram) error {
	var buf bytes.Buffer
	if err := WriteHistograms(&buf, hs); err != nil {
		return fmt.Errorf("write histograms %s: %w", path, err)
	}
	if err := renameio.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write histograms %s: %w", path, err)
	}
	return nil
}

// ReadHistogramsFile reads a histograms file.
func ReadHistogramsFile(path string) ([]*Histogram, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read histograms: %w", err)
	}
	defer f.Close()
	return ReadHistograms(f, path)
}

// ReadHistograms reads what WriteHistograms wrote; name is what errors call the file. Lines count unpacked.
func ReadHistograms(r io.Reader, name string) ([]*Histogram, error) {
	gz, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("read histograms %s: %w: not gzip: %w", name, ErrCorrupt, err)
	}
	data, err := readAll(gz, name)
	if err != nil {
		if errors.Is(err, ErrCorrupt) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	rd := csv.NewReader(bytes.NewReader(data))
	rd.FieldsPerRecord = -1
	next := func() ([]string, int, error) {
		rec, err := rd.Read()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil, 0, err
			}
			return nil, 0, csvError(name, err)
		}
		line, _ := rd.FieldPos(0)
		return rec, line, nil
	}

	rec, line, err := next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, corrupt(name, 1, "it is empty")
	case err != nil:
		return nil, err
	case len(rec) != 2 || rec[0] != histogramsKind:
		return nil, corrupt(name, line, "the first line is not %s,%s", histogramsKind, histogramsVersion)
	case rec[1] != histogramsVersion:
		return nil, fmt.Errorf("%s:%d: %w: version %q, this program reads %s", name, line, ErrVersion, rec[1], histogramsVersion)
	}
	rec, line, err = next()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if strings.Join(rec, ",") != strings.Join(histogramColumns, ",") {
		return nil, corrupt(name, max(line, 2), "the columns are not %s", strings.Join(histogramColumns, ","))
	}
	var out []*Histogram
	seen := map[string]int{}
	for {
		rec, line, err = next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		h, err := parseHistogram(rec)
		if err != nil {
			return nil, corrupt(name, line, "%v", err)
		}
		if first, twice := seen[h.Name]; twice {
			return nil, corrupt(name, line, "tensor %q is there already, in line %d", h.Name, first)
		}
		seen[h.Name] = line
		out = append(out, h)
	}
}

// HistogramsByName indexes histograms by tensor.
func HistogramsByName(hs []*Histogram) map[string]*Histogram {
	m := make(map[string]*Histogram, len(hs))
	for _, h := range hs {
		m[h.Name] = h
	}
	return m
}

func parseHistogram(rec []string) (*Histogram, error) {
	if len(rec) != len(histogramColumns) {
		return nil, fmt.Errorf("%d columns, not %d", len(rec), len(histogramColumns))
	}
	h := &Histogram{Name: rec[0]}
	fail := func(err error) (*Histogram, error) { return nil, fmt.Errorf("tensor %q: %w", h.Name, err) }
	var err error
	if h.Name == "" {
		return nil, errors.New("a tensor without a name")
	}
	if h.Range, err = parseFloat32(rec[1]); err != nil || !finiteScale(h.Range) {
		return fail(fmt.Errorf("range %q is not a finite float32 of 0 or more", rec[1]))
	}
	if h.Max, err = parseFloat32(rec[2]); err != nil || !finiteScale(h.Max) || h.Max > h.Range {
		return fail(fmt.Errorf("max %q is not a float32 of 0 to the range", rec[2]))
	}
	if h.NaN, err = strconv.ParseUint(rec[3], 10, 64); err != nil {
		return fail(fmt.Errorf("nan %q is not a count", rec[3]))
	}
	if h.Inf, err = strconv.ParseUint(rec[4], 10, 64); err != nil {
		return fail(fmt.Errorf("inf %q is not a count", rec[4]))
	}
	if err := parseCounts(rec[5], &h.Counts); err != nil {
		return fail(err)
	}
	return h, nil
}

func formatCounts(counts *[Bins]uint64) string {
	var b strings.Builder
	for j := 0; j < Bins; {
		k := j + 1
		for k < Bins && counts[k] == counts[j] {
			k++
		}
		if j > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.FormatUint(counts[j], 10))
		if k-j > 1 {
			b.WriteByte('x')
			b.WriteString(strconv.Itoa(k - j))
		}
		j = k
	}
	return b.String()
}

func parseCounts(s string, counts *[Bins]uint64) error {
	j := 0
	var total uint64
	for word := range strings.SplitSeq(s, " ") {
		number, times, repeated := strings.Cut(word, "x")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || n > maxCount {
			return fmt.Errorf("%q is not a count of at most %d", word, uint64(maxCount))
		}
		k := 1
		if repeated {
			if k, err = strconv.Atoi(times); err != nil || k < 1 || k > Bins {
				return fmt.Errorf("%q is not a repeated count", word)
			}
		}
		if j+k > Bins {
			return fmt.Errorf("more than %d counts", Bins)
		}
		for range k {
			counts[j] = n
			j++
			if total += n; total > maxCount {
				return fmt.Errorf("the counts add up to more than %d", uint64(maxCount))
			}
		}
	}
	if j != Bins {
		return fmt.Errorf("%d counts, not %d", j, Bins)
	}
	return nil
}
