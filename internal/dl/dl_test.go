package dl_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/internal/dl"
)

func TestOpen(t *testing.T) {
	name := "libc.so.6"
	if runtime.GOOS == "darwin" {
		name = "libSystem.B.dylib"
	}
	lib, err := dl.Open(name)
	require.NoError(t, err)
	p, err := lib.Symbol("malloc")
	require.NoError(t, err)
	require.True(t, filepath.IsAbs(dl.PathOf(p)), "path %q", dl.PathOf(p))
	_, err = lib.Symbol("no_such_symbol")
	require.ErrorContains(t, err, "no_such_symbol")

	var malloc, nosuch, other unsafe.Pointer
	require.NoError(t, lib.Symbols(map[string]unsafe.Pointer{"malloc": unsafe.Pointer(&malloc)}))
	require.Equal(t, p, malloc)
	malloc, nosuch = nil, p
	err = lib.Symbols(map[string]unsafe.Pointer{"no_such_symbol": unsafe.Pointer(&nosuch), "malloc": unsafe.Pointer(&malloc), "another_one": unsafe.Pointer(&other)})
	require.Regexp(t, "another_one.*; .*no_such_symbol", err, "all that is missing, by name")
	require.Equal(t, p, malloc, "what is there is found all the same")
	require.Equal(t, p, nosuch, "what is not there is left as it was")
	require.NoError(t, lib.Close())
}

func TestOpenKeepsTheLoadersText(t *testing.T) {
	_, err := dl.Open("libnosuchlibrary.so.7")
	require.ErrorContains(t, err, "libnosuchlibrary.so.7")
	path := filepath.Join(t.TempDir(), "text.so")
	require.NoError(t, os.WriteFile(path, []byte("not a library"), 0o600))
	_, err = dl.Open(path)
	require.ErrorContains(t, err, path)
}
