package accuracy

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func readText(text string, o PredictionsOptions) (*Predictions, error) {
	return ReadPredictions(strings.NewReader(text), "p", o)
}

// The files are numpy's and json's own; testdata/predictions.py made them.
func TestReadPredictionsOfNumPy(t *testing.T) {
	var want []float32
	for i := range 12 {
		want = append(want, float32(i)/4-1)
	}
	for name, o := range map[string]PredictionsOptions{
		"c_le_f2.npy": {}, "c_le_f4.npy": {}, "c_be_f4.npy": {}, "c_le_f8.npy": {}, "fortran.npy": {}, "squeezed.npy": {}, "version2.npy": {},
		"savetxt.csv": {}, "comma.csv": {}, "onnxruntime.json": {Output: "logits"},
	} {
		f, err := os.Open(filepath.Join("testdata", "predictions", name))
		require.NoError(t, err)
		p, err := ReadPredictions(f, name, o)
		require.NoError(t, f.Close())
		require.NoError(t, err, name)
		require.Equal(t, &Predictions{N: 4, Width: 3, Logits: want}, p, name)
	}
	read := func(name string) (*Predictions, error) {
		data, err := os.ReadFile(filepath.Join("testdata", "predictions", name))
		require.NoError(t, err)
		return ReadPredictions(bytes.NewReader(data), name, PredictionsOptions{})
	}
	p, err := read("classes_i8.npy")
	require.NoError(t, err)
	require.Equal(t, &Predictions{N: 4, Width: 1, Classes: []int{2, 0, 1, 2}}, p)
	p, err = read("uint8.npy")
	require.NoError(t, err)
	require.Equal(t, []float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, p.Logits, "several whole numbers an image are quantised logits")
	_, err = read("onnxruntime.json")
	require.EqualError(t, err, `onnxruntime.json: not a valid predictions file: JSON: 2 outputs, ["features" "logits"]: name the one with the predictions`)
}

// The trtexec text has the layout of exportJSONOutput in TensorRT's samples/common/sampleReporting.cpp.
const trtexec = `[
  { "name" : "logits"
  , "dimensions" : "2x3"
  , "values" : [ 0.5, -1e-05, 2, nan, -inf, 7 ]
  }
, { "name" : "inf \" nan"
  , "dimensions" : "2"
  , "values" : [ 1, 2 ]
  }
]
`

func TestReadPredictionsText(t *testing.T) {
	nan32, inf32 := float32(math.NaN()), float32(math.Inf(1))
	for _, x := range []struct {
		text string
		o    PredictionsOptions
		want Predictions
	}{
		{trtexec, PredictionsOptions{Output: "logits"}, Predictions{N: 2, Width: 3, Logits: []float32{0.5, -1e-05, 2, nan32, -inf32, 7}}},
		{trtexec, PredictionsOptions{Output: `inf " nan`}, Predictions{N: 2, Width: 1, Classes: []int{1, 2}}},
		{`[[0.5, 1], [NaN, -Infinity]]`, PredictionsOptions{}, Predictions{N: 2, Width: 2, Logits: []float32{0.5, 1, nan32, -inf32}}},
		{`[3, 1]`, PredictionsOptions{}, Predictions{N: 2, Width: 1, Classes: []int{3, 1}}},
		{`{"dims":[1,2],"type":"float32","data":{"1":0.5,"0":2}}`, PredictionsOptions{}, Predictions{N: 1, Width: 2, Logits: []float32{2, 0.5}}},
		{`{"y":{"dims":[2,1],"data":[4,5]}}`, PredictionsOptions{Output: "y"}, Predictions{N: 2, Width: 1, Classes: []int{4, 5}}},
		{"3\n4\n", PredictionsOptions{}, Predictions{N: 2, Width: 1, Classes: []int{3, 4}}},
		{"class\n3\n4\n", PredictionsOptions{}, Predictions{N: 2, Width: 1, Classes: []int{3, 4}}},
		{"id,path,class\n0,a.png,3\n1,b.png,4\n", PredictionsOptions{}, Predictions{N: 2, Width: 1, Classes: []int{3, 4}, Paths: []string{"a.png", "b.png"}}},
		{"3;4;5\n6;7;8", PredictionsOptions{Kind: "classes"}, Predictions{N: 2, Width: 3, Classes: []int{3, 4, 5, 6, 7, 8}}},
		{"\ufeff1.5\t-2\n 1e400\tnan\n", PredictionsOptions{}, Predictions{N: 2, Width: 2, Logits: []float32{1.5, -2, inf32, nan32}}},
		{"1 2\n  3   4 \n", PredictionsOptions{}, Predictions{N: 2, Width: 2, Logits: []float32{1, 2, 3, 4}}},
	} {
		p, err := readText(x.text, x.o)
		require.NoError(t, err, x.text)
		require.Equal(t, len(x.want.Logits), len(p.Logits))
		for i, v := range x.want.Logits {
			require.Equal(t, math.Float32bits(v)&^1, math.Float32bits(p.Logits[i])&^1, "%s: value %d", x.text, i) // NaNs differ in their last bit
		}
		p.Logits, x.want.Logits = nil, nil
		require.Equal(t, x.want, *p, x.text)
	}
}

func TestReadPredictionsErrors(t *testing.T) {
	npy := func(header string, body int) string {
		return npyMagic + "\x01\x00" + string([]byte{byte(len(header)), 0}) + header + strings.Repeat("\x00", body)
	}
	for _, x := range []struct {
		text, want string
		o          PredictionsOptions
	}{
		{"", "no rows of numbers", PredictionsOptions{}},
		{"a,b\n", "no rows of numbers", PredictionsOptions{}},
		{"1,2\n3\n", "line 2: wrong number of fields", PredictionsOptions{}},
		{"1,2\n3,x\n", `line 2: column 2: "x" is no number`, PredictionsOptions{}},
		{"0.5\n", "one number an image, and not a whole one", PredictionsOptions{}},
		{"0.5,1\n", "classes must be whole numbers", PredictionsOptions{Kind: "classes"}},
		{"-1\n", "classes must be whole numbers", PredictionsOptions{Kind: "classes"}},
		{"1\n", `kind "labels": want auto, logits or classes`, PredictionsOptions{Kind: "labels"}},
		{"[", "JSON: unexpected end", PredictionsOptions{}},
		{"[[1,2],[3]]", "a list of 1 beside one of 2", PredictionsOptions{}},
		{"[[1,2],3]", "numbers and lists side by side", PredictionsOptions{}},
		{"[1,[2]]", "numbers and lists side by side", PredictionsOptions{}},
		{`[["a"]]`, `"a" is no number`, PredictionsOptions{}},
		{`[null]`, "is no number", PredictionsOptions{}},
		{`[]`, "it holds nothing", PredictionsOptions{}},
		{`[[]]`, "it holds no prediction", PredictionsOptions{}},
		{`{"a":[1]}`, `no output "b" among ["a"]`, PredictionsOptions{Output: "b"}},
		{`{"a":{"b":1}}`, `output "a": neither a list of numbers nor a tensor`, PredictionsOptions{}},
		{`[{"name":"a"},{"name":"a"}]`, `output "a" appears twice`, PredictionsOptions{}},
		{`[{"x":"a"}]`, "neither a list nor a tensor with a name", PredictionsOptions{}},
		{`{"dims":[2,2],"data":[1]}`, `do not fit 1 values`, PredictionsOptions{}},
		{`{"dims":[1],"data":{"5":1}}`, `data has a key "5"`, PredictionsOptions{}},
		{`[[[1,2],[3,4]],[[1,2],[3,4]]]`, "shape [2 2 2]: want N or N x classes", PredictionsOptions{}},
		{npyMagic, "ends within its header", PredictionsOptions{}},
		{npyMagic + "\x01\x00\xff\x00abc", "ends within its header", PredictionsOptions{}},
		{npyMagic + "\x09\x00\x00\x00\x00\x00", "unknown format version 9.0", PredictionsOptions{}},
		{npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", 8), `values of type "<c8"`, PredictionsOptions{}},
		{npy("{'descr': [('a', '<f4')], 'shape': (1,), }", 8), "names no plain type", PredictionsOptions{}},
		{npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 23), "takes 24 bytes, there are 23", PredictionsOptions{}},
		{npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }", 8), "does not fit 8 bytes", PredictionsOptions{}},
		{npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", 4), "a single number", PredictionsOptions{}},
		{npy("{'descr': '<f4', 'fortran_order': False}", 4), "has no shape", PredictionsOptions{}},
	} {
		_, err := readText(x.text, x.o)
		require.ErrorIs(t, err, ErrPredictions, x.text)
		require.ErrorContains(t, err, x.want, x.text)
		require.NotContains(t, err.Error(), "\n")
		require.True(t, strings.HasPrefix(err.Error(), "p: "), err)
	}
}

func TestReadLabels(t *testing.T) {
	for text, want := range map[string]Labels{
		"3\n4\n":                             {Classes: []int{3, 4}},
		"# val\nval/a b.png 3\n\nc.png 4":    {Classes: []int{3, 4}, Paths: []string{"val/a b.png", "c.png"}},
		"path,label\n\"a.png\",3\nb.png,4\n": {Classes: []int{3, 4}, Paths: []string{"a.png", "b.png"}},
	} {
		l, err := ReadLabels(strings.NewReader(text), "l")
		require.NoError(t, err)
		require.Equal(t, want, *l)
	}
	for text, want := range map[string]string{
		"":             "l: no labels",
		"1\nx\n":       `l:2: label out of range: "x" does not end in a class`,
		"-1\n":         `l:1: label out of range`,
		"a.png 1\n2\n": "l:2: some lines name their image and some do not",
	} {
		_, err := ReadLabels(strings.NewReader(text), "l")
		require.ErrorContains(t, err, want)
	}
	data, err := os.ReadFile(filepath.Join("testdata", "predictions", "classes_i8.npy"))
	require.NoError(t, err)
	l, err := ReadLabels(bytes.NewReader(data), "l")
	require.NoError(t, err)
	require.Equal(t, []int{2, 0, 1, 2}, l.Classes)
}

func TestScorePredictions(t *testing.T) {
	l := &Labels{Classes: []int{0, 1}, Paths: []string{"a/1.png", "a/2.png"}}
	logits := &Predictions{N: 2, Width: 3, Logits: []float32{9, 2, 1, 9, 0, 3}, Paths: []string{"1.png", "2.png"}}
	classes := &Predictions{N: 2, Width: 1, Classes: []int{1, 1}}
	five := &Predictions{N: 2, Width: 2, Classes: []int{3, 1, 2, 9}}
	o, err := l.Score("m", []string{"base", "a", "five"}, []*Predictions{logits, classes, five}, 1)
	require.NoError(t, err)
	var ranks [][]int
	for _, r := range o.Models[0].Records {
		ranks = append(ranks, []int{r.Outcomes[0].Rank, r.Outcomes[1].Rank, r.Outcomes[2].Rank})
	}
	require.Equal(t, [][]int{{1, 1, 2}, {1, 6, 1}}, ranks)
	require.Equal(t, 2, o.Models[0].Records[0].Outcomes[2].Top1, "the class offset is subtracted")

	// What is unknown stays unknown through a file, and out of the means.
	var file bytes.Buffer
	require.NoError(t, WriteOutcomes(&file, o))
	back, err := ReadOutcomes(&file, "o")
	require.NoError(t, err)
	p := DefaultPolicy()
	p.Primary.Candidate = "a"
	s, err := Evaluate(back, p)
	require.NoError(t, err)
	require.True(t, math.IsNaN(s.Models[0].Precisions[1].ECE))
	require.False(t, math.IsNaN(s.Models[0].Precisions[0].ECE))
	require.Equal(t, 2, s.Models[0].Precisions[1].Candidate.InfiniteKL)

	names := []string{"base", "a"}
	for want, all := range map[string][]*Predictions{
		"a: predictions for 1 image, but labels for 2":                        {logits, {N: 1, Width: 1, Classes: []int{1}}},
		"a: wrong number of outputs: 2 logits an image, but base has 3":       {logits, {N: 2, Width: 2, Logits: make([]float32, 4)}},
		"a: row 2 is of 3.png, but the label there of a/2.png":                {logits, {N: 2, Width: 1, Classes: []int{1, 1}, Paths: []string{"1.png", "3.png"}}},
		"a, row 1: label out of range: class 0 with class offset 1":           {logits, {N: 2, Width: 1, Classes: []int{0, 1}}},
		"base, row 1: wrong number of outputs: 1 outputs with class offset 1": {{N: 2, Width: 1, Logits: make([]float32, 2)}, classes},
	} {
		_, err := l.Score("m", names, all, 1)
		require.ErrorContains(t, err, want)
	}
	require.NoError(t, classes.Append(classes))
	require.Equal(t, 4, classes.N)
	require.ErrorContains(t, classes.Append(logits), "3 logits an image after 1 class an image")
}

func TestFloat16(t *testing.T) {
	for bits, want := range map[uint16]float64{0: 0, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0001: 0x1p-24, 0x03ff: 1023 * 0x1p-24, 0x7c00: math.Inf(1), 0xfc00: math.Inf(-1)} {
		require.Equal(t, want, float16(bits))
	}
	require.True(t, math.IsNaN(float16(0x7e00)))
}

func fuzzPredictions(f *testing.F, extension string, seeds ...string) {
	files, err := filepath.Glob(filepath.Join("testdata", "predictions", "*."+extension))
	require.NoError(f, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(data)
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
}

// check demands of predictions that were accepted that they are whole.
func check(t *testing.T, data []byte) {
	for _, kind := range []string{"auto", "classes"} {
		p, err := ReadPredictions(bytes.NewReader(data), "p", PredictionsOptions{Kind: kind})
		if err != nil {
			require.ErrorIs(t, err, ErrPredictions)
			continue
		}
		require.Positive(t, p.N)
		require.Equal(t, p.N*p.Width, len(p.Logits)+len(p.Classes))
		if p.Paths != nil {
			require.Len(t, p.Paths, p.N)
		}
	}
}

func FuzzReadNPY(f *testing.F) {
	fuzzPredictions(f, "npy")
	f.Fuzz(func(t *testing.T, data []byte) {
		check(t, append([]byte(npyMagic), bytes.TrimPrefix(data, []byte(npyMagic))...))
	})
}

func FuzzReadCSV(f *testing.F) {
	fuzzPredictions(f, "csv", "id,path,class\n0,a.png,3\n", "1;2\n", "\"1\" 2\n")
	f.Fuzz(func(t *testing.T, data []byte) { check(t, data) })
}

func FuzzReadJSON(f *testing.F) {
	fuzzPredictions(f, "json", trtexec, `{"dims":[1,2],"data":{"1":0.5,"0":2}}`, `[[nan,-inf],["a\"nan",1]]`)
	f.Fuzz(func(t *testing.T, data []byte) {
		check(t, append([]byte("["), data...))
		check(t, append([]byte("{"), data...))
	})
}

func FuzzReadLabels(f *testing.F) {
	f.Add("3\n4\n")
	f.Add("path,label\n\"a.png\",3\n")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ReadLabels(strings.NewReader(text), "l")
		if err == nil {
			require.NotEmpty(t, l.Classes)
			require.True(t, l.Paths == nil || len(l.Paths) == len(l.Classes))
		}
	})
}
