// Package imagecache keeps records of one size, the pixels of preprocessed images, in files from one run to the next. A record is
// found by the digest of what it was made from, so a changed image is another one, and a copied or renamed one is the same.
//
// A cache is a folder of segments. Each is written by one process, from a temporary file to its place when it is complete, and never
// changed afterwards; so processes share a folder without knowing of each other. A segment holds, little-endian:
//
//	n records
//	n times: SHA-256 of the origin, CRC-32C of the record
//	"QGIMAGE1", SHA-256 of the key, size of a record and n as uint64, CRC-32C of everything behind the records
//
// Whatever is wrong with a segment costs a warning and its records, never a wrong byte.
package imagecache

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// ID is the SHA-256 of what a record is made from.
type ID = [sha256.Size]byte

// Options say which cache is opened.
type Options struct {
	// Dir is the folder; it must exist.
	Dir string
	// Key states everything beside an ID that decides a record's bytes. Segments of another key are not read.
	Key string
	// Record is the size of a record in bytes.
	Record int
	// Limit bounds the bytes of all segments in Dir, whatever their key, as far as other processes do not write at the same time.
	Limit int64
	// Warn is told, from any goroutine, what is wrong with the cache.
	Warn func(message string)
}

// Cache is an opened cache. Get and Put are safe for concurrent use.
type Cache struct {
	o        Options
	key      ID
	segments []*segment
	places   map[ID]place
	found    atomic.Int64

	mu      sync.Mutex // guards what follows
	pending *renameio.PendingFile
	entries []entry // of pending
	added   map[ID]bool
	size    int64 // of all segments
	stopped bool  // no more records are added
	failed  bool  // and those that were are lost
}

// place is where a record lies.
type place struct {
	*segment
	n   int
	crc uint32
}

// Open reads the index of every segment.
func Open(o Options) (*Cache, error) {
	c := &Cache{o: o, key: sha256.Sum256([]byte(o.Key)), places: map[ID]place{}, added: map[ID]bool{}}
	files, err := c.list()
	if err != nil {
		return nil, fmt.Errorf("image cache: %w", err)
	}
	for _, f := range files {
		c.size += f.size
		if f.pending || !strings.HasPrefix(f.name, c.prefix()) {
			continue
		}
		s, err := openSegment(filepath.Join(o.Dir, f.name))
		if errors.Is(err, os.ErrNotExist) { // another process has made room
			continue
		}
		if err != nil { // of the system, so it may be good another time
			o.Warn(fmt.Sprintf("image cache: %v: its images are decoded anew", err))
			continue
		}
		c.segments = append(c.segments, s)
		var entries []entry
		if err := guard(func() error { entries, err = parse(s.data, c.key, o.Record); return err }); err != nil {
			c.drop(s, err)
			continue
		}
		for n, e := range entries {
			c.places[e.id] = place{s, n, e.crc}
		}
	}
	return c, nil
}

// prefix begins the names of the key's segments.
func (c *Cache) prefix() string { return hex.EncodeToString(c.key[:8]) + "-" }

// Get copies the record made from id into dst, which has the size of a record, and reports whether there is one. Where there
// is none dst is undefined.
func (c *Cache) Get(id ID, dst []byte) bool {
	p, ok := c.places[id]
	if !ok || p.bad.Load() {
		return false
	}
	if err := p.get(p.n, p.crc, dst); err != nil {
		c.drop(p.segment, err)
		return false
	}
	p.used.Store(true)
	c.found.Add(1)
	return true
}

// drop warns of a segment, and removes it so that it is made anew.
func (c *Cache) drop(s *segment, err error) {
	if s.bad.Swap(true) {
		return
	}
	_ = os.Remove(s.path) // where it stays it is found bad again
	c.o.Warn(fmt.Sprintf("image cache: %s: %v: its images are decoded anew", s.path, err))
}

// Put adds the record made from id, unless there is one.
func (c *Cache) Put(id ID, record []byte) {
	crc := crc32.Checksum(record, castagnoli)
	file, n := c.reserve(id, crc)
	if file == nil {
		return
	}
	if _, err := file.WriteAt(record, int64(n)*int64(c.o.Record)); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.fail(err)
	}
}

// reserve finds the place of a new record; the file is nil where none is wanted.
func (c *Cache) reserve(id ID, crc uint32) (*os.File, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.places[id]; c.stopped || c.added[id] || ok && !p.bad.Load() {
		return nil, 0
	}
	need := int64(c.o.Record + entrySize)
	if !c.makeRoom(need + int64(footerSize)) {
		c.stopped = true
		c.o.Warn(fmt.Sprintf("image cache: %s has reached its limit of %d MiB: further images are not kept", c.o.Dir, c.o.Limit>>20))
		return nil, 0
	}
	if c.pending == nil {
		if err := c.create(); err != nil {
			c.fail(err)
			return nil, 0
		}
	}
	c.size += need
	c.added[id] = true
	c.entries = append(c.entries, entry{id, crc})
	return c.pending.File, len(c.entries) - 1
}

// create starts a segment. Its lock tells others that its writer lives.
func (c *Cache) create() error {
	name := c.prefix() + strings.ToLower(rand.Text()) + suffix
	var err error
	if c.pending, err = renameio.NewPendingFile(filepath.Join(c.o.Dir, name), renameio.WithTempDir(c.o.Dir)); err != nil {
		return err
	}
	return unix.Flock(int(c.pending.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// fail gives up adding records, and those that were added.
func (c *Cache) fail(err error) {
	if c.failed {
		return
	}
	c.stopped, c.failed, c.entries = true, true, nil
	c.o.Warn(fmt.Sprintf("image cache: no image is added: %v", err))
}

// Close puts the records that were added into their place, and returns how many were found and added. No Get or Put may be under way.
func (c *Cache) Close() (found, added int) {
	if err := c.publish(); err != nil {
		c.fail(err)
	}
	added = len(c.entries)
	if c.pending != nil {
		_ = c.pending.Cleanup() // nothing where it was published, and a file without a writer is removed by the next run
	}
	now := time.Now()
	for _, s := range c.segments {
		if s.used.Load() && !s.bad.Load() {
			_ = os.Chtimes(s.path, now, now) // the order of removal; another process may have removed it
		}
		_ = unix.Munmap(s.data)
	}
	c.segments, c.places = nil, nil
	return int(c.found.Load()), added
}

// publish completes the pending segment.
func (c *Cache) publish() error {
	if len(c.entries) == 0 {
		return nil
	}
	if _, err := c.pending.WriteAt(tail(c.entries, c.key, c.o.Record), int64(len(c.entries))*int64(c.o.Record)); err != nil {
		return err
	}
	return c.pending.CloseAtomicallyReplace()
}

// file is a file of a cache's folder.
type file struct {
	name    string
	size    int64
	changed time.Time
	pending bool
}

// list lists the segments, the longest unused first. Those whose writer was killed are removed.
func (c *Cache) list() ([]file, error) {
	entries, err := os.ReadDir(c.o.Dir)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !strings.Contains(e.Name(), suffix) {
			continue
		}
		f := file{e.Name(), info.Size(), info.ModTime(), strings.HasPrefix(e.Name(), ".")}
		if f.pending && orphaned(filepath.Join(c.o.Dir, f.name), f.changed) {
			continue
		}
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Or(a.changed.Compare(b.changed), strings.Compare(a.name, b.name)) })
	return files, nil
}

// orphaned removes a pending file that nobody has locked. A young one may be about to be.
func orphaned(path string, changed time.Time) bool {
	if time.Since(changed) < time.Minute {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && os.Remove(path) == nil
}

// makeRoom sees to it that need bytes fit: it removes the longest unused segments, but none that served this cache.
func (c *Cache) makeRoom(need int64) bool {
	if c.size+need <= c.o.Limit {
		return true
	}
	files, err := c.list()
	if err != nil {
		return false
	}
	serving := map[string]bool{}
	for _, s := range c.segments {
		serving[filepath.Base(s.path)] = s.used.Load()
	}
	for _, f := range files {
		if c.size+need <= c.o.Limit {
			break
		}
		if !f.pending && !serving[f.name] && os.Remove(filepath.Join(c.o.Dir, f.name)) == nil {
			c.size -= f.size
		}
	}
	return c.size+need <= c.o.Limit
}

const (
	suffix     = ".qgimages"
	magic      = "QGIMAGE1"
	entrySize  = sha256.Size + 4
	footerSize = len(magic) + sha256.Size + 8 + 8 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entry is a record's line in the index.
type entry struct {
	id  ID
	crc uint32
}

// tail is what follows the records.
func tail(entries []entry, key ID, record int) []byte {
	b := make([]byte, 0, len(entries)*entrySize+footerSize)
	for _, e := range entries {
		b = append(b, e.id[:]...)
		b = binary.LittleEndian.AppendUint32(b, e.crc)
	}
	b = append(b, magic...)
	b = append(b, key[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(record))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(entries)))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parse reads a segment's index.
func parse(data []byte, key ID, record int) ([]entry, error) {
	damaged := func(what string) error { return fmt.Errorf("damaged: %s", what) }
	if len(data) < footerSize {
		return nil, damaged("too short")
	}
	f := data[len(data)-footerSize:]
	if string(f[:len(magic)]) != magic {
		return nil, damaged("no footer")
	}
	f = f[len(magic):]
	size, n := binary.LittleEndian.Uint64(f[sha256.Size:]), binary.LittleEndian.Uint64(f[sha256.Size+8:])
	if ID(f[:sha256.Size]) != key || size != uint64(record) {
		return nil, damaged("of another key")
	}
	body := uint64(len(data) - footerSize)
	each := uint64(record + entrySize)
	if body%each != 0 || body/each != n {
		return nil, damaged("its size is not what its footer says")
	}
	b := data[int(n)*record:]
	if crc32.Checksum(b[:len(b)-4], castagnoli) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return nil, damaged("wrong checksum of the index")
	}
	entries := make([]entry, n)
	for i := range entries {
		entries[i] = entry{ID(b[:sha256.Size]), binary.LittleEndian.Uint32(b[sha256.Size:])}
		b = b[entrySize:]
	}
	return entries, nil
}
