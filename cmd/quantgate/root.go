package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/internal/ui"
)

// Exit codes. 2 stays the Go runtime's (a panic).
const (
	exitPass         = 0
	exitError        = 1
	exitFailed       = 3
	exitInconclusive = 4
	exitInterrupted  = 130
)

// The verdicts travel as errors so that one switch decides the exit code.
var (
	errGateFailed   = errors.New("gate failed")
	errInconclusive = errors.New("gate inconclusive")
)

// app carries what every verb needs: its streams and its way of speaking to the user.
type app struct {
	stdin  io.Reader
	stdout io.Writer // results only
	ui     *ui.UI    // everything else, on stderr

	command []string // the command line, for manifests

	quiet   bool
	verbose bool
}

// run executes one command line and returns the process's exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once

	a := &app{stdin: stdin, stdout: stdout, ui: ui.New(stderr), command: append([]string{"quantgate"}, args...)}
	root := newRootCmd(a)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return exitCode(ctx, a, root.ExecuteContext(ctx))
}

// exitCode reports err on stderr and maps it to the process's exit code.
func exitCode(ctx context.Context, a *app, err error) int {
	line := func() string { return strings.Join(strings.Split(err.Error(), "\n"), "; ") } // several errors that came together
	switch {
	case err == nil:
		return exitPass
	case errors.Is(err, errGateFailed):
		return exitFailed
	case errors.Is(err, errInconclusive):
		return exitInconclusive
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		a.ui.Errorf("interrupted: %s", line())
		return exitInterrupted
	default:
		a.ui.Errorf("%s", line())
		return exitError
	}
}

func newRootCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quantgate",
		Short: "Calibrate, score and gate INT8 and FP16 image classifiers",
		Long: `quantgate calibrates an image classifier for INT8, scores FP32, FP16 and INT8 on a
labelled validation set, and says whether the loss is small enough to release.

Exit codes: 0 pass, 1 error, 3 gate failed, 4 inconclusive, 130 interrupted.
Results go to stdout, everything else to stderr.`,
		Example: `  quantgate run --model resnet50.onnx --images ILSVRC2012_img_val.tar --labels val.txt --preset imagenet --resize 256
  quantgate gate --max-loss 0.3pp quantgate-out/outcomes.csv.gz`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.quiet && a.verbose {
				return fmt.Errorf("--quiet and --verbose exclude each other: give one")
			}
			a.ui.SetLevel(a.quiet, a.verbose)
			return nil
		},
	}
	cmd.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "print errors and results only, no progress or notes")
	cmd.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "print more about what is done and why")
	cmd.AddCommand(
		newRunCmd(a),
		newCalibrateCmd(a),
		newEvaluateCmd(a),
		newGateCmd(a),
		newReportCmd(a),
		newOutcomesCmd(a),
		newPlanCmd(a),
		newCompareCmd(a),
		newCacheCmd(a),
		newDatasetCmd(a),
		newModelCmd(a),
		newBenchCmd(a),
		newDevicesCmd(a),
		newDoctorCmd(a),
		newVersionCmd(a),
	)
	return cmd
}
