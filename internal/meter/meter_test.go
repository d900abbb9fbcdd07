package meter

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// script is a clock that returns the given pairs of elapsed and processor time in turn.
func script(pairs ...[2]time.Duration) Clock {
	return func() (time.Duration, time.Duration) {
		p := pairs[0]
		pairs = pairs[1:]
		return p[0], p[1]
	}
}

func TestMeterAddsSpans(t *testing.T) {
	m := &Meter{Clock: script(
		[2]time.Duration{100, 10}, [2]time.Duration{130, 25}, // 30 elapsed, 15 of a processor
		[2]time.Duration{200, 25}, [2]time.Duration{207, 29}, // 7 and 4
	)}
	m.Begin().End(2)
	m.Begin().End(3)
	require.Equal(t, Work{Count: 5, Elapsed: 37, CPU: 19}, m.Total())
	require.Equal(t, Work{Count: 6, Elapsed: 38, CPU: 20}, m.Total().Plus(Work{1, 1, 1}))
}

func TestSpansOverlap(t *testing.T) {
	// One begins at 0, the other at 5; they end at 10 and 20: 10 + 15 elapsed.
	m := &Meter{Clock: script([2]time.Duration{0, 0}, [2]time.Duration{5, 0}, [2]time.Duration{10, 8}, [2]time.Duration{20, 9})}
	a, b := m.Begin(), m.Begin()
	a.End(1)
	b.End(1)
	require.Equal(t, Work{Count: 2, Elapsed: 25, CPU: 17}, m.Total())
}

func TestNilMeterCountsNothing(*testing.T) {
	var m *Meter
	m.Begin().End(1)
}

// A goroutine that sleeps uses no processor; one that computes does, on systems that tell.
func TestSystemTellsWaitingFromWork(t *testing.T) {
	var asleep, awake Meter
	var wg sync.WaitGroup
	wg.Go(func() {
		s := asleep.Begin()
		time.Sleep(20 * time.Millisecond)
		s.End(1)
	})
	wg.Go(func() {
		s := awake.Begin()
		for began := threadCPU(); began > 0 && threadCPU()-began < 5*time.Millisecond; {
		}
		s.End(1)
	})
	wg.Wait()
	require.GreaterOrEqual(t, asleep.Total().Elapsed, 20*time.Millisecond)
	require.Less(t, asleep.Total().CPU, 5*time.Millisecond)
	if threadCPU() > 0 {
		require.GreaterOrEqual(t, awake.Total().CPU, 5*time.Millisecond)
	}
}

// What a span costs, twice a clock: a decoded image or a call of an engine takes a thousand times as long.
func BenchmarkSpan(b *testing.B) {
	var m Meter
	for b.Loop() {
		m.Begin().End(1)
	}
}
