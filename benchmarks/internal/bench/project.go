package bench

import (
	"os"
	"path/filepath"

	"github.com/quantgate/quantgate/ort"
)

// UseProjectLibrary names the project's own ONNX Runtime to this process and to those it starts: `go run` puts the executable elsewhere,
// and ort looks beside that. What the environment names already stays.
func UseProjectLibrary() error {
	lib, err := filepath.Abs(filepath.Join(".deps", "onnxruntime", "lib"))
	if err != nil || os.Getenv(ort.EnvLibrary) != "" {
		return err
	}
	if _, err := os.Stat(lib); err != nil {
		return nil //nolint:nilerr // ort searches the system then, and says so
	}
	return os.Setenv(ort.EnvLibrary, lib)
}
