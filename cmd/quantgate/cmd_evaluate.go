package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/pipeline"
)

func newEvaluateCmd(a *app) *cobra.Command {
	var (
		job        jobFlags
		policy     policyFlags
		stop       stopFlags
		page       pageFlags
		base       string
		candidates []string
		asJSON     bool
		exitZero   bool
		defaults   bool
	)
	cmd := &cobra.Command{
		Use:   "evaluate --base FILE --candidate NAME=FILE ...",
		Short: "Score given models against a base, and decide",
		Long: `evaluate scores models that were made elsewhere, or by calibrate, on the same images as a base model, and decides
whether the loss is within --max-loss. All images are scored, except those that calibrated a candidate as the manifest
beside it tells. The verdict stands on --primary, which names a candidate where there are several.

A candidate with QuantizeLinear/DequantizeLinear pairs of int8 computes in integers between them, on every machine; how it was
put to the engine is in manifest.json. ONNX Runtime's default session computes most of such a model in float32 on x86, and none
on ARM: --engine-defaults scores what it gives here.`,
		Example: `  quantgate evaluate --base resnet50.onnx --candidate int8=resnet50.int8.onnx --images val/ --labels val.txt --preset imagenet
  quantgate evaluate --base a.onnx --candidate pruned=b.onnx --candidate int8=c.onnx --primary int8:top1 --images val/ --labels val.txt`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if base == "" {
				return errors.New("no base given: name the model to compare with by --base FILE")
			}
			p, err := policy.policy()
			if err != nil {
				return err
			}
			job.models = []string{base}
			apply := func(j *pipeline.Job) error {
				j.EngineDefaults = defaults
				j.Candidates, err = parseCandidates(candidates)
				return err
			}
			if err := page.load(); err != nil {
				return err
			}
			return a.profiled(job.profile, func() error {
				result, err := work(cmd.Context(), a, &job, stop.apply(p, decidable(p, apply)), page.pictured(p, pipeline.Evaluate))
				if err != nil {
					return err
				}
				return conclude(a, result, p, &page, asJSON, exitZero)
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&base, "base", "", "ONNX model to compare with")
	fs.StringArrayVar(&candidates, "candidate", nil, "NAME=FILE: ONNX model to score, and what to call it (repeatable)")
	fs.BoolVar(&defaults, "engine-defaults", false, "run Q/DQ candidates as the engine's default session does, instead of in integers throughout")
	fs.BoolVar(&asJSON, "json", false, "print report.json instead of the table")
	fs.BoolVar(&exitZero, "exit-zero", false, "exit 0 whatever the verdict; errors still exit 1")
	job.register(fs)
	_ = fs.MarkHidden("calib-batches") // a configuration file may hold it for run; nothing is calibrated here
	policy.register(fs)
	stop.register(fs)
	page.register(fs)
	completeFlags(cmd)
	return cmd
}

// parseCandidates reads NAME=FILE.
func parseCandidates(args []string) ([]pipeline.Candidate, error) {
	var out []pipeline.Candidate
	for _, s := range args {
		name, file, ok := strings.Cut(s, "=")
		if !ok || name == "" || file == "" {
			return nil, fmt.Errorf("--candidate %q: use NAME=FILE, such as int8=model.int8.onnx", s)
		}
		out = append(out, pipeline.Candidate{Name: name, Path: file})
	}
	if len(out) == 0 {
		return nil, errors.New("no candidate given: name at least one by --candidate NAME=FILE")
	}
	return out, nil
}
