package dataset

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// maxLine bounds a line of a label file in bytes.
const maxLine = 1 << 16

// labelList is a list of "file class" lines in the order of the file.
type labelList struct {
	name    string // for messages
	files   []string
	classes []int
	lines   []int
}

// readFile reads a label file and returns its SHA-256 in hex too.
func readLabelFile(name string) (data []byte, digest string, err error) {
	if data, err = os.ReadFile(name); err != nil {
		return nil, "", fmt.Errorf("labels: %w", err)
	}
	sum := sha256.Sum256(data)
	return data, hex.EncodeToString(sum[:]), nil
}

func readList(name string) (*labelList, string, error) {
	data, digest, err := readLabelFile(name)
	if err != nil {
		return nil, "", err
	}
	l, err := parseList(data, name)
	return l, digest, err
}

// parseList reads lines of "file class". The file's name may hold spaces; empty lines are skipped.
func parseList(data []byte, name string) (*labelList, error) {
	l := &labelList{name: name}
	seen := map[string]int{}
	err := eachLine(data, name, func(n int, line string) error {
		cut := strings.LastIndexAny(line, " \t")
		if cut < 0 {
			return fmt.Errorf("%w: %s: line %d: %q is not \"file class\": give a file's name, a space and its class from 0, such as: val_00000001.JPEG 65",
				ErrLabels, name, n, line)
		}
		file := strings.TrimPrefix(path.Clean(strings.ReplaceAll(strings.TrimSpace(line[:cut]), `\`, "/")), "/")
		class, err := parseClass(line[cut+1:])
		if err != nil {
			return fmt.Errorf("%w: %s: line %d: file %s: %w", ErrLabels, name, n, file, err)
		}
		if first, ok := seen[file]; ok {
			return fmt.Errorf("%w: %s: lines %d and %d both label %s: keep one", ErrLabels, name, first, n, file)
		}
		seen[file] = n
		l.files, l.classes, l.lines = append(l.files, file), append(l.classes, class), append(l.lines, n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(l.files) == 0 {
		return nil, fmt.Errorf("%w: %s holds no \"file class\" line", ErrLabels, name)
	}
	return l, nil
}

// eachLine calls f with every line that is not blank, trimmed, and its number from 1.
func eachLine(data []byte, name string, f func(n int, line string) error) error {
	data = bytes.TrimPrefix(data, []byte("\xEF\xBB\xBF"))
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(nil, maxLine)
	n := 0
	for s.Scan() {
		n++
		if line := strings.TrimSpace(s.Text()); line != "" {
			if err := f(n, line); err != nil {
				return err
			}
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%w: %s: line %d: %w", ErrLabels, name, n+1, err)
	}
	return nil
}

func parseClass(s string) (int, error) {
	class, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("class %q is not a whole number", s)
	}
	if class < 0 || class > maxClass {
		return 0, fmt.Errorf("class %d is out of range: 0 to %d", class, maxClass)
	}
	return class, nil
}

// match pairs the list with the files of a source. A listed name is a path, or a base name that only one file has. The
// result is in the list's order.
func (l *labelList) match(files []string, where string) (paths []string, classes []int, err error) {
	byPath := make(map[string]bool, len(files))
	byBase := make(map[string][]string, len(files))
	for _, f := range files {
		byPath[f] = true
		byBase[path.Base(f)] = append(byBase[path.Base(f)], f)
	}
	labelled := make(map[string]int, len(files)) // line of each file
	var missing []string
	for i, name := range l.files {
		file := name
		if !byPath[file] {
			same := byBase[path.Base(name)]
			switch {
			case len(same) == 0:
				missing = append(missing, fmt.Sprintf("%s (line %d)", name, l.lines[i]))
				continue
			case len(same) > 1:
				return nil, nil, fmt.Errorf("%w: %s: line %d: %s names both %s and %s in %s: list their paths",
					ErrLabels, l.name, l.lines[i], name, same[0], same[1], where)
			}
			file = same[0]
		}
		if first, ok := labelled[file]; ok {
			return nil, nil, fmt.Errorf("%w: %s: lines %d and %d both label %s: keep one", ErrLabels, l.name, first, l.lines[i], file)
		}
		labelled[file] = l.lines[i]
		paths, classes = append(paths, file), append(classes, l.classes[i])
	}
	if len(missing) > 0 {
		return nil, nil, fmt.Errorf("%w: %s lists %s that %s does not hold: %s", ErrLabels, l.name, count(len(missing), "file"), where, some(missing))
	}
	var unlabelled []string
	for _, f := range files {
		if labelled[f] == 0 && isImageName(f) {
			unlabelled = append(unlabelled, f)
		}
	}
	if len(unlabelled) > 0 {
		return nil, nil, fmt.Errorf("%w: %s holds %s without a label in %s: %s", ErrLabels, where, count(len(unlabelled), "image"), l.name, some(unlabelled))
	}
	return paths, classes, nil
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// some joins the first names of a list.
func some(names []string) string {
	const shown = 3
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:shown], ", ") + ", ..."
}

// looksLikeList reports whether a label file has "file class" lines, and not class names.
func looksLikeList(name string) (bool, error) {
	data, _, err := readLabelFile(name)
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 0 {
			_, err := strconv.Atoi(f[len(f)-1])
			return len(f) > 1 && err == nil, nil
		}
	}
	return true, nil
}

// folderClasses gives each class folder its class: the line of the labels file that starts with its name, else the number
// that is its name, else its rank among the names.
func folderClasses(names []string, where, labels string, c *contents) (map[string]int, error) {
	classes := make(map[string]int, len(names))
	if labels != "" {
		data, digest, err := readLabelFile(labels)
		if err != nil {
			return nil, err
		}
		c.labelsDigest = digest
		lines := map[string]int{}
		next := 0
		err = eachLine(data, labels, func(n int, line string) error {
			name := strings.Fields(line)[0]
			if _, ok := lines[name]; ok {
				return fmt.Errorf("%w: %s: line %d: class folder %s is listed before: keep one", ErrLabels, labels, n, name)
			}
			lines[name] = next
			next++
			return nil
		})
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			class, ok := lines[name]
			if !ok {
				return nil, fmt.Errorf("%w: class folder %s of %s is not in %s: its lines must start with the folders' names", ErrLabels, name, where, labels)
			}
			classes[name] = class
		}
		return classes, nil
	}

	var numbers, words []string
	byNumber := map[int]string{}
	for _, name := range names {
		class, err := strconv.Atoi(name)
		if err != nil {
			words = append(words, name)
			continue
		}
		numbers = append(numbers, name)
		if _, err := parseClass(name); err != nil {
			return nil, fmt.Errorf("%s: %w: folder %s: %w", where, ErrLabels, name, err)
		}
		if other, ok := byNumber[class]; ok {
			return nil, fmt.Errorf("%s: %w: folders %s and %s are the same class: keep one", where, ErrLabels, other, name)
		}
		byNumber[class] = name
		classes[name] = class
	}
	if len(words) == 0 {
		return classes, nil
	}
	if len(numbers) > 0 {
		return nil, fmt.Errorf("%s: %w: folder %s is a class number and %s is not: name all alike, or list the names in class order (--labels)",
			where, ErrLabels, numbers[0], words[0])
	}
	slices.Sort(words)
	for class, name := range words {
		classes[name] = class
	}
	if len(words) != 1000 && isWnid(words[0]) {
		c.warnings = append(c.warnings, fmt.Sprintf(
			"%s holds %d of ImageNet's 1000 class folders, numbered 0 to %d by name: for a model of all 1000 classes give the list of their names in class order, such as synset_words.txt (--labels)",
			where, len(words), len(words)-1))
	}
	return classes, nil
}

// isWnid reports whether name is a WordNet id such as n01440764.
func isWnid(name string) bool {
	if len(name) != 9 || name[0] != 'n' {
		return false
	}
	_, err := strconv.ParseUint(name[1:], 10, 32)
	return err == nil
}
