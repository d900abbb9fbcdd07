package dl

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAboveExecutable(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	exe, err = filepath.EvalSymlinks(exe)
	require.NoError(t, err)

	own := filepath.Base(filepath.Dir(exe)) // found in the folder above the executable's
	found, from := AboveExecutable(own)
	require.Equal(t, filepath.Dir(exe), from)
	require.Equal(t, filepath.Dir(exe), found)

	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("quantgate-planted", 0o755))
	found, _ = AboveExecutable("quantgate-planted")
	require.Empty(t, found, "the working folder is not searched")
}
