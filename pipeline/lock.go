package pipeline

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lock keeps a second process out of the output folder while this one works there: two writers would mix their journals. The
// lock ends with the process. On a file system that has no locks it does nothing.
func (r *run) lock() error {
	dir, err := os.Open(r.job.Out)
	if err != nil {
		return fmt.Errorf("open output folder: %w", err)
	}
	err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		_ = dir.Close()
		return fmt.Errorf("output folder %s is in use by another quantgate: wait for it to end, or give another --out", r.job.Out)
	}
	r.locked = dir
	return nil
}

// unlock lets others into the output folder.
func (r *run) unlock() {
	if r.locked != nil {
		_ = r.locked.Close()
		r.locked = nil
	}
}
