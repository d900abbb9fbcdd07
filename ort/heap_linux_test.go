package ort

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHeapIsTheUsersChoice(t *testing.T) {
	for _, x := range []struct {
		name, value string
		want        bool
	}{
		{"MALLOC_ARENA_MAX", "2", false},
		{"GLIBC_TUNABLES", "glibc.malloc.arena_max=2", false},
		{"MALLOC_MMAP_THRESHOLD_", "131072", true},
		{"MALLOC_TRIM_THRESHOLD_", "131072", true},
		{"GLIBC_TUNABLES", "glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=131072", true},
		{"GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072", true},
	} {
		t.Run(x.name+"="+x.value, func(t *testing.T) {
			t.Setenv(x.name, x.value)
			require.Equal(t, x.want, heapChosen())
			require.NoError(t, returnLarge())
		})
	}
}
