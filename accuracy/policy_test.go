package accuracy

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseMaxLoss(t *testing.T) {
	for in, want := range map[string]MaxLoss{
		"0.5pp": {0.005, false}, "0.5%rel": {0.005, true}, "1pp": {0.01, false}, " 0.25 pp ": {0.0025, false}, "0pp": {0, false}, "12%rel": {0.12, true}, ".5pp": {0.005, false},
	} {
		got, err := ParseMaxLoss(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
		again, err := ParseMaxLoss(got.String())
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
	require.Equal(t, "0.07pp", MaxLoss{Value: 0.0007}.String())
	for _, in := range []string{"", "pp", "-1pp", "+1pp", "1e-1pp", "0x1pp", "infpp", "nanpp", "0,5pp", "100pp", "1..2pp", "0.5%", "0.5", "0.5%%", "0.5 % rel", "0.5rel"} {
		_, err := ParseMaxLoss(in)
		require.Error(t, err, in)
		require.NotContains(t, err.Error(), "\n")
	}
	_, err := ParseMaxLoss("0.5%")
	require.EqualError(t, err, `max loss "0.5%" can mean two things: write 0.5pp for percentage points (from 75 % down to 74.5 %) or 0.5%rel for percent of the base's accuracy (from 75 % down to 74.625 %)`)
	_, bare := ParseMaxLoss("0.5")
	require.Equal(t, strings.Replace(err.Error(), `"0.5%"`, `"0.5"`, 1), bare.Error())
}

func FuzzParseMaxLoss(f *testing.F) {
	for _, s := range []string{"0.5pp", "0.5%rel", "0.5%", "0.5", "99.9999999999999pp", "0.0000000000001%rel"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMaxLoss(s)
		if err != nil {
			return
		}
		require.True(t, m.Value >= 0 && m.Value < 1)
		again, err := ParseMaxLoss(m.String())
		if m.Value < 1-1e-12 { // 12 digits round a value next to 100 up
			require.NoError(t, err)
			require.InEpsilon(t, 1+m.Value, 1+again.Value, 1e-11)
			require.Equal(t, m.Relative, again.Relative)
		}
	})
}

func TestParsePrimary(t *testing.T) {
	for in, want := range map[string]Primary{"top1": {"", 1}, "top5": {"", 5}, "fp16:top5": {"fp16", 5}, "a:b:top1": {"a:b", 1}} {
		got, err := ParsePrimary(in)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, in, got.String())
	}
	for _, in := range []string{"", "top", "top2", ":top1", "int8", "int8:", "TOP1"} {
		_, err := ParsePrimary(in)
		require.Error(t, err, in)
	}
}

func TestPolicyValidate(t *testing.T) {
	require.NoError(t, DefaultPolicy().Validate())
	for name, change := range map[string]func(*Policy){
		"confidence 95": func(p *Policy) { p.Confidence = 95 },
		"confidence 1:": func(p *Policy) { p.Confidence = 1 },
		"confidence Na": func(p *Policy) { p.Confidence = math.NaN() },
		"max loss -0.1": func(p *Policy) { p.MaxLoss.Value = -0.1 },
		"max loss 1:":   func(p *Policy) { p.MaxLoss.Value = 1 },
		"primary top-0": func(p *Policy) { p.Primary.K = 0 },
		`rule "luck"`:   func(p *Policy) { p.Rule = "luck" },
	} {
		p := DefaultPolicy()
		change(&p)
		require.ErrorContains(t, p.Validate(), name)
	}
}

func TestWorse(t *testing.T) {
	require.Equal(t, Pass, Verdict("").Worse(Pass))
	require.Equal(t, Inconclusive, Pass.Worse(Inconclusive))
	require.Equal(t, Fail, Inconclusive.Worse(Fail))
	require.Equal(t, Fail, Fail.Worse(Pass))
}
