package reports_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/reports"
)

// comparison has a pair that was decided and one that was identical.
func comparison(t *testing.T) *reports.Comparison {
	t.Helper()
	p := accuracy.DefaultPolicy()
	two := func(blocks ...block) *accuracy.ModelSummary {
		m := outcomes("x", blocks...)
		for i := range m.Records {
			m.Records[i].Outcomes, m.Records[i].Shifts = m.Records[i].Outcomes[:2], m.Records[i].Shifts[:1]
		}
		s, err := accuracy.Evaluate(&accuracy.Outcomes{Precisions: []string{"A", "B"}, Models: []accuracy.ModelOutcomes{m}}, p)
		require.NoError(t, err)
		return &s.Models[0]
	}
	c := reports.NewComparison(p)
	c.A, c.B = reports.Side{Outcomes: "a.csv", Method: "entropy", Tool: "quantgate 1"}, reports.Side{Outcomes: "b.csv"}
	c.Verdict = accuracy.Fail
	c.Differences, c.Warnings = []string{"calibration: entropy in A, none in B"}, []string{"only A has z"}
	same := reports.PairOf("net|1", "fp32", two(block{1000, [3]int{1, 1, 1}}))
	same.Identical, same.Verdict, same.Looks, same.Sentence = true, accuracy.Pass, nil, "the same."
	lost := reports.PairOf("net|1", "int8", two(block{900, [3]int{1, 1, 1}}, block{90, [3]int{1, 6, 6}}, block{10, [3]int{2, 1, 1}}))
	lost.ModelB = "net|2"
	c.Pairs = append(c.Pairs, same, lost)
	return c
}

func TestComparisonText(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, comparison(t).Text(&b))
	require.Contains(t, b.String(), "A: a.csv (entropy, quantgate 1)\nB: b.csv\n")
	require.Regexp(t, `(?m)^net\|1 +FP32 top-1 +identical +1000 +100\.00 +100\.00 +0\.00 +- +0 +0 +- +100\.00 %$`, b.String())
	require.Regexp(t, `(?m)^net\|1 / net\|2 +INT8 top-1 +FAIL +1000 +99\.00 +91\.00 +-8\.00 +.* +90 +10 +<0\.0001 +90\.00 %$`, b.String())
	require.Contains(t, b.String(), "note: calibration: entropy in A, none in B\nwarning: only A has z\nnet|1 FP32: the same.\n")
	require.True(t, strings.HasSuffix(b.String(), "\nverdict: fail\n"))
}

func TestComparisonMarkdown(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, comparison(t).Markdown(&b))
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
	require.Contains(t, b.String(), "- **net\\|1 INT8**: B top-1 fails: its loss is 8.00 points")
	require.Contains(t, b.String(), "\n## Differences\n\n- calibration: entropy in A, none in B\n")
}

func TestComparisonJSON(t *testing.T) {
	c := comparison(t)
	var b bytes.Buffer
	require.NoError(t, c.JSON(&b))
	var back reports.Comparison
	require.NoError(t, json.Unmarshal(b.Bytes(), &back))
	require.Equal(t, *c, back)
	require.ErrorIs(t, c.JSON(fullDisk{}), errFull)
	require.ErrorIs(t, c.Text(fullDisk{}), errFull)
	require.ErrorIs(t, c.Markdown(fullDisk{}), errFull)
}
