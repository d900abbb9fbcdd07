package ort_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/orttest"
	"github.com/quantgate/quantgate/ort"
)

// fileName is what ONNX Runtime's library is called on this system.
func fileName() string {
	if runtime.GOOS == "darwin" {
		return "libonnxruntime.1.dylib"
	}
	return "libonnxruntime.so.1"
}

// fakeLibrary compiles a shared library whose OrtGetApiBase reports a version and offers no interface.
func fakeLibrary(t *testing.T, dir, version string) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		if cc, err = exec.LookPath("gcc"); err != nil {
			t.Skip("needs a C compiler to make a library that misbehaves")
		}
	}
	require.NoError(t, os.MkdirAll(dir, 0o755))
	src := filepath.Join(t.TempDir(), "fake.c")
	require.NoError(t, os.WriteFile(src, []byte(`
		static const void *api(unsigned v) { (void)v; return 0; }
		static const char *version(void) { return "`+version+`"; }
		static const struct { const void *(*a)(unsigned); const char *(*v)(void); } base = { api, version };
		const void *OrtGetApiBase(void) { return &base; }
	`), 0o600))
	path := filepath.Join(dir, fileName())
	out, err := exec.Command(cc, "-shared", "-fPIC", "-o", path, src).CombinedOutput()
	require.NoError(t, err, string(out))
	return path
}

// realLibrary returns the library that the other tests use.
func realLibrary(t *testing.T) string {
	t.Helper()
	return orttest.Backend(t).Library()
}

func TestProbeNamed(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.so")
	require.NoError(t, os.WriteFile(text, []byte("not a library"), 0o600))
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.Mkdir(empty, 0o755))
	missing := filepath.Join(dir, "nosuch.so")

	for _, c := range []struct {
		name, library, want string
	}{
		{"missing file", missing, missing + ": no library there"},
		{"missing name", "libnosuchonnxruntime.so", "libnosuchonnxruntime.so: "},
		{"not a library", text, text + ": "},
		{"another library", "libc.so.6", "not ONNX Runtime: it has no OrtGetApiBase"},
		{"folder without one", empty, empty + ": no library there"},
		{"too old", fakeLibrary(t, filepath.Join(dir, "old"), "1.17.3"), `version "1.17.3" is too old: 1.24 or newer is needed`},
		{"no version", fakeLibrary(t, filepath.Join(dir, "odd"), "odd"), `version "odd" is too old`},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := func(f ort.Facts, prefix string) {
				require.ErrorIs(t, f.Err, engine.ErrUnavailable)
				require.Empty(t, f.Path)
				require.Empty(t, f.Version)
				require.Len(t, f.Tried, 1, "a library that the user names is the only one tried")
				require.ErrorContains(t, f.Err, prefix+c.library+" is not a usable ONNX Runtime (")
				require.ErrorContains(t, f.Err, c.want)
				require.ErrorContains(t, f.Err, ort.Remedy)
				require.NotContains(t, f.Err.Error(), "\n")
			}
			t.Setenv(ort.EnvLibrary, "")
			check(ort.Probe(c.library), "")
			t.Setenv(ort.EnvLibrary, c.library)
			check(ort.Probe(""), ort.EnvLibrary+"=")

			_, err := ort.New(ort.Options{Library: c.library})
			require.ErrorIs(t, err, engine.ErrUnavailable)
		})
	}
}

func TestProbeOrder(t *testing.T) {
	library := realLibrary(t)
	version := orttest.Backend(t).Version()
	old := fakeLibrary(t, filepath.Join(t.TempDir(), "old"), "1.2.3")

	t.Run("the flag goes before the environment", func(t *testing.T) {
		t.Setenv(ort.EnvLibrary, old)
		path, tried, err := ort.Find(library)
		require.NoError(t, err)
		require.Equal(t, library, path)
		require.Equal(t, []string{library}, tried)
	})
	t.Run("a folder stands for the library in it", func(t *testing.T) {
		f := ort.Probe(filepath.Dir(library))
		require.NoError(t, f.Err)
		require.Equal(t, library, f.Path)
		require.Equal(t, version, f.Version)
	})

	// The searches below begin in folders of their own. The test's executable lies in a temporary folder too.
	place := func(t *testing.T, dir, target string) {
		t.Helper()
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.Symlink(target, filepath.Join(dir, fileName())))
	}
	search := func(t *testing.T) (root, cache string) {
		t.Helper()
		root, cache = t.TempDir(), t.TempDir()
		deep := filepath.Join(root, "a", "b")
		require.NoError(t, os.MkdirAll(deep, 0o755))
		t.Chdir(deep)
		t.Setenv(ort.EnvLibrary, "")
		t.Setenv("XDG_CACHE_HOME", cache)
		t.Setenv("HOME", cache)
		return root, cache
	}
	t.Run("a folder above the working folder is never looked in", func(t *testing.T) {
		root, cache := search(t)
		place(t, filepath.Join(root, ".deps", "onnxruntime", "lib"), old)
		place(t, filepath.Join(cache, "quantgate", "onnxruntime", "lib"), library)
		f := ort.Probe("")
		require.NoError(t, f.Err)
		require.Equal(t, library, f.Path)
		require.NotContains(t, strings.Join(f.Tried, "\n"), root)
	})
	t.Run("a library that is too old is passed over", func(t *testing.T) {
		_, cache := search(t)
		place(t, filepath.Join(cache, "quantgate", "onnxruntime", "lib"), old)
		f := ort.Probe("")
		require.NotEqual(t, old, f.Path)
		require.Contains(t, strings.Join(f.Tried, "\n"), `version "1.2.3" is too old`)
	})
	t.Run("nowhere", func(t *testing.T) {
		search(t)
		f := ort.Probe("")
		if f.Err == nil {
			t.Skipf("this system has an ONNX Runtime of its own: %s", f.Path)
		}
		require.ErrorIs(t, f.Err, engine.ErrUnavailable)
		require.ErrorContains(t, f.Err, fileName()+": ")
		require.ErrorContains(t, f.Err, ort.Remedy)
		require.NotContains(t, f.Err.Error(), "\n")
	})
}

// TestLibraryWithoutInterface starts a library that claims to be new enough and is not, in a process of its own.
func TestLibraryWithoutInterface(t *testing.T) {
	if path := os.Getenv("QUANTGATE_TEST_HOLLOW"); path != "" {
		_, err := ort.New(ort.Options{Library: path})
		require.ErrorIs(t, err, engine.ErrUnavailable)
		require.ErrorContains(t, err, path+": ONNX Runtime 1.99.0 does not start: ")
		require.ErrorContains(t, err, ort.Remedy)
		if library := os.Getenv("QUANTGATE_TEST_REAL"); library != "" {
			_, err = ort.New(ort.Options{Library: library})
			require.NoError(t, err, "a failed start must not keep another library from starting")
			_, err = ort.New(ort.Options{Library: os.Getenv("QUANTGATE_TEST_COPY")})
			require.ErrorContains(t, err, "already loaded from "+library)
		}
		return
	}
	library := realLibrary(t)
	data, err := os.ReadFile(library)
	require.NoError(t, err)
	twin := filepath.Join(t.TempDir(), filepath.Base(library))
	require.NoError(t, os.WriteFile(twin, data, 0o600))

	cmd := exec.Command(os.Args[0], "-test.run=^TestLibraryWithoutInterface$", "-test.v")
	cmd.Env = append(os.Environ(), "QUANTGATE_TEST_HOLLOW="+fakeLibrary(t, t.TempDir(), "1.99.0"),
		"QUANTGATE_TEST_REAL="+library, "QUANTGATE_TEST_COPY="+twin)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "--- PASS: TestLibraryWithoutInterface")
}

// TestOldestVersionIsTheBindings: the message about old libraries must name the version that onnxruntime_go asks for.
func TestOldestVersionIsTheBindings(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/yalue/onnxruntime_go").Output()
	if err != nil {
		t.Skipf("the binding's source is not here: %v", err)
	}
	header, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "onnxruntime_c_api.h"))
	require.NoError(t, err)
	m := regexp.MustCompile(`#define ORT_API_VERSION (\d+)`).FindSubmatch(header)
	require.NotNil(t, m)
	f := ort.Probe(fakeLibrary(t, t.TempDir(), "1.0.0"))
	require.ErrorContains(t, f.Err, "1."+string(m[1])+" or newer is needed")
}
