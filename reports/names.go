package reports

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// wnid matches the WordNet id that starts a line of synset_words.txt.
var wnid = regexp.MustCompile(`^n[0-9]{8}\s+`)

// ReadClassNames reads one class name a line, by class from 0. In lines such as synset_words.txt has, "n01440764 tench, Tinca
// tinca", the id and all names but the first are dropped. name is what errors call the file.
func ReadClassNames(r io.Reader, name string) ([]string, error) {
	var names []string
	s := bufio.NewScanner(r)
	for s.Scan() {
		line := strings.TrimSpace(strings.TrimPrefix(s.Text(), "\ufeff"))
		if id := wnid.FindString(line); id != "" {
			line, _, _ = strings.Cut(line[len(id):], ",")
		}
		names = append(names, line)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read class names %s:%d: %w", name, len(names)+1, err)
	}
	for len(names) > 0 && names[len(names)-1] == "" {
		names = names[:len(names)-1]
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("read class names %s: it is empty: give one name a line", name)
	}
	return names, nil
}

// className is a class as it is printed.
func (r *Report) className(class int) string {
	switch {
	case class < 0:
		return "NaN"
	case class < len(r.ClassNames) && r.ClassNames[class] != "":
		return clip(r.ClassNames[class])
	}
	return "class " + strconv.Itoa(class)
}

// longest bounds a name on the page, in characters.
const longest = 100

// clip shortens a name that would fill the page.
func clip(s string) string { return shortened(s, longest) }

// shortened keeps the beginning of a text of more than most characters.
func shortened(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
