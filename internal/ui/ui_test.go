package ui

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLevels(t *testing.T) {
	for _, c := range []struct {
		quiet, verbose bool
		want           []string
	}{
		{false, false, []string{"quantgate: error: e 1", "quantgate: warning: w 2", "i 3"}},
		{true, false, []string{"quantgate: error: e 1"}},
		{false, true, []string{"quantgate: error: e 1", "quantgate: warning: w 2", "i 3", "d 4"}},
	} {
		var b strings.Builder
		u := New(&b)
		u.SetLevel(c.quiet, c.verbose)
		u.Errorf("e %d", 1)
		u.Warnf("w %d", 2)
		u.Infof("i %d", 3)
		u.Debugf("d %d", 4)
		require.Equal(t, strings.Join(c.want, "\n")+"\n", b.String())
	}
}

func TestPlainProgress(t *testing.T) {
	var b strings.Builder
	u := New(&b)
	p := u.Stage("score", "images", 100, 40)
	p.Add(10)
	require.Empty(t, b.String(), "nothing before the interval has passed")

	p.started = p.started.Add(-20 * time.Second)
	p.lastPlain = p.lastPlain.Add(-plainInterval)
	p.Add(10)
	// 20 images of this process in 20 s: one a second; the 40 done before do not count into the rate.
	require.Regexp(t, `^score: 60 of 100 images, 1 images/s, 40s left\n$`, b.String())
	b.Reset()
	p.Add(40)
	p.Done()
	require.Regexp(t, `^score: 60 images in 20\.\d s \(3 images/s\)\n$`, b.String())
}

func TestQuietProgressPrintsNothing(t *testing.T) {
	var b strings.Builder
	u := New(&b)
	u.SetLevel(true, false)
	p := u.Stage("score", "images", 2, 0)
	p.Add(2)
	p.Done()
	require.Empty(t, b.String())
}

func TestConcurrentUse(t *testing.T) {
	var b strings.Builder
	u := New(&b)
	p := u.Stage("score", "images", 100, 0)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 10 {
				p.Add(1)
				u.Warnf("w")
			}
		})
	}
	wg.Wait()
	p.Done()
	require.Equal(t, 101, strings.Count(b.String(), "\n"))
}
