package pipeline

import (
	"os"
	"runtime/debug"
)

// garbageBytes is about how much garbage may lie in memory while images pass through.
const garbageBytes = 8 << 20

// boundGarbage has garbage collected when there is about garbageBytes of it instead of as much as of all else, until restore is called. While
// images pass through, their batches, of so many bytes, are most of Go's memory: they hold no pointers, so that a collection is cheap, and
// with the default the memory that a run takes would grow with its images until it has doubled. It is for when the batches are there: collections
// while they come would find nothing. GOGC decides where it is set.
func boundGarbage(batches int) (restore func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(max(5, 100*garbageBytes/max(garbageBytes, batches)))
	return func() { debug.SetGCPercent(before) }
}
