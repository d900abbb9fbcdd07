package dataset

/*
#include <string.h>

// The functions of libjpeg-turbo's TurboJPEG API (2.0 and later) that decoding takes, and their constants.
typedef void *(*qg_init)(void);
typedef int (*qg_decompress)(void *handle, const unsigned char *jpeg, unsigned long size, unsigned char *dst,
	int width, int pitch, int height, int format, int flags);
typedef int (*qg_destroy)(void *handle);
typedef char *(*qg_error)(void *handle);
typedef int (*qg_code)(void *handle);

enum { QG_RGB = 0, QG_GREY = 6, QG_CMYK = 11, QG_ACCURATE_DCT = 4096 };

typedef struct {
	qg_init init;
	qg_decompress decompress;
	qg_destroy destroy;
	qg_error error;
	qg_code code;
} qg_turbo;

static void *qg_new(const qg_turbo *t) { return t->init(); }
static void qg_free(const qg_turbo *t, void *handle) { t->destroy(handle); }

// qg_decode returns 0, or -1 on an error or a warning with the message in text; *warning tells which.
static int qg_decode(const qg_turbo *t, void *handle, const unsigned char *jpeg, unsigned long size, unsigned char *dst,
	int width, int height, int format, char *text, size_t room, int *warning) {
	int rc = t->decompress(handle, jpeg, size, dst, width, 0, height, format, QG_ACCURATE_DCT);
	if (rc) {
		*warning = t->code(handle) == 0;
		strncpy(text, t->error(handle), room - 1);
		text[room - 1] = 0;
	}
	return rc;
}
*/
import "C"

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"unsafe"

	"github.com/quantgate/quantgate/internal/dl"
)

// JPEGLibraryEnv is the environment variable that names the TurboJPEG library to open instead of searching, or is "none".
const JPEGLibraryEnv = "QUANTGATE_TURBOJPEG_LIB"

// JPEGLibraries lists the names under which libjpeg-turbo's TurboJPEG library is looked for, in order: the project's own download in
// .deps/turbojpeg/lib above the executable, then the system's, Linux before macOS.
func JPEGLibraries() []string {
	names := []string{"libturbojpeg.so.0", "libturbojpeg.so", "libturbojpeg.0.dylib", "libturbojpeg.dylib"}
	var all []string
	if own, _ := dl.AboveExecutable(filepath.Join(".deps", "turbojpeg", "lib")); own != "" {
		for _, n := range names {
			if path := filepath.Join(own, n); fileExists(path) {
				all = append(all, path)
			}
		}
	}
	return append(append(all, names...),
		"/opt/homebrew/opt/jpeg-turbo/lib/libturbojpeg.dylib", "/usr/local/opt/jpeg-turbo/lib/libturbojpeg.dylib")
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// JPEGDecoder opens the TurboJPEG library as Open does (library empty: JPEGLibraryEnv, then JPEGLibraries) and returns what
// Dataset.Decoder would. The error tells every name that was tried and the loader's message.
func JPEGDecoder(library string) (string, error) {
	t, err := openTurboJPEG(library)
	if err != nil {
		return "", err
	}
	return t.version, nil
}

// turboJPEG is an opened library. It is never unloaded.
type turboJPEG struct {
	c       C.qg_turbo
	version string
}

var turboLibraries = struct {
	sync.Mutex
	opened map[string]*turboJPEG
}{opened: map[string]*turboJPEG{}}

// openTurboJPEG opens a library once a process.
func openTurboJPEG(library string) (*turboJPEG, error) {
	if library == "" {
		library = os.Getenv(JPEGLibraryEnv)
	}
	turboLibraries.Lock()
	defer turboLibraries.Unlock()
	if t := turboLibraries.opened[library]; t != nil {
		return t, nil
	}
	names := JPEGLibraries()
	if library != "" {
		names = []string{library}
	}
	var tried []string
	for _, name := range names {
		t, err := dlopenTurboJPEG(name)
		if err == nil {
			turboLibraries.opened[library] = t
			return t, nil
		}
		tried = append(tried, err.Error())
	}
	return nil, fmt.Errorf("libjpeg-turbo's TurboJPEG library not usable: %s", strings.Join(tried, "; "))
}

func dlopenTurboJPEG(name string) (*turboJPEG, error) {
	lib, err := dl.Open(name)
	if err != nil {
		return nil, named(name, err)
	}
	var found [5]unsafe.Pointer
	for i, symbol := range []string{"tjInitDecompress", "tjDecompress2", "tjDestroy", "tjGetErrorStr2", "tjGetErrorCode"} {
		if found[i], err = lib.Symbol(symbol); err != nil {
			return nil, errors.Join(named(name, err), lib.Close())
		}
	}
	return &turboJPEG{
		c: C.qg_turbo{
			init: C.qg_init(found[0]), decompress: C.qg_decompress(found[1]), destroy: C.qg_destroy(found[2]),
			error: C.qg_error(found[3]), code: C.qg_code(found[4]),
		},
		version: turboVersion(dl.PathOf(found[0])),
	}, nil
}

// named puts a library's name before the loader's message where that does not tell it.
func named(name string, err error) error {
	if strings.Contains(err.Error(), name) {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

var turboVersionText = regexp.MustCompile(`libjpeg-turbo version (\d+(?:\.\d+)+ \(build \w+\))`)

// turboVersion finds the version in the library's file: the API has no call for it.
func turboVersion(path string) string {
	if data, err := os.ReadFile(path); err == nil {
		if m := turboVersionText.FindSubmatch(data); m != nil {
			return "libjpeg-turbo " + string(bytes.TrimSpace(m[1]))
		}
		sum := sha256.Sum256(data) // another library at this path is another decoder
		return fmt.Sprintf("libjpeg-turbo (version not stated, sha256 %x)", sum[:8])
	}
	return "libjpeg-turbo (version not stated by " + path + ")"
}

// turboHandle is one decompressor; it serves one goroutine at a time.
type turboHandle struct {
	lib    *turboJPEG
	handle unsafe.Pointer
	text   [256]C.char
	soft   C.int
}

func (t *turboJPEG) newHandle() (*turboHandle, error) {
	h := C.qg_new(&t.c)
	if h == nil {
		return nil, errors.New("libjpeg-turbo: no memory for a decompressor")
	}
	return &turboHandle{lib: t, handle: h}, nil
}

func (h *turboHandle) close() { C.qg_free(&h.lib.c, h.handle) }

// decode decompresses a JPEG of w x h pixels into dst with the accurate integer DCT and fancy upsampling, as Pillow does.
// channels is 1 (grey), 3 (RGB) or 4 (CMYK as stored). It returns the text of the first warning that did not stop it.
func (h *turboHandle) decode(data, dst []byte, width, height, channels int) (warning string, err error) {
	format := C.int(C.QG_RGB)
	switch channels {
	case 1:
		format = C.QG_GREY
	case 4:
		format = C.QG_CMYK
	}
	rc := C.qg_decode(&h.lib.c, h.handle, (*C.uchar)(&data[0]), C.ulong(len(data)), (*C.uchar)(&dst[0]),
		C.int(width), C.int(height), format, &h.text[0], C.size_t(len(h.text)), &h.soft)
	if rc == 0 {
		return "", nil
	}
	if h.soft != 0 {
		return C.GoString(&h.text[0]), nil
	}
	return "", fmt.Errorf("libjpeg-turbo: %s", C.GoString(&h.text[0]))
}
