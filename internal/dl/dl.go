// Package dl opens shared libraries while the program runs, so that building quantgate needs none of them.
package dl

/*
#cgo linux LDFLAGS: -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

// Each function reads dlerror in the thread that failed: the message is per thread, and Go may change threads between calls.

static void *qg_open(const char *name, const char **err) {
	dlerror();
	void *h = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
	if (!h) *err = dlerror();
	return h;
}

static void *qg_symbol(void *h, const char *name, const char **err) {
	dlerror();
	void *p = dlsym(h, name);
	*err = dlerror();
	return p;
}

static const char *qg_path(void *symbol) {
	Dl_info info;
	return dladdr(symbol, &info) ? info.dli_fname : NULL;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"
)

// Library is an open shared library. Its symbols are valid until Close.
type Library struct {
	handle unsafe.Pointer
	name   string
}

// Open loads the library called name: a path, or a bare file name for which the system's loader searches.
// The error is the loader's own text, which says what is missing.
func Open(name string) (*Library, error) {
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	var msg *C.char
	h := C.qg_open(cName, &msg)
	if h == nil {
		return nil, errors.New(C.GoString(msg))
	}
	return &Library{handle: h, name: name}, nil
}

// Symbol returns the address of an exported function or variable.
func (l *Library) Symbol(name string) (unsafe.Pointer, error) {
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	var msg *C.char
	p := C.qg_symbol(l.handle, cName, &msg)
	if msg != nil {
		return nil, errors.New(C.GoString(msg))
	}
	if p == nil {
		return nil, fmt.Errorf("%s: symbol %s is null", l.name, name)
	}
	return p, nil
}

// Symbols looks up several exported functions or variables by name and puts their addresses where the map says: into pointers, of any type
// and in any memory. What the library lacks is left as it was and named in the error.
func (l *Library) Symbols(to map[string]unsafe.Pointer) error {
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(to)) {
		p, err := l.Symbol(name)
		if err != nil {
			missing = append(missing, err.Error())
			continue
		}
		*(*unsafe.Pointer)(to[name]) = p
	}
	if len(missing) > 0 {
		return errors.New(strings.Join(missing, "; "))
	}
	return nil
}

// PathOf returns the file that holds the symbol at p, with symbolic links resolved, or "" where the loader does not know it.
func PathOf(p unsafe.Pointer) string {
	c := C.qg_path(p)
	if c == nil {
		return ""
	}
	path := C.GoString(c)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// Close drops this handle; the library is unloaded with its last one.
func (l *Library) Close() error {
	if C.dlclose(l.handle) != 0 {
		return fmt.Errorf("%s: cannot be unloaded", l.name)
	}
	return nil
}
