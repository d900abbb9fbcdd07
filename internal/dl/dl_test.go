package dl_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

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
