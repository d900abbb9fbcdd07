// Package meter counts what one kind of work costs: how long it took, summed over the goroutines that did it, and how much of a
// processor it had. The first is longer where goroutines are more than cores, or wait for a disk or a GPU; the second is not.
package meter

import (
	"runtime"
	"sync/atomic"
	"time"
)

// Clock tells the time since some fixed moment, and the processor time that the calling thread has used, 0 where the system does not
// tell it.
type Clock func() (elapsed, cpu time.Duration)

var start = time.Now()

// System is the machine's clock.
func System() (elapsed, cpu time.Duration) { return time.Since(start), threadCPU() }

// Work is what a Meter has counted.
type Work struct {
	Count   int // of what the work was done on, such as images
	Elapsed time.Duration
	CPU     time.Duration // 0 where the system does not tell it
}

// Plus is the sum of both.
func (w Work) Plus(x Work) Work {
	return Work{w.Count + x.Count, w.Elapsed + x.Elapsed, w.CPU + x.CPU}
}

// Meter adds up spans of work from any number of goroutines. The zero value is ready for use; a nil one counts nothing.
type Meter struct {
	Clock Clock // nil is System

	count, elapsed, cpu atomic.Int64
}

// Span is work under way.
type Span struct {
	m            *Meter
	elapsed, cpu time.Duration
}

// Begin starts a span. The goroutine keeps its thread until End, which must follow.
func (m *Meter) Begin() Span {
	if m == nil {
		return Span{}
	}
	runtime.LockOSThread()
	s := Span{m: m}
	s.elapsed, s.cpu = m.now()
	return s
}

// End adds the span, which was for n images, to its meter.
func (s Span) End(n int) {
	if s.m == nil {
		return
	}
	elapsed, cpu := s.m.now()
	runtime.UnlockOSThread()
	s.m.count.Add(int64(n))
	s.m.elapsed.Add(int64(elapsed - s.elapsed))
	s.m.cpu.Add(int64(cpu - s.cpu))
}

// Total is what has been counted so far.
func (m *Meter) Total() Work {
	return Work{int(m.count.Load()), time.Duration(m.elapsed.Load()), time.Duration(m.cpu.Load())}
}

func (m *Meter) now() (elapsed, cpu time.Duration) {
	if m.Clock != nil {
		return m.Clock()
	}
	return System()
}
