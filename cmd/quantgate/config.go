package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/pflag"
)

// modelKeys are the settings that a configuration file may give for one model alone.
var modelKeys = []string{
	"channel-order", "class-offset", "crop-offset", "crop-pct", "input-size", "interpolation", "mean", "output", "preset", "resize", "std",
}

// modelConfig is one entry of a configuration file's model list.
type modelConfig struct {
	file string
	own  map[string]string
}

// readConfig sets the flags that a configuration file names and the command line does not. Keys are the flags' names. Those of
// other verbs are checked and passed over, so that one file serves them all; unknown ones are errors. models are the entries of its model list, for the caller to use where no --model is given.
func readConfig(path string, fs *pflag.FlagSet) (models []modelConfig, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %s", path, oneLine(err.Error()))
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return nil, nil
	}
	if len(file.Docs) > 1 {
		return nil, fmt.Errorf("read configuration %s: holds %d documents: keep one", path, len(file.Docs))
	}
	pairs, ok := mapping(file.Docs[0].Body)
	if !ok {
		return nil, fmt.Errorf("read configuration %s: line %d: not a list of key: value", path, line(file.Docs[0].Body))
	}
	others := configKeys()
	for _, kv := range pairs {
		key := kv.Key.GetToken().Value
		fail := func(format string, args ...any) error {
			return fmt.Errorf("%s: line %d: %s", path, line(kv), fmt.Sprintf(format, args...))
		}
		if key == "model" {
			if models, err = modelList(kv.Value); err != nil {
				return nil, fail("%v", err)
			}
			continue
		}
		flags := fs
		if flags.Lookup(key) == nil {
			flags = others
		}
		flag := flags.Lookup(key)
		if flag == nil || key == "config" || key == "help" {
			return nil, fail("unknown key %q: keys are the names of the flags", key)
		}
		value, err := scalar(kv.Value)
		if err != nil {
			return nil, fail("%s: %v", key, err)
		}
		if flag.Changed {
			continue // the command line wins
		}
		if err := flags.Set(key, value); err != nil {
			return nil, fail("%s: %v", key, err)
		}
	}
	return models, nil
}

// configKeys are the flags that a configuration file may set for one verb or another.
func configKeys() *pflag.FlagSet {
	var (
		job    jobFlags
		calib  calibFlags
		policy policyFlags
		stop   stopFlags
		page   pageFlags
	)
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	job.register(fs)
	calib.register(fs)
	policy.register(fs)
	stop.register(fs)
	page.register(fs)
	fs.Bool("json", false, "")
	fs.Bool("exit-zero", false, "")
	return fs
}

// modelList reads a file name, or a list whose entries are file names or mappings with the key file and a model's own settings.
func modelList(n ast.Node) ([]modelConfig, error) {
	entries := []ast.Node{n}
	if seq, ok := n.(*ast.SequenceNode); ok {
		entries = seq.Values
	}
	var out []modelConfig
	for _, e := range entries {
		pairs, ok := mapping(e)
		if !ok {
			file, err := scalar(e)
			if err != nil {
				return nil, fmt.Errorf("model: %w", err)
			}
			out = append(out, modelConfig{file: file})
			continue
		}
		m := modelConfig{own: map[string]string{}}
		for _, kv := range pairs {
			key := kv.Key.GetToken().Value
			value, err := scalar(kv.Value)
			switch {
			case err != nil:
				return nil, fmt.Errorf("model: %s: %w", key, err)
			case key == "file":
				m.file = value
			case slices.Contains(modelKeys, key):
				m.own[key] = value
			default:
				return nil, fmt.Errorf("model: unknown key %q (line %d): use file, %s", key, line(kv), strings.Join(modelKeys, ", "))
			}
		}
		if m.file == "" {
			return nil, fmt.Errorf("model: an entry has no file")
		}
		out = append(out, m)
	}
	return out, nil
}

// mapping returns the pairs of a mapping node.
func mapping(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// scalar returns a value as the command line would spell it; a list of scalars is joined by commas.
func scalar(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.NullNode:
		return "", fmt.Errorf("has no value")
	case *ast.SequenceNode:
		parts := make([]string, len(n.Values))
		for i, v := range n.Values {
			s, err := scalar(v)
			if err != nil {
				return "", err
			}
			parts[i] = s
		}
		return strings.Join(parts, ","), nil
	case *ast.StringNode:
		return n.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	}
	return "", fmt.Errorf("is neither a value nor a list of values")
}

func line(n ast.Node) int { return n.GetToken().Position.Line }

// oneLine squeezes a parser's message, which draws the source below it, to its first line.
func oneLine(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first
}

// useConfig reads the configuration file, if one is named, into the flags.
func (f *jobFlags) useConfig(path string, fs *pflag.FlagSet) error {
	if path == "" {
		return nil
	}
	models, err := readConfig(path, fs)
	if err != nil || len(f.models) > 0 {
		return err
	}
	f.overrides = map[string]map[string]string{}
	for _, m := range models {
		f.models = append(f.models, m.file)
		f.overrides[m.file] = maps.Clone(m.own)
	}
	return nil
}
