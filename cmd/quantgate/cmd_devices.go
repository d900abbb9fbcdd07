package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/trt"
)

// hardware is what `devices --json` prints.
type hardware struct {
	GPUs    []gpuHardware `json:"gpus"`
	CUDA    string        `json:"cuda_driver,omitempty"`   // CUDA's version of the driver
	Driver  string        `json:"nvidia_driver,omitempty"` // NVIDIA's
	Problem string        `json:"problem,omitempty"`       // why no GPU is listed
	CPU     cpuFacts      `json:"cpu"`
}

type gpuHardware struct {
	gpuFacts
	SMs            int     `json:"multiprocessors"`
	PCI            string  `json:"pci_bus_id"`
	TF32           bool    `json:"tf32"`
	FP8            bool    `json:"fp8"`
	ClockMHz       int     `json:"clock_mhz,omitempty"` // now
	ClockMaxMHz    int     `json:"clock_max_mhz,omitempty"`
	MemoryClockMHz int     `json:"memory_clock_max_mhz,omitempty"`
	PowerWatts     float64 `json:"power_watts,omitempty"` // now
	PowerLimit     float64 `json:"power_limit_watts,omitempty"`
	TemperatureC   int     `json:"temperature_c,omitempty"`
	Problem        string  `json:"problem,omitempty"` // why clocks, power and temperature are not known
}

func newDevicesCmd(a *app) *cobra.Command {
	var (
		asJSON  bool
		library string
	)
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List the GPUs and the CPU, and the arithmetic each is fast in",
		Long: `devices lists each GPU that NVIDIA's driver knows, with its number for --device and --devices, memory, compute
capability and multiprocessors, the arithmetic that it has hardware for, its clocks and its power limit; and the CPU with
the instructions that INT8 needs. TensorRT is not needed. Clocks, power and temperature come from NVML.

A machine without a GPU is no error; doctor says whether an engine is usable.`,
		Example: `  quantgate devices
  quantgate devices --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			h := findHardware(library)
			if asJSON {
				return printJSON(a.stdout, h)
			}
			return printHardware(a.stdout, h)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead of text")
	cmd.Flags().StringVar(&library, "tensorrt-library", "", "folder of TensorRT's libraries, where a driver may lie too")
	return cmd
}

func findHardware(library string) hardware {
	h := hardware{GPUs: []gpuHardware{}, CPU: findCPU()}
	all, err := trt.Devices(library)
	if err != nil {
		h.Problem = err.Error()
	}
	for _, d := range all {
		g := gpuHardware{
			gpuFacts: gpuFacts(d.GPU), SMs: d.SMs, PCI: d.PCI, TF32: d.TF32, FP8: d.FP8,
			ClockMHz: d.State.ClockMHz, ClockMaxMHz: d.Limits.ClockMHz, MemoryClockMHz: d.Limits.MemoryClockMHz,
			PowerWatts: d.State.PowerWatts, PowerLimit: d.Limits.PowerWatts, TemperatureC: d.State.TemperatureC,
		}
		if d.Problem != nil {
			g.Problem = oneLine(d.Problem.Error())
		}
		h.GPUs = append(h.GPUs, g)
		h.CUDA, h.Driver = d.CUDADriver, d.Driver
	}
	return h
}

func printHardware(out io.Writer, h hardware) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	yes := map[bool]string{true: "yes", false: "no"}
	if h.Problem != "" {
		line("GPU", "none: %s", h.Problem)
	}
	for _, g := range h.GPUs {
		line(fmt.Sprintf("GPU %d", g.Index), "%s, %s, compute capability %s, %d multiprocessors, PCI %s", g.Name, gib(g.MemoryBytes), g.Capability, g.SMs, g.PCI)
		line("  arithmetic", "INT8 %s, FP16 %s, FP8 %s, TF32 %s", yes[g.INT8], yes[g.FP16], yes[g.FP8], yes[g.TF32])
		if g.Problem != "" {
			line("  clocks, power", "unknown: %s", g.Problem)
			continue
		}
		line("  clocks", "%d MHz now, %d at most, memory %d at most", g.ClockMHz, g.ClockMaxMHz, g.MemoryClockMHz)
		line("  power", "%.0f W now, limit %.0f W, %d °C", g.PowerWatts, g.PowerLimit, g.TemperatureC)
	}
	if h.CUDA != "" {
		line("driver", "CUDA %s, %s", h.CUDA, or(h.Driver, "NVIDIA's version unknown"))
	}
	printCPU(line, h.CPU)
	return w.Flush()
}

// printCPU tells of the processor.
func printCPU(line func(name, format string, args ...any), c cpuFacts) {
	line("CPU", "%s, %s, %d cores, %d threads used", c.Model, c.Arch, c.Cores, c.Threads)
	for _, f := range c.Features {
		line("  "+f.Name, "%s", map[bool]string{true: "yes", false: "no"}[f.Has])
	}
}
