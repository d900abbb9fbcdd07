package sched

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestBatchHoldsForThreadsToCome(t *testing.T) {
	err := Batch()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("SKIPPED, nothing is tested: this system does not let a process choose: %v", err)
	}
	require.NoError(t, err)
	policy := func(id int) uint32 {
		attr, err := unix.SchedGetAttr(id, 0)
		require.NoError(t, err)
		if attr.Runtime != 0 { // Linux 6.12 or later
			require.EqualValues(t, slice, attr.Runtime)
		}
		return attr.Policy
	}
	threads, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		require.NoError(t, err)
		require.EqualValues(t, unix.SCHED_BATCH, policy(id))
	}
	before := map[int]bool{}
	for _, thread := range threads {
		id, _ := strconv.Atoi(thread.Name())
		before[id] = true
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	fresh := 0
	all := make(chan bool)
	for range len(threads) + 4 { // more locked threads than there were: some are new
		wg.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with its goroutine
			<-all
			id := unix.Gettid()
			mu.Lock()
			defer mu.Unlock()
			if !before[id] {
				fresh++
			}
			if policy(id) != unix.SCHED_BATCH {
				t.Errorf("thread %d has policy %d", id, policy(id))
			}
		})
	}
	close(all)
	wg.Wait()
	require.Positive(t, fresh)
}
