package dl

import (
	"os"
	"path/filepath"
)

// AboveExecutable returns the folder called sub in the executable's folder or one above it, "" if there is none, and the folder
// where the search began. The working folder is never searched: it may be anybody's, and what is found is run.
func AboveExecutable(sub string) (found, from string) {
	exe, err := os.Executable()
	if err != nil {
		return "", ""
	}
	if real, err := filepath.EvalSymlinks(exe); err == nil {
		exe = real
	}
	from = filepath.Dir(exe)
	for dir := from; ; dir = filepath.Dir(dir) {
		if st, err := os.Stat(filepath.Join(dir, sub)); err == nil && st.IsDir() {
			return filepath.Join(dir, sub), from
		}
		if dir == filepath.Dir(dir) {
			return "", from
		}
	}
}
