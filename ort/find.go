package ort

/*
#include <stdint.h>

// The two functions of OrtApiBase, in the order that ONNX Runtime's C interface has kept since version 1.
typedef struct {
	const void *(*get_api)(uint32_t version);
	const char *(*get_version)(void);
} qg_ort_base;

static const char *qg_ort_version(void *get_api_base) {
	const qg_ort_base *base = ((const qg_ort_base *(*)(void))get_api_base)();
	return base ? base->get_version() : 0;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/dl"
)

// EnvLibrary is the environment variable that names ONNX Runtime's shared library, or the folder that holds it.
const EnvLibrary = "QUANTGATE_ORT_LIB"

// minMinor is the oldest ONNX Runtime 1.x whose interface has all that onnxruntime_go calls: its ORT_API_VERSION.
const minMinor = 24

// projectDir is where the set-up script puts the library, below the project's root; cacheDir the same below the user's cache folder.
var (
	projectDir = filepath.Join(".deps", "onnxruntime", "lib")
	cacheDir   = filepath.Join("quantgate", "onnxruntime", "lib")
)

// Remedy ends every message about a missing library: how to get one.
const Remedy = "run `make deps` (or scripts/setup), or name the library in " + EnvLibrary

// Facts is what a search for ONNX Runtime found.
type Facts struct {
	Path    string   // the library's file, "" when none is usable
	Version string   // for example 1.30.0
	Tried   []string // the places looked at, in order, each with what was wrong there; the last one is Path when that is set
	Err     error    // why none is usable, with the remedy; wraps engine.ErrUnavailable
}

// Probe looks for ONNX Runtime's shared library: the file or folder explicit (a flag) when it is not empty; else what the environment
// variable QUANTGATE_ORT_LIB names; else .deps/onnxruntime/lib in the folders above the executable (never those above the working
// folder, which may be anybody's), quantgate/onnxruntime/lib in the user's cache folder, and the system's loader. A library that does not load or is too old is passed
// over, except where the user named it: that is an error.
func Probe(explicit string) Facts {
	if explicit != "" {
		return probeNamed(explicit, "")
	}
	if env := os.Getenv(EnvLibrary); env != "" {
		return probeNamed(env, EnvLibrary+"=")
	}
	var f Facts
	if found, from := dl.AboveExecutable(projectDir); f.try(from+" and the folders above: no "+projectDir, inFolder(found)...) {
		return f
	}
	if cache, err := os.UserCacheDir(); err == nil {
		dir := filepath.Join(cache, cacheDir)
		if f.try(dir+": no library", inFolder(dir)...) {
			return f
		}
	}
	if f.try("", libraryNames()...) {
		return f
	}
	f.Err = fmt.Errorf("no usable ONNX Runtime (%s); %s: %w", strings.Join(f.Tried, "; "), Remedy, engine.ErrUnavailable)
	return f
}

// Find is Probe for callers that want the path alone.
func Find(explicit string) (path string, tried []string, err error) {
	f := Probe(explicit)
	return f.Path, f.Tried, f.Err
}

// probeNamed checks the one library, or the folder of it, that the user named.
func probeNamed(path, how string) Facts {
	var f Facts
	candidates := []string{path}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		candidates = inFolder(path)
	} else if err != nil && strings.ContainsRune(path, filepath.Separator) {
		candidates = nil // the loader's message would say less
	}
	if !f.try(path+": no library there", candidates...) {
		f.Err = fmt.Errorf("%s%s is not a usable ONNX Runtime (%s); %s: %w",
			how, path, strings.Join(f.Tried, "; "), Remedy, engine.ErrUnavailable)
	}
	return f
}

// try checks candidates in order and reports whether one is usable; none says what to note when there is no candidate.
func (f *Facts) try(none string, candidates ...string) bool {
	if len(candidates) == 0 {
		f.Tried = append(f.Tried, none)
	}
	for _, c := range candidates {
		path, version, err := inspect(c)
		if err == nil {
			f.Path, f.Version, f.Tried = path, version, append(f.Tried, path)
			return true
		}
		f.Tried = append(f.Tried, noted(c, err))
	}
	return false
}

// noted puts the candidate before the loader's message unless it begins with it already.
func noted(candidate string, err error) string {
	msg := oneLine(err.Error())
	if strings.HasPrefix(msg, candidate) {
		return msg
	}
	return candidate + ": " + msg
}

// inspect loads a library and asks for its version, without starting it.
func inspect(name string) (path, version string, err error) {
	lib, err := dl.Open(name)
	if err != nil {
		return "", "", err
	}
	defer lib.Close()
	base, err := lib.Symbol("OrtGetApiBase")
	if err != nil {
		return "", "", errors.New("not ONNX Runtime: it has no OrtGetApiBase")
	}
	version = C.GoString(C.qg_ort_version(base))
	if err := checkVersion(version); err != nil {
		return "", "", err
	}
	return dl.PathOf(base), version, nil
}

// checkVersion refuses libraries whose C interface lacks functions that the binding calls.
func checkVersion(version string) error {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) >= 2 {
		major, errMajor := strconv.Atoi(parts[0])
		minor, errMinor := strconv.Atoi(parts[1])
		if errMajor == nil && errMinor == nil && (major > 1 || major == 1 && minor >= minMinor) {
			return nil
		}
	}
	return fmt.Errorf("version %q is too old: 1.%d or newer is needed", version, minMinor)
}

// inFolder lists the library files in dir, the preferred name first.
func inFolder(dir string) []string {
	if dir == "" {
		return nil
	}
	for _, name := range libraryNames() {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return []string{path}
		}
	}
	return nil
}

// libraryNames lists the file names of ONNX Runtime's library on this system.
func libraryNames() []string {
	if runtime.GOOS == "darwin" {
		return []string{"libonnxruntime.1.dylib", "libonnxruntime.dylib"}
	}
	return []string{"libonnxruntime.so.1", "libonnxruntime.so"}
}

// oneLine squeezes a message into one line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
