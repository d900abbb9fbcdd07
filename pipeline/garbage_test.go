package pipeline

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBoundGarbage(t *testing.T) {
	percent := func() int {
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	for _, x := range []struct{ batches, want int }{
		{0, 100}, {garbageBytes, 100}, {garbageBytes * 5 / 2, 40}, {garbageBytes * 10, 10}, {garbageBytes * 1000, 5},
	} {
		restore := boundGarbage(x.batches)
		require.Equal(t, x.want, percent(), "%d bytes", x.batches)
		restore()
		require.Equal(t, 100, percent())
	}
	t.Setenv("GOGC", "100")
	defer boundGarbage(garbageBytes * 10)()
	require.Equal(t, 100, percent(), "the user's own")
}
