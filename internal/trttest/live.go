package trttest

/*
static int qg_call(void *f) { return ((int (*)(void))f)(); }
*/
import "C"

import (
	"path/filepath"
	"testing"

	"github.com/quantgate/quantgate/internal/dl"
)

// Live asks the libraries in dir how many objects, and how many allocations of the driver, have not been given back.
func Live(t testing.TB, dir string) (objects, allocations int) {
	t.Helper()
	ask := func(pattern, symbol string) int {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: %v %v", pattern, files, err)
		}
		lib, err := dl.Open(files[0])
		if err != nil {
			t.Fatal(err)
		}
		p, err := lib.Symbol(symbol)
		if err != nil {
			t.Fatal(err)
		}
		return int(C.qg_call(p))
	}
	return ask("libnvinfer.so.*", "fake_live_objects"), ask("libcuda.so.1", "fake_live_allocations")
}
