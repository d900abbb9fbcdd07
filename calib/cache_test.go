package calib

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const sampleTRT = `TRT-8601-EntropyCalibration2
data: 3c010a14
a b: 0:0: 3f800000
(Unnamed Layer* 4) [Constant]_output: 3c010a14
zero: 00000000
`

func TestTensorRTRoundTrip(t *testing.T) {
	c, err := ReadTensorRT(strings.NewReader(sampleTRT), "x.cache")
	require.NoError(t, err)
	require.Equal(t, Header{"8601", "EntropyCalibration2"}, c.Header)
	names := []string{}
	for _, e := range c.Entries {
		names = append(names, e.Name)
	}
	require.Equal(t, []string{"data", "a b: 0:0", "(Unnamed Layer* 4) [Constant]_output", "zero"}, names)
	require.Equal(t, Entry{"a b: 0:0", 127, 1}, c.Entries[1])
	// 3c010a14 is (2048.5/2048)/127: the range of an input within -1..1 that was kept whole.
	require.Equal(t, ScaleOf(2048.5*(float32(1)/2048)), c.Entries[0].Scale)

	var out bytes.Buffer
	require.NoError(t, WriteTensorRT(&out, c))
	require.Equal(t, sampleTRT, out.String())

	// Windows line ends, a byte order mark, empty lines at the end and a plain 0 are forgiven.
	loose := "\xef\xbb\xbf" + strings.ReplaceAll(strings.ReplaceAll(sampleTRT, "00000000", "0"), "\n", "\r\n") + "\r\n\r\n"
	again, err := ReadTensorRT(strings.NewReader(loose), "x.cache")
	require.NoError(t, err)
	require.Equal(t, c, again)
}

// TestTruncatedTensorRT: a cache cut anywhere but behind an entry's line is refused.
func TestTruncatedTensorRT(t *testing.T) {
	for _, text := range []string{sampleTRT, strings.ReplaceAll(sampleTRT, "\n", "\r\n")} {
		first := strings.Index(text, "\n") + 1
		for n := range len(text) {
			_, err := ReadTensorRT(strings.NewReader(text[:n]), "x.cache")
			if n > first && text[n-1] == '\n' {
				require.NoError(t, err, "%q", text[:n])
				continue
			}
			require.ErrorIs(t, err, ErrCorrupt, "%q", text[:n])
		}
	}
}

// TestReadRealCaches reads what TensorRT 8.6.1 wrote, and writes the same bytes.
func TestReadRealCaches(t *testing.T) {
	dir := os.Getenv("QUANTGATE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared")
	}
	files, err := filepath.Glob(filepath.Join(dir, "tensorrt", "caches", "*.cache"))
	require.NoError(t, err)
	if len(files) == 0 {
		t.Skipf("SKIPPED, this reads nothing: no cache in %s", dir)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		c, err := ReadTensorRT(bytes.NewReader(data), file)
		require.NoError(t, err)
		var out bytes.Buffer
		require.NoError(t, WriteTensorRT(&out, c))
		require.Equal(t, string(data), out.String())
		_, err = ReadTensorRT(bytes.NewReader(bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))), file)
		require.NoError(t, err)
	}
}

func TestFormatsKeepEveryScale(t *testing.T) {
	c := &Cache{Header: Header{"8601", CalibratorMinMax}}
	// Scales that are no float32 amax / 127 included: a sample of all bit patterns whose amax is finite.
	for bits := uint32(0); bits < math.Float32bits(math.MaxFloat32/127); bits += 997_333 {
		scale := math.Float32frombits(bits)
		c.Entries = append(c.Entries, Entry{Name: "t" + ScaleBits(scale), Scale: scale, Amax: amaxOf(scale)})
	}
	c.Entries = append(c.Entries, NewEntry("odd, \"name\" <&>: é\t", 3))
	for _, f := range Formats() {
		var buf bytes.Buffer
		require.NoError(t, Write(&buf, c, f))
		got, err := Detect(buf.Bytes())
		require.NoError(t, err)
		require.Equal(t, f, got)
		back, err := Read(bytes.NewReader(buf.Bytes()), "x", f)
		require.NoError(t, err)
		require.Len(t, back.Entries, len(c.Entries))
		for i, e := range c.Entries {
			require.Equal(t, e.Name, back.Entries[i].Name)
			require.Equal(t, math.Float32bits(e.Scale), math.Float32bits(back.Entries[i].Scale), "%s: %s", f, e.Name)
		}
		var twice bytes.Buffer
		back.Header = c.Header
		require.NoError(t, Write(&twice, back, f))
		require.Equal(t, buf.String(), twice.String())
	}
}

func TestAmaxOfHasTheScale(t *testing.T) {
	for i := range 100_000 {
		amax := math.Float32frombits(0x3f800000 + uint32(i)*83)
		require.Equal(t, ScaleOf(amax), ScaleOf(amaxOf(ScaleOf(amax))), "%v", amax)
	}
}

// The three files are what onnxruntime 1.32.0 writes: see testdata/README.md.
func TestReadORTJSON(t *testing.T) {
	for _, name := range []string{"ort_save_tensors_data.json", "ort_calibration_tensorsdata.json", "ort_calibration_data.json"} {
		c, format, err := ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err, name)
		require.Equal(t, ORTJSON, format)
		require.Equal(t, []Entry{
			NewEntry("data", 2.640000104904175), NewEntry("a b: c", 1.5), NewEntry("d", 2),
		}, c.Entries)
		if name == "ort_calibration_data.json" {
			require.Empty(t, c.Calibrator)
		} else {
			require.Equal(t, CalibratorEntropy2, c.Calibrator)
		}
	}
	old, err := ReadORTJSON(strings.NewReader(`{"x": [-3.5, 1], "y": {"lowest": [0], "highest": {"data": [2.5], "dtype": "float32"}}}`), "old")
	require.NoError(t, err)
	require.Equal(t, []Entry{NewEntry("x", 3.5), NewEntry("y", 2.5)}, old.Entries)
}

func TestWriteORTJSON(t *testing.T) {
	var buf bytes.Buffer
	require.NoError(t, WriteORTJSON(&buf, &Cache{Header: Header{"8601", CalibratorMinMax}, Table: Table{[]Entry{NewEntry("a", 2), NewEntry("b\n", 1e-9)}}}))
	require.Equal(t, `{"CLS": "TensorsData", "data": {
  "a": {"lowest": -2.0, "highest": 2.0, "CLS": "TensorData"},
  "b\n": {"lowest": -9.999999717180685e-10, "highest": 9.999999717180685e-10, "CLS": "TensorData"}
}, "calibration_method": {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"}, "smooth_quant": false}
`, buf.String())
	require.ErrorContains(t, WriteORTJSON(&buf, &Cache{Table: Table{[]Entry{NewEntry("\xff", 2)}}}), "not UTF-8")
}

func TestCorruptCaches(t *testing.T) {
	for _, tc := range []struct {
		format Format
		text   string
		want   string
	}{
		{TensorRT, "", "f:1: corrupt file: it is empty"},
		{TensorRT, "TRT-8601-EntropyCalibration2\n", "f:1: corrupt file: no entry after the first line: the file was cut off"},
		{TensorRT, "8601\nx: 3f800000\n", `f:1: corrupt file: first line "8601" is not TRT-<version>-<calibrator>`},
		{TensorRT, "TRT-8XXX-EntropyCalibration2\nx: 3f800000\n", `f:1: corrupt file: version "8XXX" in the first line is no number such as 8601`},
		{TensorRT, "TRT-8601-\nx: 3f800000\n", `f:1: corrupt file: calibrator "" in the first line is no name such as EntropyCalibration2`},
		{TensorRT, "TRT-8601-E\nx 3f800000\n", `f:2: corrupt file: "x 3f800000" is not "name: scale"`},
		{TensorRT, "TRT-8601-E\nx: 3f80000g\n", `f:2: corrupt file: "3f80000g" after the last colon is not the eight hexadecimal digits of a float32`},
		{TensorRT, "TRT-8601-E\nx: 3f8000000\n", `f:2: corrupt file: "3f8000000" after the last colon is not the eight hexadecimal digits of a float32`},
		{TensorRT, "TRT-8601-E\nx: 3f800\ny: 3f800000\n", `f:2: corrupt file: "3f800" after the last colon is not the eight hexadecimal digits of a float32`},
		{TensorRT, "TRT-8601-E\ny: 3f800000\nrelu6: 3ec2d", `f:3: corrupt file: "3ec2d" after the last colon is not the eight hexadecimal digits of a float32`},
		{TensorRT, "TRT-8601-E\ny: 3f800000\nrelu6: 3ec2d000", "f:3: corrupt file: the last line has no line end: the file was cut off"},
		{TensorRT, "TRT-8601-E\nx: +3f80000\n", `f:2: corrupt file: "+3f80000" after the last colon is not the eight hexadecimal digits of a float32`},
		{TensorRT, "TRT-8601-E\nx: \n", `f:2: corrupt file: "" after the last colon is not the eight hexadecimal digits of a float32`},
		{TensorRT, "TRT-8601-E\n: 3f800000\n", "f:2: corrupt file: an entry without a name"},
		{TensorRT, "TRT-8601-E\nx: 3f800000\ny: 3f800000\nx: 3f800000\n", `f:4: corrupt file: tensor "x" is there already, in line 2`},
		{TensorRT, "TRT-8601-E\nx: 7fc00000\n", `f:2: corrupt file: tensor "x": scale NaN is not a finite number of 0 or more`},
		{TensorRT, "TRT-8601-E\nx: bf800000\n", `f:2: corrupt file: tensor "x": scale -1 is not a finite number of 0 or more`},
		{TensorRT, "TRT-8601-E\n\nx: 3f800000\n", "f:2: corrupt file: an empty line before the end"},
		{ORTJSON, `{"x": [1, 2]`, "f:1: corrupt file: the file is cut off"},
		{ORTJSON, "{\n\"x\": [1, 2],\n\"y\": 3}", `f:3: corrupt file: tensor "y": its range is neither an object nor [lowest, highest]`},
		{ORTJSON, "{\n\"x\": [1, 2],\n\"x\": [1, 2]}", `f:3: corrupt file: tensor "x" is there already, in line 2`},
		{ORTJSON, `{"x": [1]}`, `f:1: corrupt file: tensor "x": its range is not [lowest, highest]`},
		{ORTJSON, `{"x": {"highest": 1}}`, `f:1: corrupt file: tensor "x": "lowest" is missing`},
		{ORTJSON, `{"x": {"lowest": 1, "highest": {"data": [1, 2]}}}`, `f:1: corrupt file: tensor "x": "highest" is not one number (ranges per channel are not supported)`},
		{ORTJSON, "{\n \"x\": {\"lowest\": -1, \"highest\": NaN}}", `f:2: corrupt file: invalid character 'N' looking for beginning of value`},
		{ORTJSON, `{"x": [-1, 1e300]}`, `f:1: corrupt file: tensor "x": scale +Inf is not a finite number of 0 or more`},
		{ORTJSON, `{"CLS": "TensorsData"}`, `f:1: corrupt file: no "data" in the object`},
		{ORTJSON, `{"CLS": "TensorsData", "data": 3}`, `f:1: corrupt file: a JSON object is expected here`},
		{ORTJSON, `{}`, `f:1: corrupt file: no tensor in it`},
		{ORTJSON, `{"x": [1, 2]} {}`, `f:1: corrupt file: something follows the object`},
		{CSV, "tensor,amax,scale\n", "f:1: corrupt file: wrong number of fields"},
		{CSV, "tensor,amax,scale,bit\n", `f:1: corrupt file: column 4 is "bit", not "bits"`},
		{CSV, "tensor,amax,scale,bits\n", "f:1: corrupt file: no entry"},
		{CSV, "tensor,amax,scale,bits\nx,1,2,3\n", `f:2: corrupt file: tensor "x": scale 2 and bits 3 are two numbers`},
		{CSV, "tensor,amax,scale,bits\nx,a,2,40000000\n", `f:2: corrupt file: amax "a" is not a float32`},
		{CSV, "tensor,amax,scale,bits\nx,254,z,40000000\n", `f:2: corrupt file: scale "z" is not a float32`},
		{CSV, "tensor,amax,scale,bits\nx,254,2,4000000z\n", `f:2: corrupt file: bits "4000000z" are not the hexadecimal bits of a float32`},
		{CSV, "tensor,amax,scale,bits\n\"x,254,2,40000000\n", `f:2: corrupt file: extraneous or missing " in quoted-field`},
	} {
		c, err := Read(strings.NewReader(tc.text), "f", tc.format)
		require.EqualError(t, err, tc.want, "%q", tc.text)
		require.ErrorIs(t, err, ErrCorrupt)
		require.Nil(t, c)
	}
}

func TestWritersRefuse(t *testing.T) {
	ok := NewEntry("x", 1)
	for _, tc := range []struct {
		cache Cache
		want  string
	}{
		{Cache{Table: Table{[]Entry{ok}}}, `version "" in the first line is no number such as 8601`},
		{Cache{Header: Header{"8601", "a b"}, Table: Table{[]Entry{ok}}}, `calibrator "a b"`},
		{Cache{Header: Header{"8601", "E"}, Table: Table{[]Entry{ok, ok}}}, `tensor "x": its name is empty or doubled`},
		{Cache{Header: Header{"8601", "E"}, Table: Table{[]Entry{{"x", 1, float32(math.NaN())}}}}, `scale NaN is not a finite number`},
		{Cache{Header: Header{"8601", "E"}, Table: Table{[]Entry{NewEntry("x\ny", 1)}}}, `a name with a line break`},
	} {
		path := filepath.Join(t.TempDir(), "c.cache")
		require.ErrorContains(t, WriteFile(path, &tc.cache, TensorRT), tc.want)
		require.NoFileExists(t, path)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.csv")
	require.Equal(t, CSV, FormatOf(path))
	require.Equal(t, ORTJSON, FormatOf("a.JSON"))
	require.Equal(t, TensorRT, FormatOf("calibration.txt"))
	c := &Cache{Header: Header{"8601", "E"}, Table: Table{[]Entry{NewEntry("x", 1)}}}
	require.NoError(t, WriteFile(path, c, TensorRT))
	got, format, err := ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, TensorRT, format, "content decides, not the name")
	require.Equal(t, c, got)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "no temporary file stays behind")

	_, _, err = ReadFile(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte("data 2.64\n"), 0o644))
	_, _, err = ReadFile(path)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "c.csv: corrupt file: neither TensorRT's text")
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	_, _, err = ReadFile(path)
	require.ErrorContains(t, err, "it is empty")
	require.Error(t, WriteFile(filepath.Join(dir, "none", "x"), c, TensorRT))
	_, err = ParseFormat("trt")
	require.EqualError(t, err, `unknown cache format "trt": use one of tensorrt, ort-json, csv`)
}

// Numbers: NV_TENSORRT_VERSION of TensorRT's headers, and first lines of caches in public repositories (TRT-7103, TRT-8502, TRT-100300).
func TestVersion(t *testing.T) {
	for s, want := range map[string]string{
		"8.6.1": "8601", "8.5.2": "8502", "7.1.3": "7103", "8.6.1.6": "8601", "8.4.12": "8412",
		"10.3.0": "100300", "10.15.1": "101501", "10.15.1.29": "101501", "8601": "8601", "101501": "101501",
	} {
		got, err := Version(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "8", "8.6", "8.6.x", "8.10.1", "8.6.100", "3.0.0", "100.1.1", "8.6.1.2.3", "-8.6.1", "86", "1234567", "8.6.+1"} {
		_, err := Version(s)
		require.ErrorContains(t, err, "write it as 8.6.1 or 10.15.1", s)
	}
	for number, want := range map[string]string{
		"8601": "8.6.1", "8412": "8.4.12", "100300": "10.3.0", "101501": "10.15.1", "x": "x", "86": "86", "20000": "20000",
	} {
		require.Equal(t, want, Release(number))
	}
}

func TestCompare(t *testing.T) {
	h := &Histogram{Name: "bin", Range: 1, Max: 1}
	for j := range h.Counts {
		h.Counts[j] = uint64(100_000 / (j + 1))
	}
	entry := func(name string, bin int) Entry { return NewEntry(name, h.Amax(bin)) }
	near := func(name string, bin int) Entry { return NewEntry(name, h.Amax(bin)*(1+4e-6)) }
	a := &Cache{Header: Header{"8601", "E"}, Table: Table{[]Entry{
		entry("same", 500), entry("near", 700), entry("bin", 1500), entry("pool", 1500), entry("minmax", 127), entry("gone", 9), NewEntry("zero", 0),
	}}}
	b := &Cache{Header: Header{"8502", "E"}, Table: Table{[]Entry{
		NewEntry("zero", 0), entry("same", 500), entry("new", 700), near("near", 700), entry("bin", 1501), entry("pool", 1501), entry("minmax", 126),
	}}}
	d := Compare(a, b, map[string]*Histogram{"bin": h, "minmax": h})
	require.Equal(t, a.Header, d.A)
	require.Equal(t, []string{"gone"}, d.OnlyA)
	require.Equal(t, []string{"new"}, d.OnlyB)
	require.Equal(t, []string{"zero"}, d.Moved)
	require.Equal(t, 2, d.Count(SameBits))
	require.Equal(t, 1, d.Count(SameBin))
	require.Equal(t, 3, d.Count(OtherBin))
	require.False(t, d.Equal())
	other := d.OtherTensors()
	require.Len(t, other, 2)
	require.Equal(t, "bin", other[0].Name)
	require.Equal(t, 1500, other[0].Weighed.BinA)
	require.Equal(t, 1501, other[0].Weighed.BinB)
	require.Equal(t, h.KLAt(1500), other[0].Weighed.KLA)
	require.Equal(t, h.KLAt(1501), other[0].Weighed.KLB)
	require.InDelta(t, math.Abs(h.KLAt(1500)-h.KLAt(1501))/min(h.KLAt(1500), h.KLAt(1501)), other[0].Weighed.Gap, 1e-15)
	require.Equal(t, "minmax", other[1].Name)
	require.Nil(t, other[1].Weighed, "no threshold of the entropy search")
	require.Equal(t, "bin", d.Pairs[3].SharedWith)
	require.True(t, Compare(a, a, nil).Equal())
}

func TestLongestIncreasing(t *testing.T) {
	for _, tc := range []struct {
		xs   []int
		want int
	}{{nil, 0}, {[]int{1}, 1}, {[]int{2, 1}, 1}, {[]int{3, 0, 1, 2}, 3}, {[]int{0, 2, 1, 3}, 3}, {[]int{5, 4, 3, 2, 1}, 1}} {
		last, n := -1, 0
		for i, stays := range longestIncreasing(tc.xs) {
			if stays {
				require.Greater(t, tc.xs[i], last)
				last = tc.xs[i]
				n++
			}
		}
		require.Equal(t, tc.want, n, "%v", tc.xs)
	}
}

func FuzzReadTensorRT(f *testing.F) {
	f.Add([]byte(sampleTRT))
	f.Add([]byte("TRT-8601-E\nx: 0\n\n"))
	f.Add([]byte("TRT-8601-E\r\n:: 3f800000"))
	fuzzCache(f, TensorRT)
}

func FuzzReadORTJSON(f *testing.F) {
	for _, name := range []string{"ort_save_tensors_data.json", "ort_calibration_data.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte(`{"x": [-3.5, 1]}`))
	f.Add([]byte(`{"CLS": 0, "data": {"x": {"lowest": 0, "highest": 1e-44}}}`))
	fuzzCache(f, ORTJSON)
}

func FuzzReadCSV(f *testing.F) {
	f.Add([]byte("tensor,amax,scale,bits\nx,254,2,40000000\n\"a,\"\"b\",0,0,0\n"))
	fuzzCache(f, CSV)
}

// fuzzCache reads anything: it must fail cleanly or give a cache that every format takes and gives back.
func fuzzCache(f *testing.F, format Format) {
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Read(bytes.NewReader(data), "f", format)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			require.NotContains(t, err.Error(), "\n")
			return
		}
		var buf bytes.Buffer
		if err := Write(&buf, c, format); err != nil {
			t.Skip(err) // a name that the format cannot hold: checked by TestWritersRefuse
		}
		back, err := Read(bytes.NewReader(buf.Bytes()), "f", format)
		require.NoError(t, err)
		require.Len(t, back.Entries, len(c.Entries))
		for i, e := range c.Entries {
			require.Equal(t, e.Name, back.Entries[i].Name)
			require.Equal(t, math.Float32bits(e.Scale), math.Float32bits(back.Entries[i].Scale))
		}
	})
}
