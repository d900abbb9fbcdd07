package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/accuracy"
)

func newOutcomesCmd(a *app) *cobra.Command {
	var (
		base, labels, out, name string
		candidates              []string
		read                    accuracy.PredictionsOptions
		classOffset             int
	)
	cmd := &cobra.Command{
		Use:   "outcomes --base FILE --candidate [NAME=]FILE ... --labels FILE",
		Short: "Make an outcomes file of predictions from any deployment",
		Long: `outcomes pairs predictions that were made elsewhere, by TFLite, OpenVINO, Core ML, TensorRT or anything else, with the true
classes, and writes an outcomes file, which gate, report and compare take. All files hold the same images in the same order.

Predictions are logits (or probabilities), a row an image, or classes alone. A file is
  CSV    numbers separated by commas, semicolons, tabs or blanks; the first row may name the columns, and one called path, file,
         filename or image names the images
  NPY    an array of NumPy's of N or N x classes numbers
  JSON   a list of lists; an object {"output": [[...], ...]} or {"output": {"dims": [N, classes], "data": [...]}}; or what
         trtexec --exportOutput writes, a list of {"name": ..., "dimensions": "Nxclasses", "values": [...]}
A FILE with * stands for all matching files, by name, batch2 before batch10, one after another: one a batch, say.

Labels are a line an image that ends in its class, after its path if it names one, or an NPY array. Where labels and
predictions both name the images, the names must agree row by row.

Of classes alone, top-5 (unless five are given, best first), probabilities and divergences are unknown: gate on top-1.`,
		Example: `  quantgate outcomes --base fp32.npy --candidate int8=tflite.npy --labels val.txt --out outcomes.csv.gz
  quantgate outcomes --base fp32.csv --candidate a=a.csv --candidate b=b.csv --labels labels.npy
  quantgate outcomes --base fp32.npy --candidate 'int8=trt/batch*.json' --labels val.txt && quantgate gate outcomes.csv.gz`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if base == "" || labels == "" || len(candidates) == 0 {
				return errors.New("give --base FILE, at least one --candidate [NAME=]FILE, and --labels FILE")
			}
			truth, err := readLabels(labels)
			if err != nil {
				return err
			}
			precisions := []string{"base"}
			all := make([]*accuracy.Predictions, 1, 1+len(candidates))
			if all[0], err = readPredictions(base, read); err != nil {
				return err
			}
			for _, c := range candidates {
				label, file, named := strings.Cut(c, "=")
				if !named {
					label, file = "candidate", c
				}
				if label == "" || file == "" || slices.Contains(precisions, label) {
					return fmt.Errorf("--candidate %q: name every candidate once, as NAME=FILE, and none base", c)
				}
				p, err := readPredictions(file, read)
				if err != nil {
					return err
				}
				precisions, all = append(precisions, label), append(all, p)
			}
			if name == "" {
				name = strings.TrimSuffix(filepath.Base(base), filepath.Ext(base))
			}
			o, err := truth.Score(name, precisions, all, classOffset)
			if err != nil {
				return err
			}
			for i, p := range all {
				if p.Classes != nil {
					a.ui.Warnf("%s: classes only: probabilities and divergences are unknown, and a label beyond the %d given counts as wrong at top-1 and at top-5", precisions[i], p.Width)
				}
			}
			var b bytes.Buffer
			if err := accuracy.WriteOutcomes(&b, o); err != nil {
				return err
			}
			if err := renameio.WriteFile(out, b.Bytes(), 0o644); err != nil {
				return fmt.Errorf("write %s: %w", out, err)
			}
			a.wrote([]string{out})
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&base, "base", "", "predictions of the model to compare with")
	fs.StringArrayVar(&candidates, "candidate", nil, "[NAME=]FILE: predictions to judge, and what to call them (repeatable)")
	fs.StringVar(&labels, "labels", "", "true classes")
	fs.StringVar(&out, "out", "outcomes.csv.gz", "outcomes file to write")
	fs.StringVar(&name, "name", "", "what to call the model (default: the base's file name)")
	fs.StringVar(&read.Kind, "kind", "auto", "what the files hold: logits, classes, or auto: one whole number an image is a class")
	fs.StringVar(&read.Output, "output", "", "tensor to take from a JSON file of several")
	fs.IntVar(&classOffset, "class-offset", 0, "class = output - N; outputs below N are dropped before ranking (1 for models with a background class)")
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"auto", "logits", "classes"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func readLabels(file string) (*accuracy.Labels, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read labels: %w", err)
	}
	defer f.Close()
	return accuracy.ReadLabels(f, file)
}

// readPredictions reads a file, or all files of a pattern one after another.
func readPredictions(pattern string, o accuracy.PredictionsOptions) (*accuracy.Predictions, error) {
	files := []string{pattern}
	if strings.Contains(pattern, "*") {
		var err error
		if files, err = filepath.Glob(pattern); err != nil {
			return nil, fmt.Errorf("%s: %w", pattern, err)
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%s: no such files", pattern)
		}
		slices.SortFunc(files, byNumbers)
	}
	var all *accuracy.Predictions
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read predictions: %w", err)
		}
		p, err := accuracy.ReadPredictions(f, file, o)
		_ = f.Close() // it was only read
		switch {
		case err != nil:
			return nil, err
		case all == nil:
			all = p
		default:
			if err := all.Append(p); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return all, nil
}

// byNumbers orders names as people do: runs of digits by their value.
func byNumbers(a, b string) int {
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x == "" || y == "" {
			if a[0] != b[0] {
				return int(a[0]) - int(b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		a, b = a[len(x):], b[len(y):]
		x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		if len(x) != len(y) {
			return len(x) - len(y)
		}
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
	}
	return len(a) - len(b)
}

// digits is the run of digits that s starts with.
func digits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}
