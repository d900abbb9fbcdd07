package pipeline

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/internal/orttest"
	"github.com/quantgate/quantgate/onnx"
)

// TestOutput scores the named output of a model that has two, through every rewrite, and as a candidate beside a model that has one.
func TestOutput(t *testing.T) {
	single := tiny("relu_mlp")
	m, err := onnx.Load(single.Path)
	require.NoError(t, err)
	logits, err := m.LogitsOutput("")
	require.NoError(t, err)
	plan, err := onnx.Plan(m)
	require.NoError(t, err)
	hidden := plan.Sources(true)[1].Tensor
	both, err := onnx.Tap(m, []string{hidden, logits.Name})
	require.NoError(t, err)
	double := Model{Path: filepath.Join(t.TempDir(), "relu_mlp.onnx"), Preprocess: unit, Output: logits.Name}
	require.NoError(t, both.Save(double.Path))

	env := Env{orttest.Backend(t), &recorder{}}
	d := open(t, writeIDX(t))
	classes := func(r *Result) (top [][]int) {
		for _, rec := range r.Outcomes.Models[0].Records {
			var row []int
			for _, o := range rec.Outcomes {
				row = append(row, o.Top1)
			}
			top = append(top, row)
		}
		return top
	}
	job := testJob(t, d)
	want, err := Run(t.Context(), env, job)
	require.NoError(t, err)

	job = testJob(t, d)
	job.Models = []Model{double}
	got, err := Run(t.Context(), env, job)
	require.NoError(t, err)
	require.Equal(t, classes(want), classes(got))
	require.Equal(t, logits.Name, got.Manifest.Models[0].Output)
	written, err := onnx.Load(filepath.Join(job.Out, "relu_mlp.int8.onnx"))
	require.NoError(t, err)
	require.Len(t, written.Outputs(), 2, "the model to ship keeps what the user's has")

	job = testJob(t, d)
	job.Models, job.Candidates = []Model{double}, []Candidate{{Name: "single", Path: single.Path}}
	compared, err := Evaluate(t.Context(), env, job)
	require.NoError(t, err)
	for _, row := range classes(compared) {
		require.Equal(t, row[0], row[1])
	}

	for output, text := range map[string]string{"": "say which one holds the class scores", "nosuch": `has no output "nosuch"`} {
		job = testJob(t, d)
		job.Models = []Model{double}
		job.Models[0].Output = output
		_, err = Run(t.Context(), env, job)
		require.ErrorContains(t, err, text)
	}
}
