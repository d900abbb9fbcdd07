package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/reports"
)

func newGateCmd(a *app) *cobra.Command {
	var policy policyFlags
	var asJSON, exitZero bool
	var summary, config string
	cmd := &cobra.Command{
		Use:   "gate OUTCOMES",
		Short: "Decide from an outcomes file whether the loss is small enough",
		Long: `gate reads an outcomes file, outcomes.csv.gz of a run, and decides each model's loss against the margin.
It needs no model, no images and no engine. The exit code is the worst verdict: 0 pass, 4 inconclusive, 3 fail.

The verdict stands on a score interval of the paired loss (Tango 1998): the model passes when the interval's worse end
is within the margin, fails when its better end is beyond it, and is inconclusive otherwise. One look decides, INT8's
top-1 unless --primary says otherwise; the others, corrected for their number (Holm), only warn unless --gate-all.

With -c the policy comes from a committed file, so that a change of the margin is reviewed like one of the code; it may be the
file that run reads:

    max-loss: 0.5pp
    confidence: 0.95
    primary: int8:top1`,
		Example: `  quantgate gate quantgate-out/outcomes.csv.gz
  quantgate gate --max-loss 1%rel --primary fp16:top1 quantgate-out/outcomes.csv.gz
  quantgate gate -c quantgate.yaml quantgate-out/outcomes.csv.gz
  quantgate gate --json quantgate-out/outcomes.csv.gz > verdict.json
  quantgate gate --summary "$GITHUB_STEP_SUMMARY" quantgate-out/outcomes.csv.gz`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if config != "" {
				if _, err := readConfig(config, cmd.Flags()); err != nil {
					return err
				}
			}
			r, err := policy.judge(args[0])
			if err != nil {
				return err
			}
			if r.Verdict == accuracy.None {
				return fmt.Errorf("%s: only a base was scored: a verdict needs a candidate beside it", args[0])
			}
			for _, w := range r.Warnings {
				a.ui.Warnf("%s", w)
			}
			if summary != "" {
				if err := appendSummary(summary, r); err != nil {
					return err
				}
			}
			if asJSON {
				err = reports.JSON(a.stdout, r)
			} else {
				err = reports.Verdict(a.stdout, r)
			}
			if err != nil {
				return fmt.Errorf("write the verdict: %w", err)
			}
			return verdictError(r.Verdict, exitZero)
		},
	}
	policy.register(cmd.Flags())
	cmd.Flags().StringVarP(&config, "config", "c", "", "YAML file with the policy, which may be run's; flags win over it")
	cmd.Flags().StringVar(&summary, "summary", "", "append the report as Markdown to this `file`, such as a CI job's summary")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole report as JSON")
	cmd.Flags().BoolVar(&exitZero, "exit-zero", false, "exit 0 whatever the verdict; errors still exit 1")
	return cmd
}

// appendSummary adds the report to a job summary, which other steps write to as well.
func appendSummary(path string, r *reports.Report) error {
	var b bytes.Buffer
	if err := reports.Markdown(&b, r); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("--summary: %w", err)
	}
	if _, err := b.WriteTo(f); err != nil {
		return errors.Join(fmt.Errorf("--summary: %w", err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("--summary: %w", err)
	}
	return nil
}
