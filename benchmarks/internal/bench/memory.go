package bench

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// PeakMemory is the most resident memory that this process had so far, in MiB. It is not getrusage's, which counts in what the parent had
// when it started the process.
func PeakMemory() (float64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("peak memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var kib float64
			_, err := fmt.Sscan(value, &kib)
			return kib / 1024, err
		}
	}
	return 0, errors.New("peak memory: /proc/self/status has no VmHWM")
}
