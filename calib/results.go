package calib

import (
	"fmt"
	"math"
)

// Results chooses every tensor's range, in the order of NewCollector's list. More batches may follow.
// It fails when no batch was observed, when a batch is unfinished, and when a tensor got no value at all.
func (c *Collector) Results() ([]Result, error) {
	if c.batches == 0 {
		return nil, fmt.Errorf("%w: no batch was observed", ErrOrder)
	}
	for _, s := range c.shards {
		if s.unfinished() {
			return nil, fmt.Errorf("%w: Results before EndBatch", ErrOrder)
		}
	}
	c.merge(counting.settle)
	out := make([]Result, len(c.total))
	for i := range c.total {
		if !c.total[i].seen {
			return nil, fmt.Errorf("tensor %q: no value was observed in %d batches", c.names[i], c.batches)
		}
		out[i] = c.result(i)
	}
	return out, nil
}

func (c *Collector) result(i int) Result {
	t := &c.total[i]
	r := Result{Name: c.names[i], Max: math.Float32frombits(t.max)}
	warn := func(format string, args ...any) {
		r.Warnings = append(r.Warnings, fmt.Sprintf("tensor %q: ", r.Name)+fmt.Sprintf(format, args...))
	}
	if t.nan > 0 || t.inf > 0 {
		warn("%d NaN and %d infinite values are left out of its range", t.nan, t.inf)
	}
	if c.method != MinMax {
		h := t.histogram(r.Name)
		r.Histogram = h
	}
	switch {
	case t.max == 0:
		warn("zero wherever it was seen: its range is set to 1")
		r.Amax = 1
	case c.method == MinMax:
		r.Amax = r.Max
	default:
		if t.late {
			warn("zero in the whole first batch: counted on a power-of-two range, not TensorRT's")
		}
		if r.Histogram.oneValued() {
			warn("constant: one magnitude wherever it is not zero")
		}
		c.choose(&r, t.exact)
	}
	r.Scale = ScaleOf(r.Amax)
	return r
}

// choose sets the range from r's histogram.
func (c *Collector) choose(r *Result, exact bool) {
	h := r.Histogram
	switch c.method {
	case Percentile:
		r.Amax = h.PercentileThreshold(c.options.Percentile)
	case MSE:
		r.Amax = h.MSEThreshold()
	default:
		r.Bin, r.Amax, r.KL = h.EntropyThreshold()
		if math.IsInf(r.KL, 1) {
			r.KL = 0
			if !exact {
				r.Amax = r.Max
			}
		}
	}
	r.Clipped = h.ShareAbove(r.Amax)
}

func (t *counter) histogram(name string) *Histogram {
	h := &Histogram{Name: name, Range: t.rng, Max: math.Float32frombits(t.max), NaN: t.nan, Inf: t.inf}
	copy(h.Counts[:], t.counts[:Bins])
	return h
}
