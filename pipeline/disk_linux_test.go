package pipeline

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFullDisk runs into a file system that has no room for all that a run writes.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Skipf("SKIPPED: a small file system cannot be mounted here: %v", err)
	}
	defer func() { require.NoError(t, syscall.Unmount(dir, 0)) }()
	job := testJob(t, open(t, writeIDX(t)))
	job.Out = dir
	_, err := Run(t.Context(), Env{backend(), &recorder{}}, job)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NotContains(t, err.Error(), "\n")
	require.NoFileExists(t, filepath.Join(dir, OutcomesName))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries { // whatever is there is whole: nothing temporary is left
		require.NotContains(t, e.Name(), "tmp")
		require.False(t, e.Name()[0] == '.', e.Name())
	}
}
