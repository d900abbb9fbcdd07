package ort

/*
#include <malloc.h>

// qg_thresholds fixes from what size on malloc asks the system for a block of its own, and how much it keeps of what was freed, in bytes.
static int qg_thresholds(int own, int kept) {
#ifdef __GLIBC__
	return mallopt(M_MMAP_THRESHOLD, own) && mallopt(M_TRIM_THRESHOLD, kept);
#else
	return 1; // musl's never change
#endif
}
*/
import "C"

import (
	"errors"
	"os"
	"strings"
)

const (
	ownBlock  = 1 << 20
	keptBytes = 8 << 20
)

// returnLarge has the C library give large blocks back to the system when they are freed: opening a session takes several copies of the
// model. By default, glibc keeps blocks as large as the largest that was freed before, up to 32 MiB, in whichever thread's heap they lie, and
// the process's peak differs from run to run. Settings of the user's stay.
func returnLarge() error {
	if heapChosen() {
		return nil
	}
	if C.qg_thresholds(ownBlock, keptBytes) != 1 {
		return errors.New("the C library refuses the thresholds of malloc")
	}
	return nil
}

// heapChosen reports whether the user has settings of his own for glibc's malloc (mallopt(3)).
func heapChosen() bool {
	for _, name := range []string{"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} {
		if _, ok := os.LookupEnv(name); ok {
			return true
		}
	}
	tunables := os.Getenv("GLIBC_TUNABLES")
	return strings.Contains(tunables, "glibc.malloc.mmap_threshold") || strings.Contains(tunables, "glibc.malloc.trim_threshold")
}
