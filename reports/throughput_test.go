package reports_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/bench"
	"github.com/quantgate/quantgate/reports"
)

// speeds are made-up figures of two networks: FP32 at 1000 images/s, FP16 at 2000 and INT8 at 4000, of which two GPUs make 7600.
func speeds() bench.Results {
	rate := func(v float64) bench.Rate {
		return bench.Rate{Median: v, Min: v * 0.99, Max: v * 1.01, Repeats: []float64{v, v * 0.99, v * 1.01, v, v}}
	}
	var rs bench.Results
	add := func(model, precision string, devices int, compute float64) *bench.Result {
		c := rate(compute)
		rs = append(rs, bench.Result{
			Key:     bench.Key{ModelSHA256: strings.Repeat(model[:1], 64), Engine: "tensorrt 8.6.1 on GPU X, no TF32", Device: "GPU X", Precision: precision, Batch: 128, Devices: devices, Parallel: 3 * devices},
			Model:   model,
			Compute: &c, EndToEnd: rate(compute / 4), Latency: bench.Latency{P50: 0.0641, P90: 0.065, P99: 0.0712, Calls: 20},
			Conditions: &bench.Conditions{ClockMHz: 1900, ClockMinMHz: 1890, ClockMaxMHz: 1980, PowerWatts: 500 * float64(devices), TemperatureC: 60, Readings: 100},
		})
		return &rs[len(rs)-1]
	}
	for _, m := range []string{"alexnet", "weak|net"} {
		add(m, "fp32", 1, 1000)
		add(m, "fp16", 1, 2000)
		r := add(m, "int8", 1, 4000)
		r.Ranges = "random images: for speed only"
		r.Layers, r.Float = map[string]int{"int8": 20, "fp32": 2}, []bench.FloatLayer{{Name: "gap", Type: "CaskPooling", Precision: "fp32"}, {Name: "norm1", Type: "LRN", Precision: "fp32"}}
	}
	r := add("alexnet", "int8", 2, 7600)
	r.Ranges = "random images: for speed only"
	return rs
}

// TestThroughputGolden holds every format to its file; UPDATE_GOLDEN=1 rewrites them.
func TestThroughputGolden(t *testing.T) {
	for _, f := range reports.ThroughputFormats() {
		var b bytes.Buffer
		require.NoError(t, reports.Throughput(&b, speeds(), reports.Format(f)))
		path := filepath.Join("testdata", "throughput."+f+".golden")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			require.NoError(t, os.WriteFile(path, b.Bytes(), 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(want), b.String(), f)
	}
	require.ErrorContains(t, reports.Throughput(io.Discard, speeds(), reports.FormatHTML), `"html"`)
	for _, f := range reports.ThroughputFormats() {
		require.NoError(t, reports.Throughput(io.Discard, nil, reports.Format(f)), "nothing measured")
	}
}

func TestThroughputInReports(t *testing.T) {
	r := sample(t, nil)
	r.Throughput = speeds()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON(t, r)))
	require.NoError(t, err)
	require.NoError(t, schema(t).Validate(v))
	for f, want := range map[reports.Format]string{
		reports.FormatText:     "\nThroughput\n\nnetwork",
		reports.FormatMarkdown: "\n## Throughput\n\n| network |",
		reports.FormatHTML:     `<section id="throughput">`,
	} {
		var b bytes.Buffer
		require.NoError(t, reports.Write(&b, r, f))
		require.Contains(t, b.String(), want, f)
		require.Contains(t, b.String(), "2 of 22 layers do not run in INT8: CaskPooling gap (FP32), LRN norm1 (FP32)", f)
		require.Contains(t, b.String(), "4.00", f)
	}
	var b bytes.Buffer
	require.NoError(t, reports.Write(&b, r, reports.FormatHTML))
	require.Equal(t, 2, strings.Count(b.String(), "as in the table\"></div></figure>")-1, "bars of accuracy, of throughput, and the scaling line")
}

func TestThroughputPlots(t *testing.T) {
	rs := speeds()
	bars, err := reports.ThroughputPlot(rs)
	require.NoError(t, err)
	texts := svgTexts(t, bars)
	for _, s := range []string{"images/s at batch 128", "alexnet", "weak|net", "FP32", "FP16", "INT8", "2500"} {
		require.Contains(t, texts, s)
	}
	lines, err := reports.ScalingPlot(rs)
	require.NoError(t, err)
	texts = svgTexts(t, lines)
	require.Contains(t, texts, "alexnet INT8")
	require.Contains(t, texts, "ideal")
	require.NotContains(t, texts, "alexnet FP32", "it was measured on one GPU only")
	again, err := reports.ScalingPlot(rs)
	require.NoError(t, err)
	require.Equal(t, lines, again)

	none, err := reports.ScalingPlot(rs[:6])
	require.NoError(t, err)
	require.Nil(t, none)
	none, err = reports.ThroughputPlot(nil)
	require.NoError(t, err)
	require.Nil(t, none)
}

// svgTexts are the texts of a well-formed SVG.
func svgTexts(t *testing.T, data []byte) []string {
	t.Helper()
	var out []string
	d := xml.NewDecoder(bytes.NewReader(data))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		if c, ok := token.(xml.CharData); ok && strings.TrimSpace(string(c)) != "" {
			out = append(out, strings.TrimSpace(string(c)))
		}
	}
}

// TestThroughputTellsRowsApart: what is not the same in all figures has a column.
func TestThroughputTellsRowsApart(t *testing.T) {
	rs := speeds()
	var b bytes.Buffer
	require.NoError(t, reports.Throughput(&b, rs, reports.FormatText))
	for _, column := range []string{"settings", "ranges ", "in flight"} {
		require.NotContains(t, strings.SplitN(b.String(), "\n", 2)[0], column)
	}
	other := rs[len(rs)-1]
	other.Settings, other.Ranges, other.Parallel = "builder optimisation level 1", "cache x", 7*other.Devices
	rs = rs.Add(other)
	b.Reset()
	require.NoError(t, reports.Throughput(&b, rs, reports.FormatText))
	header := strings.SplitN(b.String(), "\n", 2)[0]
	for _, column := range []string{"settings", "ranges ", "in flight"} {
		require.Contains(t, header, column)
	}
	require.Regexp(t, `builder optimisation level 1 +cache x +7 `, b.String())
}
