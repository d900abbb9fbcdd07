package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/internal/ui"
)

// requireValidCommands parses every quantgate command among the lines: its verb exists, and so do its flags.
func requireValidCommands(t *testing.T, script string) (commands int) {
	t.Helper()
	for _, line := range strings.Split(strings.ReplaceAll(script, "\\\n", " "), "\n") {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "quantgate ") {
			continue
		}
		line, _, _ = strings.Cut(line, ">")
		args := strings.Fields(strings.ReplaceAll(line, `"`, ""))[1:]
		root := newRootCmd(&app{stdin: strings.NewReader(""), stdout: io.Discard, ui: ui.New(io.Discard)})
		cmd, rest, err := root.Find(args)
		require.NoError(t, err, line)
		require.NotEqual(t, root, cmd, line)
		require.NoError(t, cmd.ParseFlags(rest), line)
		require.NoError(t, cmd.ValidateArgs(cmd.Flags().Args()), line)
		commands++
	}
	return commands
}

func TestWorkflowExample(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "ci", "github-workflow.yml"))
	require.NoError(t, err)
	var w struct {
		Name        string
		On          map[string]any
		Permissions map[string]string
		Jobs        map[string]struct {
			RunsOn  any               `yaml:"runs-on"`
			Timeout int               `yaml:"timeout-minutes"`
			Env     map[string]string `yaml:"env"`
			Needs   string
			Steps   []struct {
				Name, Uses, Run, If string
				With                map[string]any
			}
		}
	}
	require.NoError(t, yaml.NewDecoder(bytes.NewReader(data), yaml.DisallowUnknownField()).Decode(&w))
	require.Contains(t, w.On, "pull_request")
	commands := 0
	for name, job := range w.Jobs {
		require.NotNil(t, job.RunsOn, name)
		for _, s := range job.Steps {
			require.NotEqual(t, s.Uses == "", s.Run == "", "%s: a step either uses or runs", name)
			commands += requireValidCommands(t, s.Run)
		}
	}
	require.Equal(t, 5, commands)
}

func TestReportsDocument(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "REPORTS.md"))
	require.NoError(t, err)
	require.Equal(t, 4, requireValidCommands(t, string(data)))
	info, err := os.Stat(filepath.Join("..", "..", "docs", "images", "report.png"))
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(400_000))
}

// The example policy is one that gate takes.
func TestPolicyExample(t *testing.T) {
	cmd := newGateCmd(&app{stdout: io.Discard, ui: ui.New(io.Discard)})
	_, err := readConfig(filepath.Join("..", "..", "docs", "ci", "quantgate.yaml"), cmd.Flags())
	require.NoError(t, err)
	require.Equal(t, "int8:top1", cmd.Flag("primary").Value.String())
}
