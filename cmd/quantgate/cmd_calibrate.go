package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/pipeline"
)

func newCalibrateCmd(a *app) *cobra.Command {
	var (
		job    jobFlags
		calib  calibFlags
		config string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "calibrate",
		Short: "Make the calibration cache and the INT8 and FP16 models, without scoring",
		Long: `calibrate feeds the first --calib-batches batches to the FP32 model, chooses the range of every tensor, and writes
  <out>/<model>.<method>.cache        a calibration cache with TensorRT's entries, names and order (trtexec --calib=)
  <out>/<model>.histograms.csv.gz     the counts that the thresholds were chosen from
  <out>/<model>.int8.onnx             explicit quantization: QuantizeLinear/DequantizeLinear pairs
  <out>/<model>.fp16.onnx             float16, with float32 inputs and outputs
  <out>/manifest.json                 what it was made from, and which images calibrated

With --use-cache it writes the models from an existing cache. The model files given are only read.`,
		Example: `  quantgate calibrate --model resnet50.onnx --images val/ --labels val.txt --preset imagenet --resize 256
  quantgate calibrate --model resnet50.onnx --images val/ --labels val.txt --method entropy-stable --cache resnet50.cache
  trtexec --onnx=resnet50.onnx --int8 --calib=quantgate-out/resnet50.entropy.cache`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := job.useConfig(config, cmd.Flags()); err != nil {
				return err
			}
			return a.profiled(job.profile, func() error {
				result, err := work(cmd.Context(), a, &job, calib.apply, pipeline.Calibrate)
				if err != nil {
					return err
				}
				if err := printCalibrations(a, result, asJSON); err != nil {
					return fmt.Errorf("write the result: %w", err)
				}
				a.wrote(result.Files)
				a.took(result)
				return nil
			})
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&job.models, "model", nil, "ONNX model to work on (repeatable)")
	fs.StringVarP(&config, "config", "c", "", "YAML file with these settings; flags win over it")
	fs.BoolVar(&asJSON, "json", false, "print the result as JSON")
	job.register(fs)
	calib.register(fs)
	completeFlags(cmd)
	return cmd
}

// calibrated is what calibrate prints of one model.
type calibrated struct {
	Model   string   `json:"model"`
	Method  string   `json:"method"`
	Images  int      `json:"images"`
	Tensors int      `json:"tensors"`
	Cache   string   `json:"cache,omitempty"`
	INT8    string   `json:"int8,omitempty"`
	FP16    string   `json:"fp16,omitempty"`
	Float   []string `json:"int8_left_in_float"`
}

func printCalibrations(a *app, result *pipeline.Result, asJSON bool) error {
	var rows []calibrated
	for i, m := range result.Models {
		entry := result.Manifest.Models[i]
		row := calibrated{Model: m.Name, Method: result.Manifest.Calibration.Method, Float: []string{}}
		if m.Calibration != nil {
			row.Images, row.Tensors = m.Calibration.Images, len(m.Calibration.Cache.Table.Entries)
		}
		for f, to := range map[*pipeline.ManifestFile]*string{entry.Cache: &row.Cache, entry.INT8: &row.INT8, entry.FP16: &row.FP16} {
			if f != nil {
				*to = f.File
			}
		}
		if m.QDQ != nil {
			for _, n := range m.QDQ.Nodes {
				if !n.Reduced && !n.Follows {
					row.Float = append(row.Float, n.Node)
				}
			}
		}
		rows = append(rows, row)
	}
	if asJSON {
		return printJSON(a.stdout, rows)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "model\tmethod\timages\ttensors\tleft in float\tcache")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\n", r.Model, r.Method, r.Images, r.Tensors, len(r.Float), r.Cache)
	}
	return w.Flush()
}
