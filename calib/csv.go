package calib

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// csvColumns head a CSV cache. bits are the scale's, in hexadecimal as TensorRT writes them, and decide; the other two are for people.
var csvColumns = []string{"tensor", "amax", "scale", "bits"}

// ReadCSV reads a cache as CSV with the columns tensor, amax, scale, bits. It has no header. name is what errors call the file.
func ReadCSV(r io.Reader, name string) (*Cache, error) {
	data, err := readAll(r, name)
	if err != nil {
		return nil, err
	}
	b := newBuilder(name)
	rd := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, utf8BOM)))
	rd.FieldsPerRecord = len(csvColumns)
	for first := true; ; first = false {
		rec, err := rd.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, csvError(name, err)
		}
		line, _ := rd.FieldPos(0)
		if first {
			for i, want := range csvColumns {
				if rec[i] != want {
					return nil, b.errorf(line, "column %d is %q, not %q", i+1, rec[i], want)
				}
			}
			continue
		}
		amax, err := parseFloat32(rec[1])
		if err != nil {
			return nil, b.errorf(line, "amax %v", err)
		}
		scale, err := parseFloat32(rec[2])
		if err != nil {
			return nil, b.errorf(line, "scale %v", err)
		}
		bits, err := strconv.ParseUint(rec[3], 16, 32)
		if err != nil {
			return nil, b.errorf(line, "bits %q are not the hexadecimal bits of a float32", rec[3])
		}
		if math.Float32frombits(uint32(bits)) != scale {
			return nil, b.errorf(line, "tensor %q: scale %s and bits %s are two numbers", rec[0], rec[2], rec[3])
		}
		if err := b.add(line, Entry{Name: rec[0], Amax: amax, Scale: scale}); err != nil {
			return nil, err
		}
	}
	if len(b.table.Entries) == 0 {
		return nil, b.errorf(1, "no entry")
	}
	return &Cache{Table: b.table}, nil
}

// WriteCSV writes a cache as CSV with the columns tensor, amax, scale, bits. The header is lost.
func WriteCSV(w io.Writer, c *Cache) error {
	if err := checkTable(&c.Table); err != nil {
		return err
	}
	cw := csv.NewWriter(w)
	rows := [][]string{csvColumns}
	for _, e := range c.Entries {
		rows = append(rows, []string{e.Name, formatFloat32(e.Amax), formatFloat32(e.Scale), ScaleBits(e.Scale)})
	}
	return cw.WriteAll(rows)
}

// csvError names the file and line of an encoding/csv error.
func csvError(file string, err error) error {
	var pe *csv.ParseError
	if errors.As(err, &pe) {
		return corrupt(file, pe.Line, "%v", pe.Err)
	}
	return fmt.Errorf("read %s: %w", file, err)
}

func parseFloat32(s string) (float32, error) {
	v, err := strconv.ParseFloat(s, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a float32", s)
	}
	return float32(v), nil
}

// formatFloat32 prints the shortest decimal that reads back to the same float32.
func formatFloat32(x float32) string { return strconv.FormatFloat(float64(x), 'g', -1, 32) }
