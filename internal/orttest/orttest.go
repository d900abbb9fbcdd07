// Package orttest gives tests the ONNX Runtime backend, and says loudly when there is none.
package orttest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/quantgate/quantgate/ort"
)

// EnvRequire is the environment variable that turns a missing library into a failure; CI=true does the same.
const EnvRequire = "QUANTGATE_REQUIRE_ORT"

// Backend returns the backend, or skips the test where ONNX Runtime is missing. In CI, and under QUANTGATE_REQUIRE_ORT=1, the test
// fails instead, so that a set-up that lost the library cannot pass.
func Backend(t testing.TB) *ort.Backend {
	t.Helper()
	b, err := ort.New(ort.Options{Library: projectLibrary()})
	switch {
	case err == nil:
		return b
	case os.Getenv("CI") == "true" || os.Getenv(EnvRequire) == "1":
		t.Fatalf("ONNX Runtime is required here: %v", err)
	default:
		t.Skipf("SKIPPED, this tests nothing: %v", err)
	}
	return nil
}

// projectLibrary is the folder of the project's own download above the test's package, "" where there is none or where the
// environment names another.
func projectLibrary() string {
	if os.Getenv(ort.EnvLibrary) != "" {
		return ""
	}
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		lib := filepath.Join(dir, ".deps", "onnxruntime", "lib")
		if _, missing := os.Stat(lib); missing == nil {
			return lib
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return ""
}
