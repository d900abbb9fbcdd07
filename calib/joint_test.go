package calib

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func bounded(tensor int, low, high float32) View { return View{Tensor: tensor, Low: low, High: high} }

// passBatch shows two collectors one batch, which pass hands to what it is told to do with a shard.
func passBatch(t *testing.T, pass func(observe func(*Shard) func(int, []float32)), a, b *Collector) {
	t.Helper()
	if a.NeedsFirstMax() {
		pass(func(s *Shard) func(int, []float32) { return s.ObserveMax })
		require.NoError(t, a.EndFirstMax())
		require.NoError(t, b.EndFirstMax())
	}
	pass(func(s *Shard) func(int, []float32) { return s.Observe })
	require.NoError(t, a.EndBatch())
	require.NoError(t, b.EndBatch())
}

// spoil makes one value of every other batch infinite, not a number, or far beyond the rest.
func spoil(r *rand.Rand, batch []float32) {
	inf := float32(math.Inf(1))
	if r.IntN(2) == 0 {
		batch[r.IntN(len(batch))] = []float32{inf, -inf, float32(math.NaN()), 1e38}[r.IntN(4)]
	}
}

// Seven tensors that are views of one source, and one that joins two sources, count as when each is observed by itself.
func TestViewsCountAsTheirTensors(t *testing.T) {
	inf, minusZero := float32(math.Inf(1)), float32(math.Copysign(0, -1))
	views := []View{
		Whole(0), bounded(1, 0, inf), bounded(2, 0, 6), bounded(3, -1, 1), bounded(4, -inf, 0), bounded(5, -2, 0.5), bounded(6, 0, 0),
		bounded(7, 0, inf), bounded(9, -6, minusZero),
	}
	names := []string{"x", "relu", "relu6", "hardtanh", "negative", "lopsided", "nothing", "joined", "y", "below"}
	for _, m := range Methods() {
		for seed := range uint64(8) {
			r := rand.New(rand.NewPCG(seed, 3))
			joined, err := NewCollector(m, names, Options{})
			require.NoError(t, err)
			x, err := joined.Source(views...)
			require.NoError(t, err)
			y, err := joined.Source(Whole(8), bounded(7, 0, 3))
			require.NoError(t, err)
			apart, err := NewCollector(m, names, Options{})
			require.NoError(t, err)
			one := apart.NewShard()
			shards := []*Shard{joined.NewShard(), joined.NewShard()}

			batches := randomBatches(r, 1+r.IntN(5), 1+r.IntN(3000))
			for _, batch := range batches {
				spoil(r, batch)
				half := r.IntN(len(batch) + 1)
				pass := func(observe func(*Shard) func(int, []float32)) {
					observe(shards[0])(x, batch[:half])
					observe(shards[1])(x, batch[half:])
					observe(shards[r.IntN(2)])(y, batch)
					for _, v := range views {
						seen := make([]float32, len(batch))
						for i, b := range batch {
							seen[i] = b
							if b < v.Low {
								seen[i] = v.Low
							} else if b > v.High {
								seen[i] = v.High
							}
						}
						observe(one)(v.Tensor, seen)
					}
					bounded := make([]float32, len(batch))
					for i, b := range batch {
						bounded[i] = b
						if b < 0 || b > 3 {
							bounded[i] = min(max(b, 0), 3)
						}
					}
					observe(one)(7, bounded)
					observe(one)(8, batch)
				}
				passBatch(t, pass, joined, apart)
			}
			want, err := apart.Results()
			require.NoError(t, err)
			got, err := joined.Results()
			require.NoError(t, err)
			require.Equal(t, want, got, "%s, seed %d", m, seed)
		}
	}
}

func TestEdgesAreWhereBinsBegin(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for range 200 {
		scale := Bins / float32(math.Exp(60*r.Float64()-30))
		i := 1 + r.IntN(Bins)
		e := edgeOf(i, scale)
		require.Equal(t, i, index(e, scale))
		require.Equal(t, i-1, index(math.Nextafter32(e, 0), scale))
	}
}

func TestSourceRefuses(t *testing.T) {
	c, err := NewCollector(Entropy, []string{"x"}, Options{})
	require.NoError(t, err)
	_, err = c.Source(Whole(1))
	require.EqualError(t, err, "view of tensor number 1: there are 1")
	for _, v := range []View{bounded(0, 1, 2), bounded(0, -2, -1), bounded(0, float32(math.NaN()), 1)} {
		_, err = c.Source(v)
		require.ErrorContains(t, err, "does not hold 0")
	}
	s := c.NewShard()
	s.ObserveMax(0, []float32{1})
	require.NoError(t, c.EndFirstMax())
	_, err = c.Source(Whole(0))
	require.ErrorIs(t, err, ErrOrder)
}
