package accuracy

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

const npyMagic = "\x93NUMPY"

// parseNPY reads NumPy's array format: the magic, a version, the length of a header, the header as a Python dictionary, the
// values.
//
// Source: NumPy, numpy/lib/format.py, "Format Version 1.0" to "3.0".
func parseNPY(data []byte) (*array, error) {
	if len(data) < 12 {
		return nil, errors.New("NPY: it ends within its header")
	}
	size, start := int(binary.LittleEndian.Uint16(data[8:])), 10
	switch data[6] {
	case 1:
	case 2, 3:
		size, start = int(binary.LittleEndian.Uint32(data[8:])), 12
	default:
		return nil, fmt.Errorf("NPY: unknown format version %d.%d", data[6], data[7])
	}
	if size > len(data)-start {
		return nil, errors.New("NPY: it ends within its header")
	}
	header, body := string(data[start:start+size]), data[start+size:]
	descr, ok := npyField(header, "descr")
	if !ok || len(descr) < 2 || descr[0] != '\'' && descr[0] != '"' {
		return nil, fmt.Errorf("NPY: header %.80q names no plain type", header)
	}
	descr, _, _ = strings.Cut(descr[1:], descr[:1])
	read, width := npyType(descr)
	if read == nil {
		return nil, fmt.Errorf("NPY: values of type %q: save float16, float32, float64 or integers", descr)
	}
	text, ok := npyField(header, "shape")
	shape, closed := strings.CutPrefix(text, "(")
	inner, _, end := strings.Cut(shape, ")")
	if !ok || !closed || !end {
		return nil, fmt.Errorf("NPY: header %.80q has no shape", header)
	}
	a := &array{}
	n := 1
	for _, s := range strings.Split(inner, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		d, err := strconv.Atoi(s)
		if err != nil || d < 0 || d > 0 && n > len(body)/d {
			return nil, fmt.Errorf("NPY: shape (%.80s) does not fit %d bytes of values", inner, len(body))
		}
		a.shape = append(a.shape, d)
		n *= d
	}
	if n*width != len(body) {
		return nil, fmt.Errorf("NPY: shape (%s) of %q takes %d bytes, there are %d", inner, descr, n*width, len(body))
	}
	a.values = make([]float64, n)
	fortran, ok := npyField(header, "fortran_order")
	if !ok {
		return nil, fmt.Errorf("NPY: header %.80q tells no order", header)
	}
	if strings.HasPrefix(fortran, "True") {
		at := make([]int, len(a.shape))
		for i := range n { // the first index runs fastest
			k := 0
			for j, d := range a.shape {
				k = k*d + at[j]
			}
			a.values[k] = read(body[i*width:])
			for j := range at {
				if at[j]++; at[j] < a.shape[j] {
					break
				}
				at[j] = 0
			}
		}
		return a, nil
	}
	for i := range a.values {
		a.values[i] = read(body[i*width:])
	}
	return a, nil
}

// npyField returns what follows a key of the header's dictionary.
func npyField(header, key string) (string, bool) {
	for _, quote := range []string{"'", `"`} {
		if _, rest, ok := strings.Cut(header, quote+key+quote); ok {
			rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " "), ":")
			return strings.TrimLeft(rest, " "), ok
		}
	}
	return "", false
}

// npyType returns how one value of a type such as <f4 is read, and its bytes.
func npyType(descr string) (func([]byte) float64, int) {
	if len(descr) != 3 {
		return nil, 0
	}
	var o binary.ByteOrder = binary.LittleEndian
	switch descr[0] {
	case '<', '|', '=':
	case '>':
		o = binary.BigEndian
	default:
		return nil, 0
	}
	switch descr[1:] {
	case "f2":
		return func(b []byte) float64 { return float16(o.Uint16(b)) }, 2
	case "f4":
		return func(b []byte) float64 { return float64(math.Float32frombits(o.Uint32(b))) }, 4
	case "f8":
		return func(b []byte) float64 { return math.Float64frombits(o.Uint64(b)) }, 8
	case "i1":
		return func(b []byte) float64 { return float64(int8(b[0])) }, 1
	case "u1":
		return func(b []byte) float64 { return float64(b[0]) }, 1
	case "i2":
		return func(b []byte) float64 { return float64(int16(o.Uint16(b))) }, 2
	case "u2":
		return func(b []byte) float64 { return float64(o.Uint16(b)) }, 2
	case "i4":
		return func(b []byte) float64 { return float64(int32(o.Uint32(b))) }, 4
	case "u4":
		return func(b []byte) float64 { return float64(o.Uint32(b)) }, 4
	case "i8":
		return func(b []byte) float64 { return float64(int64(o.Uint64(b))) }, 8
	case "u8":
		return func(b []byte) float64 { return float64(o.Uint64(b)) }, 8
	}
	return nil, 0
}

// float16 is the value of a half-precision number's bits (IEEE 754 binary16).
func float16(h uint16) float64 {
	sign, exp, frac := 1.0, int(h>>10&31), float64(h&1023)
	if h>>15 != 0 {
		sign = -1
	}
	switch {
	case exp == 31 && frac != 0:
		return math.NaN()
	case exp == 31:
		return sign * math.Inf(1)
	case exp == 0:
		return sign * math.Ldexp(frac, -24)
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}

// parseCSV reads a row an image.
func parseCSV(data []byte) (*array, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	first, _, _ := bytes.Cut(bytes.TrimLeft(data, "\r\n"), []byte("\n"))
	r := csv.NewReader(bytes.NewReader(data))
	r.ReuseRecord, r.TrimLeadingSpace = true, true
	switch {
	case bytes.ContainsRune(first, ','):
	case bytes.ContainsRune(first, ';'):
		r.Comma = ';'
	case bytes.ContainsRune(first, '\t'):
		r.Comma = '\t'
	case bytes.ContainsRune(bytes.TrimSpace(first), ' '):
		r = csv.NewReader(bytes.NewReader(squeezeBlanks(data)))
		r.ReuseRecord, r.Comma = true, ' '
	}
	a := &array{}
	width, pathAt, idAt := 0, -1, -1
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			var pe *csv.ParseError
			if errors.As(err, &pe) {
				err = fmt.Errorf("line %d: %w", pe.Line, pe.Err)
			}
			return nil, err
		}
		line, _ := r.FieldPos(0)
		if a.shape == nil {
			a.shape = []int{0, 0}
			header := false
			for i, f := range fields {
				switch strings.ToLower(strings.TrimSpace(f)) {
				case "path", "file", "filename", "image":
					pathAt, header = i, true
				case "id":
					idAt, header = i, true
				default:
					_, err := strconv.ParseFloat(strings.TrimSpace(f), 64)
					header = header || err != nil
				}
			}
			width = len(fields) - b2i(pathAt >= 0) - b2i(idAt >= 0)
			if header {
				continue
			}
		}
		for i, f := range fields {
			f = strings.TrimSpace(f)
			switch i {
			case pathAt:
				a.paths = append(a.paths, f)
				continue
			case idAt:
				continue
			}
			v, err := strconv.ParseFloat(f, 64)
			if err != nil && !math.IsInf(v, 0) {
				return nil, fmt.Errorf("line %d: column %d: %.40q is no number", line, i+1, f)
			}
			a.values = append(a.values, v)
		}
		a.shape[0]++
	}
	if a.shape == nil || a.shape[0] == 0 {
		return nil, errors.New("no rows of numbers")
	}
	a.shape[1] = width
	return a, nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// squeezeBlanks leaves one blank between fields, as numpy.savetxt writes them.
func squeezeBlanks(data []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(data) {
		out.Write(bytes.Join(bytes.Fields(line), []byte(" ")))
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// parseJSON reads one tensor out of JSON; see ReadPredictions for the layouts.
func parseJSON(data []byte, output string) (*array, error) {
	var v any
	if err := json.Unmarshal(quoteNumbers(data), &v); err != nil {
		return nil, fmt.Errorf("JSON: %w", err)
	}
	tensors, err := jsonTensors(v)
	if err != nil {
		return nil, fmt.Errorf("JSON: %w", err)
	}
	var names []string
	for name := range tensors {
		names = append(names, name)
	}
	slices.Sort(names)
	switch {
	case output != "":
		if a, ok := tensors[output]; ok {
			return a()
		}
		return nil, fmt.Errorf("JSON: no output %q among %.200q", output, names)
	case len(names) == 1:
		return tensors[names[0]]()
	}
	return nil, fmt.Errorf("JSON: %d outputs, %.200q: name the one with the predictions", len(names), names)
}

// jsonTensors finds the tensors by name; a nameless one is called "".
func jsonTensors(v any) (map[string]func() (*array, error), error) {
	out := map[string]func() (*array, error){}
	add := func(name string, v any) error {
		if _, twice := out[name]; twice {
			return fmt.Errorf("output %q appears twice", name)
		}
		out[name] = func() (*array, error) {
			a, err := jsonArray(v)
			if err != nil {
				return nil, fmt.Errorf("JSON: output %q: %w", name, err)
			}
			return a, nil
		}
		return nil
	}
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			m, ok := e.(map[string]any)
			if !ok {
				if i > 0 {
					return nil, errors.New("a list of tensors and other things")
				}
				return out, add("", v)
			}
			name, ok := m["name"].(string)
			if !ok {
				return nil, fmt.Errorf("element %d of the list is neither a list nor a tensor with a name", i)
			}
			if err := add(name, m); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		if isTensor(v) {
			return out, add("", v)
		}
		for name, e := range v {
			if err := add(name, e); err != nil {
				return nil, err
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("it holds nothing")
	}
	return out, nil
}

func isTensor(m map[string]any) bool {
	_, values := m["values"]
	_, data := m["data"]
	_, dims := m["dims"]
	_, dimensions := m["dimensions"]
	return (values || data) && (dims || dimensions)
}

// jsonArray reads nested lists, or a tensor with its dimensions and its values in one list.
func jsonArray(v any) (*array, error) {
	a := &array{}
	m, ok := v.(map[string]any)
	if !ok {
		err := a.nest(v, 0)
		return a, err
	}
	if !isTensor(m) {
		return nil, errors.New("neither a list of numbers nor a tensor with dims and data")
	}
	values := m["values"]
	if values == nil {
		values = m["data"]
	}
	if byIndex, ok := values.(map[string]any); ok { // a typed array of JavaScript: {"0": 0.5, "1": ...}
		list := make([]any, len(byIndex))
		for k, e := range byIndex {
			i, err := strconv.Atoi(k)
			if err != nil || i < 0 || i >= len(list) {
				return nil, fmt.Errorf("data has a key %.40q", k)
			}
			list[i] = e
		}
		values = list
	}
	if err := a.nest(values, 0); err != nil {
		return nil, err
	}
	if len(a.shape) != 1 {
		return nil, errors.New("its values are not one list")
	}
	var dims []string
	switch d := m["dimensions"].(type) {
	case string:
		dims = strings.Split(d, "x")
	default:
		list, ok := m["dims"].([]any)
		if !ok {
			return nil, errors.New("its dimensions are neither a list nor such as 25x1000")
		}
		for _, e := range list {
			dims = append(dims, fmt.Sprint(e))
		}
	}
	n := 1
	a.shape = nil
	for _, s := range dims {
		d, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || d < 0 || d > 0 && n > len(a.values)/d {
			return nil, fmt.Errorf("dimensions %.80q do not fit %d values", dims, len(a.values))
		}
		a.shape = append(a.shape, d)
		n *= d
	}
	if n != len(a.values) {
		return nil, fmt.Errorf("dimensions %q take %d values, there are %d", dims, n, len(a.values))
	}
	return a, nil
}

// nest appends the numbers of nested lists, which must be equally long at every depth.
func (a *array) nest(v any, depth int) error {
	switch v := v.(type) {
	case []any:
		if depth > 8 {
			return errors.New("lists within more than 8 lists")
		}
		if len(a.shape) == depth {
			if len(a.values) > 0 {
				return errors.New("numbers and lists side by side")
			}
			a.shape = append(a.shape, len(v))
		}
		if a.shape[depth] != len(v) {
			return fmt.Errorf("a list of %d beside one of %d", len(v), a.shape[depth])
		}
		for _, e := range v {
			if err := a.nest(e, depth+1); err != nil {
				return err
			}
		}
		return nil
	case float64:
		if depth != len(a.shape) {
			return errors.New("numbers and lists side by side")
		}
		a.values = append(a.values, v)
		return nil
	case string:
		f, ok := notNumbers[strings.ToLower(v)]
		if ok && depth == len(a.shape) {
			a.values = append(a.values, f)
			return nil
		}
		return fmt.Errorf("%.40q is no number", v)
	}
	return fmt.Errorf("%v is no number", v)
}

// notNumbers are what C++ and Python print where JSON has no number.
var notNumbers = map[string]float64{
	"nan": math.NaN(), "-nan": math.NaN(), "inf": math.Inf(1), "-inf": math.Inf(-1), "infinity": math.Inf(1), "-infinity": math.Inf(-1),
}

// quoteNumbers puts words such as nan, outside of strings, into quotes. true, false and null stay.
func quoteNumbers(data []byte) []byte {
	if !bytes.ContainsAny(data, "nNiI") {
		return data
	}
	out := make([]byte, 0, len(data)+64)
	for i := 0; i < len(data); {
		c := data[i]
		if c == '"' {
			end := i + 1
			for end < len(data) && data[end] != '"' {
				end += 1 + b2i(data[end] == '\\')
			}
			end = min(end+1, len(data))
			out = append(out, data[i:end]...)
			i = end
			continue
		}
		end := i
		for end < len(data) && (data[end] == '-' && end == i || data[end]|32 >= 'a' && data[end]|32 <= 'z') {
			end++
		}
		if _, ok := notNumbers[strings.ToLower(string(data[i:end]))]; ok {
			out = append(out, '"')
			out = append(out, data[i:end]...)
			out = append(out, '"')
			i = end
			continue
		}
		end = max(end, i+1)
		out = append(out, data[i:end]...)
		i = end
	}
	return out
}
