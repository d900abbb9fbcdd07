package main

import (
	"fmt"
	"strconv"

	result "github.com/quantgate/quantgate/benchmarks/internal/bench"
)

// calibrators are the peers, with the bars that our CPU time and peak memory are held to beside them.
var calibrators = []struct {
	says        string
	args        []string
	cpu, memory string
	once        bool // too large for every pair
}{
	{says: "ONNX Runtime's MinMax", args: []string{"--method", "minmax"}, cpu: ">= 1", memory: "<= 0.5"},
	{says: "ONNX Runtime's entropy, a batch a collect", args: []string{"--method", "entropy"}, cpu: ">= 4"},
	{says: "ONNX Runtime's entropy, 200 images at once", args: []string{"--method", "entropy", "--collect", "all", "--count", "200"}, once: true},
	{says: "NNCF", args: []string{"--method", "nncf"}},
}

// peerCost is what peer.py prints.
type peerCost struct {
	CPU      float64           `json:"cpu_s"`
	Peak     float64           `json:"peak_rss_mib"`
	Versions map[string]string `json:"versions"`
}

// peers measures our calibration in turn with every peer's; peak is ours, in MiB.
func (b *bench) peers(n network, peak float64, calibrate func(i int) (float64, error)) error {
	runs := 0
	for _, c := range calibrators {
		pairs := b.pairs
		if c.once {
			pairs = 1
		}
		var ours, theirs, peaks, rss []float64
		var cost peerCost
		absent := ""
		for range pairs {
			runs++
			spent, err := calibrate(runs)
			if err != nil {
				return err
			}
			args := append([]string{"--shared", b.shared, "--model", n.name, "--count", strconv.Itoa(b.images)}, c.args...)
			if absent, err = result.Peer(b.python, "benchmarks/calibration/peer.py", args, &cost); err != nil {
				return fmt.Errorf("%s: %w", c.says, err)
			}
			ours, peaks = append(ours, spent), append(peaks, peak)
			if absent != "" {
				break
			}
			theirs, rss = append(theirs, cost.CPU), append(rss, cost.Peak)
		}
		cpu, memory := n.line("CPU time", "s"), n.line("peak memory", "MiB")
		cpu.Bar, cpu.RatioOf, memory.Bar = c.cpu, result.TheirsOfOurs, c.memory
		cpu.Set(ours, theirs)
		memory.Set(peaks, rss)
		for _, l := range []result.Line{cpu, memory} {
			l.Peer, l.Absent, l.Versions = c.says, absent, cost.Versions
			if c.once {
				l.Ratio, l.Low, l.High = nil, nil, nil // of unequal numbers of images
			}
			if err := write(l); err != nil {
				return err
			}
		}
	}
	return nil
}
