// Command calibration measures what calibration costs beside the model's own forward pass, in CPU time, both sides in one go: the bare
// FP32 pass, the tapped pass whose outputs go to reused buffers and are not counted, and the calibration of quantgate calibrate, from
// prepared tensors and from JPEG files. It also measures the threshold search, and the peak memory at several numbers of images.
//
//	go run ./benchmarks/calibration -shared ../shared -pairs 5
//
// Where the Python of make bench-peers is there, so are ONNX Runtime's and NNCF's calibrators, each run in a process of its own (peer.py).
// Every figure is a line of text and a line of JSON on stdout, a ratio being the median over the pairs.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	result "github.com/quantgate/quantgate/benchmarks/internal/bench"
	"github.com/quantgate/quantgate/internal/sched"
	"github.com/quantgate/quantgate/ort"
)

// network is a model of the shared material with the bars it is held to.
type network struct {
	name, preset string
	bare         string // calibration / bare FP32 pass
}

var networks = []network{
	{"squeezenet1.1", "imagenet", "<= 3.5"},
	{"mobilenet_v2_1.0", "tf", "<= 3.5"},
	{"mobilenet_v3_small", "tf", "<= 4.5"},
}

const (
	bareAim   = "<= 2"
	tapsBar   = "<= 1.7"  // calibration / tapped pass that is not counted
	searchBar = "<= 1"    // seconds for all tensors on one core
	memoryBar = "<= 1.05" // peak memory at most images / at fewest
	batchSize = 25
)

// line is a comparison of this program's.
func (n network) line(metric, unit string) result.Line {
	return result.Line{Bench: "calibration/" + n.name, What: "calibration", Metric: metric, Unit: unit}
}

// write prints a line for people and for the collector.
func write(l result.Line) error {
	text := fmt.Sprintf("%-30s %-42s %9.3f %s", l.Bench, l.Metric, l.Ours, l.Unit)
	switch {
	case l.Ratio != nil:
		text += fmt.Sprintf(", %s %.3f (%.3f to %.3f): %s", l.RatioOf, *l.Ratio, *l.Low, *l.High, l.Peer)
	case l.Absent != "":
		text += fmt.Sprintf("; not measured: %s (%s)", l.Peer, l.Absent)
	case l.Theirs != nil:
		text += fmt.Sprintf("; %.3f %s: %s", *l.Theirs, l.Unit, l.Peer)
	}
	fmt.Println(text)
	return l.Write(os.Stdout)
}

func main() {
	var b bench
	flag.StringVar(&b.shared, "shared", "../shared", "folder with imagenet/")
	flag.IntVar(&b.pairs, "pairs", 5, "interleaved measurements of each side")
	flag.IntVar(&b.images, "images", 500, "images a measurement, a multiple of 25")
	flag.StringVar(&b.python, "python", ".deps/peers/bin/python", "Python with benchmarks/requirements.txt; without one, our side alone")
	models := flag.String("models", "", "comma-separated models; all by default")
	flag.BoolVar(&b.memory, "memory", true, "measure peak memory at 500 and 5,000 images too")
	peak := flag.String("peak", "", "calibrate this model once over -images files and print the process's peak memory in MiB: what -memory runs")
	flag.Parse()
	if b.images < batchSize || b.images%batchSize != 0 || b.pairs < 1 {
		fmt.Fprintf(os.Stderr, "calibration: %d images and %d pairs: give a multiple of %d, and at least one pair\n", b.images, b.pairs, batchSize)
		os.Exit(1)
	}
	ctx := context.Background()
	err := func() error {
		if _, err := os.Stat(filepath.Join(b.shared, "imagenet", "val1300.txt")); errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(os.Stderr, "calibration: SKIPPED, this measures nothing: %v\n", err)
			return nil
		}
		if err := sched.Batch(); err != nil { // as quantgate's own process is scheduled
			return err
		}
		err := result.UseProjectLibrary()
		if err != nil {
			return err
		}
		if b.backend, err = ort.New(ort.Options{}); err != nil {
			return err
		}
		if *peak != "" {
			i := slices.IndexFunc(networks, func(n network) bool { return n.name == *peak })
			if i < 0 {
				return fmt.Errorf("-peak %s: no such model", *peak)
			}
			return b.printPeak(ctx, networks[i])
		}
		for _, n := range networks {
			if *models == "" || slices.Contains(strings.Split(*models, ","), n.name) {
				if err := b.measure(ctx, n); err != nil {
					return fmt.Errorf("%s: %w", n.name, err)
				}
			}
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "calibration:", err)
		os.Exit(1)
	}
}

// linked makes a folder of n images, those of a list over and over under new names, and a list of them.
func linked(dir, images, list string, n int) (labels string, err error) {
	lines, err := readLines(list)
	if err != nil {
		return "", err
	}
	set := make([]result.Image, n)
	for i := range set {
		file, class, _ := strings.Cut(lines[i%len(lines)], " ")
		set[i] = result.Image{File: filepath.Join(images, file), Name: fmt.Sprintf("%06d%s", i, filepath.Ext(file)), Class: class}
	}
	return result.LinkImages(dir, set)
}

func readLines(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		lines = append(lines, sc.Text())
	}
	return lines, nil
}
