package digest

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "abc")
	require.NoError(t, os.WriteFile(path, []byte("abc"), 0o644))
	sum, err := File(path)
	require.NoError(t, err)
	require.Equal(t, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", sum) // FIPS 180-4, one-block example
	_, err = File(path + ".missing")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = File(filepath.Dir(path))
	require.ErrorContains(t, err, "digest "+filepath.Dir(path))
}
