package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/benchmarks/internal/bench"
)

var update = flag.Bool("update", false, "write the golden files anew")

func ptr(x float64) *float64 { return &x }

func TestDocument(t *testing.T) {
	m := machine{CPU: "Some CPU (AVX2)", Cores: 2, Memory: "24 GiB", System: "Some Linux", Go: "go1.26", Load: "0.12"}
	got := document([]outcome{
		{
			Program: "calibration", Command: "go run ./benchmarks/calibration -pairs 5", Date: "2026-01-02 03:04 UTC", Machine: m, Version: "v1",
			Lines: []bench.Line{
				{
					Bench: "calibration/net", What: "calibration", Metric: "CPU time", Unit: "s", Ours: 41.23, Peer: "bare pass", Theirs: ptr(14.1),
					Ratio: ptr(2.92), RatioOf: bench.OursOfTheirs, Low: ptr(2.85), High: ptr(3.051), Pairs: 5, Bar: "<= 3.5", Goal: "<= 2",
					Versions: map[string]string{"onnxruntime": "1.2.3", "numpy": "4"}, Note: "one thread",
				},
				{
					Bench: "calibration/net", What: "calibration", Metric: "CPU time", Unit: "s", Ours: 41, Peer: "NNCF", RatioOf: bench.TheirsOfOurs,
					Bar: ">= 1", Absent: "nncf is not installed: make bench-peers",
				},
				{Bench: "calibration/net", What: "calibration", Metric: "search time", Unit: "s", Ours: 0.0421, Pairs: 5, Bar: "<= 1"},
				{Bench: "calibration/net", What: "nowhere", Metric: "images/s", Unit: "images/s", Ours: 12345},
			},
		},
		{Program: "images", Command: "go run ./benchmarks/images", Date: "2026-01-02 03:04 UTC", Machine: m, Version: "v1", Failed: "it ended with exit status 1"},
		{Program: "imagenet50k", Failed: "Measured apart, by make bench-50k"},
	})
	golden := filepath.Join("testdata", "document.md")
	if *update {
		require.NoError(t, os.WriteFile(golden, got, 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 1234567.8: "1,234,568", 1000: "1,000", 999.4: "999", 12.345: "12.3", 1: "1.00", 2.926: "2.93", 0.5: "0.500",
		0.01234: "0.0123", 0.00001: "0.000010", -1234: "-1,234", -0.25: "-0.250",
	} {
		require.Equal(t, want, number(x))
	}
}

func TestParseOutput(t *testing.T) {
	lines, err := parse([]byte("net: 3 times\n{\"bench\":\"a/b\",\"ours\":1}\r\nmore text"))
	require.NoError(t, err)
	require.Equal(t, []bench.Line{{Bench: "a/b", Ours: 1}}, lines)
	_, err = parse([]byte(`{"bench":`))
	require.Error(t, err)
}

// What was kept is in the document though nothing is measured, and what was not is said.
func TestCollectFromKept(t *testing.T) {
	dir := t.TempDir()
	o := options{keep: filepath.Join(dir, "keep"), doc: filepath.Join(dir, "B.md"), only: "none"}
	require.NoError(t, o.save(outcome{Program: "job", Date: "2026-01-02 03:04 UTC", Lines: []bench.Line{{Bench: "job/net", What: "job", Metric: "wall time", Unit: "s", Ours: 3}}}))
	require.NoError(t, o.collect())
	b, err := os.ReadFile(o.doc)
	require.NoError(t, err)
	require.Contains(t, string(b), "| job/net | wall time | 3.00 s |")
	require.Contains(t, string(b), "**imagenet50k**: not measured here. Measured apart, by make bench-50k\n")
	o.only = "nothing"
	require.ErrorContains(t, o.collect(), "there is no such program")
}
