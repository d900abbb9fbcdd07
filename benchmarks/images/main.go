// Command images measures the way from full-size JPEG files to normalised tensors on one core, side by side with
// libjpeg-turbo's bare decode and with Pillow, simplejpeg and torchvision where a Python has them; then how it scales over the
// cores, and what the image cache saves. Each pair takes every contestant once; ratios are the medians of the pairs' ratios, of
// CPU time where one core is measured. It prints tables, and then every ratio as a line of JSON.
//
//	make bench-peers
//	go run ./benchmarks/images -shared ../shared -pairs 5
package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/quantgate/quantgate/benchmarks/internal/bench"
	"github.com/quantgate/quantgate/dataset"
)

// pythonEnv names the Python of the peers.
const pythonEnv = "QUANTGATE_BENCH_PYTHON"

func main() {
	shared := flag.String("shared", filepath.Join("..", "shared"), "folder that holds imagenet/val20-original")
	pairs := flag.Int("pairs", 5, "times that every contestant is measured")
	repeats := flag.Int("repeats", 10, "times that a measurement goes over the images")
	python := flag.String("python", cmp.Or(os.Getenv(pythonEnv), ".deps/peers/bin/python"), "Python with benchmarks/requirements.txt")
	flag.Parse()
	if err := run(*shared, *python, *pairs, *repeats); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// cost is what a measurement took, in seconds.
type cost struct {
	Wall   float64 `json:"wall"`
	CPU    float64 `json:"cpu"`
	Images int     `json:"images"`
}

func (c cost) cpuMS() float64     { return 1000 * c.CPU / float64(c.Images) }
func (c cost) wallMS() float64    { return 1000 * c.Wall / float64(c.Images) }
func (c cost) perSecond() float64 { return float64(c.Images) / c.Wall }

// measure times f, which takes images.
func measure(images int, f func() error) (cost, error) {
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		return cost{}, err
	}
	began := time.Now()
	err := f()
	c := cost{Wall: time.Since(began).Seconds(), Images: images}
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		return cost{}, err
	}
	seconds := func(r syscall.Rusage) float64 { return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9 }
	c.CPU = seconds(after) - seconds(before)
	return c, err
}

// source is our side.
type source struct {
	images, labels string
	prep           dataset.Preprocess
}

// load takes every image of the folder, repeats times over, and gives every batch to see.
func (s source) load(repeats, workers int, cache string, see func(*dataset.Batch)) error {
	ctx := context.Background()
	d, err := dataset.Open(ctx, dataset.Options{Images: s.images, Labels: s.labels, ImageCache: dataset.ImageCache{
		Dir: cache, Limit: 1 << 30, Warn: func(m string) { fmt.Fprintln(os.Stderr, "images:", m) },
	}})
	if err != nil {
		return err
	}
	defer d.Close()
	if strings.HasPrefix(d.Decoder(), "image/jpeg") {
		return fmt.Errorf("libjpeg-turbo is missing: %s", strings.Join(d.Warnings(), "; "))
	}
	var ids []int
	for range repeats {
		for _, it := range d.Items() {
			ids = append(ids, it.ID)
		}
	}
	l := d.Load(ctx, ids, dataset.LoadOptions{Preprocess: s.prep, BatchSize: 20, Workers: workers})
	defer l.Close()
	for b, err := range l.All(ctx) {
		if err != nil {
			return err
		}
		if see != nil {
			see(b)
		}
	}
	return nil
}

// digest is the SHA-256 of all tensors, in hex.
func (s source) digest() (string, error) {
	h := sha256.New()
	err := s.load(1, 1, "", func(b *dataset.Batch) {
		for i := range b.Items {
			var row []byte
			for _, v := range b.X.Row(i) {
				row = binary.LittleEndian.AppendUint32(row, math.Float32bits(v))
			}
			h.Write(row)
		}
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// contestant is one way to take the images.
type contestant struct {
	name, says string
	ratioOf    string // of the CPU time of quantgate and its own
	bar        string // for that
	absent     string // why it cannot be run
	run        func() (cost, error)
	costs      []cost
}

func run(shared, python string, pairs, repeats int) error {
	if pairs < 1 || repeats < 1 {
		return fmt.Errorf("%d pairs of %d repeats: give at least 1", pairs, repeats)
	}
	s := source{
		images: filepath.Join(shared, "imagenet", "val20-original"),
		labels: filepath.Join(shared, "imagenet", "val20-original.txt"),
	}
	var err error
	if s.prep, err = dataset.Preset("imagenet", 3); err != nil {
		return err
	}
	s.prep.Resize, s.prep.InputSize = 256, 224
	paths, err := filepath.Glob(filepath.Join(s.images, "*"))
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return fmt.Errorf("%s: no images: name the folder that holds imagenet/val20-original (-shared)", s.images)
	}
	decoder, err := dataset.JPEGDecoder("")
	if err != nil {
		return err
	}
	fmt.Printf("%d JPEGs of %s; %s, %s, %d cores\n", len(paths), s.images, decoder, runtime.Version(), runtime.GOMAXPROCS(0))

	b, err := newBare(paths)
	if err != nil {
		return err
	}
	n := repeats * len(paths)
	scratch, err := os.MkdirTemp("", "quantgate-images")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }() // it lies where temporary files are cleared anyway
	kept := filepath.Join(scratch, "kept")
	if err := s.load(1, 1, kept, nil); err != nil {
		return err
	}
	fills := 0
	all := []*contestant{
		{name: "bare", says: "libjpeg-turbo alone: decode from memory", ratioOf: bench.OursOfTheirs, bar: "<= 1.45", run: func() (cost, error) {
			return measure(n, func() error { return b.run(repeats) })
		}},
		{name: "quantgate", says: "quantgate: file to tensor", run: func() (cost, error) {
			return measure(n, func() error { return s.load(repeats, 1, "", nil) })
		}},
		{name: "filling", says: "first run with an image cache", ratioOf: bench.OursOfTheirs, run: func() (cost, error) {
			fills++
			return measure(len(paths), func() error { return s.load(1, 1, filepath.Join(scratch, fmt.Sprint(fills)), nil) })
		}},
		{name: "cached", says: "later runs with an image cache", ratioOf: bench.OursOfTheirs, run: func() (cost, error) {
			return measure(n, func() error { return s.load(repeats, 1, kept, nil) })
		}},
	}
	peers, err := addPeers(&all, s, python, repeats)
	if err != nil {
		return err
	}
	measured := slices.DeleteFunc(slices.Clone(all), func(c *contestant) bool { return c.absent != "" })
	for _, c := range measured { // unmeasured, to warm up
		if _, err := c.run(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for range pairs {
		for _, c := range measured {
			took, err := c.run()
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.costs = append(c.costs, took)
		}
	}
	if peers != nil {
		if err := peers.close(); err != nil {
			return err
		}
	}
	lines := printCosts(all)
	scaling, err := measureScaling(s, pairs, repeats)
	if err != nil {
		return err
	}
	versions := map[string]string{}
	for _, v := range append(peerVersions(peers), decoder) {
		name, version, _ := strings.Cut(v, " ")
		versions[name] = version
	}
	for _, l := range append(lines, scaling...) {
		l.Versions = versions
		if err := l.Write(os.Stdout); err != nil {
			return err
		}
	}
	return nil
}

func peerVersions(p *peer) []string {
	if p == nil {
		return nil
	}
	return p.Versions
}

// peerTasks are what peer.py does, where its packages are there.
var peerTasks = []contestant{
	{name: "pillow-decode", says: "Pillow: decode"},
	{name: "pillow-resize", says: "Pillow: decode, resize, crop", bar: ">= 1.25"},
	{name: "pillow-tensor", says: "Pillow and NumPy: file to tensor", bar: ">= 1.6"},
	{name: "simplejpeg-decode", says: "simplejpeg: decode"},
	{name: "simplejpeg-tensor", says: "simplejpeg, Pillow's resize and NumPy: file to tensor"},
	{name: "torchvision-tensor", says: "torchvision on Pillow: file to tensor"},
}

// addPeers adds what the Python has, after a check that it makes the same tensors, and as absent what it has not; nil where there is no peer.
func addPeers(all *[]*contestant, s source, python string, repeats int) (*peer, error) {
	p, err := startPeer(python, s.images)
	if err == nil {
		fmt.Println(strings.Join(p.Versions, ", "))
		if err := sameTensors(p, s); err != nil {
			return nil, err
		}
	} else {
		p = nil
		fmt.Printf("no peers: %s has not what benchmarks/requirements.txt lists (%v): make bench-peers, or name another with -python\n", python, err)
	}
	for _, t := range peerTasks {
		t.ratioOf = bench.TheirsOfOurs
		if p != nil && p.has(t.name) {
			t.run = func() (cost, error) { return p.run(t.name, repeats) }
		} else {
			library, _, _ := strings.Cut(t.name, "-")
			t.absent = library + " is not installed: make bench-peers"
			if library == "torchvision" {
				t.absent += " TORCHVISION=1"
			}
		}
		*all = append(*all, &t)
	}
	return p, nil
}

func sameTensors(p *peer, s source) error {
	ours, err := s.digest()
	if err != nil {
		return err
	}
	theirs, err := p.digest("pillow-tensor")
	if err != nil {
		return err
	}
	if ours != theirs {
		return fmt.Errorf("the tensors are not Pillow's to the bit: see benchmarks/parity")
	}
	fmt.Println("tensors equal to Pillow's to the bit: yes")
	return nil
}

// line is a comparison of this program's.
func line(name, metric, unit string) bench.Line {
	return bench.Line{Bench: "images/" + name, What: "images", Metric: metric, Unit: unit}
}

// each applies f to every element.
func each[T any](v []T, f func(i int, x T) float64) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = f(i, x)
	}
	return out
}

// printCosts prints what every contestant took on one core, and its ratio to quantgate.
func printCosts(all []*contestant) []bench.Line {
	cpu := func(_ int, c cost) float64 { return c.cpuMS() }
	var ours []float64
	for _, c := range all {
		if c.name == "quantgate" {
			ours = each(c.costs, cpu)
		}
	}
	fmt.Printf("\n%-54s  CPU ms an image  wall ms  CPU time, median of the pairs (range)\n", "one core")
	var lines []bench.Line
	for _, c := range all {
		theirs := each(c.costs, cpu)
		l := line("one core", "CPU time", "ms an image")
		l.Peer, l.RatioOf, l.Bar, l.Absent = c.says, c.ratioOf, c.bar, c.absent
		switch {
		case c.absent != "":
			fmt.Printf("%-54s  not measured: %s\n", c.says, c.absent)
			l.Set(ours, nil)
		case c.ratioOf == "": // quantgate itself
			l.Set(ours, nil)
			fmt.Printf("%-54s  %15.3f  %7.3f\n", c.says, l.Ours, bench.Median(each(c.costs, func(_ int, x cost) float64 { return x.wallMS() })))
			continue
		default:
			l.Set(ours, theirs)
			fmt.Printf("%-54s  %15.3f  %7.3f  %s %.3f (%.3f to %.3f)\n", c.says, *l.Theirs, bench.Median(each(c.costs, func(_ int, x cost) float64 { return x.wallMS() })),
				l.RatioOf, *l.Ratio, *l.Low, *l.High)
		}
		lines = append(lines, l)
	}
	return lines
}

// measureScaling compares 1, 2, 4, ... workers, to one a core. Other programs take wall time away from many workers and from
// one alike, but not in the same measure, so the CPU time an image is told too: it grows where the workers hinder each other.
func measureScaling(s source, pairs, repeats int) ([]bench.Line, error) {
	counts := []int{1}
	for n := 2; n < runtime.GOMAXPROCS(0); n *= 2 {
		counts = append(counts, n)
	}
	if n := runtime.GOMAXPROCS(0); n > 1 {
		counts = append(counts, n)
	}
	costs := map[int][]cost{}
	for range pairs {
		for _, n := range counts {
			took, err := measure(repeats*n*20, func() error { return s.load(repeats*n, n, "", nil) })
			if err != nil {
				return nil, err
			}
			costs[n] = append(costs[n], took)
		}
	}
	var lines []bench.Line
	for _, n := range counts[1:] {
		wall := line(fmt.Sprintf("%d cores", n), "images/s", "images/s")
		wall.Peer, wall.Bar = fmt.Sprintf("%d x one core's", n), ">= 0.9"
		wall.Set(each(costs[n], func(_ int, x cost) float64 { return x.perSecond() }), each(costs[1], func(_ int, x cost) float64 { return x.perSecond() * float64(n) }))
		cpu := line(fmt.Sprintf("%d cores", n), "CPU time", "ms an image")
		cpu.Peer = "one core"
		cpu.Set(each(costs[n], func(_ int, x cost) float64 { return x.cpuMS() }), each(costs[1], func(_ int, x cost) float64 { return x.cpuMS() }))
		fmt.Printf("\n%d workers: %.0f images/s, efficiency %.3f (%.3f to %.3f), CPU time an image of one worker's %.3f (%.3f to %.3f)\n",
			n, wall.Ours, *wall.Ratio, *wall.Low, *wall.High, *cpu.Ratio, *cpu.Low, *cpu.High)
		lines = append(lines, wall, cpu)
	}
	fmt.Println()
	return lines, nil
}
