// Package nvinfer calls TensorRT without NVIDIA's headers: it opens the libraries while the program runs and calls C++ members by
// their place in the tables (slots.h), for the versions whose places have been compared with the public headers.
//
// It is plain C, so that the binary needs no C++ library where TensorRT is absent. TensorRT's members are declared noexcept, except
// those of the 8.x parser: an exception in one of them ends the process with C++'s message, and nothing unwinds through Go. Callbacks
// find their Go values by handle and stop panics.
package nvinfer

/*
#include <stdlib.h>
#include "nvinfer.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/quantgate/quantgate/internal/dl"
)

// Version is a TensorRT version.
type Version struct{ Major, Minor, Patch int }

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// versionOf reads getInferLibVersion's number, whose digits were spread anew in 10.
func versionOf(n int) Version {
	if n >= 10000 {
		return Version{n / 10000, n / 100 % 100, n % 100}
	}
	return Version{n / 1000, n / 100 % 10, n % 100}
}

// verified is the range of versions whose slots have been compared with NVIDIA's headers.
const verified = "8.5 and 8.6, 10.0 to 10.16"

// Verified returns an error that names the range where v is outside of the versions that this package may call.
func (v Version) Verified() error {
	if v.Major == 8 && v.Minor >= 5 && v.Minor <= 6 || v.Major == 10 && v.Minor <= 16 {
		return nil
	}
	return fmt.Errorf("TensorRT %s is outside of the verified versions (%s): its C++ tables may differ, so it is not called", v, verified)
}

// Library is TensorRT, opened. It stays open while the process lives.
type Library struct {
	Path, ParserPath string
	Version          Version

	number  C.int32_t // as the library gave it
	slots   *C.qg_slots
	builder unsafe.Pointer
	runtime unsafe.Pointer
	parser  unsafe.Pointer
	parserN C.int32_t // the parser's own version
	plugins unsafe.Pointer
}

// Facts is what was found of one library.
type Facts struct {
	Name, Path, Version string
	Problem             string // the loader's text, "" when the library was opened
}

// majors are those looked for, the newest first.
var majors = []string{"10", "8"}

// helpers are opened from the same folder, where they lie there, before the libraries that need them.
var helpers = []string{"libcublasLt.so.*", "libcublas.so.*", "libcudnn.so.*"}

// Open opens libnvinfer, its plugins and the ONNX parser, from folder dir when it is not empty, else where the system's loader finds them.
// Facts are returned with an error too: one for each library, with the loader's own text.
func Open(dir string) (*Library, []Facts, error) {
	if dir == "" {
		var facts []Facts
		var first error
		for _, major := range majors {
			l, f, err := open("", major)
			if err == nil {
				return l, f, nil
			}
			if facts == nil || f[0].Problem == "" {
				facts, first = f, err
			}
			if f[0].Problem == "" { // it is there, and unusable
				break
			}
		}
		return nil, facts, first
	}
	for _, major := range majors {
		if _, err := os.Stat(filepath.Join(dir, "libnvinfer.so."+major)); err == nil {
			return open(dir, major)
		}
	}
	text := fmt.Sprintf("%s: no libnvinfer.so.10 or libnvinfer.so.8 there", dir)
	return nil, []Facts{{Name: "libnvinfer", Problem: text}}, errors.New(text)
}

func open(dir, major string) (*Library, []Facts, error) {
	l := &Library{}
	if dir != "" {
		preload(dir, helpers)
	}
	nvinfer := Facts{Name: "libnvinfer"}
	plugin := Facts{Name: "libnvinfer_plugin"}
	parser := Facts{Name: "libnvonnxparser"}
	facts := func() []Facts { return []Facts{nvinfer, plugin, parser} }

	lib, err := dl.Open(filepath.Join(dir, "libnvinfer.so."+major))
	if err != nil {
		nvinfer.Problem = err.Error()
		plugin.Problem, parser.Problem = notTried, notTried
		return nil, facts(), err
	}
	var version unsafe.Pointer
	if err := lib.Symbols(map[string]unsafe.Pointer{
		"getInferLibVersion":          unsafe.Pointer(&version),
		"createInferBuilder_INTERNAL": unsafe.Pointer(&l.builder),
		"createInferRuntime_INTERNAL": unsafe.Pointer(&l.runtime),
	}); err != nil {
		nvinfer.Problem = err.Error()
		plugin.Problem, parser.Problem = notTried, notTried
		return nil, facts(), err
	}
	nvinfer.Path = dl.PathOf(version)
	l.Path = nvinfer.Path
	l.number = C.qg_lib_version(version)
	l.Version = versionOf(int(l.number))
	nvinfer.Version = l.Version.String()
	if err := l.Version.Verified(); err != nil {
		nvinfer.Problem = err.Error()
		plugin.Problem, parser.Problem = notTried, notTried
		return nil, facts(), err
	}
	l.slots = C.qg_slots_of(C.int(l.Version.Major))

	if dir != "" {
		preload(dir, []string{"libnvinfer_builder_resource.so." + l.Version.String()})
	}
	// A parser of 8 needs the plugins, one of 10 does without; where they fail, it is they that say why.
	if plugins, err := dl.Open(filepath.Join(dir, "libnvinfer_plugin.so."+major)); err != nil {
		plugin.Problem = err.Error()
	} else if l.plugins, err = plugins.Symbol("initLibNvInferPlugins"); err != nil {
		plugin.Problem = err.Error()
	} else {
		plugin.Path = dl.PathOf(l.plugins)
	}
	lib, err = dl.Open(filepath.Join(dir, "libnvonnxparser.so."+major))
	if err != nil {
		parser.Problem = err.Error()
		if plugin.Problem != "" {
			err = fmt.Errorf("%w (%s)", err, plugin.Problem)
		}
		return nil, facts(), err
	}
	var parserVersion unsafe.Pointer
	if err := lib.Symbols(map[string]unsafe.Pointer{
		"createNvOnnxParser_INTERNAL": unsafe.Pointer(&l.parser),
		"getNvOnnxParserVersion":      unsafe.Pointer(&parserVersion),
	}); err != nil {
		parser.Problem = err.Error()
		return nil, facts(), err
	}
	l.parserN = C.qg_lib_version(parserVersion)
	parser.Path = dl.PathOf(l.parser)
	l.ParserPath = parser.Path
	return l, facts(), nil
}

// notTried is the problem of a library whose turn did not come.
const notTried = "not opened: it needs libnvinfer"

// preload opens what matches in dir, so that libraries which name it find it there; what does not open will be told by them.
func preload(dir string, patterns []string) {
	for _, p := range patterns {
		found, _ := filepath.Glob(filepath.Join(dir, p)) // the patterns are well formed
		for _, f := range found {
			_, _ = dl.Open(f)
		}
	}
}

// CacheNumber is the version as calibration caches of v begin with it: 8601, 101501.
func (v Version) CacheNumber() string {
	if v.Major >= 10 {
		return fmt.Sprint(v.Major*10000 + v.Minor*100 + v.Patch)
	}
	return fmt.Sprint(v.Major*1000 + v.Minor*100 + v.Patch)
}
