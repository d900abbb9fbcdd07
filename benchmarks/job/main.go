// Command job measures what quantgate run costs beside its engine's own work, and beside the same job in Python. Sides are interleaved in
// one process tree; each figure is a median over pairs, printed as text and then as JSON lines.
//
//	make bench-peers
//	go run ./benchmarks/job -shared ../shared -pairs 5
//
// The material is shared/imagenet: the 1,300 prescaled images of val1300, and the 20 of val20-original at full size, each -copies times.
// The bare passes run the graphs that quantgate run scores, on preloaded tensors, one image a call, a goroutine a core. Wall times
// mean something on an idle machine only; CPU times less so.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	result "github.com/quantgate/quantgate/benchmarks/internal/bench"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/internal/sched"
	"github.com/quantgate/quantgate/ort"
)

// settings are the flags.
type settings struct {
	shared, model, python, only string
	pairs, copies, limit        int
}

func main() {
	var s settings
	flag.StringVar(&s.shared, "shared", "../shared", "folder that holds imagenet")
	flag.StringVar(&s.model, "model", "squeezenet1.1", "model of shared/imagenet/models, preset imagenet")
	flag.StringVar(&s.python, "python", cmp.Or(os.Getenv("QUANTGATE_BENCH_PYTHON"), ".deps/peers/bin/python"), "Python with benchmarks/requirements.txt; without one, our side alone")
	flag.IntVar(&s.pairs, "pairs", 5, "how often to measure each side")
	flag.IntVar(&s.copies, "copies", 65, "copies of the 20 full-size images")
	flag.IntVar(&s.limit, "limit", 1300, "prescaled images to use, of which 50 calibrate")
	flag.StringVar(&s.only, "only", "", "measure one part: passes, val1300 or full")
	flag.Parse()
	if err := measure(context.Background(), s); err != nil {
		fmt.Fprintln(os.Stderr, "job:", err)
		os.Exit(1)
	}
}

const calibBatches, batchSize = 2, 25

// set is one set of images with the settings that fit it.
type set struct {
	name, images, labels string
	flags                []string
	resize               int // 0: none
	limit                int
	// Bars for three precisions' wall time over that of the bare passes, and over that of the passes and the decoding; "" where there is none.
	passesBar, decodeBar string
}

// cost is what one side took.
type cost struct{ Wall, CPU float64 }

// bench is a measurement under way.
type bench struct {
	settings
	dir, binary, model string
	cores              int
	noPython           string // why the Python side cannot be measured
	versions           map[string]string
	lines              []result.Line
}

func measure(ctx context.Context, s settings) error {
	dir, err := os.MkdirTemp("", "quantgate-job-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{settings: s, dir: dir, binary: filepath.Join(dir, "quantgate"), cores: runtime.GOMAXPROCS(0)}
	imagenet := filepath.Join(s.shared, "imagenet")
	b.model = filepath.Join(imagenet, "models", s.model+".onnx")
	if _, err := os.Stat(b.model); err != nil {
		return fmt.Errorf("the material is missing: %w: name its folder with -shared", err)
	}
	if err := sched.Batch(); err != nil { // as quantgate's own process is scheduled
		return err
	}
	if err := result.UseProjectLibrary(); err != nil {
		return err
	}
	engine, err := ort.New(ort.Options{})
	if err != nil {
		return err
	}
	if err := b.command(ctx, "go", "build", "-o", b.binary, "./cmd/quantgate").Run(); err != nil {
		return fmt.Errorf("build quantgate: %w", err)
	}
	if b.noPython = b.peerMissing(ctx); b.noPython != "" {
		fmt.Fprintf(os.Stderr, "job: %s; the models and the job of ONNX Runtime's quantize_static are left out\n", b.noPython)
	}
	b.versions = map[string]string{"ONNX Runtime": engine.Version()}
	fmt.Printf("%s, ONNX Runtime %s, %d cores, %s/%s, %d pairs\n", s.model, engine.Version(), b.cores, runtime.GOOS, runtime.GOARCH, s.pairs)
	prescaled := set{
		name: "val1300", images: filepath.Join(imagenet, "val1300"), labels: filepath.Join(imagenet, "val1300.txt"),
		flags: []string{"--resize", "none", "--crop-offset", "1,1"}, limit: s.limit, passesBar: "<= 1.08",
	}
	full, err := b.fullSize(filepath.Join(imagenet, "val20-original"), filepath.Join(imagenet, "val20-original.txt"))
	if err != nil {
		return err
	}
	if err := b.calibrate(ctx, prescaled); err != nil {
		return err
	}
	p, err := b.passes(ctx, engine, prescaled)
	if err != nil {
		return err
	}
	defer p.close()
	if s.only == "" || s.only == "passes" {
		if err := b.eachPass(ctx, p); err != nil {
			return err
		}
	}
	for _, images := range []set{prescaled, full} {
		if s.only == "" || s.only == images.name {
			if err := b.jobs(ctx, p, images); err != nil {
				return fmt.Errorf("%s: %w", images.name, err)
			}
		}
	}
	fmt.Println()
	for _, line := range b.lines {
		if err := line.Write(os.Stdout); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // G204: the go command, what it built, and the Python that the user names
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", b.cores))
	return cmd
}

// fullSize makes a set of the full-size images, each under several names.
func (b *bench) fullSize(images, labels string) (set, error) {
	s := set{name: "full", images: filepath.Join(b.dir, "full"), labels: filepath.Join(b.dir, "full.txt"), flags: []string{"--resize", "256"}, resize: 256, decodeBar: "<= 1.05"}
	text, err := os.ReadFile(labels)
	if err != nil {
		return s, err
	}
	if err := os.Mkdir(s.images, 0o755); err != nil {
		return s, err
	}
	var list strings.Builder
	for line := range strings.Lines(string(text)) {
		name, class, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		data, err := os.ReadFile(filepath.Join(images, name))
		if err != nil {
			return s, err
		}
		for k := range b.copies {
			copied := fmt.Sprintf("%04d_%s", k, name)
			if err := os.WriteFile(filepath.Join(s.images, copied), data, 0o644); err != nil {
				return s, err
			}
			fmt.Fprintln(&list, copied, class)
		}
	}
	return s, os.WriteFile(s.labels, []byte(list.String()), 0o644)
}

// calibrate makes the cache, once: the job is measured without it.
func (b *bench) calibrate(ctx context.Context, s set) error {
	args := append([]string{"calibrate", "--quiet", "--model", b.model, "--preset", "imagenet", "--images", s.images, "--labels", s.labels,
		"--calib-batches", fmt.Sprint(calibBatches), "--batch-size", fmt.Sprint(batchSize), "--out", filepath.Join(b.dir, "calibrated")}, s.flags...)
	if err := b.command(ctx, b.binary, args...).Run(); err != nil {
		return fmt.Errorf("calibrate: %w", err)
	}
	return nil
}

func (b *bench) cache() string {
	return filepath.Join(b.dir, "calibrated", b.settings.model+".entropy.cache")
}

// run measures quantgate run, process and all, with the thresholds of the cache.
func (b *bench) run(ctx context.Context, s set, precisions string) (cost, error) {
	cache := filepath.Join(b.dir, "lone.cache") // without a manifest, for it withholds the calibration images of other sets by name
	data, err := os.ReadFile(b.cache())
	if err == nil {
		err = os.WriteFile(cache, data, 0o644)
	}
	if err != nil {
		return cost{}, err
	}
	args := append([]string{"run", "--quiet", "--exit-zero", "--model", b.model, "--preset", "imagenet", "--images", s.images, "--labels", s.labels,
		"--limit", fmt.Sprint(s.limit), "--use-cache", cache, "--calib-batches", fmt.Sprint(calibBatches), "--batch-size", fmt.Sprint(batchSize),
		"--precisions", precisions}, s.flags...)
	return b.quantgate(ctx, args)
}

// quantgate measures one of its verbs, with a fresh folder to write to.
func (b *bench) quantgate(ctx context.Context, args []string) (cost, error) {
	out := filepath.Join(b.dir, "out")
	if err := os.RemoveAll(out); err != nil {
		return cost{}, err
	}
	c, err := b.timed(b.command(ctx, b.binary, append(args, "--out", out)...))
	if err != nil {
		return c, fmt.Errorf("quantgate %s: %w", args[0], err)
	}
	return c, nil
}

// timed is what a command cost.
func (b *bench) timed(cmd *exec.Cmd) (cost, error) {
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return cost{}, err
	}
	return cost{time.Since(began).Seconds(), (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}, nil
}

// cpuSeconds is the CPU time of this process so far.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// scored opens a set and lists the images that are scored.
func (b *bench) scored(ctx context.Context, s set) (*dataset.Dataset, []int, error) {
	d, err := dataset.Open(ctx, dataset.Options{Images: s.images, Labels: s.labels, Limit: s.limit})
	if err != nil {
		return nil, nil, err
	}
	var ids []int
	for i := calibBatches * batchSize; i < len(d.Items()); i++ {
		ids = append(ids, i)
	}
	return d, ids, nil
}

// peerMissing says why the Python side cannot be measured, "" where it can.
func (b *bench) peerMissing(ctx context.Context) string {
	cmd := b.command(ctx, b.python, "-c", "import numpy, onnx, onnxruntime.quantization, PIL")
	cmd.Stderr = nil
	if cmd.Run() != nil {
		return b.python + " has no onnxruntime, onnx, numpy and Pillow: make bench-peers"
	}
	return ""
}
