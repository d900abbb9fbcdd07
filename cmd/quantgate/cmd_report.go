package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/pipeline"
	"github.com/quantgate/quantgate/reports"
)

func newReportCmd(a *app) *cobra.Command {
	var (
		policy policyFlags
		page   pageFlags
		source dataset.Options
		format string
	)
	cmd := &cobra.Command{
		Use:   "report OUTCOMES",
		Short: "Print the accuracy tables of an outcomes file",
		Long: `report reads an outcomes file, outcomes.csv.gz of a run, and prints accuracy, losses with their intervals, and the
verdict by the given policy. It needs no model, no images and no engine. It exits 0 whatever the verdict; gate is the
verb whose exit code tells.

--bench FILE adds what quantgate bench measured of the same models, so that what INT8 costs stands beside what it buys.

--format html prints a self-contained page. It shows the run's thresholds and histograms where the run's other files lie
beside the outcomes, and pictures of the images whose class changed where --images names what was scored.`,
		Example: `  quantgate report quantgate-out/outcomes.csv.gz
  quantgate report --format markdown quantgate-out/outcomes.csv.gz >> "$GITHUB_STEP_SUMMARY"
  quantgate report --format html --images val/ --labels val.txt --class-names synset_words.txt quantgate-out/outcomes.csv.gz > page.html
  quantgate report --bench quantgate-bench.json --format html quantgate-out/outcomes.csv.gz > page.html
  quantgate report --format csv --max-loss 1pp quantgate-out/outcomes.csv.gz`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := reports.ParseFormat(format)
			if err != nil {
				return fmt.Errorf("--format: %w", err)
			}
			if f != reports.FormatHTML && (source.Images != "" || source.Labels != "" || page.classNames != "") {
				return fmt.Errorf("--format %s shows no images and no class names: leave --images, --labels and --class-names out, or ask for html", f)
			}
			if err := page.load(); err != nil {
				return err
			}
			r, err := policy.judge(args[0])
			if err != nil {
				return err
			}
			m, err := manifestOf(args[0])
			if err != nil {
				return err
			}
			if err := page.addSpeeds(r, m); err != nil {
				return err
			}
			if f == reports.FormatHTML {
				if err := page.complete(cmd.Context(), r, m, args[0], source); err != nil {
					return err
				}
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
	fs := cmd.Flags()
	policy.register(fs)
	page.register(fs)
	fs.StringVar(&source.Images, "images", "", "`path` of the images that were scored, for the page's pictures")
	fs.StringVar(&source.Labels, "labels", "", "their label `file`")
	fs.StringVar(&format, "format", string(reports.FormatText), strings.Join(reports.Formats(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(reports.Formats(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// complete fills a report for the page from what lies beside an outcomes file, and from the images where they are given.
func (f *pageFlags) complete(ctx context.Context, r *reports.Report, m *pipeline.Manifest, outcomes string, source dataset.Options) error {
	if err := f.pick(r, outcomes); err != nil {
		return err
	}
	if source.Images != "" {
		d, err := dataset.Open(ctx, source)
		if err != nil {
			return err
		}
		defer d.Close()
		if err := f.draw(d); err != nil {
			return err
		}
	}
	if m != nil {
		describeManifest(r, m)
	}
	return f.fill(r, filepath.Dir(outcomes), m)
}

// pick finds the flips in an outcomes file.
func (f *pageFlags) pick(r *reports.Report, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	rows, err := accuracy.NewOutcomesReader(file, path)
	if err != nil {
		return err
	}
	primary, err := accuracy.ParsePrimary(r.Policy.Primary)
	if err != nil {
		return err
	}
	pickers := map[string]*reports.FlipPicker{}
	for _, m := range r.Models {
		if p := f.picker(rows.Precisions(), primary, len(r.Models)); p != nil {
			pickers[m.Name] = p
		}
	}
	var rec accuracy.Record
	for {
		model, err := rows.Next(&rec)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if p := pickers[model]; p != nil {
			p.Add(&rec)
		}
	}
	for model, p := range pickers {
		f.keep(model, p.Flips())
	}
	return nil
}

// describeManifest adds what a manifest alone knows of a run.
func describeManifest(r *reports.Report, m *pipeline.Manifest) {
	r.Dataset = &reports.Dataset{
		Source: m.Images.Path, Format: string(m.Images.Format), Images: m.Images.Count,
		Calibration: len(m.Calibration.IDs), Decoder: m.Images.Decoder,
	}
	for i := range r.Models {
		out := &r.Models[i]
		at := slices.IndexFunc(m.Models, func(e pipeline.ManifestModel) bool { return e.Name == out.Name })
		if at < 0 {
			continue
		}
		entry := &m.Models[at]
		describeTypes(out, entry)
		r.Dataset.Scored, r.Dataset.Skipped = out.N, len(entry.Skipped)
		if c := entry.Calibrated; c != nil && entry.Cache != nil {
			out.Calibration = &reports.Calibration{
				Method: m.Calibration.Method, Images: c.Images, Batches: c.Batches, BatchSize: m.Calibration.BatchSize,
				Cache: entry.Cache.File, Warnings: c.Warnings,
			}
		}
	}
}
