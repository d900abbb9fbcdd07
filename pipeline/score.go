package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/meter"
	"github.com/quantgate/quantgate/tensor"
)

// Files of an output folder that this package writes beside a model's own.
const (
	OutcomesName = "outcomes.csv.gz"
	JournalName  = "outcomes.journal"
)

// score is pass B over all models: it fills the outcomes and writes their file.
func (r *run) score(ctx context.Context, models []*prepared, built []candidates) (err error) {
	for i, m := range models {
		if err := m.describe(built[i]); err != nil {
			return fmt.Errorf("resume in %s: %w", r.job.Out, err)
		}
	}
	if r.manifest.Outcomes.intact(r.job.Out) {
		return r.keepOutcomes(models)
	}
	journal, done, err := accuracy.OpenJournal(filepath.Join(r.job.Out, JournalName), r.manifest.key())
	if err != nil {
		return err
	}
	closed := false
	defer func() {
		if closed {
			return
		}
		if cerr := journal.Close(); err == nil {
			err = cerr
		}
	}()
	if n := journal.Cut(); n > 0 {
		r.Report.Debugf("the interrupted run was stopped in the middle of a batch: %d bytes of the journal dropped", n)
	}

	all := &accuracy.Outcomes{Precisions: r.job.Precisions}
	if r.job.Stop != nil {
		all.SetSize = len(r.split.Score)
	}
	for i, m := range models {
		records, err := r.scoreModel(ctx, m, built[i], journal, done)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		all.Models = append(all.Models, accuracy.ModelOutcomes{Name: m.name, Records: records})
	}
	if err := r.writeOutcomes(all); err != nil {
		return err
	}
	closed = true
	return journal.Remove()
}

// keepOutcomes takes the outcomes of a run that had finished scoring before it was resumed.
func (r *run) keepOutcomes(models []*prepared) error {
	path := r.manifest.Outcomes.Path(r.job.Out)
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read outcomes: %w", err)
	}
	defer f.Close()
	if r.result.Outcomes, err = accuracy.ReadOutcomes(f, path); err != nil {
		return err
	}
	for _, m := range models {
		m.result.Bad = m.manifest.Skipped
	}
	r.Report.Infof("every image was scored before: outcomes kept (%s)", path)
	r.wrote(path)
	return r.manifest.write(r.job.Out)
}

func (r *run) writeOutcomes(all *accuracy.Outcomes) error {
	path := filepath.Join(r.job.Out, OutcomesName)
	var b bytes.Buffer
	if err := accuracy.WriteOutcomes(&b, all); err != nil {
		return err
	}
	if err := writeFile(path, b.Bytes()); err != nil {
		return err
	}
	for i := range r.manifest.Models {
		r.manifest.Models[i].Skipped = r.result.Models[i].Bad
	}
	var err error
	if r.manifest.Outcomes, err = manifestFile(r.job.Out, path); err != nil {
		return err
	}
	if err := r.manifest.write(r.job.Out); err != nil {
		return err
	}
	r.wrote(path)
	r.result.Outcomes = all
	return nil
}

// describe notes what is computed in which type. What was scored before an interruption must have been computed alike.
func (p *prepared) describe(built candidates) error {
	before := p.manifest.Computed
	p.manifest.Computed, p.manifest.Forms = nil, nil
	note := func(list *map[string]string, name, what string) {
		if what == "" {
			return
		}
		if *list == nil {
			*list = map[string]string{}
		}
		(*list)[name] = what
	}
	for _, c := range built {
		note(&p.manifest.Computed, c.name, c.computed)
		note(&p.manifest.Forms, c.name, c.form)
		if was := before[c.name]; was != "" && was != c.computed {
			return fmt.Errorf("%s: %s was computed with %s, and would be with %s here: %w: run without --resume to start over", p.name, c.name, was, c.computed, ErrOtherRun)
		}
	}
	return nil
}

// scoreModel decodes each image once and runs every candidate on it. Batches are whole: one that an earlier process put into
// the journal is not touched again, and the rest keep their make-up, so a resumed run gives the bytes of an uninterrupted one.
func (r *run) scoreModel(ctx context.Context, m *prepared, built candidates, journal *accuracy.Journal, done []accuracy.Batch) ([]accuracy.Record, error) {
	opening := r.begin(stageOpen)
	p := r.resume(m, done)
	if p.images > 0 {
		r.Report.Infof("%s: %d images were scored before the interruption", m.name, p.images)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	o := r.loadOptions(m)
	scorers := r.scorers(len(built))
	memory, free := r.hostMemory(m, min(o.InFlight(scorers), len(p.batches)))
	defer free() // last: the sessions and the loader are closed then, and no goroutine holds a batch
	o.Memory = memory
	loader := r.job.Data.Load(ctx, p.left, o) // decodes while the sessions open
	defer loader.Close()
	sessions, err := r.open(ctx, m, built)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, s := range sessions {
			_ = s.Close() // nothing to lose: the outcomes are in the journal
		}
	}()

	r.timed(m, opening, 0)
	if err := r.layers(m, built, sessions); err != nil {
		return nil, err
	}
	if len(memory) == 0 {
		defer boundGarbage(o.InFlight(scorers) * r.batchBytes(m))()
	}
	timing := r.begin(stageScore)
	timing.runners = scorers
	timing.decode(loader, scorers)
	var engines []*meter.Meter
	for i, c := range built {
		engines = append(engines, timing.engine(c.name, sessions[i]))
	}
	total := len(r.split.Score)
	progress := r.Report.Stage("score "+m.name, "images", total, p.images)
	defer progress.Done()

	records := p.records
	var loading sync.Mutex // guards the loader and the list of bad images
	var mu sync.Mutex      // guards the visits, the records and the journal, so that nobody waits for images to hand a batch in
	visits, err := r.visits(m, records, func(b accuracy.Batch) error {
		records = append(records, b.Records...)
		return journal.Append(b)
	})
	if err != nil {
		return nil, err
	}
	settled := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return visits.settled()
	}
	s := &scorer{sessions: sessions, engines: engines, offset: m.ClassOffset, piece: r.pieceOf(m)}
	next := func() (*scoring, error) {
		defer timing.wait()()
		loading.Lock()
		defer loading.Unlock()
		if settled() {
			return nil, io.EOF
		}
		batch, err := loader.Next(ctx)
		if errors.Is(err, io.EOF) {
			if b := s.join(); b != nil {
				return b, nil
			}
		}
		if err != nil {
			return nil, err
		}
		r.noteBad(m, batch.Bad)
		return s.begin(batch), nil
	}
	keep := func(b accuracy.Batch) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return visits.add(b)
	}
	for range scorers {
		g.Go(func() error {
			for {
				b, err := next()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				done, err := s.run(ctx, b)
				if err != nil {
					return err
				}
				if !done {
					continue // another worker is at its last image
				}
				finished := accuracy.Batch{Model: m.name, Index: p.batches[b.batch.Index], Skipped: skips(b.batch.Bad)}
				if finished.Records, err = s.end(b); err != nil {
					return err
				}
				n, err := keep(finished)
				if err != nil {
					return err
				}
				progress.Add(n)
			}
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, errors.New("score: no readable image: check them with quantgate dataset verify")
	}
	r.reportStop(m, visits)
	slices.SortFunc(records, func(a, b accuracy.Record) int { return a.ID - b.ID })
	r.timed(m, timing, len(records)-len(p.records))
	return records, nil
}

// scorers is how many goroutines run so many sessions, a batch on one after the other: as many as keep all busy, where the engine tells,
// so that no more batches than needed lie in memory.
func (r *run) scorers(sessions int) int {
	if c, ok := r.Backend.(engine.Concurrent); ok {
		return c.Concurrency() * sessions
	}
	return r.job.Workers
}

// hostBytes bounds the memory that batches may pin.
const hostBytes = 4 << 30

// hostMemory allocates memory for a model's batches where the engine copies from it without a buffer of its own; free gives it back. Where the
// engine has not enough it is left to the sessions: the batches take a copy more.
func (r *run) hostMemory(m *prepared, batches int) (memory [][]float32, free func()) {
	h, ok := r.Backend.(engine.HostMemory)
	if !ok {
		return nil, func() {}
	}
	size := r.batchBytes(m)
	memory, giveBack, err := engine.AllocBatches(h, min(batches, hostBytes/max(1, size)), size/4)
	if err != nil {
		r.Report.Debugf("%s: batches lie in ordinary memory, which takes a copy more: %v", m.name, err)
		return nil, func() {}
	}
	r.Report.Debugf("%s: up to %d batches lie where the engine copies them from, in %d MiB", m.name, len(memory), len(memory)*size>>20)
	return memory, func() {
		if err := giveBack(); err != nil {
			r.Report.Debugf("%s: the batches' memory was not given back: %v", m.name, err)
		}
	}
}

// open loads every candidate into the engine: at once, one more than there are workers so that none idles before the last, but that an
// engine which chooses kernels by timing them gets one after the other.
func (r *run) open(ctx context.Context, m *prepared, built candidates) ([]engine.Session, error) {
	sessions := make([]engine.Session, len(built))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.job.Workers + 1)
	if quantizer(r.Env) != nil {
		g.SetLimit(1)
	}
	for i, c := range built {
		g.Go(func() (err error) {
			o := c.options
			o.Threads, o.Outputs = 1, []string{c.logits}
			sessions[i], err = r.openLean(ctx, m, c, o)
			return err
		})
	}
	err := g.Wait()
	if err == nil {
		return sessions, nil
	}
	for _, s := range sessions {
		if s != nil {
			err = errors.Join(err, s.Close())
		}
	}
	return nil, err
}

// remainder is what an interrupted run leaves to do for one model.
type remainder struct {
	left    []int             // images of the batches to run, in order
	batches []int             // their numbers
	images  int               // images of the finished batches
	records []accuracy.Record // of the finished batches
}

// resume subtracts the journal's batches from the score.
func (r *run) resume(m *prepared, done []accuracy.Batch) remainder {
	var p remainder
	finished := map[int]bool{}
	for _, b := range done {
		if b.Model != m.name || finished[b.Index] {
			continue
		}
		finished[b.Index] = true
		p.records = append(p.records, b.Records...)
		m.result.Bad = append(m.result.Bad, b.Skipped...)
	}
	size := r.job.BatchSize
	for i := 0; i*size < len(r.split.Score); i++ {
		batch := r.split.Score[i*size : min((i+1)*size, len(r.split.Score))]
		if finished[i] {
			p.images += len(batch)
			continue
		}
		p.left = append(p.left, batch...)
		p.batches = append(p.batches, i)
	}
	return p
}

// pieceBytes is the size of the input that one call of the engine gets. Small pieces keep a network's activations in the
// processor's caches: a 224x224 image at a time is faster than 25, and takes a fraction of the memory; tiny images share a call.
const pieceBytes = 256 << 10

// pieceOf is the number of images that one call of the engine gets; an engine that quantizes by itself is a GPU, which wants whole batches.
func (r *run) pieceOf(m *prepared) int {
	if quantizer(r.Env) != nil {
		return r.job.BatchSize
	}
	if n := m.input.Shape[0]; n > 1 { // the model fixes its batch
		return int(n)
	}
	return max(1, pieceBytes/max(1, imageBytes(m)))
}

// scorer runs batches through all sessions. A worker that finds no batch left joins one that another worker is at, so that no core waits
// for the last.
type scorer struct {
	sessions []engine.Session // the first is the base
	engines  []*meter.Meter   // what each took
	offset   int
	piece    int // images a call

	mu    sync.Mutex // guards the rest
	under []*scoring // the batches under way
	free  []*scoring // whose memory the next batches take
}

// scoring is a batch under way. The calls that it takes are those of the first session, one a piece, then those of the next: its weights
// stay in the processor's caches meanwhile.
type scoring struct {
	batch  *dataset.Batch
	pieces int
	logits [][]*tensor.Tensor // by session, of each piece
	begun  atomic.Int64       // calls that workers have taken
	ended  atomic.Int64
}

func (b *scoring) calls() int { return len(b.logits) * b.pieces }

// begin puts a batch under way.
func (s *scorer) begin(batch *dataset.Batch) *scoring {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &scoring{logits: make([][]*tensor.Tensor, len(s.sessions))}
	if n := len(s.free); n > 0 {
		b, s.free = s.free[n-1], s.free[:n-1]
	}
	b.batch, b.pieces = batch, (len(batch.Items)+s.piece-1)/s.piece
	for i := range b.logits {
		for len(b.logits[i]) < b.pieces {
			b.logits[i] = append(b.logits[i], &tensor.Tensor{})
		}
	}
	b.begun.Store(0)
	b.ended.Store(0)
	s.under = append(s.under, b)
	return b
}

// join returns a batch under way that has calls left to take, nil where none has. No further batch begins then, whose memory would be
// that of one joined.
func (s *scorer) join() *scoring {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.under {
		if int(b.begun.Load()) < b.calls() {
			return b
		}
	}
	return nil
}

// run takes calls of a batch until none is left. It reports true to the one worker that ended the batch.
func (s *scorer) run(ctx context.Context, b *scoring) (done bool, err error) {
	n := b.calls()
	for call := int(b.begun.Add(1)) - 1; call < n; call = int(b.begun.Add(1)) - 1 {
		i, k := call/b.pieces, call%b.pieces
		from := k * s.piece
		x := rows(b.batch.X, from, min(from+s.piece, len(b.batch.Items)))
		span := s.engines[i].Begin()
		err := s.sessions[i].Run(ctx, x, b.logits[i][k:k+1])
		span.End(int(x.Shape[0]))
		if err != nil {
			return false, fmt.Errorf("batch %d (from %s): %w", b.batch.Index, b.batch.Items[from].Path, err)
		}
		done = int(b.ended.Add(1)) == n
	}
	return done || n == 0, nil
}

// end releases a batch that is done and returns its records. Its memory is wanted for the next one while they are made.
func (s *scorer) end(b *scoring) ([]accuracy.Record, error) {
	items := slices.Clone(b.batch.Items)
	b.batch.Release()
	records := make([]accuracy.Record, 0, len(items))
	for k, item := range items {
		rec, err := s.record(b, item, k)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", item.Path, err)
		}
		records = append(records, rec)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.under = slices.DeleteFunc(s.under, func(u *scoring) bool { return u == b })
	s.free = append(s.free, b)
	return records, nil
}

// record reduces every session's logits of image k of a batch to its outcomes.
func (s *scorer) record(b *scoring, item dataset.Item, k int) (accuracy.Record, error) {
	rec := accuracy.Record{ID: item.ID, Path: item.Path, Label: item.Label}
	row := func(session int) []float32 { return b.logits[session][k/s.piece].Row(k % s.piece) }
	for i := range s.sessions {
		o, err := accuracy.Score(row(i), item.Label, s.offset)
		if err != nil {
			return rec, err
		}
		rec.Outcomes = append(rec.Outcomes, o)
		if i > 0 {
			shift, err := accuracy.CompareLogits(row(0), row(i), s.offset)
			if err != nil {
				return rec, err
			}
			rec.Shifts = append(rec.Shifts, shift)
		}
	}
	return rec, nil
}
