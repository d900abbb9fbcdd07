package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/pipeline"
	"github.com/quantgate/quantgate/reports"
)

// policyFlags are the flags that a verdict is decided by.
type policyFlags struct {
	MaxLoss    string
	Confidence float64
	Primary    string
	Rule       string
	GateAll    bool
	Target     string
}

func (f *policyFlags) register(fs *pflag.FlagSet) {
	p := accuracy.DefaultPolicy()
	fs.StringVar(&f.MaxLoss, "max-loss", p.MaxLoss.String(), "largest loss that passes: 0.5pp (percentage points) or 0.5%rel (percent of the base's accuracy)")
	fs.Float64Var(&f.Confidence, "confidence", p.Confidence, "confidence of the interval that the verdict stands on")
	fs.StringVar(&f.Primary, "primary", p.Primary.String(), "what decides: top1 or top5 of int8 or of the only candidate, or CANDIDATE:top1")
	fs.StringVar(&f.Rule, "rule", string(p.Rule), "interval (pass, fail or inconclusive) or point (the observed loss alone)")
	fs.StringVar(&f.Target, "target", string(p.Target), "what the verdict is about: population (the images are a sample of it) or set (the scored images themselves, without those that calibrated)")
	fs.BoolVar(&f.GateAll, "gate-all", p.GateAll, "let every candidate's top-1 and top-5 decide, not the primary alone")
}

// stopFlags are the flags of early stopping.
type stopFlags struct {
	early bool
	seed  uint64
}

func (f *stopFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&f.early, "stop-early", false, "visit the images in a random order and stop once the verdict is reached (a confidence sequence for --target, valid at any time)")
	fs.Uint64Var(&f.seed, "stop-seed", 1, "seed of the order in which --stop-early visits the images")
}

// apply adds the setting to a job after next did its part.
func (f *stopFlags) apply(p accuracy.Policy, next func(*pipeline.Job) error) func(*pipeline.Job) error {
	return func(job *pipeline.Job) error {
		if f.early {
			job.Stop = &pipeline.StopEarly{Policy: p, Seed: f.seed}
		}
		return next(job)
	}
}

// policy checks the flags.
func (f *policyFlags) policy() (accuracy.Policy, error) {
	p := accuracy.Policy{Confidence: f.Confidence, Rule: accuracy.Rule(f.Rule), GateAll: f.GateAll, Target: accuracy.Target(f.Target)}
	var err error
	if p.MaxLoss, err = accuracy.ParseMaxLoss(f.MaxLoss); err != nil {
		return p, fmt.Errorf("--max-loss: %w", err)
	}
	if p.Primary, err = accuracy.ParsePrimary(f.Primary); err != nil {
		return p, fmt.Errorf("--primary: %w", err)
	}
	if err := p.Validate(); err != nil {
		return p, fmt.Errorf("--%w", err)
	}
	return p, nil
}

// decidable wraps apply with a check that the policy's primary is among what the job scores: before the work, not after it.
func decidable(p accuracy.Policy, apply func(*pipeline.Job) error) func(*pipeline.Job) error {
	return func(j *pipeline.Job) error {
		if err := apply(j); err != nil {
			return err
		}
		names := j.Precisions
		if len(j.Candidates) > 0 {
			names = []string{"base"}
			for _, c := range j.Candidates {
				names = append(names, c.Name)
			}
		}
		if _, err := p.Primary.Among(names); err != nil {
			return fmt.Errorf("--primary: %w", err)
		}
		return nil
	}
}

// judge decides an outcomes file by the flags.
func (f *policyFlags) judge(path string) (*reports.Report, error) {
	p, err := f.policy()
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a folder: name the outcomes file in it, such as %s/outcomes.csv.gz", path, path)
	}
	tallies, err := accuracy.TallyOutcomesFile(path)
	if err != nil {
		return nil, err
	}
	summary, err := accuracy.Judge(tallies, p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r := reports.New(summary)
	r.Tool = "quantgate " + version()
	return r, nil
}

// verdictError is the error that stands for a verdict's exit code; nil for a pass, for none, and for any verdict with --exit-zero.
func verdictError(v accuracy.Verdict, exitZero bool) error {
	switch {
	case exitZero || v == accuracy.Pass || v == accuracy.None:
		return nil
	case v == accuracy.Fail:
		return errGateFailed
	}
	return errInconclusive
}
