package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Image is an image of a set that is made of others' files.
type Image struct {
	File  string // where it lies
	Name  string // what the set calls it
	Class string
}

// LinkImages fills the folder dir with links to images, and writes their label list beside them.
func LinkImages(dir string, images []Image) (labels string, err error) {
	var list strings.Builder
	for _, m := range images {
		file, err := filepath.Abs(m.File)
		if err != nil {
			return "", err
		}
		if err := os.Symlink(file, filepath.Join(dir, m.Name)); err != nil {
			return "", err
		}
		fmt.Fprintln(&list, m.Name, m.Class)
	}
	labels = filepath.Join(dir, "labels.txt")
	return labels, os.WriteFile(labels, []byte(list.String()), 0o600)
}
