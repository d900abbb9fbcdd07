package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/quantgate/quantgate/benchmarks/internal/bench"
)

// sample is a process's memory at one moment, in MiB.
type sample struct {
	seconds   float64 // since its start
	rss, peak float64
	anonymous float64 // of rss: what is not the page cache's
}

// sampleOf reads /proc/PID/status.
func sampleOf(pid int) (sample, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return sample{}, err
	}
	return parseStatus(string(b))
}

func parseStatus(text string) (sample, error) {
	var s sample
	found := 0
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		to := map[string]*float64{"VmRSS": &s.rss, "VmHWM": &s.peak, "RssAnon": &s.anonymous}[key]
		if to == nil {
			continue
		}
		kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err != nil {
			return s, fmt.Errorf("%s: %w", key, err)
		}
		*to = kib / 1024
		found++
	}
	if found < 3 { // a process that has ended has none
		return s, fmt.Errorf("status names %d of VmRSS, VmHWM and RssAnon", found)
	}
	return s, nil
}

// medianRSS is the median over the samples between two shares of the time.
func medianRSS(samples []sample, from, to float64) float64 {
	var xs []float64
	end := samples[len(samples)-1].seconds
	for _, s := range samples {
		if s.seconds >= from*end && s.seconds <= to*end {
			xs = append(xs, s.rss)
		}
	}
	return bench.Median(xs)
}

func peak(samples []sample) float64 { return samples[len(samples)-1].peak }

func writeSamples(path string, samples []sample) error {
	var b bytes.Buffer
	b.WriteString("seconds,rss_mib,peak_mib,anonymous_mib\n")
	for _, s := range samples {
		fmt.Fprintf(&b, "%.1f,%.1f,%.1f,%.1f\n", s.seconds, s.rss, s.peak, s.anonymous)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
