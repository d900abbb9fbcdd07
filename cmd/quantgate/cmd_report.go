package main

import (
	"bytes"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/reports"
)

func newReportCmd(a *app) *cobra.Command {
	var policy policyFlags
	var format string
	cmd := &cobra.Command{
		Use:   "report OUTCOMES",
		Short: "Print the accuracy tables of an outcomes file",
		Long: `report reads an outcomes file, outcomes.csv.gz of a run, and prints accuracy, losses with their intervals, and the
verdict by the given policy. It needs no model, no images and no engine. It exits 0 whatever the verdict; gate is the
verb whose exit code tells.`,
		Example: `  quantgate report quantgate-out/outcomes.csv.gz
  quantgate report --format markdown quantgate-out/outcomes.csv.gz >> "$GITHUB_STEP_SUMMARY"
  quantgate report --format csv --max-loss 1pp quantgate-out/outcomes.csv.gz`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := reports.ParseFormat(format)
			if err != nil {
				return fmt.Errorf("--format: %w", err)
			}
			r, err := policy.judge(args[0])
			if err != nil {
				return err
			}
			var b bytes.Buffer
			if err := reports.Write(&b, r, f); err != nil {
				return err
			}
			if _, err := b.WriteTo(a.stdout); err != nil {
				return fmt.Errorf("write the report: %w", err)
			}
			return nil
		},
	}
	policy.register(cmd.Flags())
	cmd.Flags().StringVar(&format, "format", string(reports.FormatText), "text, markdown, csv, json or junit")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(reports.Formats(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
