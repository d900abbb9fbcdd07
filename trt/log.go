package trt

import (
	"fmt"
	"strings"
	"sync"

	"github.com/quantgate/quantgate/trt/internal/nvinfer"
)

// relay passes TensorRT's messages on, each text once: some come once a tensor. The first error is kept, because TensorRT's calls
// fail without a reason.
type relay struct {
	verbose bool
	out     func(Level, string)

	mu      sync.Mutex
	hushed  bool // messages are told as details, and are no reasons
	seen    map[string]int
	dropped int
	reasons [2]string // the first error since it was asked for, whose echo the others mostly are, and the last warning
}

// distinct bounds what is remembered.
const distinct = 1000

func newRelay(o Options) *relay {
	return &relay{verbose: o.Verbose, out: o.Log, seen: map[string]int{}}
}

// most is the least severe message that TensorRT need hand over.
func (r *relay) most() int {
	if r.verbose {
		return nvinfer.Info
	}
	return nvinfer.Warning
}

// message takes one message; it is called from any thread.
func (r *relay) message(severity int, text string) {
	text = strings.Join(strings.Fields(text), " ")
	r.mu.Lock()
	if r.hushed {
		severity = nvinfer.Info
	}
	switch {
	case severity <= nvinfer.Error && r.reasons[0] == "":
		r.reasons[0] = text
	case severity == nvinfer.Warning:
		r.reasons[1] = text
	}
	r.seen[text]++
	again := r.seen[text] > 1
	if len(r.seen) > distinct {
		r.dropped++
		delete(r.seen, text)
		again = true
	}
	r.mu.Unlock()
	if again {
		return
	}
	switch {
	case severity <= nvinfer.Error:
		r.note(LevelWarn, "TensorRT: error: "+text)
	case severity == nvinfer.Warning:
		r.note(LevelWarn, "TensorRT: "+text)
	default:
		r.note(LevelDebug, "TensorRT: "+text)
	}
}

// hush makes details of all messages, or ends that.
func (r *relay) hush(on bool) {
	r.mu.Lock()
	r.hushed = on
	r.mu.Unlock()
}

// note passes a line on.
func (r *relay) note(l Level, text string) {
	if r.out != nil {
		r.out(l, text)
	}
}

// reset forgets earlier errors, before a call whose reason is to be told.
func (r *relay) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reasons = [2]string{}
}

// reason adds to err TensorRT's own first error, or else its last warning, since the last call of reason or reset.
func (r *relay) reason(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		return nil
	}
	reasons := r.reasons
	r.reasons = [2]string{}
	for _, text := range reasons {
		if text != "" {
			return fmt.Errorf("%w: %s", err, text)
		}
	}
	return err
}

// summary says what was left out since the last call.
func (r *relay) summary() {
	r.mu.Lock()
	repeated := r.dropped
	for _, n := range r.seen {
		repeated += n - 1
	}
	r.seen, r.dropped = map[string]int{}, 0
	r.mu.Unlock()
	if repeated > 0 {
		r.note(LevelDebug, fmt.Sprintf("TensorRT repeated %d messages", repeated))
	}
}
