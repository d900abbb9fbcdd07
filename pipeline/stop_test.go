package pipeline

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/accuracy"
)

// stopJob may stop once an INT8 loss of at most 12 points is shown.
func stopJob(t *testing.T, job Job) Job {
	t.Helper()
	p := accuracy.DefaultPolicy()
	p.MaxLoss.Value, p.Target = 0.12, accuracy.TargetSet
	job.Stop = &StopEarly{Policy: p, Seed: 3}
	return job
}

// The images seen, and with them every written byte, depend on the seed and on nothing else; a resumed run goes on in the order of
// the first.
func TestStopEarly(t *testing.T) {
	d := open(t, writeIDX(t))
	total := images - calibCount*batchSize
	whole := stopJob(t, testJob(t, d))
	whole.Workers = 1
	res, err := Run(t.Context(), Env{backend(), &recorder{}}, whole)
	require.NoError(t, err)
	want := contents(t, whole.Out)
	records := res.Outcomes.Models[0].Records
	require.Equal(t, total, res.Outcomes.SetSize)
	require.Less(t, len(records), total, "it stops early")
	require.Zero(t, len(records)%batchSize, "after a whole batch")
	seen := map[int]bool{}
	for _, r := range records {
		require.GreaterOrEqual(t, r.ID, calibCount*batchSize, "none that calibrated")
		seen[r.Visit] = true
	}
	require.Len(t, seen, len(records))
	summary, err := accuracy.Evaluate(res.Outcomes, whole.Stop.Policy)
	require.NoError(t, err)
	require.Equal(t, accuracy.Pass, summary.Verdict)
	require.Greater(t, summary.Models[0].Primary().Stop.Settled, len(records)-batchSize, "not a batch later than needed")

	for _, workers := range []int{2, 7} {
		job := stopJob(t, testJob(t, d))
		job.Workers = workers
		_, err := Run(t.Context(), Env{backend(), &recorder{}}, job)
		require.NoError(t, err)
		require.Equal(t, want, contents(t, job.Out), "%d workers", workers)
	}

	calibCalls := (calibCount + 1) * batchSize
	for _, stop := range []int{calibCalls + 1, calibCalls + 5, calibCalls + 8} {
		t.Run(fmt.Sprintf("resumed after %d calls", stop), func(t *testing.T) {
			job := stopJob(t, testJob(t, d))
			job.Out = t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			b := backend()
			b.Hook = cancelFrom(stop, cancel)
			_, err := Run(ctx, Env{b, &recorder{}}, job)
			require.ErrorIs(t, err, context.Canceled)
			job.Resume = true
			_, err = Run(t.Context(), Env{backend(), &recorder{}}, job)
			require.NoError(t, err)
			require.Equal(t, want, contents(t, job.Out))
		})
	}

	other := stopJob(t, testJob(t, d))
	other.Stop.Seed = 4
	_, err = Run(t.Context(), Env{backend(), &recorder{}}, other)
	require.NoError(t, err)
	require.NotEqual(t, want[OutcomesName], contents(t, other.Out)[OutcomesName], "another seed, other images")
	m, err := ReadManifest(other.Out)
	require.NoError(t, err)
	require.Equal(t, "top1 of the set, max loss 12pp, confidence 0.95, seed 4", m.StopEarly.String())

	other.Resume, other.Stop = true, nil
	_, err = Run(t.Context(), Env{backend(), &recorder{}}, other)
	require.ErrorIs(t, err, ErrOtherRun)
	require.ErrorContains(t, err, "early stopping was top1 of the set, max loss 12pp, confidence 0.95, seed 4, is off")
}

func TestStopEarlyRefuses(t *testing.T) {
	d := open(t, writeIDX(t))
	for want, change := range map[string]func(*Job){
		"rests on rule interval": func(j *Job) { j.Stop.Policy.Rule = accuracy.RulePoint },
		"give one of them":       func(j *Job) { j.Stop.Policy.GateAll = true },
		"needs every image":      func(j *Job) { j.MaxBad = 1 },
		"needs a candidate":      func(j *Job) { j.Precisions = []string{FP32} },
		"no candidate pruned":    func(j *Job) { j.Stop.Policy.Primary.Candidate = "pruned" },
	} {
		job := stopJob(t, testJob(t, d))
		change(&job)
		_, err := Run(t.Context(), Env{backend(), &recorder{}}, job)
		require.ErrorContains(t, err, want)
		require.NoFileExists(t, filepath.Join(job.Out, OutcomesName))
	}
}
