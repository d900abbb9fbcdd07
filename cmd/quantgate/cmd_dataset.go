package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/dataset"
)

func newDatasetCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dataset",
		Short: "Check a labelled image set, or pack it into batch files",
		Example: `  quantgate dataset verify --images val --labels val.txt
  quantgate dataset pack --images val --labels val.txt --input-size 224 --out packed`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDatasetVerifyCmd(a), newDatasetPackCmd(a))
	return cmd
}

// newDatasetVerifyCmd is quantgate dataset verify.
func newDatasetVerifyCmd(a *app) *cobra.Command {
	var (
		data    dataFlags
		workers int
		asJSON  bool
	)
	cmd := &cobra.Command{
		Use:   "verify --images PATH",
		Short: "Check count, labels, sizes, duplicates and readability, and print the batch plan",
		Long: `verify decodes every image once and reports how many there are, of which classes and
sizes, which files are unreadable or hold the same bytes, and how they would be split
into calibration and score. It exits 1 where an image is unreadable, a label is wrong
or too few images are left to score.`,
		Example: `  quantgate dataset verify --images val --labels val.txt
  quantgate dataset verify --images ILSVRC2012_img_val.tar --labels val.txt --json
  quantgate dataset verify --images fashion-mnist/t10k-images-idx3-ubyte.gz`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			d, err := data.open(cmd.Context(), a.ui)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, d.Close()) }()
			p := a.ui.Stage("verify", "images", len(d.Items()), 0)
			r, err := dataset.Verify(cmd.Context(), d, dataset.VerifyOptions{
				BatchSize: data.BatchSize, CalibBatches: data.CalibBatches, Workers: workers, Progress: p.Add,
			})
			if err != nil {
				return err
			}
			p.Done()
			if asJSON {
				err = printJSON(a.stdout, r)
			} else {
				err = printVerify(a.stdout, r)
			}
			switch {
			case err != nil:
				return err
			case len(r.Unreadable) > 0:
				return fmt.Errorf("%s cannot be read, the first is %s: replace them, or let run and calibrate skip up to N with their --bad-images skip:N",
					thousands(len(r.Unreadable))+" of "+thousands(r.Images)+" images", r.Unreadable[0].Error)
			case r.PlanError != "":
				return errors.New(r.PlanError)
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	data.registerSource(fs)
	fs.IntVar(&workers, "workers", 0, "goroutines that decode; 0 means one a CPU")
	fs.BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

// listed bounds how many duplicates and unreadable files are printed; --json prints all.
const listed = 10

// printVerify prints a report for people.
func printVerify(w io.Writer, r *dataset.VerifyReport) error {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s"+format+"\n", append([]any{name}, args...)...)
	}
	row("format", "%s", r.Format)
	row("images", "%s", thousands(r.Images))
	row("labels", "%s classes in use, highest label %d, %s images a class", thousands(r.Labelled), r.Classes-1, span(r.PerClass))
	row("sizes", "%s, height %s, width %s pixels", thousands(r.Sizes), span(r.Height), span(r.Width))
	row("decoder", "%s", r.Decoder)
	row("duplicates", "%s", thousands(len(r.Duplicates)))
	for i, d := range r.Duplicates {
		if i == listed {
			fmt.Fprintf(&b, "  ... %s more\n", thousands(len(r.Duplicates)-listed))
			break
		}
		note := ""
		for _, l := range d.Labels {
			if l != d.Labels[0] {
				note = " with different labels"
			}
		}
		fmt.Fprintf(&b, "  %s%s\n", strings.Join(d.Paths, " = "), note)
	}
	row("unreadable", "%s", thousands(len(r.Unreadable)))
	for i, p := range r.Unreadable {
		if i == listed {
			fmt.Fprintf(&b, "  ... %s more\n", thousands(len(r.Unreadable)-listed))
			break
		}
		fmt.Fprintf(&b, "  %s\n", p.Error)
	}
	if p := r.Plan; p == nil {
		row("plan", "none: %s", r.PlanError)
	} else {
		note := "the first batches calibrate"
		if p.Stratified {
			note = fmt.Sprintf("the order is grouped by class, so those that calibrate are drawn by class, seed %d", p.Seed)
		}
		if p.Last != p.BatchSize {
			note += fmt.Sprintf("; the last batch has %d", p.Last)
		}
		row("plan", "%s x %d; %s calibrate; %s scored (%s)", thousands(p.Batches), p.BatchSize, thousands(p.Calibrate), thousands(p.Scored), note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func span(r dataset.Range) string {
	if r.Min == r.Max {
		return thousands(r.Min)
	}
	return thousands(r.Min) + " to " + thousands(r.Max)
}

// thousands prints n with commas between groups of three digits.
func thousands[N int | int64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// newDatasetPackCmd is quantgate dataset pack.
func newDatasetPackCmd(a *app) *cobra.Command {
	var (
		data     dataFlags
		workers  int
		channels int
		out      string
	)
	cmd := &cobra.Command{
		Use:   "pack --images PATH --out DIR",
		Short: "Write preprocessed images as sampleINT8 batch files",
		Long: `pack decodes, resizes, crops and normalises every image as a run would, and writes
them with their labels as batch0, batch1, ... of NVIDIA's sampleINT8: int32 N, C, H, W;
the float32 values; N float32 labels. --format batches reads them back.`,
		Example: `  quantgate dataset pack --images val --labels val.txt --input-size 224 --out packed
  quantgate dataset pack --images fashion-mnist --preset tf --channels 1 --batch-size 100 --out packed`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if out == "" {
				return errors.New("no folder to write to: give --out DIR")
			}
			d, err := data.open(cmd.Context(), a.ui)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, d.Close()) }()
			if channels == 0 {
				channels = d.Channels()
			}
			p, err := data.preprocess(channels, 0, 0)
			if err != nil {
				return err
			}
			a.ui.Infof("packing with: %s", p)
			ids := make([]int, len(d.Items()))
			for i := range ids {
				ids[i] = i
			}
			l := d.Load(cmd.Context(), ids, dataset.LoadOptions{Preprocess: p, BatchSize: data.BatchSize, Workers: workers})
			defer func() { err = errors.Join(err, l.Close()) }()
			progress := a.ui.Stage("pack", "images", len(ids), 0)
			files, err := dataset.WriteBatches(out, func(yield func(*dataset.Batch, error) bool) {
				for b, err := range l.All(cmd.Context()) {
					if !yield(b, err) {
						return
					}
					if b != nil {
						progress.Add(len(b.Items))
					}
				}
			})
			if err != nil {
				return err
			}
			progress.Done()
			_, err = fmt.Fprintf(a.stdout, "%s batch files of up to %d images in %s\n", thousands(files), data.BatchSize, out)
			return err
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	data.register(fs)
	fs.IntVar(&channels, "channels", 0, "channels of the inputs, 1 or 3 (default: the images')")
	fs.IntVar(&workers, "workers", 0, "goroutines that decode; 0 means one a CPU")
	fs.StringVar(&out, "out", "", "`folder` to write to; it must hold no batch files")
	return cmd
}
