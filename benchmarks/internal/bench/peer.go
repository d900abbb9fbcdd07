package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Peer runs a Python script of a peer and decodes the JSON on the last line of its output into result. Where the peer cannot be measured,
// as the interpreter or a package is missing, absent says so.
func Peer(python, script string, args []string, result any) (absent string, err error) {
	cmd := exec.Command(python, append([]string{script}, args...)...) //nolint:gosec // the interpreter is the user's choice
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	out = bytes.TrimSpace(out)
	last := out[bytes.LastIndexByte(out, '\n')+1:]
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		return fmt.Sprintf("%s cannot be run: make bench-peers", python), nil
	case err != nil:
		var why struct{ Absent string }
		if json.Unmarshal(last, &why) == nil && why.Absent != "" {
			return why.Absent, nil
		}
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return "", fmt.Errorf("%s %s: %w: %s", script, strings.Join(args, " "), err, lines[len(lines)-1])
	}
	if err := json.Unmarshal(last, result); err != nil {
		return "", fmt.Errorf("%s: its last line is no JSON: %w", script, err)
	}
	return "", nil
}
