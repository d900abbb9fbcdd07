package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
)

// Files of an output folder that this package writes beside a model's own.
const (
	OutcomesName = "outcomes.csv.gz"
	JournalName  = "outcomes.journal"
)

// score is pass B over all models: it fills the outcomes and writes their file.
func (r *run) score(ctx context.Context, models []*prepared, built []candidates) (err error) {
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

func (r *run) writeOutcomes(all *accuracy.Outcomes) error {
	path := filepath.Join(r.job.Out, OutcomesName)
	var b bytes.Buffer
	if err := accuracy.WriteOutcomes(&b, all); err != nil {
		return err
	}
	if err := writeFile(path, b.Bytes()); err != nil {
		return err
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

// scoreModel decodes each image once and runs every candidate on it. Batches are whole: one that an earlier process put into
// the journal is not touched again, and the rest keep their make-up, so a resumed run gives the bytes of an uninterrupted one.
func (r *run) scoreModel(ctx context.Context, m *prepared, built candidates, journal *accuracy.Journal, done []accuracy.Batch) ([]accuracy.Record, error) {
	began := time.Now()
	p := r.resume(m, done)
	if p.images > 0 {
		r.Report.Infof("%s: %d images were scored before the interruption", m.name, p.images)
	}
	sessions, err := r.open(ctx, built)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, s := range sessions {
			_ = s.Close() // nothing to lose: the outcomes are in the journal
		}
	}()

	if err := r.layers(m, built, sessions); err != nil {
		return nil, err
	}
	total := len(r.split.Score)
	progress := r.Report.Stage("score "+m.name, "images", total, p.images)
	defer progress.Done()
	g, ctx := errgroup.WithContext(ctx)
	loader := r.job.Data.Load(ctx, p.left, r.loadOptions(m))
	defer loader.Close()

	records := p.records
	var mu sync.Mutex // guards the loader, the list of bad images, the records and the journal
	next := func() (*dataset.Batch, error) {
		mu.Lock()
		defer mu.Unlock()
		batch, err := loader.Next(ctx)
		if err == nil {
			r.noteBad(m, batch.Bad)
		}
		return batch, err
	}
	keep := func(b accuracy.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		records = append(records, b.Records...)
		return journal.Append(b)
	}
	for range r.job.Workers {
		g.Go(func() error {
			w := newScorer(sessions, m.ClassOffset)
			for {
				batch, err := next()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				finished := accuracy.Batch{Model: m.name, Index: p.batches[batch.Index]}
				if finished.Records, err = w.score(ctx, batch); err != nil {
					return err
				}
				for _, b := range batch.Bad {
					finished.Skipped = append(finished.Skipped, accuracy.Skip{ID: b.Item.ID, Path: b.Item.Path, Reason: b.Err.Error()})
				}
				n := len(batch.Items) + len(batch.Bad)
				batch.Release()
				if err := keep(finished); err != nil {
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
	slices.SortFunc(records, func(a, b accuracy.Record) int { return a.ID - b.ID })
	m.timed("score", total-p.images, began)
	return records, nil
}

// open loads every candidate into the engine.
func (r *run) open(ctx context.Context, built candidates) ([]engine.Session, error) {
	var sessions []engine.Session
	for _, c := range built {
		o := c.lower
		o.Threads, o.Outputs = 1, []string{c.logits}
		s, err := r.Backend.Open(ctx, c.model, o)
		if err != nil {
			for _, open := range sessions {
				err = errors.Join(err, open.Close())
			}
			return nil, err
		}
		sessions = append(sessions, s)
	}
	return sessions, nil
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

// scorer is one worker's sessions and buffers.
type scorer struct {
	sessions []engine.Session
	offset   int
	logits   []*tensor.Tensor // by session
}

func newScorer(sessions []engine.Session, offset int) *scorer {
	w := &scorer{sessions: sessions, offset: offset}
	for range sessions {
		w.logits = append(w.logits, &tensor.Tensor{})
	}
	return w
}

// score runs every session on one batch; the first session is the base.
func (w *scorer) score(ctx context.Context, batch *dataset.Batch) ([]accuracy.Record, error) {
	if len(batch.Items) == 0 {
		return nil, nil
	}
	for i, s := range w.sessions {
		if err := s.Run(ctx, batch.X, w.logits[i:i+1]); err != nil {
			return nil, fmt.Errorf("batch %d (from %s): %w", batch.Index, batch.Items[0].Path, err)
		}
	}
	records := make([]accuracy.Record, len(batch.Items))
	for k, item := range batch.Items {
		rec := accuracy.Record{ID: item.ID, Path: item.Path, Label: item.Label}
		for i := range w.sessions {
			o, err := accuracy.Score(w.logits[i].Row(k), item.Label, w.offset)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", item.Path, err)
			}
			rec.Outcomes = append(rec.Outcomes, o)
			if i > 0 {
				shift, err := accuracy.CompareLogits(w.logits[0].Row(k), w.logits[i].Row(k), w.offset)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", item.Path, err)
				}
				rec.Shifts = append(rec.Shifts, shift)
			}
		}
		records[k] = rec
	}
	return records, nil
}
