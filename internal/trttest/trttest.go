// Package trttest compiles a TensorRT, an ONNX parser, a CUDA driver and an NVML that need no GPU, for the tests of packages that use trt.
package trttest

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

//go:embed testdata/*.c
var sources embed.FS

// compiled keeps the libraries of this process by version and defines.
var compiled sync.Map

// Build makes the libraries of one TensorRT version, as getInferLibVersion tells it (8601, 101501), in a new folder and returns that.
// Environment variables FAKE_TRT, FAKE_CUDA and FAKE_NVML make them misbehave, FAKE_DEVICES gives the driver more GPUs; see the sources.
func Build(t testing.TB, version int, defines ...string) string {
	t.Helper()
	dir := t.TempDir()
	key := fmt.Sprint(version, defines)
	libraries, ok := compiled.Load(key)
	if !ok {
		libraries = compile(t, version, defines)
		compiled.Store(key, libraries)
	}
	for name, data := range libraries.(map[string][]byte) { //nolint:errcheck // only compile stores
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func compile(t testing.TB, version int, defines []string) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	major := version / 1000
	if version >= 10000 {
		major = version / 10000
	}
	_, here, _, _ := runtime.Caller(0)
	slots := filepath.Join(filepath.Dir(here), "..", "..", "trt", "internal", "nvinfer")
	libraries := map[string][]byte{}
	for source, library := range map[string]string{
		"fake_nvinfer.c": fmt.Sprintf("libnvinfer.so.%d", major),
		"fake_parser.c":  fmt.Sprintf("libnvonnxparser.so.%d", major),
		"fake_cuda.c":    "libcuda.so.1",
		"fake_nvml.c":    "libnvidia-ml.so.1",
	} {
		text, err := sources.ReadFile("testdata/" + source)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, source)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"-shared", "-fPIC", "-O1", "-w", "-pthread", "-I", slots, fmt.Sprintf("-DMAJOR=%d", major), fmt.Sprintf("-DVERSION=%d", version)}
		args = append(append(args, defines...), file, "-o", filepath.Join(dir, library))
		if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil { //nolint:gosec // the compiler, over this package's own sources
			t.Fatalf("cc: %v\n%s", err, out)
		}
		if libraries[library], err = os.ReadFile(filepath.Join(dir, library)); err != nil {
			t.Fatal(err)
		}
	}
	return libraries
}

// Model is the fakes' text for a model with an open batch: input x ?x1x2x2, outputs y ?x4 and z ?x4, all float32.
const Model = "fake\ninput x 0 -1 1 2 2\noutput y 0 -1 4\noutput z 0 -1 4\n"
