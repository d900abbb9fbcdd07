package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"

	"github.com/google/renameio/v2"
)

// profiled does a verb's work and, where dir names a folder, writes two profiles of it for `go tool pprof`, also of work that fails or is
// interrupted: the processor time of Go code, with the engine's and the decoder's as one call each, and Go's memory, all that was
// allocated and what is in use at the end.
func (a *app) profiled(dir string, do func() error) error {
	if dir == "" {
		return do()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("--profile: %w", err)
	}
	stop, err := profileCPU(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return fmt.Errorf("--profile: %w", err)
	}
	defer func() {
		for _, err := range []error{stop(), profileMemory(filepath.Join(dir, "memory.pprof"))} {
			if err != nil { // no reason to lose a result or a verdict
				a.ui.Warnf("--profile: %v", err)
			}
		}
	}()
	return do()
}

// profileCPU starts the CPU profile; the returned function ends it and puts the file in place.
func profileCPU(path string) (stop func() error, err error) {
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Cleanup())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.CloseAtomicallyReplace()
	}, nil
}

func profileMemory(path string) error {
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	runtime.GC() // what is in use is known as of the last collection
	if err := pprof.Lookup("allocs").WriteTo(f, 0); err != nil {
		return errors.Join(err, f.Cleanup())
	}
	return f.CloseAtomicallyReplace()
}
