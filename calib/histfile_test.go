package calib

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
)

func TestHistogramsRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var hs []*Histogram
	for kind := range 8 {
		h := randomHistogram(r, kind)
		h.Name = fmt.Sprintf("tensor %d, \"q\":\n", kind)
		h.NaN, h.Inf = uint64(kind), 3
		if kind == 5 { // counts that add up to more than a file may hold
			for j := range h.Counts {
				h.Counts[j] >>= 10
			}
		}
		hs = append(hs, h)
	}
	hs = append(hs, &Histogram{Name: "empty"})
	path := filepath.Join(t.TempDir(), "x.histograms.csv.gz")
	require.NoError(t, WriteHistogramsFile(path, hs))
	got, err := ReadHistogramsFile(path)
	require.NoError(t, err)
	require.Equal(t, hs, got)
	require.Equal(t, hs[3], HistogramsByName(got)[hs[3].Name])

	var again bytes.Buffer
	require.NoError(t, WriteHistograms(&again, got))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, data, again.Bytes(), "the same histograms give the same bytes")
	_, err = ReadHistogramsFile(path + "x")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// The golden file pins the format: a file written today must be readable, and the same, tomorrow. It also serves the scripts of the
// cache verbs. go test ./calib -run HistogramsGolden -update writes it anew.
func TestHistogramsGolden(t *testing.T) {
	conv := &Histogram{Name: "conv1", Range: 4, Max: 3.9990234375}
	relu := &Histogram{Name: "a b: relu", Range: 2, Max: 2, NaN: 1, Inf: 2}
	for j := range Bins {
		conv.Counts[j] = uint64(1_000_000 / (j*j + 1000))
		relu.Counts[j] = uint64((Bins - j) / 100)
	}
	relu.Counts[0] = 1 << 40
	var buf bytes.Buffer
	require.NoError(t, WriteHistograms(&buf, []*Histogram{conv, relu}))
	path := filepath.Join("testdata", "golden.histograms.csv.gz")
	if *update {
		require.NoError(t, os.WriteFile(path, buf.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, buf.Bytes())
	hs, err := ReadHistogramsFile(path)
	require.NoError(t, err)
	require.Equal(t, []*Histogram{conv, relu}, hs)
	for i, want := range []int{1002, 1972} {
		bin, _, _ := hs[i].EntropyThreshold()
		require.Equal(t, want, bin, "the scripts of the cache verbs count on it")
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

func packed(t testing.TB, text string) []byte {
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	_, err := gz.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, gz.Close())
	return buf.Bytes()
}

func TestCorruptHistograms(t *testing.T) {
	const head = "quantgate-histograms,1\ntensor,range,max,nan,inf,counts\n"
	for text, want := range map[string]string{
		"":                                            "f:1: corrupt file: it is empty",
		"x,1\n":                                       "f:1: corrupt file: the first line is not quantgate-histograms,1",
		"quantgate-histograms,1\n":                    "f:2: corrupt file: the columns are not tensor,range,max,nan,inf,counts",
		"quantgate-histograms,1\na,b\n":               "f:2: corrupt file: the columns are not tensor,range,max,nan,inf,counts",
		head + "x,1,1,0,0\n":                          "f:3: corrupt file: 5 columns, not 6",
		head + ",1,1,0,0,0x2048\n":                    "f:3: corrupt file: a tensor without a name",
		head + "x,-1,1,0,0,0x2048\n":                  `f:3: corrupt file: tensor "x": range "-1" is not a finite float32 of 0 or more`,
		head + "x,1,2,0,0,0x2048\n":                   `f:3: corrupt file: tensor "x": max "2" is not a float32 of 0 to the range`,
		head + "x,1,1,a,0,0x2048\n":                   `f:3: corrupt file: tensor "x": nan "a" is not a count`,
		head + "x,1,1,0,b,0x2048\n":                   `f:3: corrupt file: tensor "x": inf "b" is not a count`,
		head + "x,1,1,0,0,0x2047\n":                   `f:3: corrupt file: tensor "x": 2047 counts, not 2048`,
		head + "x,1,1,0,0,0x2048 1\n":                 `f:3: corrupt file: tensor "x": more than 2048 counts`,
		head + "x,1,1,0,0,-1 0x2047\n":                `f:3: corrupt file: tensor "x": "-1" is not a count of at most 9007199254740992`,
		head + "x,1,1,0,0,0x0\n":                      `f:3: corrupt file: tensor "x": "0x0" is not a repeated count`,
		head + "x,1,1,0,0,9007199254740991x2048\n":    `f:3: corrupt file: tensor "x": the counts add up to more than 9007199254740992`,
		head + "x,1,1,0,0,0x2048\nx,1,1,0,0,0x2048\n": `f:4: corrupt file: tensor "x" is there already, in line 3`,
	} {
		hs, err := ReadHistograms(bytes.NewReader(packed(t, text)), "f")
		require.EqualError(t, err, want)
		require.ErrorIs(t, err, ErrCorrupt)
		require.Nil(t, hs)
	}
	_, err := ReadHistograms(bytes.NewReader(packed(t, "quantgate-histograms,2\n")), "f")
	require.ErrorIs(t, err, ErrVersion)
	_, err = ReadHistograms(strings.NewReader("plain"), "f")
	require.ErrorIs(t, err, ErrCorrupt)
	whole := packed(t, head+"x,1,1,0,0,0x2048\n")
	_, err = ReadHistograms(bytes.NewReader(whole[:len(whole)-9]), "f")
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "read f: unexpected EOF")
}

func FuzzReadHistograms(f *testing.F) {
	const head = "quantgate-histograms,1\ntensor,range,max,nan,inf,counts\n"
	f.Add(head + "x,1,0.5,0,2,0x2048\n")
	f.Add(head + "\"a,b\",3.5,3,0,0,1 2 3 0x2045\n")
	f.Fuzz(func(t *testing.T, text string) {
		hs, err := ReadHistograms(bytes.NewReader(packed(t, text)), "f")
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		for _, h := range hs {
			h.EntropyThreshold()
			h.MSEThreshold()
			h.PercentileThreshold(0.99)
		}
		var buf bytes.Buffer
		require.NoError(t, WriteHistograms(&buf, hs))
		back, err := ReadHistograms(&buf, "f")
		require.NoError(t, err)
		require.Equal(t, hs, back)
	})
}
