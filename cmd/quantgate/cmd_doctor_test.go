package main

import (
	"encoding/json"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/ort"
)

func TestProcFields(t *testing.T) {
	meminfo1 := "MemTotal:       24684084 kB\nMemFree:        1000 kB\nMemAvailable:   2000 kB\nHugePages_Total:       0\n"
	require.Equal(t, uint64(24684084*1024), meminfo(meminfo1, "MemTotal"))
	require.Equal(t, uint64(2000*1024), meminfo(meminfo1, "MemAvailable"))
	require.Zero(t, meminfo(meminfo1, "MemSwap"))
	require.Zero(t, meminfo("MemTotal: lots kB\n", "MemTotal"))

	name, ok := field("processor\t: 0\nmodel name\t: AMD EPYC: 9B14\nmodel name\t: other\n", "model name")
	require.True(t, ok)
	require.Equal(t, "AMD EPYC: 9B14", name)
	_, ok = field("", "model name")
	require.False(t, ok)
}

func TestDiagnosisIsPrintedWithEveryRemedy(t *testing.T) {
	d := diagnosis{
		Version: "v1.2.3",
		Engines: []engineFacts{
			{Name: "ort", Tried: []string{"/a: no library", "/b: too old"}, Remedy: ort.Remedy},
			{Name: "tensorrt", Remedy: "use trtexec", Libraries: []libraryFacts{
				{Name: "libnvinfer", Present: true, Path: "/usr/lib/libnvinfer.so.8", Version: "8.6.1"}, {Name: "libcuda", Problem: "cannot open"},
			}, GPUs: []gpuFacts{{Name: "NVIDIA H100", Capability: "9.0", MemoryBytes: 80 << 30, FP16: true, INT8: true}}},
		},
		JPEG:   jpegFacts{Decoder: "image/jpeg (go1.26)", Problem: "no libturbojpeg", Remedy: "install libturbojpeg0"},
		CPU:    cpuFacts{Model: "AMD EPYC", Arch: "amd64", Cores: 8, Threads: 2, Features: []feature{{"AVX2", true}, {"AMX INT8", false}}},
		Memory: memoryFacts{TotalBytes: 8 << 30, AvailableBytes: 3 << 29, LimitBytes: 2 << 30},
		Data:   dataFacts{Remedy: "run make deps"},
	}
	var out strings.Builder
	require.NoError(t, printDiagnosis(&out, d))
	require.Equal(t, `quantgate        v1.2.3
engine ort       not usable
  tried          /a: no library
  tried          /b: too old
  remedy         `+ort.Remedy+`
engine tensorrt  not usable
  libnvinfer     version 8.6.1, /usr/lib/libnvinfer.so.8
  libcuda        cannot open
  GPU 0          NVIDIA H100, compute capability 9.0, 80.0 GiB, FP16 yes, INT8 yes
  remedy         use trtexec
JPEG decoder     image/jpeg (go1.26)
  problem        no libturbojpeg
  remedy         install libturbojpeg0
CPU              AMD EPYC, amd64, 8 cores, 2 threads used
  AVX2           yes
  AMX INT8       no
memory           8.0 GiB, of which 1.5 GiB available
  limit          2.0 GiB (control group)
default data     absent
  remedy         run make deps
`, out.String())
}

func TestDiagnosisOfThisMachine(t *testing.T) {
	d := diagnose("", "")
	require.Positive(t, d.CPU.Cores)
	require.NotEmpty(t, d.JPEG.Decoder)
	require.Equal(t, d.Engines[0].Usable || d.Engines[1].Usable, d.Usable)
	for _, e := range d.Engines {
		require.Equal(t, e.Usable, e.Remedy == "", "engine %s: a remedy where it is not usable, and only there", e.Name)
	}
	require.Equal(t, d.Data.Present, d.Data.Remedy == "")
	text, err := json.Marshal(d)
	require.NoError(t, err)
	require.Contains(t, string(text), `"engines":[{"name":"ort"`)
}

func TestVersionFromWhatTheGoToolStamps(t *testing.T) {
	setting := func(k, v string) debug.BuildSetting { return debug.BuildSetting{Key: k, Value: v} }
	commit := "0123456789abcdef0123456789abcdef01234567"
	for _, c := range []struct {
		name, linker, want string
		info               *debug.BuildInfo
	}{
		{"nothing", "", "devel", nil},
		{"a tree without a tag", "", "devel-0123456789ab", &debug.BuildInfo{
			Main: debug.Module{Version: "(devel)"}, Settings: []debug.BuildSetting{setting("vcs.revision", commit)},
		}},
		{"go install", "", "v1.2.3", &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}},
		{"the linker's flag goes first", "v9", "v9", &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			saved := buildVersion
			defer func() { buildVersion = saved }()
			buildVersion = c.linker
			require.Equal(t, c.want, factsOf(c.info).Version)
		})
	}
	f := factsOf(&debug.BuildInfo{
		Settings: []debug.BuildSetting{setting("vcs.revision", commit), setting("vcs.time", "2026-01-02T03:04:05Z"), setting("vcs.modified", "true")},
		Deps: []*debug.Module{
			{Path: "gonum.org/v1/gonum", Version: "v0.17.0"},
			{Path: "golang.org/x/image", Version: "v0.1.0", Replace: &debug.Module{Path: "golang.org/x/image", Version: "v0.2.0"}},
			{Path: "example.org/other", Version: "v1.0.0"},
		},
	})
	require.Equal(t, []string{commit, "2026-01-02T03:04:05Z", "modified"}, f.commitWords())
	require.Equal(t, map[string]string{"gonum.org/v1/gonum": "v0.17.0", "golang.org/x/image": "v0.2.0"}, f.Modules)
}
