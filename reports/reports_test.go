package reports_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/reports"
)

// block is a run of images with the same result: the rank of the label in every precision.
type block struct {
	images int
	ranks  [3]int
}

// outcomes builds a model's records from blocks; the label is always 0.
func outcomes(name string, blocks ...block) accuracy.ModelOutcomes {
	m := accuracy.ModelOutcomes{Name: name}
	for _, b := range blocks {
		for range b.images {
			r := accuracy.Record{ID: len(m.Records)}
			for i, rank := range b.ranks {
				o := accuracy.Outcome{Top1: min(rank-1, 1), Rank: rank, Margin: 1}
				if rank == 0 {
					o = accuracy.Outcome{Top1: -1, NaN: true}
				}
				r.Outcomes = append(r.Outcomes, o)
				if i > 0 {
					r.Shifts = append(r.Shifts, accuracy.Shift{KL: 0.25, MaxLogitChange: 0.5 * float32(i)})
				}
			}
			m.Records = append(m.Records, r)
		}
	}
	return m
}

// sample is a report with a pass, a fail and an inconclusive verdict, a NaN, a name that is markup, and everything a run adds.
func sample(t *testing.T, change func(*accuracy.Policy)) *reports.Report {
	t.Helper()
	p := accuracy.DefaultPolicy()
	if change != nil {
		change(&p)
	}
	s, err := accuracy.Evaluate(&accuracy.Outcomes{
		Precisions: []string{"fp32", "fp16", "int8"},
		Models: []accuracy.ModelOutcomes{
			outcomes("steady", block{7000, [3]int{1, 1, 1}}, block{15, [3]int{1, 1, 2}}, block{12, [3]int{2, 2, 1}}, block{2000, [3]int{3, 3, 3}}, block{973, [3]int{9, 9, 9}}),
			outcomes("weak|net", block{700, [3]int{1, 1, 1}}, block{14, [3]int{1, 1, 6}}, block{9, [3]int{2, 2, 1}}, block{277, [3]int{9, 9, 9}}),
			outcomes("poor", block{700, [3]int{1, 1, 1}}, block{60, [3]int{1, 1, 6}}, block{1, [3]int{1, 0, 1}}, block{239, [3]int{9, 9, 9}}),
		},
	}, p)
	require.NoError(t, err)
	r := reports.New(s)
	r.Tool = "quantgate test"
	seed := uint64(7)
	r.Dataset = &reports.Dataset{Source: "val", Format: "list", Images: 11250, Calibration: 1250, Scored: 10000, Classes: 10, Preprocessing: "resize 256", Decoder: "image/jpeg", SplitSeed: &seed}
	r.Manifest = &reports.File{Path: "manifest.json", SHA256: strings.Repeat("ab", 32)}
	r.Models[0].Calibration = &reports.Calibration{Method: "entropy", Images: 1250, Batches: 50, BatchSize: 25, Tensors: 12, Cache: "steady.entropy.cache", Warnings: []string{"tensor relu_3 is constant"}}
	for i := range r.Models {
		r.Models[i].Precisions[2].Computed = "int32 sums of int8 products"
	}
	r.Models[0].Quantization = []reports.Quantization{{
		Precision: "int8", File: "steady.int8.onnx", Rewritten: 9,
		Float: []reports.FloatNode{{Node: "sm", Op: "Softmax", Reason: "stays float"}, {Node: "a", Op: "Sigmoid", Reason: "not supported"}, {Node: "b", Op: "Sigmoid", Reason: "not supported"}},
	}}
	r.Models[0].Files = []reports.File{{Path: "steady.int8.onnx", What: "INT8 model"}}
	return r
}

// TestGolden holds every format to its file; UPDATE_GOLDEN=1 rewrites them. The figures in them are accuracy's, which its
// own tests check.
func TestGolden(t *testing.T) {
	for _, f := range reports.Formats() {
		if f == string(reports.FormatHTML) {
			continue // its structure has tests of its own
		}
		var b bytes.Buffer
		require.NoError(t, reports.Write(&b, sample(t, nil), reports.Format(f)))
		path := filepath.Join("testdata", "report."+f+".golden")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			require.NoError(t, os.WriteFile(path, b.Bytes(), 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(want), b.String(), f)
		require.True(t, strings.HasSuffix(b.String(), "\n"), f)
	}
}

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(filepath.Join("..", "docs", "report.schema.json"))
	require.NoError(t, err)
	return s
}

func asJSON(t *testing.T, r *reports.Report) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, reports.JSON(&b, r))
	return b.Bytes()
}

func TestJSONFollowsItsSchema(t *testing.T) {
	s := schema(t)
	for name, change := range map[string]func(*accuracy.Policy){
		"default":  nil,
		"relative": func(p *accuracy.Policy) { p.MaxLoss.Relative = true },
		"point":    func(p *accuracy.Policy) { p.Rule = accuracy.RulePoint },
		"all":      func(p *accuracy.Policy) { p.GateAll = true; p.Primary = accuracy.Primary{Candidate: "fp16", K: 5} },
	} {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON(t, sample(t, change))))
		require.NoError(t, err)
		require.NoError(t, s.Validate(v), name)
	}

	// Nothing right at the base: undefined and unbounded figures are null.
	sum, err := accuracy.Evaluate(&accuracy.Outcomes{Precisions: []string{"fp32", "fp16", "int8"},
		Models: []accuracy.ModelOutcomes{outcomes("m", block{30, [3]int{9, 9, 1}})}}, accuracy.DefaultPolicy())
	require.NoError(t, err)
	data := asJSON(t, reports.New(sum))
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	require.NoError(t, err)
	require.NoError(t, s.Validate(v))
	require.Contains(t, string(data), `"relative_loss": null`)
}

// A run that could stop early says of how many images, and when its verdict stood; the page says so too.
func TestStoppedEarly(t *testing.T) {
	m := outcomes("m", block{3000, [3]int{1, 1, 1}}, block{10, [3]int{1, 1, 2}})
	for i := range m.Records {
		m.Records[i].Visit = i
	}
	for _, target := range []accuracy.Target{accuracy.TargetPopulation, accuracy.TargetSet} {
		p := accuracy.DefaultPolicy()
		p.MaxLoss.Value, p.Target = 0.05, target
		sum, err := accuracy.Evaluate(&accuracy.Outcomes{Precisions: []string{"fp32", "fp16", "int8"}, SetSize: 20000, Models: []accuracy.ModelOutcomes{m}}, p)
		require.NoError(t, err)
		r := reports.New(sum)
		require.Equal(t, 20000, r.Models[0].SetSize)
		require.Equal(t, accuracy.Pass, r.Verdict)
		stop := r.Models[0].Precisions[2].Looks[0].Stop
		require.Equal(t, "betting", stop.Rule)
		require.Less(t, *stop.Settled, 3010)
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON(t, r)))
		require.NoError(t, err)
		require.NoError(t, schema(t).Validate(v))
		page := pageOf(t, r)
		require.Contains(t, page, "3,010 of 20,000 images")
		require.Contains(t, page, "confidence sequence of a loss")
		require.Equal(t, target == accuracy.TargetSet, strings.Contains(page, "about these very images"))
	}
}

// The schema must be able to fail: every key is required or checked somewhere.
func TestSchemaRefuses(t *testing.T) {
	s := schema(t)
	good := asJSON(t, sample(t, nil))
	for name, x := range map[string][2]string{
		"verdict":      {`"verdict": "fail"`, `"verdict": "maybe"`},
		"percent":      {`"top1": 0.7`, `"top1": 70.`},
		"unknown key":  {`"correct_top1"`, `"correct_top_1"`},
		"number":       {`"n": 10000`, `"n": "10000"`},
		"interval":     {`"low": `, `"lo": `},
		"version":      {`"schema_version": "1.0"`, `"schema_version": "2.0"`},
		"sha256":       {`"sha256": "abab`, `"sha256": "XYab`},
		"margin":       {`"max_loss": "0.5pp"`, `"max_loss": "0.5%"`},
		"metric":       {`"metric": "top5"`, `"metric": "top3"`},
		"no mean_kl":   {`"mean_kl"`, `"max_logit_change"`},
		"settled with": {`"practical": true`, `"practical": 1`},
		"ece":          {`"ece": 0`, `"ece": 1`},
		"class":        {`"p_adjusted": `, `"p_holm": `},
		"classes_lost": {`"classes_lost": 1`, `"classes_lost": -1`},
	} {
		bad := strings.Replace(string(good), x[0], x[1], 1)
		require.NotEqual(t, string(good), bad, name)
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(bad))
		require.NoError(t, err, name)
		require.Error(t, s.Validate(v), name)
	}
}

// Commands, ligatures and alignment characters of LaTeX are letters in a name; braces balance and every row has all cells.
func TestLaTeXEscapes(t *testing.T) {
	r := sample(t, nil)
	r.Models[0].Name = `a\b{c}_d&e%f$g#h^i~j--k[1]"l` + "\nm\x01"
	var b bytes.Buffer
	require.NoError(t, reports.LaTeX(&b, r))
	require.Contains(t, b.String(), `a\textbackslash{}b\{c\}\_d\&e\%f\$g\#h\textasciicircum{}i\textasciitilde{}j{-}{-}k{[}1{]}\textquotedbl{}l m  & 10,000 &`)
	plain := strings.NewReplacer(`\{`, "", `\}`, "", `\&`, "", `\%`, "", `\_`, "").Replace(b.String())
	require.Equal(t, strings.Count(plain, "{"), strings.Count(plain, "}"))
	cells := -1
	for _, line := range strings.Split(plain, "\n") {
		if !strings.HasSuffix(line, `\\`) || strings.Contains(line, "multicolumn") {
			continue
		}
		if cells >= 0 {
			require.Equal(t, cells, strings.Count(line, "&"), line)
		}
		cells = strings.Count(line, "&")
	}
	require.Equal(t, 12, cells)
}

func TestMarkdownEscapes(t *testing.T) {
	r := sample(t, nil)
	r.Models[0].Name = "a|b*c_d<e>&f`g[h](i)$x$~j~@k\nl"
	var b bytes.Buffer
	require.NoError(t, reports.Markdown(&b, r))
	require.Contains(t, b.String(), "- **a\\|b\\*c\\_d&lt;e>&amp;f\\`g\\[h](i)\\$x\\$\\~j\\~&#64;k l**: ")
}

// report.json's contract: models[].name, precisions by name with the base first, fractions, verdict.
func TestJSONContract(t *testing.T) {
	data := asJSON(t, sample(t, nil))
	var r struct {
		Verdict string
		Models  []struct {
			Name       string
			Precisions map[string]struct {
				Top1, Top5 float64
				N          int
				D1         *float64 `json:"delta_top1"`
				D5         *float64 `json:"delta_top5"`
			}
		}
	}
	require.NoError(t, json.Unmarshal(data, &r))
	require.Equal(t, "fail", r.Verdict)
	steady := r.Models[0].Precisions
	require.InDelta(t, 0.7015, steady["fp32"].Top1, 1e-12)
	require.InDelta(t, 0.7012, steady["int8"].Top1, 1e-12)
	require.InDelta(t, -0.0003, *steady["int8"].D1, 1e-12)
	require.InDelta(t, 0, *steady["int8"].D5, 1e-12)
	require.Equal(t, 10000, steady["fp16"].N)
	require.Nil(t, steady["fp32"].D1)
	text := string(data)
	require.Less(t, strings.Index(text, `"fp32": {`), strings.Index(text, `"fp16": {`))
	require.Less(t, strings.Index(text, `"fp16": {`), strings.Index(text, `"int8": {`))
}

func TestJSONRoundTrip(t *testing.T) {
	r := sample(t, nil)
	data := asJSON(t, r)
	var back reports.Report
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, *r, back)
	require.Error(t, json.Unmarshal([]byte(`{"models":[{"precisions":[]}]}`), &back))
	require.Error(t, json.Unmarshal([]byte(`{"models":[{"precisions":{"fp32":7}}]}`), &back))
}

func TestTextIsAligned(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, reports.Text(&b, sample(t, nil)))
	blocks := strings.Split(b.String(), "\n\n")
	for _, table := range []string{blocks[1], blocks[3]} {
		lines := strings.Split(strings.TrimSpace(table), "\n")
		for _, l := range lines[1:] {
			require.Equal(t, utf8.RuneCountInString(lines[0]), utf8.RuneCountInString(l), "%s", table)
		}
	}
	require.Contains(t, b.String(), "verdict: fail\n")
	require.Contains(t, b.String(), "warning: steady: tensor relu_3 is constant\n")
	require.Contains(t, b.String(), "3 stay in float: 1 Softmax (stays float), 2 Sigmoid (not supported)")
}

func TestMarkdownTablesKeepTheirColumns(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, reports.Markdown(&b, sample(t, nil)))
	columns := 0
	for _, l := range strings.Split(b.String(), "\n") {
		if !strings.HasPrefix(l, "|") {
			columns = 0
			continue
		}
		n := strings.Count(strings.ReplaceAll(l, `\|`, ""), "|")
		if columns > 0 {
			require.Equal(t, columns, n, l)
		}
		columns = n
	}
	require.Contains(t, b.String(), `weak\|net`)
}

func TestCSVIsRectangular(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, reports.CSV(&b, sample(t, nil)))
	rows, err := csv.NewReader(&b).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 1+9)
	at := map[string]int{}
	for i, c := range rows[0] {
		at[c] = i
	}
	require.Len(t, at, len(rows[0]), "no column twice")
	int8 := rows[3]
	require.Equal(t, []string{"steady", "int8", "15", "12", "true", "pass", "false"},
		[]string{int8[at["model"]], int8[at["precision"]], int8[at["top1_base_only"]], int8[at["top1_cand_only"]], int8[at["top1_primary"]], int8[at["top1_verdict"]], int8[at["top5_primary"]]})
	require.Empty(t, rows[1][at["delta_top1"]])
	require.Equal(t, "0", rows[1][at["top5_tied"]])
}

func TestJUnitCounts(t *testing.T) {
	parse := func(r *reports.Report) (tests, failures int, types []string) {
		var b bytes.Buffer
		require.NoError(t, reports.JUnit(&b, r))
		var x struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
			Suites   []struct {
				Cases []struct {
					Failure *struct {
						Type string `xml:"type,attr"`
					} `xml:"failure"`
				} `xml:"testcase"`
			} `xml:"testsuite"`
		}
		require.NoError(t, xml.Unmarshal(b.Bytes(), &x))
		for _, s := range x.Suites {
			for _, c := range s.Cases {
				if c.Failure != nil {
					types = append(types, c.Failure.Type)
				}
			}
		}
		return x.Tests, x.Failures, types
	}
	tests, failures, types := parse(sample(t, nil))
	require.Equal(t, 12, tests)
	require.Equal(t, 2, failures)
	require.Equal(t, []string{"inconclusive", "fail"}, types)
	_, failures, _ = parse(sample(t, func(p *accuracy.Policy) { p.GateAll = true }))
	require.Greater(t, failures, 2)
}

var errFull = errors.New("no space left on device")

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestWriteErrors(t *testing.T) {
	r := sample(t, nil)
	for _, f := range reports.Formats() {
		require.ErrorIs(t, reports.Write(fullDisk{}, r, reports.Format(f)), errFull, f)
	}
	require.ErrorIs(t, reports.Verdict(fullDisk{}, r), errFull)
	require.EqualError(t, reports.Write(&bytes.Buffer{}, r, "pdf"), `report format "pdf": want one of text, markdown, csv, latex, json, junit, html`)
	_, err := reports.ParseFormat("")
	require.Error(t, err)
}
