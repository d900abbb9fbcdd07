package calib

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"
)

// ONNX Runtime's names for the calibration methods, by TensorRT's.
var ortMethods = map[string]string{
	CalibratorEntropy2: "CalibrationMethod.Entropy",
	CalibratorMinMax:   "CalibrationMethod.MinMax",
}

// ReadORTJSON reads the calibration JSON that onnxruntime.quantization writes: the whole TensorsData object of
// save_tensors_data and newer versions of write_calibration_table, or just its "data". A tensor's range is an
// object of "lowest" and "highest", each a number or {"data": number}; other keys are ignored. Older
// versions wrote [lowest, highest]. amax is the larger magnitude. name is what errors call the file.
func ReadORTJSON(r io.Reader, name string) (*Cache, error) {
	data, err := readAll(r, name)
	if err != nil {
		return nil, err
	}
	p := &ortParser{data: bytes.TrimPrefix(data, utf8BOM), b: newBuilder(name)}
	c, err := p.parse()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// ortParser keeps the order of the tensors, which encoding/json's maps lose, and line numbers.
type ortParser struct {
	data []byte
	b    *builder
}

// field is one member of a JSON object, in file order.
type field struct {
	key   string
	value json.RawMessage
	at    int // offset of the value's end in the file
}

func (p *ortParser) parse() (*Cache, error) {
	top, err := p.fields(p.data, 0)
	if err != nil {
		return nil, err
	}
	c := &Cache{}
	tensors := top
	for _, f := range top {
		if f.key == "CLS" {
			if tensors, err = p.unwrap(top, c); err != nil {
				return nil, err
			}
			break
		}
	}
	for _, f := range tensors {
		line := p.line(f.at)
		lowest, highest, err := ortRange(f.value)
		if err != nil {
			return nil, p.b.errorf(line, "tensor %q: %v", f.key, err)
		}
		amax := max(math.Abs(lowest), math.Abs(highest))
		if err := p.b.add(line, Entry{Name: f.key, Amax: float32(amax), Scale: float32(amax / Levels)}); err != nil {
			return nil, err
		}
	}
	if len(p.b.table.Entries) == 0 {
		return nil, p.b.errorf(1, "no tensor in it")
	}
	c.Table = p.b.table
	return c, nil
}

// unwrap returns the tensors of a TensorsData object and notes its method.
func (p *ortParser) unwrap(top []field, c *Cache) ([]field, error) {
	var tensors []field
	found := false
	for _, f := range top {
		switch f.key {
		case "data":
			var err error
			if tensors, err = p.fields(f.value, f.at-len(f.value)); err != nil {
				return nil, err
			}
			found = true
		case "calibration_method":
			var m struct{ Value string }
			if json.Unmarshal(f.value, &m) == nil {
				for calibrator, method := range ortMethods {
					if method == m.Value {
						c.Calibrator = calibrator
					}
				}
			}
		}
	}
	if !found {
		return nil, p.b.errorf(1, "no \"data\" in the object")
	}
	return tensors, nil
}

// fields takes the object in text, which starts at offset base of the file, apart.
func (p *ortParser) fields(text []byte, base int) ([]field, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	fail := func(err error) error {
		at := base + int(dec.InputOffset())
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			at = base + int(syntax.Offset)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			at, err = base+len(text), errors.New("the file is cut off")
		}
		return p.b.errorf(p.line(at), "%v", err)
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, fail(err)
	}
	if tok != json.Delim('{') {
		return nil, fail(fmt.Errorf("a JSON object is expected here"))
	}
	var out []field
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, fail(err)
		}
		var f field
		f.key, _ = tok.(string) // Token fails where a key is no string
		if err := dec.Decode(&f.value); err != nil {
			return nil, fail(err)
		}
		f.at = base + int(dec.InputOffset())
		out = append(out, f)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fail(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fail(errors.New("something follows the object"))
	}
	return out, nil
}

func (p *ortParser) line(at int) int {
	return 1 + bytes.Count(p.data[:min(max(at, 0), len(p.data))], []byte("\n"))
}

// ortRange reads one tensor's range.
func ortRange(raw json.RawMessage) (lowest, highest float64, err error) {
	if bytes.HasPrefix(raw, []byte("[")) {
		var pair []float64
		if err := json.Unmarshal(raw, &pair); err != nil || len(pair) != 2 {
			return 0, 0, fmt.Errorf("its range is not [lowest, highest]")
		}
		return pair[0], pair[1], nil
	}
	var t struct{ Lowest, Highest json.RawMessage }
	if err := json.Unmarshal(raw, &t); err != nil {
		return 0, 0, fmt.Errorf("its range is neither an object nor [lowest, highest]")
	}
	if lowest, err = ortNumber(t.Lowest); err != nil {
		return 0, 0, fmt.Errorf("\"lowest\" %w", err)
	}
	if highest, err = ortNumber(t.Highest); err != nil {
		return 0, 0, fmt.Errorf("\"highest\" %w", err)
	}
	return lowest, highest, nil
}

// ortNumber reads a number, an array of one, or a NumPy array in an object.
func ortNumber(raw json.RawMessage) (float64, error) {
	if len(raw) == 0 {
		return 0, errors.New("is missing")
	}
	var v float64
	if json.Unmarshal(raw, &v) == nil {
		return v, nil
	}
	var array struct{ Data json.RawMessage }
	if json.Unmarshal(raw, &array) == nil && len(array.Data) > 0 {
		raw = array.Data
	}
	if json.Unmarshal(raw, &v) == nil {
		return v, nil
	}
	var list []float64
	if json.Unmarshal(raw, &list) == nil && len(list) == 1 {
		return list[0], nil
	}
	return 0, errors.New("is not one number (ranges per channel are not supported)")
}

// WriteORTJSON writes the object that onnxruntime.quantization's load_tensors_data reads, with ranges of -amax to amax. Of the header only
// the method stays, Entropy where ONNX Runtime has no name for the calibrator.
func WriteORTJSON(w io.Writer, c *Cache) error {
	if err := checkTable(&c.Table); err != nil {
		return err
	}
	method, ok := ortMethods[c.Calibrator]
	if !ok {
		method = ortMethods[CalibratorEntropy2]
	}
	var buf bytes.Buffer
	buf.WriteString("{\"CLS\": \"TensorsData\", \"data\": {")
	for i, e := range c.Entries {
		if i > 0 {
			buf.WriteByte(',')
		}
		if !utf8.ValidString(e.Name) {
			return fmt.Errorf("tensor %q: its name is not UTF-8 and cannot stand in JSON: rename the tensor", e.Name)
		}
		key, err := json.Marshal(e.Name)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", e.Name, err)
		}
		amax := ortAmax(e)
		fmt.Fprintf(&buf, "\n  %s: {\"lowest\": %s, \"highest\": %s, \"CLS\": \"TensorData\"}", key, ortFloat(-amax), ortFloat(amax))
	}
	fmt.Fprintf(&buf, "\n}, \"calibration_method\": {\"CLS\": \"CalibrationMethod\", \"value\": %q}, \"smooth_quant\": false}\n", method)
	_, err := w.Write(buf.Bytes())
	return err
}

// ortAmax is the amax whose scale is the entry's. A scale from a cache need not be the rounding of any float32 amax / 127: then
// the exact product, which a float64 holds.
func ortAmax(e Entry) float64 {
	if ScaleOf(e.Amax) == e.Scale {
		return float64(e.Amax)
	}
	return float64(e.Scale) * Levels
}

// ortFloat prints a float as Python does, as far as JSON readers care: a number with a point stays a float there.
func ortFloat(v float64) string {
	s := strconv.FormatFloat(v, 'g', -1, 64)
	if !bytes.ContainsAny([]byte(s), ".e") {
		s += ".0"
	}
	return s
}
