package imagecache

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const testRecord = 5000 // not a multiple of the page size

// warned collects warnings.
type warned struct {
	sync.Mutex
	all []string
}

func (w *warned) warn(message string) {
	w.Lock()
	defer w.Unlock()
	w.all = append(w.all, message)
}

func open(t *testing.T, dir, key string, limit int64) (*Cache, *warned) {
	t.Helper()
	w := &warned{}
	c, err := Open(Options{Dir: dir, Key: key, Record: testRecord, Limit: limit, Warn: w.warn})
	require.NoError(t, err)
	return c, w
}

func idOf(i int) ID { return sha256.Sum256([]byte{byte(i), byte(i >> 8)}) }

func recordOf(i int) []byte {
	return bytes.Repeat([]byte{byte(i), 7, byte(i >> 8), 1, 2}, testRecord/5)
}

// fill adds records from..to-1.
func fill(c *Cache, from, to int) {
	for i := from; i < to; i++ {
		c.Put(idOf(i), recordOf(i))
	}
}

// requireHas checks which of the records 0..n-1 are found, and that they are right.
func requireHas(t *testing.T, c *Cache, n int, has func(i int) bool) {
	t.Helper()
	dst := make([]byte, testRecord)
	for i := range n {
		require.Equal(t, has(i), c.Get(idOf(i), dst), "record %d", i)
		if has(i) {
			require.Equal(t, recordOf(i), dst)
		}
	}
}

func all(int) bool  { return true }
func none(int) bool { return false }

func segments(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	require.NoError(t, err)
	return files
}

func TestRecordsComeBack(t *testing.T) {
	dir := t.TempDir()
	c, w := open(t, dir, "a", 1<<30)
	requireHas(t, c, 20, none)
	var wg sync.WaitGroup
	for range 4 { // all add the same, once
		wg.Go(func() { fill(c, 0, 20) })
	}
	wg.Wait()
	found, added := c.Close()
	require.Equal(t, [2]int{0, 20}, [2]int{found, added})
	require.Len(t, segments(t, dir), 1)

	c, _ = open(t, dir, "a", 1<<30)
	fill(c, 10, 30)
	for range 4 {
		wg.Go(func() { requireHas(t, c, 20, all) })
	}
	wg.Wait()
	found, added = c.Close()
	require.Equal(t, [2]int{80, 10}, [2]int{found, added})

	c, _ = open(t, dir, "a", 1<<30)
	requireHas(t, c, 30, all)
	c.Close()
	c, _ = open(t, dir, "b", 1<<30)
	requireHas(t, c, 30, none)
	c.Close()
	require.Empty(t, w.all)
	require.Len(t, segments(t, dir), 2, "a cache that adds nothing leaves no file")
}

func TestTwoWritersShareAFolder(t *testing.T) {
	dir := t.TempDir()
	a, _ := open(t, dir, "k", 1<<30)
	b, w := open(t, dir, "k", 1<<30)
	fill(a, 0, 8)
	fill(b, 4, 12)
	c, _ := open(t, dir, "k", 1<<30) // looks at the pending files of living writers
	require.NoError(t, os.Chtimes(a.pending.Name(), time.Time{}, time.Now().Add(-time.Hour)))
	c.Close()
	a.Close()
	b.Close()
	require.Empty(t, w.all)
	c, _ = open(t, dir, "k", 1<<30)
	defer c.Close()
	requireHas(t, c, 12, all)
}

func TestFileOfAKilledWriterIsRemoved(t *testing.T) {
	dir := t.TempDir()
	c, _ := open(t, dir, "k", 1<<30)
	fill(c, 0, 3)
	name := c.pending.Name()
	require.NoError(t, os.Chtimes(name, time.Time{}, time.Now().Add(-time.Hour)))
	d, _ := open(t, dir, "k", 1<<30)
	d.Close()
	require.FileExists(t, name, "its writer lives")
	require.NoError(t, unix.Flock(int(c.pending.Fd()), unix.LOCK_UN)) // as the kernel does for a killed process
	d, _ = open(t, dir, "k", 1<<30)
	d.Close()
	require.NoFileExists(t, name)
	require.NoError(t, c.pending.Close())
}

func TestDamageIsFoundAndRepaired(t *testing.T) {
	flip := func(at func(size int64) int64) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			data[at(int64(len(data)))] ^= 4
			require.NoError(t, os.WriteFile(path, data, 0o600))
		}
	}
	cut := func(to func(size int64) int64) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(path, to(info.Size())))
		}
	}
	const n = 10
	for name, c := range map[string]struct {
		damage func(t *testing.T, path string)
		mapped bool // while the file is open
		says   string
	}{
		"record":             {flip(func(int64) int64 { return 4*testRecord + 17 }), false, "damaged: wrong checksum of record 4"},
		"index":              {flip(func(size int64) int64 { return size - int64(footerSize) - 3 }), false, "damaged: wrong checksum of the index"},
		"count":              {flip(func(size int64) int64 { return size - 12 }), false, "damaged: its size is not"},
		"key":                {flip(func(size int64) int64 { return size - 30 }), false, "damaged: of another key"},
		"magic":              {flip(func(size int64) int64 { return size - int64(footerSize) }), false, "damaged: no footer"},
		"cut":                {cut(func(size int64) int64 { return size / 2 }), false, "damaged: no footer"},
		"cut short":          {cut(func(int64) int64 { return 8 }), false, "damaged: too short"},
		"emptied":            {cut(func(int64) int64 { return 0 }), false, "damaged: too short"},
		"cut under a reader": {cut(func(int64) int64 { return 0 }), true, "cannot be read: "},
		"flip under a reader": {func(t *testing.T, path string) { // in place, as bad memory or another program would
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteAt([]byte{1, 2, 3, 4}, 0)
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}, true, "damaged: wrong checksum of record 0"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cache, _ := open(t, dir, "k", 1<<30)
			fill(cache, 0, n)
			cache.Close()
			path := segments(t, dir)[0]
			if !c.mapped {
				c.damage(t, path)
			}
			cache, w := open(t, dir, "k", 1<<30)
			if c.mapped {
				c.damage(t, path)
			}
			dst := make([]byte, testRecord)
			for i := range n { // what comes is right, and what does not is made anew
				if cache.Get(idOf(i), dst) {
					require.Equal(t, recordOf(i), dst)
				}
			}
			fill(cache, 0, n)
			cache.Close()
			require.Len(t, w.all, 1)
			require.Contains(t, w.all[0], c.says)
			require.Contains(t, w.all[0], path)
			require.NotContains(t, w.all[0], "\n")
			require.NoFileExists(t, path)

			cache, w = open(t, dir, "k", 1<<30)
			requireHas(t, cache, n, all)
			cache.Close()
			require.Empty(t, w.all)
		})
	}
}

func TestLimit(t *testing.T) {
	dir := t.TempDir()
	const room = 10*(testRecord+entrySize) + int64(footerSize)
	age := func(hours int) {
		for _, path := range segments(t, dir) {
			if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) < time.Minute {
				old := time.Now().Add(-time.Duration(hours) * time.Hour)
				require.NoError(t, os.Chtimes(path, old, old))
			}
		}
	}
	put := func(key string, from, to int) *warned {
		c, w := open(t, dir, key, room)
		fill(c, from, to)
		c.Close()
		return w
	}
	require.Empty(t, put("old", 0, 4).all)
	age(3)
	require.Empty(t, put("new", 0, 4).all)
	age(2)
	// The older one is used again, so the other makes room.
	c, _ := open(t, dir, "old", room)
	requireHas(t, c, 4, all)
	c.Close()
	age(1)
	require.Empty(t, put("third", 0, 4).all)
	for key, has := range map[string]func(int) bool{"old": all, "new": none, "third": all} {
		c, _ := open(t, dir, key, room)
		requireHas(t, c, 4, has)
		c.Close()
	}

	// One run that needs more than there is keeps what fits, and says so once.
	w := put("big", 0, 30)
	require.Len(t, w.all, 1)
	require.Contains(t, w.all[0], "has reached its limit")
	var size int64
	for _, path := range segments(t, dir) {
		info, err := os.Stat(path)
		require.NoError(t, err)
		size += info.Size()
	}
	require.LessOrEqual(t, size, room)
	c, _ = open(t, dir, "big", room)
	defer c.Close()
	requireHas(t, c, 30, func(i int) bool { return i < 10 })
	// What serves is not removed for what is new.
	fill(c, 100, 110)
	requireHas(t, c, 10, all)
}

func TestMemoryStaysFlat(t *testing.T) {
	resident := func() int { // KiB of mapped files
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Skipf("needs Linux: %v", err)
		}
		var n int
		_, rest, _ := strings.Cut(string(status), "RssFile:")
		_, err = fmt.Sscanf(strings.TrimSpace(rest), "%d kB", &n)
		require.NoError(t, err)
		return n
	}
	const record, n = 1 << 20, 128
	o := Options{Dir: t.TempDir(), Key: "k", Record: record, Limit: 1 << 30, Warn: func(m string) { t.Error(m) }}
	c, err := Open(o)
	require.NoError(t, err)
	dst := make([]byte, record)
	for i := range n {
		c.Put(idOf(i), dst)
	}
	c.Close()
	c, err = Open(o)
	require.NoError(t, err)
	defer c.Close()
	before := resident()
	for i := range n {
		require.True(t, c.Get(idOf(i), dst))
		require.Less(t, resident()-before, (residentLimit+2*record)>>10, "after %d records of 1 MiB", i)
	}
}

func TestSegmentThatCannotBeOpenedIsKept(t *testing.T) {
	dir := t.TempDir()
	c, _ := open(t, dir, "k", 1<<30)
	fill(c, 0, 3)
	c.Close()
	w := &warned{}
	require.NoError(t, os.Chmod(segments(t, dir)[0], 0))
	if f, err := os.Open(segments(t, dir)[0]); err == nil {
		f.Close()
		t.Skip("root may open every file")
	}
	c, err := Open(Options{Dir: dir, Key: "k", Record: testRecord, Limit: 1 << 30, Warn: w.warn})
	require.NoError(t, err)
	requireHas(t, c, 3, none)
	c.Close()
	require.Len(t, w.all, 1)
	require.Len(t, segments(t, dir), 1)
}

func TestFolderThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	c, w := open(t, dir, "k", 1<<30)
	require.NoError(t, os.RemoveAll(dir))
	fill(c, 0, 5)
	_, added := c.Close()
	require.Zero(t, added)
	require.Len(t, w.all, 1)
	require.Contains(t, w.all[0], "no image is added")
	_, err := Open(Options{Dir: dir})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func FuzzParse(f *testing.F) {
	key := idOf(1)
	whole := append(recordOf(0), tail([]entry{{idOf(0), 3}}, key, testRecord)...)
	f.Add(whole, testRecord)
	f.Add(tail(nil, key, 7), 7)
	f.Add(whole[:len(whole)-1], testRecord)
	f.Fuzz(func(t *testing.T, data []byte, record int) {
		if record < 1 || record > 1<<40 {
			return
		}
		entries, err := parse(data, key, record)
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "damaged: "))
			return
		}
		require.Len(t, data, len(entries)*(record+entrySize)+footerSize)
	})
}

func BenchmarkGet(b *testing.B) {
	const record, n = 224 * 224 * 3, 64
	dir := b.TempDir()
	o := Options{Dir: dir, Key: "k", Record: record, Limit: 1 << 30, Warn: func(m string) { b.Error(m) }}
	c, err := Open(o)
	require.NoError(b, err)
	dst := make([]byte, record)
	for i := range n {
		c.Put(idOf(i), dst)
	}
	c.Close()
	c, err = Open(o)
	require.NoError(b, err)
	defer c.Close()
	b.ReportAllocs()
	b.SetBytes(record)
	for i := 0; b.Loop(); i++ {
		if !c.Get(idOf(i%n), dst) {
			b.Fatal(fmt.Sprint("record is missing: ", i%n))
		}
	}
}
