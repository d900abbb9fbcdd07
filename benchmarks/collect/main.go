// Command collect runs the programs that measure quantgate beside its peers and writes what they print as a document.
//
//	go run ./benchmarks/collect                     every program, then docs/BENCHMARKS.md
//	go run ./benchmarks/collect -only images        one program anew; the rest as it was last measured
//	go run ./benchmarks/collect -only none          the document alone
//
// Each program's output is kept (-keep), so that one can be measured again by itself. A program that is not there, and one that fails,
// is said in the document, and the rest is there all the same.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/quantgate/quantgate/benchmarks/internal/bench"
)

// program is one of benchmarks' folders.
type program struct {
	name  string
	apart string // the command that measures it where it takes too long for every time
	peers bool   // it measures pairs
	// recorded is the folder of the repository that holds what was measured, where another machine did that; about.json there says which.
	recorded string
}

// programs in the order of the document.
var programs = []program{
	{name: "calibration", peers: true},
	{name: "images", peers: true},
	{name: "job", peers: true},
	{name: "imagenet50k", apart: "make bench-50k"},
	{name: "throughput", recorded: "benchmarks/throughput/h100"},
}

// outcome is one run of a program, as it is kept.
type outcome struct {
	Program string
	Command string
	Date    string
	Machine machine
	Where   string // in the place of Machine, for what was measured elsewhere
	Version string // of quantgate
	Failed  string // why it gave less than it should, if it did
	Lines   []bench.Line
}

func main() {
	var o options
	flag.StringVar(&o.shared, "shared", "../shared", "folder of the shared images and models")
	flag.StringVar(&o.python, "python", ".deps/peers/bin/python", "interpreter that has the peers (make bench-peers)")
	flag.IntVar(&o.pairs, "pairs", 5, "pairs to measure for each ratio")
	flag.StringVar(&o.keep, "keep", "out/bench", "folder that keeps each program's lines")
	flag.StringVar(&o.doc, "out", "docs/BENCHMARKS.md", "document to write")
	flag.StringVar(&o.only, "only", "", "measure this program only, or none")
	flag.Parse()
	if err := o.collect(); err != nil {
		fmt.Fprintln(os.Stderr, "collect:", err)
		os.Exit(1)
	}
}

type options struct {
	shared, python, keep, doc, only string
	pairs                           int
}

func (o options) collect() error {
	known := o.only == "" || o.only == "none"
	for _, p := range programs {
		known = known || p.name == o.only
	}
	if !known {
		return fmt.Errorf("-only %s: there is no such program", o.only)
	}
	var all []outcome
	for _, p := range programs {
		if o.only == p.name || o.only == "" && p.apart == "" {
			if err := o.measure(p); err != nil {
				return err
			}
		}
		x, err := o.kept(p)
		if err != nil {
			return err
		}
		all = append(all, x)
	}
	if err := renameio.WriteFile(o.doc, document(all), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", o.doc, err)
	}
	fmt.Fprintln(os.Stderr, "collect: wrote", o.doc)
	return nil
}

// measure runs one program and keeps its lines; its text goes to the terminal.
func (o options) measure(p program) error {
	folder := "./benchmarks/" + p.name
	if _, err := os.Stat(filepath.Join(folder, "main.go")); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(os.Stderr, "collect: %s is not there: not measured\n", folder)
		return nil
	}
	args := []string{"run", folder, "-shared", o.shared}
	if p.peers {
		args = append(args, "-pairs", strconv.Itoa(o.pairs), "-python", o.python)
	}
	if p.recorded != "" {
		args = []string{"run", folder, "-results", p.recorded}
	}
	x := outcome{
		Program: p.name, Command: "go " + strings.Join(args, " "), Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		Machine: thisMachine(), Version: o.describe(),
	}
	fmt.Fprintln(os.Stderr, "collect:", x.Command)
	cmd := exec.Command("go", args...) //nolint:gosec // the folders are this program's own list
	cmd.Stderr = os.Stderr
	var out bytes.Buffer
	cmd.Stdout = io.MultiWriter(&out, os.Stderr)
	runErr := cmd.Run()
	lines, err := parse(out.Bytes())
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	x.Lines = lines
	if runErr != nil {
		x.Failed = "it ended with " + runErr.Error()
		fmt.Fprintf(os.Stderr, "collect: %s: %s\n", p.name, x.Failed)
	}
	if p.recorded != "" {
		about := filepath.Join(p.recorded, "about.json")
		b, err := os.ReadFile(about)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &x); err != nil {
			return fmt.Errorf("%s: %w", about, err)
		}
	}
	return o.save(x)
}

// parse finds the lines of results in a program's output.
func parse(out []byte) ([]bench.Line, error) {
	var lines []bench.Line
	for text := range bytes.Lines(out) {
		l, ok, err := bench.Parse(text)
		if err != nil {
			return nil, err
		}
		if ok {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

func (o options) path(program string) string { return filepath.Join(o.keep, program+".json") }

func (o options) save(x outcome) error {
	if err := os.MkdirAll(o.keep, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(x, "", " ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(o.path(x.Program), b, 0o644)
}

// kept is what was last measured of a program; one that never was has no date.
func (o options) kept(p program) (outcome, error) {
	x := outcome{Program: p.name}
	b, err := os.ReadFile(o.path(p.name))
	if errors.Is(err, fs.ErrNotExist) {
		if p.apart != "" {
			x.Failed = "Measured apart, by " + p.apart
		}
		return x, nil
	}
	if err != nil {
		return x, err
	}
	if err := json.Unmarshal(b, &x); err != nil {
		return x, fmt.Errorf("%s: %w", o.path(p.name), err)
	}
	return x, nil
}

// describe names the measured version of quantgate. The document is what this program writes, and not measured.
func (o options) describe() string {
	b, err := exec.Command("git", "describe", "--tags", "--always").Output()
	if err != nil {
		return "unknown"
	}
	version := strings.TrimSpace(string(b))
	if exec.Command("git", "diff", "--quiet", "HEAD", "--", ".", ":(exclude)"+o.doc).Run() != nil { //nolint:gosec // the document is the user's choice
		version += "-dirty"
	}
	return version
}
