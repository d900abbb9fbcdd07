package pipeline

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/meter"
)

// Names of the stages and of their parts. An engine's part is called after the precision too.
const (
	stageCalibrate = "calibrate"
	stageNative    = "calibrate and build on the engine"
	stageSearch    = "search thresholds"
	stageRewrite   = "rewrite"
	stageOpen      = "open" // the engines that score, which a GPU builds first; decoding begins meanwhile
	stageScore     = "score"

	partDecode    = "decode" // reading, decoding and preprocessing
	partEngine    = "engine "
	partTransfer  = "transfer" // copies between host and device, of an engine that tells them
	partHistogram = "histogram"
)

// Stage is what one stage took.
type Stage struct {
	Name    string  `json:"name"`
	Images  int     `json:"images,omitempty"`
	Seconds float64 `json:"seconds"`           // from its start to its end
	Workers int     `json:"workers,omitempty"` // goroutines that decode
	Runners int     `json:"runners,omitempty"` // goroutines that run the engine; 0: as many
	// Waited is how long each of those waited for images, on average.
	Waited     float64 `json:"waited_seconds,omitempty"`
	Parts      []Part  `json:"parts,omitempty"`
	Bottleneck string  `json:"bottleneck,omitempty"`
}

// Part is one kind of work within a stage. Parts run at the same time, each on several goroutines.
type Part struct {
	Name       string  `json:"name"`
	Images     int     `json:"images,omitempty"`
	Seconds    float64 `json:"seconds"`               // summed over the goroutines
	CPUSeconds float64 `json:"cpu_seconds,omitempty"` // of a processor; 0 where the system does not tell
}

// timing measures a stage under way.
type timing struct {
	name    string
	clock   meter.Clock
	began   time.Duration
	workers int
	runners int // 0: as many as workers
	waiters int // goroutines that wait for images
	waited  atomic.Int64
	parts   []timedPart
	loader  interface {
		Spent() (images int, elapsed, cpu time.Duration)
	}
}

type timedPart struct {
	name    string
	meter   *meter.Meter
	session engine.Session // that the part runs
}

func begin(name string, workers int, clock meter.Clock) *timing {
	t := &timing{name: name, clock: clock, workers: workers, waiters: workers}
	t.began, _ = clock()
	return t
}

// begin starts a stage of the run.
func (r *run) begin(name string) *timing { return begin(name, r.job.Workers, meter.System) }

// part adds a kind of work, and returns what counts it.
func (t *timing) part(name string) *meter.Meter {
	m := &meter.Meter{Clock: t.clock}
	t.parts = append(t.parts, timedPart{name: name, meter: m})
	return m
}

// engine is part for the runs of a session, of which the copies between host and device are told apart.
func (t *timing) engine(precision string, s engine.Session) *meter.Meter {
	m := t.part(partEngine + precision)
	t.parts[len(t.parts)-1].session = s
	return m
}

// decode makes the loader's work a part; waiters goroutines call its Next.
func (t *timing) decode(l *dataset.Loader, waiters int) { t.loader, t.waiters = l, waiters }

// wait counts the time until the returned function is called as waiting for images.
func (t *timing) wait() func() {
	began, _ := t.clock()
	return func() {
		now, _ := t.clock()
		t.waited.Add(int64(now - began))
	}
}

// end is the stage as it went.
func (t *timing) end(images int) Stage {
	now, _ := t.clock()
	s := Stage{Name: t.name, Images: images, Seconds: (now - t.began).Seconds(), Workers: t.workers}
	if t.runners != t.workers {
		s.Runners = t.runners
	}
	if t.loader != nil {
		n, elapsed, cpu := t.loader.Spent()
		s.Parts = append(s.Parts, newPart(partDecode, meter.Work{Count: n, Elapsed: elapsed, CPU: cpu}))
		s.Waited = time.Duration(t.waited.Load()).Seconds() / float64(max(1, t.waiters))
	}
	var copies meter.Work
	for _, p := range t.parts {
		w := p.meter.Total()
		if c, ok := p.session.(engine.Copier); ok {
			d := time.Duration(float64(w.Elapsed) * copying(c))
			w.Elapsed -= d
			copies = copies.Plus(meter.Work{Count: w.Count, Elapsed: d})
		}
		s.Parts = append(s.Parts, newPart(p.name, w))
	}
	if copies.Elapsed > 0 {
		s.Parts = append(s.Parts, newPart(partTransfer, copies))
	}
	if len(s.Parts) == 0 {
		s.Workers, s.Runners = 0, 0
	}
	return s
}

// copying is the share of a session's runs that its copies are the cause of. Where runs wait for one another, their waiting is shared out
// as the device's time is.
func copying(c engine.Copier) float64 {
	copies, computes := c.Spent()
	if copies <= 0 {
		return 0
	}
	return float64(copies) / float64(copies+computes)
}

func newPart(name string, w meter.Work) Part {
	return Part{Name: name, Images: w.Count, Seconds: w.Elapsed.Seconds(), CPUSeconds: w.CPU.Seconds()}
}

// timed notes what a stage took.
func (r *run) timed(m *prepared, t *timing, images int) {
	s := t.end(images)
	s.Bottleneck = s.bottleneck(runtime.GOMAXPROCS(0))
	m.manifest.Stages = append(m.manifest.Stages, s)
	r.result.Stages = addStage(r.result.Stages, s)
}

// addStage adds what s took to the stage of its name.
func addStage(all []Stage, s Stage) []Stage {
	i := slices.IndexFunc(all, func(x Stage) bool { return x.Name == s.Name })
	if i < 0 {
		s.Parts = slices.Clone(s.Parts)
		return append(all, s)
	}
	t := &all[i]
	t.Images, t.Seconds, t.Waited, t.Bottleneck = t.Images+s.Images, t.Seconds+s.Seconds, t.Waited+s.Waited, ""
	for _, p := range s.Parts {
		k := slices.IndexFunc(t.Parts, func(x Part) bool { return x.Name == p.Name })
		if k < 0 {
			t.Parts = append(t.Parts, p)
			continue
		}
		q := &t.Parts[k]
		q.Images, q.Seconds, q.CPUSeconds = q.Images+p.Images, q.Seconds+p.Seconds, q.CPUSeconds+p.CPUSeconds
	}
	return all
}

// Rate is the number of images a second.
func (s Stage) Rate() float64 { return rate(s.Images, s.Seconds) }

// Share is the part's time by the stage's clock: what is summed over the workers, divided by their number. The parts of the workers that
// run the engine and their waiting for images add up to nearly the stage's; decoding runs beside them.
func (s Stage) Share(p Part) float64 {
	n := s.Workers
	if s.Runners > 0 && p.Name != partDecode {
		n = s.Runners
	}
	return p.Seconds / float64(max(1, n))
}

// PartRate is the number of images a second that the stage's workers get through a part.
func (s Stage) PartRate(p Part) float64 { return rate(p.Images, s.Share(p)) }

func rate(images int, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return float64(images) / seconds
}

// busyCores is the share of the cores' time from which on they count as busy: the rest goes to what is not measured.
const busyCores = 0.8

// bottleneck names, in words, the part that limits the stage, "" where it has none. Where the parts keep all cores busy that is the
// one with the most processor time. Where they do not, something waits: for images if the decoders are busier than the workers that
// they feed, else for the part that those spend most time in.
func (s Stage) bottleneck(cores int) string {
	if len(s.Parts) == 0 || s.Seconds <= 0 {
		return ""
	}
	var cpu float64
	for _, p := range s.Parts {
		cpu += p.CPUSeconds
	}
	if busy := cpu / (s.Seconds * float64(cores)); busy >= busyCores {
		most := slices.MaxFunc(s.Parts, func(a, b Part) int { return cmp.Compare(a.CPUSeconds, b.CPUSeconds) })
		return fmt.Sprintf("%s: %.0f %% of the CPU time, with %s %.0f %% busy", most.Name, 100*most.CPUSeconds/cpu, counted(cores, "core"), 100*min(busy, 1))
	}
	waited := s.Waited / s.Seconds
	rest := slices.Clone(s.Parts)
	if rest[0].Name == partDecode {
		if s.Share(rest[0])/s.Seconds > 1-waited {
			return fmt.Sprintf("%s: the engine waits for images %.0f %% of the time", partDecode, 100*waited)
		}
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return ""
	}
	most := slices.MaxFunc(rest, func(a, b Part) int { return cmp.Compare(a.Seconds, b.Seconds) })
	return fmt.Sprintf("%s: %.0f %% of the workers' time", most.Name, 100*s.Share(most)/s.Seconds)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Bottleneck names the stage that took longest and what limits it, "" where nothing was done.
func (r *Result) Bottleneck() string {
	if len(r.Stages) == 0 {
		return ""
	}
	longest := slices.MaxFunc(r.Stages, func(a, b Stage) int { return cmp.Compare(a.Seconds, b.Seconds) })
	if what := longest.bottleneck(runtime.GOMAXPROCS(0)); what != "" {
		return longest.Name + ", " + what
	}
	return longest.Name
}
