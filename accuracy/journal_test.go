package accuracy

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var errFull = syscall.ENOSPC

// fullDisk refuses every write.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func sampleBatches(t testing.TB) []Batch {
	o := sampleOutcomes(t, 2, 12, 5)
	o.Models[0].Records[1].Shifts[0] = Shift{} // NaN is unequal to itself
	o.Models[1].Records[1].Shifts[0] = Shift{}
	return []Batch{
		{Model: "model a", Index: 0, Records: o.Models[0].Records[:4]},
		{Model: "model b", Index: 7, Records: o.Models[1].Records[:8], Skipped: []Skip{{ID: 3, Path: "bad.png", Reason: "unexpected EOF"}}},
		{Model: "model a", Index: 1, Skipped: []Skip{{ID: 4, Path: "x"}}},
		{Model: "model a", Index: 2, Records: o.Models[0].Records[4:]},
	}
}

func writeJournal(t testing.TB, path string) []Batch {
	t.Helper()
	batches := sampleBatches(t)
	j, done, err := OpenJournal(path, "key")
	require.NoError(t, err)
	require.Empty(t, done)
	for _, b := range batches {
		require.NoError(t, j.Append(b))
	}
	require.NoError(t, j.Close())
	return batches
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	batches := writeJournal(t, path)
	j, done, err := OpenJournal(path, "key")
	require.NoError(t, err)
	require.Equal(t, batches, done)
	require.Zero(t, j.Cut())
	require.NoError(t, j.Append(batches[1]))
	require.NoError(t, j.Close())
	j, done, err = OpenJournal(path, "key")
	require.NoError(t, err)
	require.Equal(t, append(batches, batches[1]), done)
	require.NoError(t, j.Remove())
	require.NoFileExists(t, path)
}

func TestJournalKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	writeJournal(t, path)
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, key := range []string{"other", "ke", "keys", "key" + strings.Repeat("x", 150)} {
		_, _, err := OpenJournal(path, key)
		require.ErrorIs(t, err, ErrJournalKey, key)
		require.ErrorContains(t, err, "start afresh without --resume")
	}
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after, "a foreign journal is left alone")
	for _, key := range []string{"", "a\nb", strings.Repeat("k", 201)} {
		_, _, err := OpenJournal(path, key)
		require.ErrorContains(t, err, "the key must be one line")
	}
	require.NoError(t, os.WriteFile(path, []byte("holiday notes"), 0o644))
	_, _, err = OpenJournal(path, "key")
	require.ErrorContains(t, err, "not a journal of this version")
	_, _, err = OpenJournal(filepath.Join(path, "below"), "key")
	require.ErrorContains(t, err, "journal: open ")
}

// A journal cut at any byte, or with any byte changed, opens with a prefix of its batches and goes on from there.
func TestJournalTornAnywhere(t *testing.T) {
	dir := t.TempDir()
	batches := writeJournal(t, filepath.Join(dir, "whole"))
	whole, err := os.ReadFile(filepath.Join(dir, "whole"))
	require.NoError(t, err)
	head := len(journalMagic) + len("key\n")
	path := filepath.Join(dir, "torn")
	check := func(data []byte, what string, at int) {
		require.NoError(t, os.WriteFile(path, data, 0o644))
		j, done, err := OpenJournal(path, "key")
		require.NoError(t, err, "%s %d", what, at)
		require.Less(t, len(done), len(batches)+1)
		require.Equal(t, batches[:len(done)], append([]Batch{}, done...), "%s %d", what, at)
		if what == "changed" {
			require.Less(t, len(done), len(batches))
			require.Positive(t, j.Cut())
		}
		require.NoError(t, j.Append(batches[0]))
		require.NoError(t, j.Close())
		j, again, err := OpenJournal(path, "key")
		require.NoError(t, err)
		require.Len(t, again, len(done)+1)
		require.Zero(t, j.Cut())
		require.NoError(t, j.Close())
	}
	for n := 0; n < len(whole); n += 61 {
		check(whole[:n], "cut", n)
	}
	for n := head; n < len(whole); n += 97 {
		data := append([]byte{}, whole...)
		data[n] ^= 0x10
		check(data, "changed", n)
	}
}

// fakeFile fails as told.
type fakeFile struct {
	journalFile
	failWrite, failSync bool
	syncs               int
}

func (f *fakeFile) Write(b []byte) (int, error) {
	if f.failWrite {
		n, _ := f.journalFile.Write(b[:len(b)/2])
		return n, errFull
	}
	return f.journalFile.Write(b)
}

func (f *fakeFile) Sync() error {
	f.syncs++
	if f.failSync {
		return syscall.EIO
	}
	return f.journalFile.Sync()
}

func TestJournalFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	batches := sampleBatches(t)
	j, _, err := OpenJournal(path, "key")
	require.NoError(t, err)
	require.NoError(t, j.Append(batches[0]))
	f := &fakeFile{journalFile: j.f, failWrite: true}
	j.f = f
	err = j.Append(batches[1])
	require.ErrorIs(t, err, errFull)
	require.ErrorContains(t, err, "journal "+path+": write: ")
	f.failWrite = false
	require.ErrorIs(t, j.Append(batches[2]), errFull, "nothing is written after a gap")
	require.ErrorIs(t, j.Close(), errFull)

	j, done, err := OpenJournal(path, "key")
	require.NoError(t, err)
	require.Equal(t, batches[:1], done)
	require.Zero(t, j.Cut(), "the torn batch was taken back at once")
	f = &fakeFile{journalFile: j.f, failSync: true}
	j.f, j.interval = f, 0
	require.ErrorIs(t, j.Append(batches[1]), syscall.EIO)
	require.ErrorIs(t, j.Close(), syscall.EIO)
}

func TestJournalSyncsNowAndThen(t *testing.T) {
	j, _, err := OpenJournal(filepath.Join(t.TempDir(), "journal"), "key")
	require.NoError(t, err)
	f := &fakeFile{journalFile: j.f}
	j.f = f
	for range 100 {
		require.NoError(t, j.Append(Batch{Model: "m"}))
	}
	require.LessOrEqual(t, f.syncs, 1, "not for every batch")
	j.synced = time.Now().Add(-2 * syncInterval)
	require.NoError(t, j.Append(Batch{Model: "m"}))
	require.NotZero(t, f.syncs)
	require.NoError(t, j.Close())
}

func FuzzJournal(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed")
	writeJournal(f, path)
	whole, err := os.ReadFile(path)
	require.NoError(f, err)
	body := whole[len(journalMagic)+len("key\n"):]
	f.Add(body)
	f.Add(body[:len(body)/2])
	f.Add([]byte{})
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		done, whole := readBatches(data)
		require.LessOrEqual(t, whole, len(data))
		again, n := readBatches(data[:whole])
		require.Equal(t, whole, n)
		require.Len(t, again, len(done))
		d := decoder{data: data} // a payload whose checksum happens to fit must not break the decoder
		_ = d.batch()
	})
}
