package ort

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memoryFile lends data as a file that lies in memory alone, to what reads files only. done ends that.
func memoryFile(data []byte) (path string, done func(), err error) {
	fd, err := unix.MemfdCreate("model.onnx", unix.MFD_CLOEXEC)
	if err != nil {
		return "", nil, err
	}
	f := os.NewFile(uintptr(fd), "model.onnx")
	done = func() { _ = f.Close() } // nothing to lose
	if _, err := f.Write(data); err != nil {
		done()
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), done, nil
}
