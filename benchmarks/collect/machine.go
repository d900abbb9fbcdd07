package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// machine is where something was measured.
type machine struct {
	CPU    string
	Cores  int
	Memory string
	System string
	Go     string
	Load   string // of the minute before
}

func thisMachine() machine {
	m := machine{CPU: "unknown CPU", Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	m.CPU = or(field("/proc/cpuinfo", "model name"), m.CPU)
	if flags := " " + field("/proc/cpuinfo", "flags") + " "; strings.Contains(flags, " avx512_vnni ") {
		m.CPU += " (AVX-512, VNNI)"
	} else if strings.Contains(flags, " avx2 ") {
		m.CPU += " (AVX2)"
	}
	var kib float64
	if _, err := fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kib); err == nil {
		m.Memory = fmt.Sprintf("%.0f GiB", kib/(1<<20))
	}
	m.System = or(strings.Trim(value("/etc/os-release", "PRETTY_NAME", "="), `"`), m.System)
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(b), " ")
	}
	return m
}

func (m machine) String() string {
	parts := []string{m.CPU, fmt.Sprintf("%d cores", m.Cores)}
	if m.Memory != "" {
		parts = append(parts, m.Memory)
	}
	return strings.Join(append(parts, m.System, m.Go), ", ")
}

// field is the value of the first line "name : value" of a file of /proc, "" where there is none.
func field(path, name string) string { return value(path, name, ":") }

func value(path, name, separator string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, v, ok := strings.Cut(lines.Text(), separator)
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
