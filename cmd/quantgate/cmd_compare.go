package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/pipeline"
	"github.com/quantgate/quantgate/reports"
)

// errOtherImages says that two runs were not made on the same images in the same way.
var errOtherImages = errors.New("runs that cannot be compared")

func newCompareCmd(a *app) *cobra.Command {
	var policy policyFlags
	var asJSON, exitZero bool
	var format, config string
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Compare two runs image by image: two releases, or two calibrators",
		Long: `compare pairs the outcomes of two runs on the same images and decides whether B loses more than the margin against A,
precision by precision. A and B are the folders of two runs, their report.json, or their outcomes files; a run's
outcomes.csv.gz and manifest.json are looked for beside it. Images are paired by id, path and label. Runs on other
images, or whose images another decoder decoded, are refused.

Models are paired by name, or, where each run has a single one, whatever their names. Every precision that both runs
have decides, unless --primary names one; B passes only where all of them pass. Where both gave the same on every
image there is nothing to decide. The exit code is the worst verdict: 0 pass, 4 inconclusive, 3 fail.`,
		Example: `  quantgate compare out/entropy out/minmax
  quantgate compare --primary int8:top1 --max-loss 0.2pp release-1/report.json release-2/report.json
  quantgate compare --format markdown main/ branch/ >> "$GITHUB_STEP_SUMMARY"`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if config != "" {
				if _, err := readConfig(config, cmd.Flags()); err != nil {
					return err
				}
			}
			if asJSON {
				if format != "text" {
					return errors.New("--json and --format exclude each other: give one")
				}
				format = "json"
			}
			if !slices.Contains([]string{"text", "markdown", "json"}, format) {
				return fmt.Errorf("--format %q: want text, markdown or json", format)
			}
			p, err := policy.policy()
			if err != nil {
				return err
			}
			c, err := compare(args[0], args[1], p)
			if err != nil {
				return err
			}
			for _, w := range c.Warnings {
				a.ui.Warnf("%s", w)
			}
			switch format {
			case "json":
				err = c.JSON(a.stdout)
			case "markdown":
				err = c.Markdown(a.stdout)
			default:
				err = c.Text(a.stdout)
			}
			if err != nil {
				return fmt.Errorf("write the comparison: %w", err)
			}
			return verdictError(c.Verdict, exitZero)
		},
	}
	fs := cmd.Flags()
	policy.register(fs)
	fs.Lookup("primary").Usage = "what decides: top1 or top5 of every precision, or of one, as PRECISION:top1"
	fs.StringVarP(&config, "config", "c", "", "YAML file with the policy, which may be run's; flags win over it")
	fs.BoolVar(&asJSON, "json", false, "print the comparison as JSON")
	fs.StringVar(&format, "format", "text", "text, markdown or json")
	fs.BoolVar(&exitZero, "exit-zero", false, "exit 0 whatever the verdict; errors still exit 1")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "markdown", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// side is one of the two runs.
type side struct {
	path     string
	outcomes *accuracy.Outcomes
	manifest *pipeline.Manifest // nil where there is none
}

// openSide reads a run by its folder, its report or its outcomes file.
func openSide(arg string) (*side, error) {
	s := &side{path: arg}
	info, err := os.Stat(arg)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		s.path = filepath.Join(arg, "outcomes.csv.gz")
	case strings.HasSuffix(arg, ".json"):
		s.path = filepath.Join(filepath.Dir(arg), "outcomes.csv.gz")
	}
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("the outcomes of %s: %w", arg, err)
	}
	defer f.Close()
	if s.outcomes, err = accuracy.ReadOutcomes(f, s.path); err != nil {
		return nil, err
	}
	s.manifest, err = manifestOf(s.path)
	return s, err
}

func (s *side) describe() reports.Side {
	d := reports.Side{Outcomes: s.path}
	if s.manifest != nil {
		d.Tool, d.Method = s.manifest.Tool, s.manifest.Calibration.Method
	}
	return d
}

// compare decides B against A.
func compare(argA, argB string, p accuracy.Policy) (*reports.Comparison, error) {
	a, err := openSide(argA)
	if err != nil {
		return nil, err
	}
	b, err := openSide(argB)
	if err != nil {
		return nil, err
	}
	c := reports.NewComparison(p)
	c.Tool = "quantgate " + version()
	c.A, c.B = a.describe(), b.describe()
	for _, s := range []*side{a, b} {
		if s.manifest == nil {
			c.Warnings = append(c.Warnings, s.path+": no manifest that belongs to it: whether both runs used the same decoder and image list is unknown")
		}
	}
	for _, s := range []*side{a, b} {
		if s.outcomes.SetSize > 0 {
			c.Warnings = append(c.Warnings, s.path+": the run could stop early, for a verdict of its own: the intervals here hold for images chosen beforehand")
		}
	}
	if a.manifest != nil && b.manifest != nil {
		if err := sameImages(a.manifest, b.manifest); err != nil {
			return nil, fmt.Errorf("compare %s with %s: %w", argA, argB, err)
		}
		c.Differences = append(c.Differences, differences(a.manifest, b.manifest)...)
	}
	if err := pairUp(c, a, b, p); err != nil {
		return nil, fmt.Errorf("compare %s with %s: %w", argA, argB, err)
	}
	return c, nil
}

// sameImages refuses runs on other images, or with other pixels.
func sameImages(a, b *pipeline.Manifest) error {
	x, y := a.Images, b.Images
	switch {
	case x.Decoder != y.Decoder:
		return fmt.Errorf("%w: A's images were decoded by %s, B's by %s: score both with one decoder", errOtherImages, x.Decoder, y.Decoder)
	case x.ListSHA256 != y.ListSHA256:
		return fmt.Errorf("%w: the image lists differ (%d images, sha256 %.12s; %d images, sha256 %.12s): score both on the same images", errOtherImages, x.Count, x.ListSHA256, y.Count, y.ListSHA256)
	}
	return nil
}

// differences says what else tells two runs apart.
func differences(a, b *pipeline.Manifest) []string {
	var out []string
	add := func(what, x, y string) {
		if x != y {
			out = append(out, fmt.Sprintf("%s: %s in A, %s in B", what, or(x, "none"), or(y, "none")))
		}
	}
	add("program", a.Tool, b.Tool)
	add("engine", a.Engine, b.Engine)
	add("calibration", a.Calibration.Method, b.Calibration.Method)
	add("calibration images", fmt.Sprint(len(a.Calibration.IDs)), fmt.Sprint(len(b.Calibration.IDs)))
	for i := range a.Models {
		x := &a.Models[i]
		j := slices.IndexFunc(b.Models, func(m pipeline.ManifestModel) bool { return m.Name == x.Name })
		if j < 0 {
			continue
		}
		y := &b.Models[j]
		add(x.Name+", sha256", x.SHA256[:min(12, len(x.SHA256))], y.SHA256[:min(12, len(y.SHA256))])
		add(x.Name+", preprocessing", x.Preprocess.String(), y.Preprocess.String())
		add(x.Name+", output", x.Output, y.Output)
		add(x.Name+", class offset", fmt.Sprint(x.ClassOffset), fmt.Sprint(y.ClassOffset))
	}
	return out
}

// pairUp compares every model and precision that both runs have.
func pairUp(c *reports.Comparison, a, b *side, p accuracy.Policy) error {
	single := len(a.outcomes.Models) == 1 && len(b.outcomes.Models) == 1
	var tallies []*accuracy.Tally
	var unpaired []string
	for i := range a.outcomes.Models {
		x := &a.outcomes.Models[i]
		j := slices.IndexFunc(b.outcomes.Models, func(m accuracy.ModelOutcomes) bool { return m.Name == x.Name })
		if j < 0 && single {
			j = 0
		}
		if j < 0 {
			unpaired = append(unpaired, x.Name)
			continue
		}
		y := &b.outcomes.Models[j]
		records, left, err := join(x, y)
		if err != nil {
			return err
		}
		if left > 0 {
			c.Warnings = append(c.Warnings, fmt.Sprintf("%s: %d images are in one run only and were left out: %d in both", x.Name, left, len(records)))
		}
		for k, name := range a.outcomes.Precisions {
			l := slices.Index(b.outcomes.Precisions, name)
			if l < 0 || p.Primary.Candidate != "" && p.Primary.Candidate != name {
				continue
			}
			t, identical, err := tally(x.Name+" "+accuracy.DisplayName(name), records, k, l)
			if err != nil {
				return err
			}
			pair := reports.Pair{Model: x.Name, Precision: name, N: len(records), Identical: identical}
			if y.Name != x.Name {
				pair.ModelB = y.Name
			}
			tallies = append(tallies, t)
			c.Pairs = append(c.Pairs, pair)
		}
	}
	if len(c.Pairs) == 0 {
		return fmt.Errorf("%w: no model and precision in common (A has %s; B has %s)", errOtherImages, a.contents(), b.contents())
	}
	if len(unpaired) > 0 {
		c.Warnings = append(c.Warnings, "only A has "+strings.Join(unpaired, ", "))
	}
	unpaired = nil
	for _, m := range b.outcomes.Models {
		if !slices.ContainsFunc(c.Pairs, func(p reports.Pair) bool { return p.Model == m.Name || p.ModelB == m.Name }) {
			unpaired = append(unpaired, m.Name)
		}
	}
	if len(unpaired) > 0 {
		c.Warnings = append(c.Warnings, "only B has "+strings.Join(unpaired, ", "))
	}
	return judge(c, tallies, p)
}

// contents names a run's models and precisions.
func (s *side) contents() string {
	var names []string
	for _, m := range s.outcomes.Models {
		names = append(names, m.Name)
	}
	return strings.Join(names, ", ") + " in " + strings.Join(s.outcomes.Precisions, ", ")
}

// joined is one image of a model in both runs.
type joined struct{ a, b *accuracy.Record }

// join pairs two models' records, whose ids rise, and counts those that only one of the runs has.
func join(a, b *accuracy.ModelOutcomes) (both []joined, left int, err error) {
	i, j := 0, 0
	for i < len(a.Records) && j < len(b.Records) {
		x, y := &a.Records[i], &b.Records[j]
		switch {
		case x.ID < y.ID:
			i++
		case x.ID > y.ID:
			j++
		case x.Path != y.Path || x.Label != y.Label:
			return nil, 0, fmt.Errorf("model %s: %w: image %d is %s of class %d in A and %s of class %d in B: score both on the same images",
				a.Name, errOtherImages, x.ID, x.Path, x.Label, y.Path, y.Label)
		default:
			both = append(both, joined{x, y})
			i, j = i+1, j+1
		}
	}
	if len(both) == 0 {
		return nil, 0, fmt.Errorf("model %s: %w: no image was scored in both", a.Name, errOtherImages)
	}
	return both, len(a.Records) + len(b.Records) - 2*len(both), nil
}

// tally counts A's precision number k as the base and B's number l as the candidate, and says whether they are the same on
// every image.
func tally(name string, records []joined, k, l int) (t *accuracy.Tally, identical bool, err error) {
	t, identical = accuracy.NewTally(name, []string{"A", "B"}), true
	unknown := []accuracy.Shift{{KL: math.NaN(), MaxLogitChange: float32(math.NaN())}} // the outcomes hold no logits
	for _, r := range records {
		x, y := r.a.Outcomes[k], r.b.Outcomes[l]
		identical = identical && x == y
		rec := accuracy.Record{ID: r.a.ID, Path: r.a.Path, Label: r.a.Label, Outcomes: []accuracy.Outcome{x, y}, Shifts: unknown}
		if err := t.Add(&rec); err != nil {
			return nil, false, err
		}
	}
	return t, identical, nil
}

// judge decides the pairs, whose tallies are given in the same order. Identical ones are only counted.
func judge(c *reports.Comparison, tallies []*accuracy.Tally, p accuracy.Policy) error {
	p.Primary.Candidate = "" // of each tally the only one, B
	for _, identical := range []bool{false, true} {
		var these []*accuracy.Tally
		var pairs []*reports.Pair
		for i := range c.Pairs {
			if c.Pairs[i].Identical == identical {
				these, pairs = append(these, tallies[i]), append(pairs, &c.Pairs[i])
			}
		}
		if len(these) == 0 {
			continue
		}
		s, err := accuracy.Judge(these, p)
		if err != nil {
			return err
		}
		for i, pair := range pairs {
			done := reports.PairOf(pair.Model, pair.Precision, &s.Models[i])
			done.ModelB, done.Identical = pair.ModelB, identical
			if identical {
				done.Verdict, done.Looks = accuracy.Pass, nil
				done.Sentence = fmt.Sprintf("A and B gave the same class, probability and margin on each of %s images.", thousands(done.N))
			}
			*pair = done
		}
		if !identical {
			c.Verdict = c.Verdict.Worse(s.Verdict)
			c.Warnings = append(c.Warnings, s.Warnings...)
		}
	}
	return nil
}
