package accuracy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"strings"
	"time"
)

// ErrJournalKey says that a journal belongs to a run with other inputs or settings.
var ErrJournalKey = errors.New("journal of another run")

const (
	journalMagic = "quantgate journal 1\n"
	// syncInterval is how much work a power failure may cost; a killed process loses only the batch being written.
	syncInterval = time.Second
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// Batch is the finished outcome of one batch of one model.
type Batch struct {
	Model   string
	Index   int // the batch's number
	Records []Record
	Skipped []Skip // images left out because they could not be read
}

// Skip is an image that was left out, and why.
type Skip struct {
	ID           int
	Path, Reason string
}

// Journal is an append-only file of finished batches, from which an interrupted run goes on. It is for one goroutine at a
// time.
type Journal struct {
	f        journalFile
	path     string
	size     int64 // bytes that are whole
	cut      int64
	synced   time.Time
	buf      []byte
	failed   error
	interval time.Duration
}

// journalFile is what Journal needs of an *os.File.
type journalFile interface {
	io.Writer
	Sync() error
	Truncate(size int64) error
	Seek(offset int64, whence int) (int64, error)
	Close() error
}

// OpenJournal opens or creates the journal at path and returns the batches in it, in the order they were written. key is
// a digest of everything that decides the outcomes: a journal with another key is an error that wraps ErrJournalKey. A
// batch that was not written to its end, and anything after it, is cut off.
func OpenJournal(path, key string) (*Journal, []Batch, error) {
	if key == "" || len(key) > 200 || strings.ContainsAny(key, "\r\n") {
		return nil, nil, fmt.Errorf("journal %s: the key must be one line of 1 to 200 bytes", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	j, done, err := openJournal(f, path, key)
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return j, done, nil
}

func openJournal(f *os.File, path, key string) (*Journal, []Batch, error) {
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, nil, fmt.Errorf("journal %s: read: %w", path, err)
	}
	j := &Journal{f: f, path: path, interval: syncInterval}
	head := journalMagic + key + "\n"
	var done []Batch
	switch {
	case len(data) < len(head) && strings.HasPrefix(head, string(data)): // new, or cut off before its first batch
		j.cut = int64(len(data))
		if err := j.rewind(0); err != nil {
			return nil, nil, err
		}
		if _, err := f.Write([]byte(head)); err != nil {
			return nil, nil, fmt.Errorf("journal %s: write: %w", path, err)
		}
		j.size = int64(len(head))
	case !strings.HasPrefix(string(data), journalMagic):
		return nil, nil, fmt.Errorf("journal %s: not a journal of this version: move it away, or start without --resume", path)
	case !strings.HasPrefix(string(data), head):
		return nil, nil, fmt.Errorf("%w: %s was written with another model, image list, preprocessing or setting: repeat that run's command, or start afresh without --resume", ErrJournalKey, path)
	default:
		var whole int
		done, whole = readBatches(data[len(head):])
		j.size = int64(len(head) + whole)
		j.cut = int64(len(data)) - j.size
		if err := j.rewind(j.size); err != nil {
			return nil, nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, nil, fmt.Errorf("journal %s: sync: %w", path, err)
	}
	j.synced = time.Now()
	return j, done, nil
}

// rewind cuts the file at size and goes there.
func (j *Journal) rewind(size int64) error {
	if err := j.f.Truncate(size); err != nil {
		return fmt.Errorf("journal %s: cut at %d: %w", j.path, size, err)
	}
	if _, err := j.f.Seek(size, io.SeekStart); err != nil {
		return fmt.Errorf("journal %s: seek: %w", j.path, err)
	}
	return nil
}

// Cut returns how many bytes of an unfinished or damaged batch OpenJournal cut off; 0 after a clean end.
func (j *Journal) Cut() int64 { return j.cut }

// Append writes one finished batch. When it returns, the batch survives a kill of the process; about once a second it is
// also made to survive a power failure. After an error the file holds the batches before, and Append repeats the error.
func (j *Journal) Append(b Batch) error {
	if j.failed != nil {
		return j.failed
	}
	payload := appendBatch(append(j.buf[:0], make([]byte, 8)...), b)
	j.buf = payload
	binary.LittleEndian.PutUint32(payload, uint32(len(payload)-8))
	binary.LittleEndian.PutUint32(payload[4:], crc32.Checksum(payload[8:], crcTable))
	if _, err := j.f.Write(payload); err != nil {
		j.failed = fmt.Errorf("journal %s: write: %w", j.path, err)
		_ = j.rewind(j.size) // a torn batch is cut off on the next start as well
		return j.failed
	}
	j.size += int64(len(payload))
	if time.Since(j.synced) < j.interval {
		return nil
	}
	return j.sync()
}

func (j *Journal) sync() error {
	if err := j.f.Sync(); err != nil {
		j.failed = fmt.Errorf("journal %s: sync: %w", j.path, err)
		return j.failed
	}
	j.synced = time.Now()
	return nil
}

// Close makes every batch durable and closes the file.
func (j *Journal) Close() error {
	err := j.failed
	if err == nil {
		err = j.sync()
	}
	if cerr := j.f.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("journal %s: close: %w", j.path, cerr)
	}
	return err
}

// Remove closes the journal and deletes its file, once its batches are written elsewhere.
func (j *Journal) Remove() error {
	_ = j.f.Close()
	if err := os.Remove(j.path); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// A batch is 4 bytes length, 4 bytes CRC-32C of the payload, payload; all little endian, integers as varints.

func appendBatch(b []byte, batch Batch) []byte {
	b = appendString(b, batch.Model)
	b = binary.AppendVarint(b, int64(batch.Index))
	b = binary.AppendUvarint(b, uint64(len(batch.Records)))
	for _, r := range batch.Records {
		b = binary.AppendVarint(b, int64(r.ID))
		b = appendString(b, r.Path)
		b = binary.AppendVarint(b, int64(r.Label))
		b = binary.AppendUvarint(b, uint64(len(r.Outcomes)))
		for _, o := range r.Outcomes {
			nan := byte(0)
			if o.NaN {
				nan = 1
			}
			b = append(b, nan)
			b = binary.AppendVarint(b, int64(o.Top1))
			b = binary.AppendVarint(b, int64(o.Rank))
			b = binary.AppendVarint(b, int64(o.TiesBefore))
			b = binary.AppendVarint(b, int64(o.TiesAfter))
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(o.Top1Prob))
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(o.LabelProb))
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(o.Margin))
		}
		b = binary.AppendUvarint(b, uint64(len(r.Shifts)))
		for _, s := range r.Shifts {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(s.KL))
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(s.MaxLogitChange))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(batch.Skipped)))
	for _, s := range batch.Skipped {
		b = binary.AppendVarint(b, int64(s.ID))
		b = appendString(b, s.Path)
		b = appendString(b, s.Reason)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// readBatches returns the batches up to the first that is torn or damaged, and the bytes they take.
func readBatches(data []byte) (done []Batch, whole int) {
	for {
		rest := data[whole:]
		if len(rest) < 8 {
			return done, whole
		}
		n := int64(binary.LittleEndian.Uint32(rest))
		if n > int64(len(rest)-8) {
			return done, whole
		}
		payload := rest[8 : 8+n]
		if crc32.Checksum(payload, crcTable) != binary.LittleEndian.Uint32(rest[4:]) {
			return done, whole
		}
		d := decoder{data: payload}
		b := d.batch()
		if d.bad || len(d.data) > 0 {
			return done, whole
		}
		done = append(done, b)
		whole += int(8 + n)
	}
}

// decoder takes a payload apart; bad is set, and all that follows is zero, where it does not hold what it should.
type decoder struct {
	data []byte
	bad  bool
}

func (d *decoder) batch() Batch {
	b := Batch{Model: d.text(), Index: d.integer()}
	for range d.count() {
		r := Record{ID: d.integer(), Path: d.text(), Label: d.integer()}
		for range d.count() {
			r.Outcomes = append(r.Outcomes, Outcome{
				NaN: d.bytes(1)[0] != 0, Top1: d.integer(), Rank: d.integer(), TiesBefore: d.integer(), TiesAfter: d.integer(),
				Top1Prob: d.float32(), LabelProb: d.float32(), Margin: d.float32(),
			})
		}
		for range d.count() {
			r.Shifts = append(r.Shifts, Shift{KL: math.Float64frombits(binary.LittleEndian.Uint64(d.bytes(8))), MaxLogitChange: d.float32()})
		}
		b.Records = append(b.Records, r)
	}
	for range d.count() {
		b.Skipped = append(b.Skipped, Skip{ID: d.integer(), Path: d.text(), Reason: d.text()})
	}
	return b
}

// zeros stands in for bytes that are missing.
var zeros [8]byte

// bytes takes the next n <= 8 bytes.
func (d *decoder) bytes(n int) []byte {
	if d.bad || len(d.data) < n {
		d.bad = true
		return zeros[:n]
	}
	b := d.data[:n]
	d.data = d.data[n:]
	return b
}

func (d *decoder) float32() float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(d.bytes(4)))
}

func (d *decoder) integer() int {
	v, n := binary.Varint(d.data)
	if n <= 0 {
		d.bad = true
	}
	if d.bad {
		return 0
	}
	d.data = d.data[n:]
	return int(v)
}

// count takes a number of things that follow; each takes at least a byte, so a larger number is bad.
func (d *decoder) count() int {
	v, n := binary.Uvarint(d.data)
	if n <= 0 || v > uint64(len(d.data)-n) {
		d.bad = true
	}
	if d.bad {
		return 0
	}
	d.data = d.data[n:]
	return int(v)
}

func (d *decoder) text() string {
	n := d.count()
	if d.bad {
		return ""
	}
	s := string(d.data[:n])
	d.data = d.data[n:]
	return s
}
