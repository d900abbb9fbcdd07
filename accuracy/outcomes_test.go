package accuracy

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sampleOutcomes scores random logits of two models, with every special value once.
func sampleOutcomes(t testing.TB, models, images, classes int) *Outcomes {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 4))
	o := &Outcomes{Precisions: []string{"fp32", "fp16", "int8"}}
	logits := make([][]float32, 3)
	for i := range logits {
		logits[i] = make([]float32, classes)
	}
	for m := range models {
		mo := ModelOutcomes{Name: fmt.Sprintf("model %c", 'a'+m)}
		for id := range images {
			r := Record{ID: 1250 + id, Path: fmt.Sprintf("val/ILSVRC2012_val_%08d.JPEG", id), Label: rng.IntN(classes)}
			for j := range classes {
				v := rng.NormFloat64() * 4
				for i := range logits {
					logits[i][j] = float32(v + rng.NormFloat64()*0.1*float64(i))
				}
			}
			switch id {
			case 1:
				logits[1][0] = nan
				r.Path = "a, \"quoted\" path.png"
			case 2:
				logits[2][0] = inf
				r.Path = "line\nbreak"
			case 3:
				logits[2][0], logits[2][1] = 50, 50
				r.Path = ""
			}
			for i := range logits {
				out, err := Score(logits[i], r.Label, 0)
				require.NoError(t, err)
				r.Outcomes = append(r.Outcomes, out)
				if i > 0 {
					s, err := CompareLogits(logits[0], logits[i], 0)
					require.NoError(t, err)
					r.Shifts = append(r.Shifts, s)
				}
			}
			mo.Records = append(mo.Records, r)
		}
		o.Models = append(o.Models, mo)
	}
	return o
}

func encode(t testing.TB, o *Outcomes) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, WriteOutcomes(&b, o))
	return b.Bytes()
}

func unzip(t testing.TB, data []byte) string {
	t.Helper()
	gz, err := gzip.NewReader(bytes.NewReader(data))
	require.NoError(t, err)
	text, err := io.ReadAll(gz)
	require.NoError(t, err)
	return string(text)
}

func TestOutcomesRoundTrip(t *testing.T) {
	o := sampleOutcomes(t, 2, 50, 10)
	data := encode(t, o)
	require.True(t, bytes.Equal(data, encode(t, o)), "same outcomes, same bytes")
	require.Zero(t, bytes.Compare(data[4:8], make([]byte, 4)), "no time in the gzip header")

	got, err := ReadOutcomes(bytes.NewReader(data), "x.gz")
	require.NoError(t, err)
	require.Equal(t, unzip(t, data), unzip(t, encode(t, got)))
	for m := range o.Models {
		o.Models[m].Records[2].Path = "line break"
	}
	// NaN is unequal to itself: compare and take out.
	for _, x := range []*Outcomes{o, got} {
		for m := range x.Models {
			s := &x.Models[m].Records[1].Shifts[0]
			require.True(t, math.IsNaN(s.KL) && math.IsNaN(float64(s.MaxLogitChange)))
			*s = Shift{}
		}
	}
	require.Equal(t, o, got)

	plain, err := ReadOutcomes(strings.NewReader(unzip(t, data)), "x.csv")
	require.NoError(t, err, "plain text is read too")
	require.Equal(t, unzip(t, data), unzip(t, encode(t, plain)))
}

// The file is a contract with other programs: its text must not change by accident. UPDATE_GOLDEN=1 rewrites it.
func TestOutcomesGolden(t *testing.T) {
	text := unzip(t, encode(t, sampleOutcomes(t, 2, 5, 4)))
	path := filepath.Join("testdata", "outcomes.golden.csv")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
}

func TestOutcomesVersions(t *testing.T) {
	text := unzip(t, encode(t, sampleOutcomes(t, 1, 5, 4)))
	read := func(text string) (*Outcomes, error) { return ReadOutcomes(strings.NewReader(text), "o.csv") }
	want, err := read(text)
	require.NoError(t, err)

	newer := strings.Replace(text, " 1.1\n", " 1.7\n", 1)
	lines := strings.SplitAfter(newer, "\n")
	for i, l := range lines[1:] {
		if l != "" {
			lines[i+1] = "x" + fmt.Sprint(i) + "," + l // a new column in front
		}
	}
	got, err := read(strings.Join(lines, ""))
	require.NoError(t, err)
	require.Equal(t, unzip(t, encode(t, want)), unzip(t, encode(t, got)))

	_, err = read(strings.Replace(text, " 1.1\n", " 2.0\n", 1))
	require.ErrorIs(t, err, ErrVersion)
	require.EqualError(t, err, "o.csv:1: unknown format version 2.0: this program reads 1.x: use the release that wrote the file")
}

func TestOutcomesErrors(t *testing.T) {
	const head = "# quantgate outcomes 1.0\n"
	const cols = "id,path,label,model,fp32_top1,fp32_top1_prob,fp32_rank,fp32_label_prob,fp32_margin,fp32_ties_before,fp32_ties_after"
	const row = "5,a.png,3,m,3,0.5,1,0.5,1.5,0,0\n"
	for name, x := range map[string]struct{ text, want string }{
		"empty":            {"", `o.csv:1: not a valid outcomes file: it does not start with "# quantgate outcomes"`},
		"other file":       {"id,path\n", `o.csv:1: not a valid outcomes file: it does not start with`},
		"long line":        {strings.Repeat("x", 1<<20), "o.csv:1: "},
		"bad version":      {"# quantgate outcomes one\n", `o.csv:1: not a valid outcomes file: version "one": want MAJOR.MINOR`},
		"no columns":       {head, "o.csv:2: not a valid outcomes file: no column names"},
		"no precision":     {head + "id,path,label,model\n", "o.csv:2: not a valid outcomes file: no column such as fp32_top1"},
		"missing column":   {head + strings.Replace(cols, "fp32_rank", "fp32_runk", 1) + "\n", "o.csv:2: not a valid outcomes file: column fp32_rank is missing"},
		"missing kl":       {head + cols + strings.ReplaceAll(cols[19:], "fp32", "int8") + "\n", "column int8_kl is missing"},
		"column twice":     {head + cols + ",id\n", `o.csv:2: not a valid outcomes file: column "id" appears twice`},
		"no rows":          {head + cols + "\n", "o.csv:3: not a valid outcomes file: no outcomes"},
		"short row":        {head + cols + "\n" + row + "6,a\n", "o.csv:4: not a valid outcomes file: wrong number of fields"},
		"bare quote":       {head + cols + "\n" + `5,a"b,3` + "\n", "o.csv:3: not a valid outcomes file: bare \""},
		"bad id":           {head + cols + "\nx" + row, `o.csv:3: not a valid outcomes file: column id: "x5" is not a whole number of at least 0`},
		"negative label":   {head + cols + "\n5,a,-1,m,3,0.5,1,0.5,1.5,0,0\n", "column label"},
		"empty model":      {head + cols + "\n5,a,3,,3,0.5,1,0.5,1.5,0,0\n", "column model: empty"},
		"probability 2":    {head + cols + "\n5,a,3,m,3,2,1,0.5,1.5,0,0\n", "column fp32_top1_prob: 2 is not a probability"},
		"negative margin":  {head + cols + "\n5,a,3,m,3,0.5,1,0.5,-1.5,0,0\n", "column fp32_margin"},
		"partly empty":     {head + cols + "\n5,a,3,m,3,,1,0.5,1.5,0,0\n", "column fp32_top1_prob"},
		"rank 1 but wrong": {head + cols + "\n5,a,3,m,4,0.5,1,0.5,1.5,0,0\n", "column fp32_rank: rank 1, but the best class is 4 and the label 3"},
		"right but rank 2": {head + cols + "\n5,a,3,m,3,0.5,2,0.5,1.5,0,0\n", "column fp32_rank: rank 2, but the best class is 3"},
		"too many ties":    {head + cols + "\n5,a,3,m,3,0.5,1,0.5,1.5,1,0\n", "column fp32_ties_before: 1, but the rank is 1"},
		"huge number":      {head + cols + "\n5,a,3,m,99999999999,0.5,1,0.5,1.5,0,0\n", "column fp32_top1"},
		"id twice":         {head + cols + "\n" + row + row, "o.csv:4: not a valid outcomes file: model m: id 5 after id 5: ids must rise"},
		"model split":      {head + cols + "\n" + row + "1,a,3,n,3,0.5,1,0.5,1.5,0,0\n7,a,3,m,3,0.5,1,0.5,1.5,0,0\n", "o.csv:5: not a valid outcomes file: model m: its rows are not together"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadOutcomes(strings.NewReader(x.text), "o.csv")
			require.ErrorIs(t, err, ErrOutcomes)
			require.ErrorContains(t, err, x.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestOutcomesCutOff(t *testing.T) {
	data := encode(t, sampleOutcomes(t, 1, 400, 10))
	for _, n := range []int{2, 9, len(data) / 2, len(data) - 8, len(data) - 1} {
		_, err := ReadOutcomes(bytes.NewReader(data[:n]), "o.csv.gz")
		require.ErrorIs(t, err, ErrOutcomes, n)
		require.ErrorContains(t, err, "the file ends early: it is cut off", n)
		require.Regexp(t, `^o\.csv\.gz:\d+: `, err.Error())
	}
	data[len(data)/2] ^= 0xff
	_, err := ReadOutcomes(bytes.NewReader(data), "o.csv.gz")
	require.ErrorIs(t, err, ErrOutcomes, "a damaged file")
}

func TestOutcomesWriterErrors(t *testing.T) {
	for _, p := range [][]string{nil, {""}, {"a,b"}, {"a b"}, {"a", "a"}} {
		_, err := NewOutcomesWriter(io.Discard, p, 0)
		require.Error(t, err, p)
	}
	w, err := NewOutcomesWriter(io.Discard, []string{"fp32"}, 0)
	require.NoError(t, err)
	ok := &Record{ID: 4, Outcomes: make([]Outcome, 1)}
	require.NoError(t, w.Write("m", ok))
	require.ErrorContains(t, w.Write("m", ok), "ids must rise")
	require.Error(t, w.Write("m", &Record{ID: 5}))
	require.Error(t, w.Write("", &Record{ID: 5, Outcomes: make([]Outcome, 1)}))
	require.NoError(t, w.Write("n", ok))
	require.ErrorContains(t, w.Write("m", &Record{ID: 9, Outcomes: make([]Outcome, 1)}), "not together")

	full := WriteOutcomes(fullDisk{}, sampleOutcomes(t, 1, 5, 4))
	require.ErrorIs(t, full, errFull)
	require.ErrorContains(t, full, "write outcomes: ")
}

func TestTallyOutcomesFile(t *testing.T) {
	o := sampleOutcomes(t, 3, 200, 10)
	path := filepath.Join(t.TempDir(), "o.csv.gz")
	require.NoError(t, os.WriteFile(path, encode(t, o), 0o644))
	streamed, err := TallyOutcomesFile(path)
	require.NoError(t, err)
	held, err := o.Tally()
	require.NoError(t, err)
	require.Equal(t, held, streamed)
	_, err = TallyOutcomesFile(path + "x")
	require.ErrorIs(t, err, os.ErrNotExist)

	fromOutcomes, err := Evaluate(o, DefaultPolicy())
	require.NoError(t, err)
	judged, err := Judge(streamed, DefaultPolicy())
	require.NoError(t, err)
	require.Equal(t, judged, fromOutcomes)
}

// 50,000 images on three models, written and read within bounds that leave a slow machine room: 2 s each on a free one.
func TestOutcomesSize(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 150,000 rows")
	}
	sample := sampleOutcomes(t, 1, 500, 10).Models[0].Records
	o := &Outcomes{Precisions: []string{"fp32", "fp16", "int8"}}
	for m := range 3 {
		mo := ModelOutcomes{Name: fmt.Sprint("m", m)}
		for id := range 50000 {
			r := sample[id%len(sample)]
			r.ID = id
			mo.Records = append(mo.Records, r)
		}
		o.Models = append(o.Models, mo)
	}
	start := time.Now()
	data := encode(t, o)
	wrote := time.Since(start)
	start = time.Now()
	path := filepath.Join(t.TempDir(), "o.csv.gz")
	require.NoError(t, os.WriteFile(path, data, 0o644))
	tallies, err := TallyOutcomesFile(path)
	require.NoError(t, err)
	read := time.Since(start)
	t.Logf("150,000 rows, %d bytes: written in %v, read in %v", len(data), wrote, read)
	require.Equal(t, 50000, tallies[2].n)
	require.Less(t, wrote, 20*time.Second)
	require.Less(t, read, 20*time.Second)
}

// Whatever is read without an error is written and read again to the same bytes.
func FuzzReadOutcomes(f *testing.F) {
	text := unzip(f, encode(f, sampleOutcomes(f, 2, 5, 4)))
	f.Add([]byte(text))
	f.Add(encode(f, sampleOutcomes(f, 1, 5, 4)))
	f.Add([]byte(strings.Replace(text, "1.0", "1.1", 1)))
	f.Add([]byte("# quantgate outcomes 1.0\nid,path,label,model\n"))
	f.Add([]byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := ReadOutcomes(bytes.NewReader(data), "f")
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "f:"), err.Error())
			return
		}
		if checkPrecisions(o.Precisions) != nil {
			return // readable, but not what the writer writes
		}
		again, err := ReadOutcomes(bytes.NewReader(encode(t, o)), "g")
		require.NoError(t, err)
		require.True(t, bytes.Equal(encode(t, o), encode(t, again)))
	})
}
