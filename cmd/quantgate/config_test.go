package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// parseConfig reads a configuration as run does, after the flags of the command line.
func parseConfig(t *testing.T, yaml string, args ...string) (*jobFlags, *policyFlags, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "quantgate.yaml")
	require.NoError(t, os.WriteFile(path, []byte(yaml), 0o644))
	var job jobFlags
	var policy policyFlags
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	fs.StringArrayVar(&job.models, "model", nil, "")
	fs.StringP("config", "c", "", "")
	job.register(fs)
	policy.register(fs)
	require.NoError(t, fs.Parse(args))
	return &job, &policy, job.useConfig(path, fs)
}

func TestConfig(t *testing.T) {
	job, policy, err := parseConfig(t, `
# a comment
images: /data/val
labels: val.txt
mean: [0.485, 0.456, 0.406]
batch-size: 50
max-loss: 0.3pp
resume: true
model:
  - a.onnx
  - file: b.onnx
    preset: tf
    class-offset: 1
`, "--batch-size", "10")
	require.NoError(t, err)
	require.Equal(t, []string{"a.onnx", "b.onnx"}, job.models)
	require.Equal(t, map[string]string{"preset": "tf", "class-offset": "1"}, job.overrides["b.onnx"])
	require.Equal(t, "0.3pp", policy.MaxLoss)
	require.True(t, job.resume)
	require.Equal(t, 10, job.data.BatchSize, "the command line wins")
	require.Equal(t, "0.485,0.456,0.406", job.data.Mean)

	own, err := job.model("b.onnx")
	require.NoError(t, err)
	require.Equal(t, 1, own.ClassOffset)
}

func TestConfigModelOnTheCommandLineWins(t *testing.T) {
	job, _, err := parseConfig(t, "model: a.onnx\n", "--model", "mine.onnx")
	require.NoError(t, err)
	require.Equal(t, []string{"mine.onnx"}, job.models)
	require.Empty(t, job.overrides)
}

func TestEmptyConfig(t *testing.T) {
	_, _, err := parseConfig(t, "# nothing here\n")
	require.NoError(t, err)
}

func TestConfigErrors(t *testing.T) {
	for name, c := range map[string]struct{ yaml, want string }{
		"unknown key":       {"images: x\nmodle: a.onnx\n", `quantgate.yaml: line 2: unknown key "modle"`},
		"config in config":  {"config: other.yaml\n", `unknown key "config"`},
		"no value":          {"images:\n", "images: has no value"},
		"wrong type":        {"batch-size: many\n", "line 1: batch-size"},
		"mapping for value": {"images: {a: b}\n", "images: is neither a value nor a list"},
		"not a mapping":     {"- a\n- b\n", "not a list of key: value"},
		"syntax":            {"images: [a\n", "read configuration"},
		"twice":             {"images: a\nimages: b\n", "images"},
		"two documents":     {"images: a\n---\nimages: b\n", "2 documents"},
		"model key":         {"model:\n  - file: a.onnx\n    batch-size: 3\n", `unknown key "batch-size" (line 3)`},
		"model file":        {"model:\n  - preset: tf\n", "an entry has no file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := parseConfig(t, c.yaml)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("images: a\nmodel:\n  - file: b\n    preset: tf\n")
	f.Add("model: [a, b]\nmean: [1,2]\n? x\n")
	f.Fuzz(func(t *testing.T, yaml string) {
		_, _, _ = parseConfig(t, yaml)
	})
}
