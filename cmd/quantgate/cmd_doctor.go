package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"

	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/ort"
	"github.com/quantgate/quantgate/trt"
)

// errNoEngine is what doctor fails with where the main job cannot run at all.
var errNoEngine = errors.New("no engine is usable here, so nothing can be calibrated or scored")

// Files of the default data set, below the project's root.
const (
	defaultImages = ".data/fashion-mnist/val50000-images-idx3-ubyte"
	defaultLabels = ".data/fashion-mnist/val50000-labels-idx1-ubyte"
)

// diagnosis is what `doctor --json` prints.
type diagnosis struct {
	Usable  bool          `json:"usable"` // an engine is usable, so the main job can run
	Version string        `json:"version"`
	Engines []engineFacts `json:"engines"`
	JPEG    jpegFacts     `json:"jpeg"`
	CPU     cpuFacts      `json:"cpu"`
	Memory  memoryFacts   `json:"memory"`
	Data    dataFacts     `json:"default_data"`
}

type engineFacts struct {
	Name      string         `json:"name"` // as --engine spells it
	Usable    bool           `json:"usable"`
	Version   string         `json:"version,omitempty"`
	Path      string         `json:"path,omitempty"`
	Tried     []string       `json:"tried,omitempty"`
	Libraries []libraryFacts `json:"libraries,omitempty"`
	GPUs      []gpuFacts     `json:"gpus,omitempty"`
	Remedy    string         `json:"remedy,omitempty"`
}

type libraryFacts struct {
	Name    string `json:"name"`
	Present bool   `json:"present"`
	Path    string `json:"path,omitempty"`
	Version string `json:"version,omitempty"`
	Problem string `json:"problem,omitempty"` // the loader's own text
}

type gpuFacts struct {
	Index       int    `json:"index"`
	Name        string `json:"name"`
	Capability  string `json:"compute_capability"`
	MemoryBytes uint64 `json:"memory_bytes"`
	FP16        bool   `json:"fp16"` // fast arithmetic of that kind
	INT8        bool   `json:"int8"`
}

type jpegFacts struct {
	Turbo   bool   `json:"libjpeg_turbo"`
	Decoder string `json:"decoder"`
	Problem string `json:"problem,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
}

type cpuFacts struct {
	Model    string    `json:"model"`
	Arch     string    `json:"arch"`
	Cores    int       `json:"cores"`
	Threads  int       `json:"threads"` // that quantgate uses at once: the cores, or what the container grants
	Features []feature `json:"features"`
}

type feature struct {
	Name string `json:"name"`
	Has  bool   `json:"has"`
}

type memoryFacts struct {
	TotalBytes     uint64 `json:"total_bytes,omitempty"`
	AvailableBytes uint64 `json:"available_bytes,omitempty"`
	LimitBytes     uint64 `json:"limit_bytes,omitempty"` // the control group's
}

type dataFacts struct {
	Present bool   `json:"present"`
	Path    string `json:"path,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
}

func newDoctorCmd(a *app) *cobra.Command {
	var (
		asJSON   bool
		library  string
		tensorrt string
	)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is usable here, and the remedy for what is not",
		Long: `Look for the engines, the JPEG decoder, the CPU's features and the default data set, and
print for each what was found, or the exact remedy.

Exit codes: 0 when an engine is usable, whatever else is missing; 1 when none is, since
nothing can be calibrated or scored then.`,
		Example: `  quantgate doctor
  quantgate doctor --json
  quantgate doctor --ort-library /opt/onnxruntime/lib`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			d := diagnose(library, tensorrt)
			var err error
			if asJSON {
				err = printJSON(a.stdout, d)
			} else {
				err = printDiagnosis(a.stdout, d)
			}
			if err == nil && !d.Usable {
				err = fmt.Errorf("%w: %s", errNoEngine, d.Engines[0].Remedy)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead of text")
	cmd.Flags().StringVar(&tensorrt, "tensorrt-library", "", "folder of TensorRT's libraries, to try instead of searching")
	cmd.Flags().StringVar(&library, "ort-library", "", "ONNX Runtime's shared library, or its folder, to try instead of searching")
	return cmd
}

func diagnose(library, tensorrt string) diagnosis {
	onnxRuntime, tensorRT := ortFacts(library), tensorRTFacts(tensorrt)
	return diagnosis{
		Usable:  onnxRuntime.Usable || tensorRT.Usable,
		Version: version(),
		Engines: []engineFacts{onnxRuntime, tensorRT},
		JPEG:    findJPEG(),
		CPU:     findCPU(),
		Memory:  findMemory(),
		Data:    findDefaultData(),
	}
}

// ortFacts searches for ONNX Runtime and starts it.
func ortFacts(library string) engineFacts {
	found := ort.Probe(library)
	e := engineFacts{Name: "ort", Version: found.Version, Path: found.Path, Tried: found.Tried, Remedy: ort.Remedy}
	if found.Err != nil {
		return e
	}
	if _, err := ort.New(ort.Options{Library: found.Path}); err != nil {
		e.Tried = append(e.Tried, err.Error())
		return e
	}
	e.Usable, e.Remedy = true, ""
	return e
}

// tensorRTFacts opens TensorRT and asks the driver for its GPUs; nothing is built.
func tensorRTFacts(library string) engineFacts {
	found := trt.Probe(library)
	e := engineFacts{Name: "tensorrt", Usable: found.Err == nil, Version: found.Version, Path: found.Path}
	if found.Err != nil {
		e.Remedy = trt.Remedy
	}
	for _, l := range found.Libraries {
		e.Libraries = append(e.Libraries, libraryFacts{Name: l.Name, Present: l.Problem == "", Path: l.Path, Version: l.Version, Problem: l.Problem})
	}
	for _, g := range found.GPUs {
		e.GPUs = append(e.GPUs, gpuFacts(g))
	}
	return e
}

func findJPEG() jpegFacts {
	decoder, err := dataset.JPEGDecoder("")
	if err != nil {
		return jpegFacts{
			Decoder: "image/jpeg (" + runtime.Version() + ")",
			Problem: err.Error(),
			Remedy: "JPEG files are decoded by Go's slower decoder, whose pixels differ a little: run `make deps`, install libjpeg-turbo " +
				"(Debian: apt-get install libturbojpeg0), or name the library in " + dataset.JPEGLibraryEnv,
		}
	}
	return jpegFacts{Turbo: true, Decoder: decoder}
}

func findCPU() cpuFacts {
	c := cpuFacts{Model: cpuModel(), Arch: runtime.GOARCH, Cores: runtime.NumCPU(), Threads: runtime.GOMAXPROCS(0)}
	switch runtime.GOARCH {
	case "amd64":
		c.Features = []feature{
			{"AVX2", cpu.X86.HasAVX2},
			{"AVX-512", cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL},
			{"AVX-512 VNNI", cpu.X86.HasAVX512VNNI},
			{"AVX-VNNI", cpu.X86.HasAVXVNNI},
			{"AMX INT8", cpu.X86.HasAMXInt8},
		}
	case "arm64":
		c.Features = []feature{
			{"dot product", cpu.ARM64.HasASIMDDP},
			{"INT8 matrix multiply", cpu.ARM64.HasI8MM},
			{"SVE", cpu.ARM64.HasSVE},
		}
	}
	return c
}

// cpuModel reads the processor's name where Linux tells it.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	if name, ok := field(string(text), "model name"); ok {
		return name
	}
	return "unknown"
}

// field returns the value of the first "key : value" line of a /proc file.
func field(text, key string) (string, bool) {
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v), true
		}
	}
	return "", false
}

// findMemory reads Linux's own figures; they stay 0 elsewhere.
func findMemory() memoryFacts {
	var m memoryFacts
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		m.TotalBytes = meminfo(string(text), "MemTotal")
		m.AvailableBytes = meminfo(string(text), "MemAvailable")
	}
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil { // "max" is no limit
			m.LimitBytes = n
		}
	}
	return m
}

// meminfo returns one figure of /proc/meminfo, which is in KiB, as bytes.
func meminfo(text, key string) uint64 {
	value, _ := field(text, key)
	n, err := strconv.ParseUint(strings.TrimSuffix(value, " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return n * 1024
}

// findDefaultData looks for the default data set above the working folder and above the executable.
func findDefaultData() dataFacts {
	var roots []string
	if wd, err := os.Getwd(); err == nil {
		roots = append(roots, wd)
	}
	if exe, err := os.Executable(); err == nil {
		roots = append(roots, filepath.Dir(exe))
	}
	for _, dir := range roots {
		for {
			images, labels := filepath.Join(dir, defaultImages), filepath.Join(dir, defaultLabels)
			if isFile(images) && isFile(labels) {
				return dataFacts{Present: true, Path: filepath.Dir(images)}
			}
			parent := filepath.Dir(dir)
			if parent == dir {
				break
			}
			dir = parent
		}
	}
	return dataFacts{Remedy: "run `make deps` in the source folder; only `make run` needs it"}
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

func printDiagnosis(out io.Writer, d diagnosis) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	line("quantgate", "%s", d.Version)
	for _, e := range d.Engines {
		switch {
		case e.Usable:
			line("engine "+e.Name, "usable: version %s, %s", e.Version, e.Path)
		default:
			line("engine "+e.Name, "not usable")
			for _, t := range e.Tried {
				line("  tried", "%s", t)
			}
		}
		for _, l := range e.Libraries {
			switch {
			case l.Problem != "":
				line("  "+l.Name, "%s", l.Problem)
			case l.Version != "":
				line("  "+l.Name, "version %s, %s", l.Version, l.Path)
			default:
				line("  "+l.Name, "%s", l.Path)
			}
		}
		yes := map[bool]string{true: "yes", false: "no"}
		for _, g := range e.GPUs {
			line(fmt.Sprintf("  GPU %d", g.Index), "%s, compute capability %s, %s, FP16 %s, INT8 %s", g.Name, g.Capability, gib(g.MemoryBytes), yes[g.FP16], yes[g.INT8])
		}
		if e.Remedy != "" {
			line("  remedy", "%s", e.Remedy)
		}
	}
	line("JPEG decoder", "%s", d.JPEG.Decoder)
	if d.JPEG.Problem != "" {
		line("  problem", "%s", d.JPEG.Problem)
		line("  remedy", "%s", d.JPEG.Remedy)
	}
	printCPU(line, d.CPU)
	if d.Memory.TotalBytes > 0 {
		line("memory", "%s, of which %s available", gib(d.Memory.TotalBytes), gib(d.Memory.AvailableBytes))
	}
	if d.Memory.LimitBytes > 0 {
		line("  limit", "%s (control group)", gib(d.Memory.LimitBytes))
	}
	if d.Data.Present {
		line("default data", "present: %s", d.Data.Path)
	} else {
		line("default data", "absent")
		line("  remedy", "%s", d.Data.Remedy)
	}
	return w.Flush()
}

func gib(bytes uint64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30)) }
