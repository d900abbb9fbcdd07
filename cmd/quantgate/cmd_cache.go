package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/calib"
)

// errCachesDiffer is what `cache diff --exit-code` fails with.
var errCachesDiffer = errors.New("the caches differ")

func newCacheCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Show, compare and convert calibration caches",
		Long: `Show, compare and convert calibration caches: TensorRT's text, ONNX Runtime's
calibration JSON, and CSV. What a file is shows in its first bytes, not in its name.`,
		Example: `  quantgate cache show squeezenet1.1.entropy.cache
  quantgate cache diff ours.cache tensorrt.cache --histograms squeezenet1.1.histograms.csv.gz
  quantgate cache convert calibration.json model.cache --cache-version 10.3.0`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCacheShowCmd(a), newCacheDiffCmd(a), newCacheConvertCmd(a))
	return cmd
}

// cacheListing is what `cache show --json` prints.
type cacheListing struct {
	File   string       `json:"file"`
	Format calib.Format `json:"format"`
	calib.Header
	Entries []calib.Entry `json:"entries"`
}

func newCacheShowCmd(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Print a cache's header and its ranges",
		Long: `Print a cache's header, and for every entry the largest magnitude that INT8 keeps
(amax), the step between two INT8 values (scale, amax/127) and the scale's bits.`,
		Example: `  quantgate cache show squeezenet1.1.entropy.cache
  quantgate cache show calibration.json --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, format, err := calib.ReadFile(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.stdout, cacheListing{File: args[0], Format: format, Header: c.Header, Entries: c.Entries})
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "%s: %s, %d entries\n", args[0], cacheOrigin(c.Header, format), len(c.Entries))
			fmt.Fprintf(w, "tensor\tamax\tscale\tbits\n")
			for _, e := range c.Entries {
				fmt.Fprintf(w, "%s\t%.7g\t%.7g\t%s\n", e.Name, e.Amax, e.Scale, calib.ScaleBits(e.Scale))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead of a table")
	return cmd
}

// cacheOrigin says in words where a cache comes from.
func cacheOrigin(h calib.Header, format calib.Format) string {
	words := []string{string(format)}
	if h.Version != "" {
		words = append(words, "TensorRT "+calib.Release(h.Version))
	}
	if h.Calibrator != "" {
		words = append(words, h.Calibrator)
	}
	return strings.Join(words, ", ")
}

// cacheDiff is what `cache diff --json` prints.
type cacheDiff struct {
	A       cacheSide    `json:"a"`
	B       cacheSide    `json:"b"`
	Equal   bool         `json:"equal"`
	Counts  cacheCounts  `json:"counts"`
	OnlyA   []string     `json:"only_a"`
	OnlyB   []string     `json:"only_b"`
	Moved   []string     `json:"moved"`
	Differs []calib.Pair `json:"differs"`
}

type cacheSide struct {
	File   string       `json:"file"`
	Format calib.Format `json:"format"`
	calib.Header
	Entries int `json:"entries"`
}

type cacheCounts struct {
	SameBits int `json:"same_bits"`
	SameBin  int `json:"same_bin"`
	OtherBin int `json:"other_bin"`
	// Tensors is OtherBin without the entries that share another's scale.
	Tensors int `json:"other_bin_tensors"`
}

func newCacheDiffCmd(a *app) *cobra.Command {
	var (
		histograms string
		asJSON     bool
		exitCode   bool
	)
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two caches entry by entry",
		Long: `Compare two caches: headers, entries that only one has, differences of order, and every
entry's scale. Scales of the same bits are counted; so are those that differ by at most
1e-5, which is the same bin of TensorRT's 2,048 seen through rounding; the others are
listed. With --histograms (a file that calibrate writes) the listing has, for either
threshold, the number of bins kept and the divergence (KL, in nats) that the entropy search
saw there, and how far apart the two are: a small gap is a near tie that rounding decides.
An entry without a histogram that has the very scales of an earlier one is listed as that one:
a pooling takes its input's scale.

The exit code is 0 whether they differ or not, and 1 where they differ under --exit-code.`,
		Example: `  quantgate cache diff ours.cache tensorrt.cache
  quantgate cache diff ours.cache tensorrt.cache --histograms squeezenet1.1.histograms.csv.gz
  quantgate cache diff before.cache after.cache --exit-code --json`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			ca, fa, err := calib.ReadFile(args[0])
			if err != nil {
				return err
			}
			cb, fb, err := calib.ReadFile(args[1])
			if err != nil {
				return err
			}
			var hist map[string]*calib.Histogram
			if histograms != "" {
				hs, err := calib.ReadHistogramsFile(histograms)
				if err != nil {
					return err
				}
				hist = calib.HistogramsByName(hs)
			}
			d := calib.Compare(ca, cb, hist)
			out := cacheDiff{
				A:     cacheSide{args[0], fa, ca.Header, len(ca.Entries)},
				B:     cacheSide{args[1], fb, cb.Header, len(cb.Entries)},
				Equal: d.Equal(),
				Counts: cacheCounts{
					d.Count(calib.SameBits), d.Count(calib.SameBin), d.Count(calib.OtherBin), len(d.OtherTensors()),
				},
				OnlyA: emptyNotNull(d.OnlyA), OnlyB: emptyNotNull(d.OnlyB), Moved: emptyNotNull(d.Moved),
				Differs: []calib.Pair{},
			}
			for _, p := range d.Pairs {
				if p.Relation == calib.OtherBin {
					out.Differs = append(out.Differs, p)
				}
			}
			if asJSON {
				err = printJSON(a.stdout, out)
			} else {
				err = printCacheDiff(a.stdout, out, hist != nil)
			}
			if err == nil && exitCode && !out.Equal {
				return fmt.Errorf("%s and %s: %w", args[0], args[1], errCachesDiffer)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&histograms, "histograms", "", "histograms `FILE` (.csv.gz) to weigh differing thresholds on")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead of text")
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 1 when names, order or any scale differ")
	return cmd
}

func printCacheDiff(out io.Writer, d cacheDiff, weighed bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range []struct {
		label string
		side  cacheSide
	}{{"A", d.A}, {"B", d.B}} {
		fmt.Fprintf(w, "%s: %s: %s, %d entries\n", s.label, s.side.File, cacheOrigin(s.side.Header, s.side.Format), s.side.Entries)
	}
	if d.A.Version != "" && d.B.Version != "" && d.A.Version != d.B.Version {
		fmt.Fprintln(w, "The versions differ: TensorRT ignores a cache of another version and calibrates again.")
	}
	for _, list := range []struct {
		label string
		names []string
	}{{"only in A", d.OnlyA}, {"only in B", d.OnlyB}, {"in another place", d.Moved}} {
		if len(list.names) > 0 {
			fmt.Fprintf(w, "%s: %d: %s\n", list.label, len(list.names), strings.Join(list.names, ", "))
		}
	}
	fmt.Fprintf(w, "same bits: %d, same bin: %d, other bin: %d", d.Counts.SameBits, d.Counts.SameBin, d.Counts.OtherBin)
	if d.Counts.Tensors != d.Counts.OtherBin {
		fmt.Fprintf(w, " (%d tensors)", d.Counts.Tensors)
	}
	fmt.Fprintln(w)
	if len(d.Differs) > 0 {
		fmt.Fprint(w, "\ntensor\tscale A\tscale B\trel. diff")
		if weighed {
			fmt.Fprint(w, "\tbin A\tbin B\tKL A\tKL B\tKL gap")
		}
		fmt.Fprintln(w)
	}
	for _, p := range d.Differs {
		fmt.Fprintf(w, "%s\t%.7g\t%.7g\t%.2e", p.Name, p.A, p.B, p.RelDiff)
		switch {
		case p.SharedWith != "":
			fmt.Fprintf(w, "\tas %s", p.SharedWith)
		case p.Weighed != nil:
			fmt.Fprintf(w, "\t%d\t%d\t%.9g\t%.9g\t%.2e", p.Weighed.BinA, p.Weighed.BinB, p.Weighed.KLA, p.Weighed.KLB, p.Weighed.Gap)
		case weighed:
			fmt.Fprint(w, "\t-\t-\t-\t-\t-")
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func newCacheConvertCmd(a *app) *cobra.Command {
	var to, version, calibrator string
	cmd := &cobra.Command{
		Use:   "convert IN OUT",
		Short: "Convert a cache to another format, or give it another first line",
		Long: `Convert a cache between TensorRT's text, ONNX Runtime's calibration JSON and CSV. OUT's
name decides unless --to does: .json is ONNX Runtime's, .csv is CSV, anything else TensorRT's;
- is standard output. Every scale keeps its bits.

TensorRT takes a cache only where version and calibrator in its first line are its own, and
calibrates again without a word otherwise. Both stay as they are in IN unless given here; where
IN has none they are 8.6.1 and EntropyCalibration2, which is what trtexec --calib wants.`,
		Example: `  quantgate cache convert calibration.json model.cache --cache-version 10.3.0
  quantgate cache convert model.cache - --to csv`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			format := calib.FormatOf(args[1])
			if to != "" {
				var err error
				if format, err = calib.ParseFormat(to); err != nil {
					return fmt.Errorf("--to: %w", err)
				}
			}
			c, _, err := calib.ReadFile(args[0])
			if err != nil {
				return err
			}
			if version != "" {
				if c.Version, err = calib.Version(version); err != nil {
					return fmt.Errorf("--cache-version: %w", err)
				}
			}
			if calibrator != "" {
				c.Calibrator = calibrator
			}
			if c.Version == "" {
				c.Version = calib.DefaultVersion
			}
			if c.Calibrator == "" {
				c.Calibrator = calib.CalibratorEntropy2
			}
			if args[1] == "-" {
				return calib.Write(a.stdout, c, format)
			}
			return calib.WriteFile(args[1], c, format)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "format of OUT: tensorrt, ort-json or csv")
	cmd.Flags().StringVar(&version, "cache-version", "", "TensorRT `VERSION` in the first line, for example 8.6.1")
	cmd.Flags().StringVar(&calibrator, "calibrator", "", "calibrator `NAME` in the first line: EntropyCalibration2, MinMaxCalibration, EntropyCalibration")
	return cmd
}

// printJSON writes v indented.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// emptyNotNull makes an absent list [] in JSON.
func emptyNotNull(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
