// Package ui is quantgate's way of speaking on stderr: notes, warnings, errors and progress.
package ui

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// plainInterval is how often progress is written where stderr is not a terminal.
const plainInterval = 10 * time.Second

// UI writes to one stream. Its methods are safe for concurrent use.
type UI struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	quiet    bool
	verbose  bool
	bar      *progressbar.ProgressBar
}

// New returns a UI that writes to w and draws progress bars where w is a terminal.
func New(w io.Writer) *UI {
	u := &UI{w: w}
	if f, ok := w.(*os.File); ok {
		u.terminal = term.IsTerminal(int(f.Fd()))
	}
	return u
}

// SetLevel chooses what is printed: quiet leaves errors only, verbose adds Debugf's lines.
func (u *UI) SetLevel(quiet, verbose bool) { u.quiet, u.verbose = quiet, verbose }

// Errorf prints an error line; it is never silenced.
func (u *UI) Errorf(format string, args ...any) { u.line("quantgate: error: "+format, args...) }

// Warnf prints a warning line unless quiet.
func (u *UI) Warnf(format string, args ...any) {
	if !u.quiet {
		u.line("quantgate: warning: "+format, args...)
	}
}

// Infof prints a note unless quiet.
func (u *UI) Infof(format string, args ...any) {
	if !u.quiet {
		u.line(format, args...)
	}
}

// Debugf prints a note when verbose.
func (u *UI) Debugf(format string, args ...any) {
	if u.verbose {
		u.line(format, args...)
	}
}

func (u *UI) line(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bar != nil {
		_ = u.bar.Clear() // the bar is drawn again at its next step
	}
	fmt.Fprintf(u.w, format+"\n", args...)
}

// Progress counts the steps of one stage, with rate and time left.
type Progress struct {
	ui        *UI
	stage     string
	unit      string
	total     int
	first     int // steps that were done before this process started
	done      int
	started   time.Time
	lastPlain time.Time
}

// Stage starts the progress of one stage. total counts units such as images; done says how many of them an earlier,
// interrupted run has finished, so that the rate is this run's own.
func (u *UI) Stage(stage, unit string, total, done int) *Progress {
	p := &Progress{ui: u, stage: stage, unit: unit, total: total, first: done, done: done, started: time.Now()}
	p.lastPlain = p.started
	if u.quiet || !u.terminal {
		return p
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.bar = progressbar.NewOptions(total,
		progressbar.OptionSetWriter(u.w),
		progressbar.OptionSetDescription(stage),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString(unit),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
	if done > 0 {
		_ = u.bar.Set(done)
	}
	return p
}

// Add counts n more units.
func (p *Progress) Add(n int) {
	u := p.ui
	u.mu.Lock()
	defer u.mu.Unlock()
	p.done += n
	if u.quiet {
		return
	}
	if u.bar != nil {
		_ = u.bar.Add(n)
		return
	}
	if now := time.Now(); now.Sub(p.lastPlain) >= plainInterval && p.done < p.total {
		p.lastPlain = now
		fmt.Fprintln(u.w, p.plain(now))
	}
}

// plain is the line written where stderr is not a terminal.
func (p *Progress) plain(now time.Time) string {
	spent := now.Sub(p.started)
	rate := float64(p.done-p.first) / spent.Seconds()
	if rate <= 0 {
		return fmt.Sprintf("%s: %d of %d %s", p.stage, p.done, p.total, p.unit)
	}
	left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("%s: %d of %d %s, %.0f %s/s, %s left", p.stage, p.done, p.total, p.unit, rate, p.unit, left)
}

// Done ends the stage and prints what it took.
func (p *Progress) Done() {
	u := p.ui
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bar != nil {
		_ = u.bar.Clear()
		u.bar = nil
	}
	if u.quiet {
		return
	}
	spent := time.Since(p.started)
	n := p.done - p.first
	fmt.Fprintf(u.w, "%s: %d %s in %.1f s (%.0f %s/s)\n", p.stage, n, p.unit, spent.Seconds(), float64(n)/spent.Seconds(), p.unit)
}
