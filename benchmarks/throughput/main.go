// Command throughput prints what scripts/gpu/run measured of the study's networks on a GPU as the lines that benchmarks/collect reads: each
// engine beside a bare loop over the same plan, and what a precision gains over FP32. It measures nothing itself: a machine with such a GPU
// is seldom at hand, so its results are kept in a folder of the repository.
//
//	go run ./benchmarks/throughput -results benchmarks/throughput/h100
//
// The folder holds bench.json as quantgate bench writes it, bare.txt with a line of the yardstick's output behind each network's name, and
// about.json, which says when and where that was.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/quantgate/quantgate/bench"
	result "github.com/quantgate/quantgate/benchmarks/internal/bench"
	"github.com/quantgate/quantgate/engine"
)

// Those of the published study, and the precisions in the order of its figure.
var (
	networks   = []string{"alexnet", "googlenet", "resnet50", "resnet101", "vgg19"}
	precisions = []string{bench.Base, bench.FP16, bench.INT8}
)

const bareBar = ">= 0.97"

func main() {
	dir := flag.String("results", "benchmarks/throughput/h100", "folder with bench.json and bare.txt")
	flag.Parse()
	lines, err := read(*dir)
	if err == nil {
		for _, l := range lines {
			err = errors.Join(err, l.Write(os.Stdout))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "throughput:", err)
		os.Exit(1)
	}
}

func read(dir string) ([]result.Line, error) {
	results, err := bench.Load(filepath.Join(dir, "bench.json"))
	if err != nil {
		return nil, err
	}
	bare, err := readBare(filepath.Join(dir, "bare.txt"))
	if err != nil {
		return nil, err
	}
	var lines []result.Line
	for _, network := range networks {
		var gains []result.Line
		for _, precision := range precisions {
			r, err := find(results, network, precision, false)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", dir, err)
			}
			loop, ok := bare[[2]string{network, precision}]
			if r == nil || !ok {
				return nil, fmt.Errorf("%s: %s in %s is not in both bench.json and bare.txt", dir, network, precision)
			}
			l := line(r, strings.ToUpper(precision))
			l.Peer, l.Bar, l.Note = "a bare enqueueV3 loop over the same plan", bareBar, notInINT8(r, "INT8")
			l.Set([]float64{r.Compute.Median}, []float64{loop})
			lines = append(lines, l)
			if precision != bench.Base {
				l, err := gain(results, r, strings.ToUpper(precision))
				if err != nil {
					return nil, fmt.Errorf("%s: %w", dir, err)
				}
				gains = append(gains, l)
			}
		}
		r, err := find(results, network, bench.INT8, true)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		if r != nil {
			l, err := gain(results, r, engine.Int8WithHalf)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", dir, err)
			}
			l.Note = notInINT8(r, engine.Int8WithHalf)
			gains = append(gains, l)
		}
		lines = append(lines, gains...)
	}
	return lines, nil
}

func line(r *bench.Result, precision string) result.Line {
	return result.Line{Bench: "throughput/" + r.Model, What: "throughput", Metric: "images/s, " + precision, Unit: "images/s"}
}

// gain compares a precision with FP32.
func gain(rs bench.Results, r *bench.Result, precision string) (result.Line, error) {
	l := line(r, precision)
	base := rs.In(r, bench.Base)
	if base == nil || base.Compute == nil {
		return l, fmt.Errorf("%s was measured under other circumstances than FP32, or with other calls in flight: measure both alike", r.Title())
	}
	l.Peer = "FP32"
	l.Set([]float64{r.Compute.Median}, []float64{base.Compute.Median})
	return l, nil
}

// notInINT8 names the layers of an INT8 engine that run in another arithmetic.
func notInINT8(r *bench.Result, precision string) string {
	var names []string
	for _, l := range r.Float {
		names = append(names, fmt.Sprintf("%s (%s)", l.Name, strings.ToUpper(l.Precision)))
	}
	if len(names) == 0 {
		return ""
	}
	return precision + " runs without INT8 kernels " + strings.Join(names, ", ")
}

// find returns a network's figure without copies, nil where there is none; an INT8 engine with or without FP16 layers. Where there are
// several, nothing says which of them the bare loop stands beside.
func find(rs bench.Results, network, precision string, withFP16 bool) (*bench.Result, error) {
	var found *bench.Result
	for i := range rs {
		r := &rs[i]
		if r.Model != network || r.Precision != precision || r.Compute == nil || r.WithFP16() != withFP16 {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("bench.json has several figures of %s, with %d and %d calls in flight: keep one measurement's", r.Title(), found.Parallel, r.Parallel)
		}
		found = r
	}
	return found, nil
}

// readBare reads lines such as "resnet50 throughput int8 batch 128: 60522.1 images/s", by network and precision.
func readBare(path string) (map[[2]string]float64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rates := map[[2]string]float64{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		var network, precision string
		var batch int
		var rate float64
		if _, err := fmt.Sscanf(strings.Replace(lines.Text(), ":", "", 1), "%s throughput %s batch %d %f images/s", &network, &precision, &batch, &rate); err != nil {
			return nil, fmt.Errorf("%s: line %d: want NETWORK throughput PRECISION batch N: X images/s: %w", path, n, err)
		}
		rates[[2]string{network, precision}] = rate
	}
	return rates, lines.Err()
}
