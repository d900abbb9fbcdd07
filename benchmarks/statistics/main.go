// Command statistics measures what quantgate's verdicts promise: the coverage and the error rates of the fixed-size tests,
// computed exactly and confirmed by simulation, and the error rates and the use of images of early stopping. It writes
// tables to stdout, every number to results.json and plots as SVG.
//
//	go run ./benchmarks/statistics -out docs/statistics
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

const (
	margin     = 0.005
	confidence = 0.95
	alpha      = (1 - confidence) / 2
)

var (
	sizes        = []int{1300, 10000, 48750}
	losses       = []float64{0, 0.0025, 0.005, 0.0075, 0.01}
	discordances = []float64{0.01, 0.02, 0.03, 0.04, 0.05}
	bases        = []float64{0.60, 0.75, 0.90}
)

func main() {
	out := flag.String("out", ".", "folder for results.json and the plots")
	draws := flag.Int("draws", 10000, "simulated comparisons a cell of fixed size")
	runs := flag.Int("runs", 2000, "simulated runs a cell of early stopping")
	from := flag.String("plots-of", "", "draw the plots of a results.json, and simulate nothing")
	flag.Parse()
	if err := study(*out, *from, *draws, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "statistics:", err)
		os.Exit(1)
	}
}

// results is the content of results.json. Rates are fractions.
type results struct {
	Fixed    []fixedCell
	Relative []fixedCell
	Early    []earlyCell
}

func study(out, from string, draws, runs int) error {
	var r results
	if from != "" {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &r); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		return plots(out, r)
	}
	r.Fixed = fixedCells(nil, draws)
	r.Relative = fixedCells(bases, draws)
	printFixed("Fixed number of images, loss in points", r.Fixed)
	printFixed("Fixed number of images, relative loss", r.Relative)
	r.Early = earlyCells(runs)
	printEarly(r.Early)
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "results.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return plots(out, r)
}

// each calls f for 0..n-1 on all cores.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
