package bench

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMeasure(t *testing.T) {
	var order []string
	side := func(name string, values ...float64) func() (float64, error) {
		return func() (float64, error) {
			order = append(order, name)
			v := values[0]
			values = values[1:]
			return v, nil
		}
	}
	l := Line{Bench: "a/b"}
	require.NoError(t, l.Measure(3, side("us", 2, 6, 5), side("them", 1, 2, 5)))
	require.Equal(t, []string{"us", "them", "them", "us", "us", "them"}, order)
	require.InDelta(t, 5, l.Ours, 0)
	require.InDelta(t, 2, *l.Theirs, 0)
	// 2/1, 6/2 and 5/5: the median of the ratios is 2, that of the medians would be 2.5.
	require.InDelta(t, 2, *l.Ratio, 0)
	require.InDelta(t, 1, *l.Low, 0)
	require.InDelta(t, 3, *l.High, 0)
	require.Equal(t, OursOfTheirs, l.RatioOf)

	l = Line{RatioOf: TheirsOfOurs}
	l.Set([]float64{2, 4}, []float64{8, 8})
	require.InDelta(t, 3, *l.Ratio, 0) // the middle of 4 and 2

	boom := errors.New("boom")
	require.ErrorIs(t, l.Measure(2, side("us", 1, 1), func() (float64, error) { return 0, boom }), boom)
}

func TestLinesSurviveWriting(t *testing.T) {
	l := Line{Bench: "calibration/x", What: "calibration", Metric: "CPU time", Unit: "s", Peer: "bare pass", Bar: "<= 3.5"}
	l.Set([]float64{3}, []float64{1})
	var b bytes.Buffer
	require.NoError(t, l.Write(&b))
	got, ok, err := Parse(b.Bytes())
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, l, got)
}

func TestParse(t *testing.T) {
	_, ok, err := Parse([]byte("squeezenet1.1: 3.1 times"))
	require.NoError(t, err)
	require.False(t, ok)
	_, ok, err = Parse([]byte(`{"bench":"a", 3}`))
	require.True(t, ok)
	require.Error(t, err)
	_, _, err = Parse([]byte(`{"bench":"a/b","bar":"under 3"}`))
	require.ErrorContains(t, err, `a/b: limit "under 3"`)
}

func TestFigureAndMeets(t *testing.T) {
	two := 2.0
	for _, c := range []struct {
		line  Line
		x     float64
		known bool
	}{
		{Line{Ours: 5, Ratio: &two}, 2, true},
		{Line{Ours: 5}, 5, true},
		{Line{Ours: 5, Absent: "no peer"}, 0, false},
	} {
		x, known := c.line.Figure()
		require.InDelta(t, c.x, x, 0)
		require.Equal(t, c.known, known)
	}
	require.True(t, Meets(3.5, "<= 3.5"))
	require.False(t, Meets(3.51, "<= 3.5"))
	require.True(t, Meets(1.3, ">= 1.25"))
	require.False(t, Meets(1.2, ">= 1.25"))
	require.True(t, Meets(9, ""))
}

// A shell stands for Python: it, too, takes a script and its arguments.
func TestPeer(t *testing.T) {
	script := filepath.Join(t.TempDir(), "peer.sh")
	for _, c := range []struct {
		name, text     string
		absent, failed string
	}{
		{name: "result", text: `echo chatter; echo "{\"cpu_s\": $2}"`},
		{name: "package missing", text: `echo '{"absent": "nncf is not installed"}'; exit 3`, absent: "nncf is not installed"},
		{name: "failure", text: `echo first >&2; echo "no such model" >&2; exit 1`, failed: "no such model"},
		{name: "no JSON", text: `echo done`, failed: "no JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(script, []byte(c.text), 0o600))
			var got struct {
				CPU float64 `json:"cpu_s"`
			}
			absent, err := Peer("sh", script, []string{"--count", "4.5"}, &got)
			require.Equal(t, c.absent, absent)
			switch {
			case c.failed != "":
				require.ErrorContains(t, err, c.failed)
			case c.absent == "":
				require.NoError(t, err)
				require.InDelta(t, 4.5, got.CPU, 0)
			}
		})
	}
	absent, err := Peer(filepath.Join(t.TempDir(), "python"), script, nil, nil)
	require.NoError(t, err)
	require.Contains(t, absent, "make bench-peers")
}

// A small process started by a large one has a small peak.
func TestPeakMemoryIsTheProcessesOwn(t *testing.T) {
	if os.Getenv("BENCH_PEAK") != "" {
		mib, err := PeakMemory()
		require.NoError(t, err)
		require.Less(t, mib, 200.0)
		return
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("SKIPPED, reads /proc:", err)
	}
	large := make([]byte, 300<<20)
	for i := 0; i < len(large); i += 4096 {
		large[i] = 1
	}
	before, err := PeakMemory()
	require.NoError(t, err)
	require.Greater(t, before, 300.0)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestPeakMemoryIsTheProcessesOwn$")
	cmd.Env = append(os.Environ(), "BENCH_PEAK=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	runtime.KeepAlive(large)
}
