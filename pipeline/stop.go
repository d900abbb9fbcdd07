package pipeline

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/quantgate/quantgate/accuracy"
)

// StopEarly lets a run end once the images seen so far decide its verdict: they are visited in a random order, and each
// model's score stops after the batch that settles its primary look.
type StopEarly struct {
	Policy accuracy.Policy
	Seed   uint64 // of the order
}

// ManifestStop says by what a run could stop early.
type ManifestStop struct {
	MaxLoss    string          `json:"max_loss"`
	Confidence float64         `json:"confidence"`
	Primary    string          `json:"primary"`
	Target     accuracy.Target `json:"target"`
	Seed       uint64          `json:"seed"`
}

func (s *StopEarly) manifest() *ManifestStop {
	if s == nil {
		return nil
	}
	p := s.Policy
	return &ManifestStop{MaxLoss: p.MaxLoss.String(), Confidence: p.Confidence, Primary: p.Primary.String(), Target: p.Target, Seed: s.Seed}
}

// String describes the setting in one line.
func (s *ManifestStop) String() string {
	if s == nil {
		return "off"
	}
	return fmt.Sprintf("%s of the %s, max loss %s, confidence %v, seed %d", s.Primary, s.Target, s.MaxLoss, s.Confidence, s.Seed)
}

// check finds what early stopping cannot be combined with.
func (s *StopEarly) check(job *Job) error {
	switch {
	case s == nil:
		return nil
	case s.Policy.Rule != accuracy.RuleInterval:
		return errors.New("--stop-early rests on rule interval: the observed loss alone would stop at the first image")
	case s.Policy.GateAll:
		return errors.New("--stop-early stops for the primary look, and --gate-all lets the others decide too: give one of them")
	case job.MaxBad > 0:
		return errors.New("--stop-early needs every image of the set: unreadable ones cannot be skipped with it; take them out of the image list")
	case len(job.Precisions) < 2:
		return errors.New("--stop-early needs a candidate to compare: score fp16 or int8 too")
	}
	return nil
}

// shuffle puts the images to score into the order they are visited in.
func (s *StopEarly) shuffle(ids []int) {
	if s != nil {
		rng := rand.New(rand.NewPCG(s.Seed, 0))
		rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	}
}

// visits takes a model's batches in whatever order they finish, hands them on in their own order, and ends after the one that
// settles the verdict. Without StopEarly it hands on each at once.
type visits struct {
	watch   *accuracy.Watch // nil without StopEarly
	keep    func(accuracy.Batch) error
	next    int // number of the batch to hand on next
	waiting map[int]accuracy.Batch
	count   int // images handed on
}

// visits starts the sequence of one model after the records of an interrupted run, which are the first ones in order.
func (r *run) visits(m *prepared, done []accuracy.Record, keep func(accuracy.Batch) error) (*visits, error) {
	v := &visits{keep: keep, waiting: map[int]accuracy.Batch{}}
	if r.job.Stop == nil {
		return v, nil
	}
	var err error
	if v.watch, err = accuracy.NewWatch(m.name, r.job.Precisions, len(r.split.Score), r.job.Stop.Policy); err != nil {
		return nil, err
	}
	v.see(done)
	size := r.job.BatchSize
	v.next = (len(done) + size - 1) / size
	return v, nil
}

// see numbers records in the order of their visit, and shows them to the watch.
func (v *visits) see(records []accuracy.Record) {
	for i := range records {
		records[i].Visit = v.count
		v.count++
		v.watch.See(&records[i])
	}
}

// settled reports whether the verdict is reached: no further batch is taken.
func (v *visits) settled() bool {
	return v.watch != nil && v.watch.Verdict() != accuracy.Inconclusive
}

// add takes a finished batch, and returns the number of images handed on.
func (v *visits) add(b accuracy.Batch) (images int, err error) {
	if v.watch == nil {
		return len(b.Records) + len(b.Skipped), v.keep(b)
	}
	v.waiting[b.Index] = b
	for {
		b, ok := v.waiting[v.next]
		if !ok || v.settled() {
			return images, nil
		}
		delete(v.waiting, v.next)
		v.next++
		v.see(b.Records)
		if err := v.keep(b); err != nil {
			return images, err
		}
		images += len(b.Records)
	}
}

// reportStop tells how early a model's score ended.
func (r *run) reportStop(m *prepared, v *visits) {
	if v.settled() && v.count < len(r.split.Score) {
		r.Report.Infof("%s: stopped after %d of %d images: their verdict stands", m.name, v.count, len(r.split.Score))
	}
}
