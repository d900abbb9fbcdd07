package reports_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
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

func printed(t *testing.T, rs bench.Results, f reports.Format) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, reports.Throughput(&b, rs, f))
	return b.String()
}

// TestThroughputOfSeveralEngines: of engines that differ in options the table shows those, and a note the whole.
func TestThroughputOfSeveralEngines(t *testing.T) {
	engine := "tensorrt 8.6.1 on GPU X, no TF32"
	rs := speeds()[:3] // alexnet on one GPU
	with := func(r bench.Result, engine string, v float64) {
		r.Engine, r.Compute = engine, &bench.Rate{Median: v, Min: v, Max: v}
		rs = rs.Add(r)
	}
	with(rs[2], engine+", INT8 with FP16, tactic sources -CUBLAS", 5000)
	with(rs[0], engine+", tactic sources -CUBLAS", 1250)
	with(rs[2], engine+", INT8 with FP16", 6000)
	rs.Sort()
	text := printed(t, rs, reports.FormatText)
	require.Equal(t, []string{
		"network precision engine batch GPUs images/s least most speed-up",
		"alexnet FP32 - 128 1 1000 990.0 1010 1.00",
		"alexnet FP16 - 128 1 2000 1980 2020 2.00",
		"alexnet INT8 - 128 1 4000 3960 4040 4.00",
		"alexnet INT8 with FP16 - 128 1 6000 6000 6000 6.00",
		"alexnet FP32 tactic sources -CUBLAS 128 1 1250 1250 1250 1.00",
		"alexnet INT8 with FP16 tactic sources -CUBLAS 128 1 5000 5000 5000 4.00",
	}, firstCells(text, "speed-up"))
	for f, note := range map[reports.Format]string{reports.FormatText: "note: ", reports.FormatMarkdown: "- "} {
		text := printed(t, rs, f)
		require.Equal(t, 1, strings.Count(text, note+"GPU X: "+engine+"\n"), f)
		require.Equal(t, 1, strings.Count(text, note+"GPU X: "+engine+", tactic sources -CUBLAS\n"), f)
		require.Equal(t, 2, strings.Count(text, "no TF32"), "%s: nothing repeats it in each row", f)
	}
	require.Contains(t, printed(t, rs, reports.FormatMarkdown), "\n| alexnet | INT8 with FP16 | tactic sources -CUBLAS | 128 |")
	r := sample(t, nil)
	r.Throughput = rs
	var b bytes.Buffer
	require.NoError(t, reports.Write(&b, r, reports.FormatHTML))
	require.Contains(t, b.String(), ">tactic sources -CUBLAS<")
	require.Equal(t, 2, strings.Count(b.String(), "GPU X, no TF32"), "in two notes")

	bars, err := reports.ThroughputPlot(rs)
	require.NoError(t, err)
	texts := svgTexts(t, bars)
	for _, s := range []string{"FP32", "INT8", "INT8 with FP16"} {
		require.Contains(t, texts, s, "bars of the first engine")
	}

	// Another version and another device.
	other := rs[0]
	other.Device, other.Engine = "GPU Y", "tensorrt 10.0.1 on GPU Y"
	text = printed(t, rs[:1].Add(other), reports.FormatText)
	require.Regexp(t, `(?m)^alexnet +FP32 +GPU X +tensorrt 8\.6\.1, no TF32 +128 `, text)
	require.Regexp(t, `(?m)^alexnet +FP32 +GPU Y +tensorrt 10\.0\.1 +128 `, text)
	other.Engine = rs[0].Engine[:strings.Index(rs[0].Engine, "GPU X")] + "GPU Y, no TF32"
	require.NotContains(t, strings.SplitN(printed(t, rs[:1:1].Add(other), reports.FormatText), "\n", 2)[0], "engine", "the device has a column")
}

// firstCells are the lines of a table up to a column, with single spaces.
func firstCells(text, column string) []string {
	table, _, _ := strings.Cut(text, "\n\n")
	end := strings.Index(table, column) + len(column)
	var out []string
	for _, line := range slices.Delete(strings.Split(table, "\n"), 1, 2) { // without the rule
		out = append(out, strings.Join(strings.Fields(line[:end]), " "))
	}
	return out
}

// TestThroughputOfModelsOfOneName: models of one name and other bytes are told apart in the table, its notes and the plots.
func TestThroughputOfModelsOfOneName(t *testing.T) {
	rs := speeds()
	one := rs[len(rs)-1] // alexnet INT8 on two GPUs
	for _, r := range []bench.Result{rs[0], rs[2], one} {
		r.ModelSHA256 = "0123456789"
		c := bench.Rate{Median: r.Compute.Median / 2, Min: 1, Max: 9999}
		if r.Devices == 2 {
			c.Median = 3000 // of 2 * 2000
		}
		r.Compute = &c
		rs = rs.Add(r)
	}
	text := printed(t, rs, reports.FormatText)
	require.Regexp(t, `(?m)^alexnet \(aaaaaa\) +INT8 +128 +2 +7600 `, text)
	require.Regexp(t, `(?m)^alexnet \(012345\) +INT8 +128 +2 +3000 `, text)
	require.Contains(t, text, "note: alexnet (aaaaaa), weak|net, alexnet (012345): INT8 ranges from random images: for speed only\n")
	require.Contains(t, text, "note: alexnet (012345) INT8, batch 128: 2 of 22 layers do not run in INT8")

	bars, err := reports.ThroughputPlot(rs)
	require.NoError(t, err)
	for _, s := range []string{"alex… (aaaaaa)", "alex… (012345)", "weak|net"} {
		require.Contains(t, svgTexts(t, bars), s)
	}
	lines, err := reports.ScalingPlot(rs)
	require.NoError(t, err)
	texts := svgTexts(t, lines)
	require.Contains(t, texts, "alexnet (aaaaaa) INT8")
	require.Contains(t, texts, "alexnet (012345) INT8")

	// Names that are alike where they are cut off are other models all the same.
	rs = speeds()[:6]
	for i := range rs {
		rs[i].Model = "mobilenet_v3_" + rs[i].Model
	}
	bars, err = reports.ThroughputPlot(rs)
	require.NoError(t, err)
	names := slices.DeleteFunc(svgTexts(t, bars), func(s string) bool { return s != "mobilenet_v3_…" })
	require.Len(t, names, 2)

	// Lines of one model in two settings are two as well.
	rs = speeds()
	for _, r := range []bench.Result{rs[2], rs[len(rs)-1]} {
		r.Settings = "workspace 64"
		rs = rs.Add(r)
	}
	lines, err = reports.ScalingPlot(rs)
	require.NoError(t, err)
	texts = svgTexts(t, lines)
	require.Contains(t, texts, "alexnet INT8")
	require.Contains(t, texts, "alexnet INT8, settings workspace 64")
}

// TestThroughputTellsOfSlowINT8: AlexNet on an H100, whose grouped conv2 TensorRT 8.6.1 has no INT8 kernel for.
func TestThroughputTellsOfSlowINT8(t *testing.T) {
	rs := speeds()[:3]
	set := func(r *bench.Result, v float64) { r.Compute = &bench.Rate{Median: v, Min: v, Max: v} }
	set(&rs[1], 110707)
	set(&rs[2], 45817)
	rs[2].Layers, rs[2].Float = map[string]int{"int8": 9, "fp32": 1}, []bench.FloatLayer{{Name: "conv2", Type: "CaskGroupConvolution", Precision: "fp32"}}
	const slow = "note: alexnet INT8, batch 128: slower than FP16 (45817 images/s against 110707); 1 of 10 layers do not run in INT8: CaskGroupConvolution conv2 (FP32)"
	require.Contains(t, printed(t, rs, reports.FormatText), slow+"; --int8-fp16 lets those in FP32 run in FP16\n")

	quick := rs[2]
	quick.Engine += ", INT8 with FP16"
	quick.Float = []bench.FloatLayer{{Name: "conv2", Precision: "fp16"}}
	set(&quick, 131166)
	text := printed(t, append(rs[:3:3], quick), reports.FormatText)
	require.Contains(t, text, slow+"\n", "the flag was given already")
	require.Contains(t, text, "note: alexnet INT8 with FP16, batch 128: 1 of 10 layers do not run in INT8: conv2 (FP16)\n")
	set(&quick, 100000)
	require.Contains(t, printed(t, append(rs[:2:2], quick), reports.FormatText),
		"note: alexnet INT8 with FP16, batch 128: slower than FP16 (100000 images/s against 110707); 1 of 10 layers do not run in INT8: conv2 (FP16)\n")

	rs[2].Layers, rs[2].Float = nil, nil
	require.Contains(t, printed(t, rs, reports.FormatText), "note: alexnet INT8, batch 128: slower than FP16 (45817 images/s against 110707)\n", "what its layers run in is not known")
	set(&rs[2], 110708)
	require.NotContains(t, printed(t, rs, reports.FormatText), "slower")
}
