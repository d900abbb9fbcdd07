// Package sched tells the system what kind of work this process does.
package sched

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// slice is how long a thread asks to compute before another has its turn, where both want the same core. Linux asks each thread from 6.12 on
// (up to 100 ms); before that it has a length for all. An image takes an engine a few milliseconds, and its activations and weights have to
// come back into the core's caches after each turn that decoding had in between.
const slice = 50 * time.Millisecond

// rounds bounds how often threads are looked for that began meanwhile.
const rounds = 10

// Batch asks for Linux's policy for batch work (SCHED_BATCH, sched(7)): a thread that wakes up does not interrupt one that computes. Go's
// monitor wakes up thousands of times a second while goroutines are in C, and each time would throw an engine's data out of a core's caches.
// For the same reason it asks for long turns. It holds for every thread of the process and for those to come; one that has a policy of its own keeps it.
func Batch() error {
	for range rounds {
		changed, err := batch()
		if err != nil {
			return fmt.Errorf("policy for batch work: %w", err)
		}
		if !changed { // every thread inherits the policy of the one that made it
			return nil
		}
	}
	return errors.New("policy for batch work: threads begin faster than they are found")
}

func batch() (changed bool, err error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false, err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return changed, err
		}
		attr, err := unix.SchedGetAttr(id, 0)
		if err == nil && attr.Policy == unix.SCHED_NORMAL {
			attr.Policy, attr.Runtime = unix.SCHED_BATCH, uint64(slice)
			err = unix.SchedSetAttr(id, attr, 0)
			changed = true
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return changed, err
		}
	}
	return changed, nil
}
