package trt

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/quantgate/quantgate/engine"
)

// recipe is everything that decides a plan.
type recipe struct {
	Format    int // of the key itself
	Model     string
	Precision engine.Precision
	Cache     string
	Outputs   []string
	Batch     int
	TF32      bool
	INT8FP16  bool
	Workspace int64
	Tactics   string
	Level     string
	Library   string
	GPU       string
	Timings   string // origin of the timings in Options.TimingCache; "" for quantgate's own
}

// plans keeps plans and timings in a folder. A folder that cannot be written costs time, never a result.
type plans struct {
	dir string // "" keeps nothing
	log *relay
}

func openPlans(o Options, log *relay) plans {
	dir, err := o.cacheDir()
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		log.note(LevelWarn, fmt.Sprintf("plans are not kept, so each run builds anew: %v", err))
		return plans{log: log}
	}
	return plans{dir: dir, log: log}
}

// recipe describes the plan of a model. There is none, and the model is built, where it lies in several files, given by its path, and where
// the file of timings that was named is yet to be made.
func (b *Backend) recipe(m engine.Model, o engine.Options) (recipe, bool) {
	if m.Data == nil {
		return recipe{}, false
	}
	r := recipe{
		Format: 3, Model: digest(m.Data), Precision: o.Precision, Outputs: o.Outputs, Batch: b.batch(o),
		TF32: b.tf32(o), INT8FP16: b.opts.INT8FP16 && o.Precision == engine.Int8,
		Workspace: b.opts.Workspace, Tactics: b.opts.TacticSources,
		Library: b.lib.Version.String(), GPU: fmt.Sprintf("%s %d.%d", b.device.Name, b.device.Major, b.device.Minor),
	}
	if b.opts.Leveled {
		r.Level = fmt.Sprint(b.opts.Level)
	}
	if o.Cache != nil {
		r.Cache = digest(o.Cache)
	}
	if b.opts.TimingCache != "" {
		timings, err := os.ReadFile(b.opts.TimingCache)
		if err != nil || len(timings) == 0 {
			return recipe{}, false // they are still to be measured
		}
		r.Timings = b.plans.origin(timings)
	}
	return r, true
}

func (r recipe) file() string {
	j, err := json.Marshal(r)
	if err != nil {
		panic("trt: recipe does not marshal: " + err.Error()) // plain data: cannot happen
	}
	return digest(j) + ".plan"
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// plan is an engine as TensorRT serialises it, with what it does not keep: the order of the model's outputs.
type plan struct {
	outputs []string
	data    []byte
}

// load returns the plan for a recipe, or nil. The file's name is the recipe's digest; its first 32 bytes are that of the rest, which is a
// line with the outputs as JSON and TensorRT's plan.
func (p plans) load(r recipe) *plan {
	if p.dir == "" {
		return nil
	}
	path := filepath.Join(p.dir, r.file())
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	if len(data) > sha256.Size {
		sum := sha256.Sum256(data[sha256.Size:])
		kept := &plan{}
		line, rest, _ := bytes.Cut(data[sha256.Size:], []byte("\n"))
		if string(sum[:]) == string(data[:sha256.Size]) && json.Unmarshal(line, &kept.outputs) == nil {
			kept.data = rest
			return kept
		}
	}
	p.log.note(LevelWarn, fmt.Sprintf("plan %s is damaged: building it anew", path))
	return nil
}

// kept is the plan that is kept of a model, or nil.
func (b *Backend) kept(m engine.Model, o engine.Options) *plan {
	r, ok := b.recipe(m, o)
	if !ok {
		return nil
	}
	return b.plans.load(r)
}

// keep keeps a plan that was just built. Its recipe is made now, because building it may have made the file of timings.
func (b *Backend) keep(m engine.Model, o engine.Options, built *plan) {
	if r, ok := b.recipe(m, o); ok {
		b.plans.store(r, built)
	}
}

func (p plans) store(r recipe, built *plan) {
	if p.dir == "" {
		return
	}
	data, err := json.Marshal(built.outputs)
	if err == nil {
		data = append(append(data, '\n'), built.data...)
		sum := sha256.Sum256(data)
		err = renameio.WriteFile(filepath.Join(p.dir, r.file()), append(sum[:], data...), 0o644)
	}
	if err != nil {
		p.log.note(LevelWarn, fmt.Sprintf("the plan is not kept: %v", err))
	}
}

// timingPath is the file of kernel timings: the one named, or one for each version and GPU.
func (p plans) timingPath(b *Backend) string {
	if b.opts.TimingCache != "" || p.dir == "" {
		return b.opts.TimingCache
	}
	name := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '-'
	}, fmt.Sprintf("%s %s", b.device.Name, b.lib.Version))
	return filepath.Join(p.dir, name+".timing")
}

// timings reads kernel timings; none is no error.
func (p plans) timings(path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil && path != "" && !errors.Is(err, os.ErrNotExist) {
		p.log.note(LevelWarn, fmt.Sprintf("kernel timings are not used: %v", err))
	}
	return data
}

// storeTimings keeps the timings that a build left; before are those it began with.
func (p plans) storeTimings(path string, before, after []byte) {
	if path == "" || bytes.Equal(before, after) {
		return
	}
	err := renameio.WriteFile(path, after, 0o644)
	if err == nil && p.dir != "" && len(before) > 0 {
		err = renameio.WriteFile(p.originFile(after), []byte(p.origin(before)), 0o644)
	}
	if err != nil {
		p.log.note(LevelWarn, fmt.Sprintf("kernel timings are not kept: %v", err))
	}
}

// origin is the digest of the timings that these grew from, build by build. A build adds timings and changes none, so a plan stands on all
// timings that have its own's origin.
func (p plans) origin(timings []byte) string {
	if p.dir != "" {
		if first, err := os.ReadFile(p.originFile(timings)); err == nil {
			return string(first)
		}
	}
	return digest(timings)
}

func (p plans) originFile(timings []byte) string {
	return filepath.Join(p.dir, digest(timings)+".origin")
}
