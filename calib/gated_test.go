package calib

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// trio are the views of a value, its gate and their product.
func trio(x, gate, product int, alpha, beta float32) []View {
	return []View{Whole(x), through(gate, Func{HardSigmoid, alpha, beta}), through(product, Func{HardSwish, alpha, beta})}
}

// gateParams are those of HardSwish, of ONNX's and Keras's HardSigmoid, and others with every kind of end.
var gateParams = [][2]float32{{1. / 6, 0.5}, {0.2, 0.5}, {1, 0}, {0.05, 1}, {3, 0.25}}

func TestFunc(t *testing.T) {
	nan := float32(math.NaN())
	x := []float32{-7, -3, -1.5, 0, 0.25, 1, 3, 8, nan, float32(math.Inf(1))}
	for f, want := range map[Func][]float32{
		{}:                         x,
		{HardSigmoid, 0.25, 0.5}:   {0, 0, 0.125, 0.5, 0.5625, 0.75, 1, 1, nan, 1},
		{HardSwish, 0.25, 0.5}:     {0, 0, -0.1875, 0, 0.140625, 0.75, 3, 8, nan, float32(math.Inf(1))},
		{HardSigmoid, -0.25, 0.25}: {1, 1, 0.625, 0.25, 0.1875, 0, 0, 0, nan, 0},
	} {
		got := make([]float32, len(x))
		f.Apply(x, got)
		for i := range x {
			require.True(t, got[i] == want[i] || want[i] != want[i] && got[i] != got[i], "%v of %v: %v", f, x[i], got[i])
		}
	}
	// Every operation is rounded by itself, so the native code gives the bits of the plain one.
	r := rand.New(rand.NewPCG(1, 2))
	x = make([]float32, 100_000)
	for i := range x {
		x[i] = float32(r.NormFloat64() * math.Exp(4*r.Float64()-2))
	}
	for _, p := range gateParams {
		for _, kind := range []FuncKind{HardSigmoid, HardSwish} {
			f := Func{kind, p[0], p[1]}
			got, want := make([]float32, len(x)), make([]float32, len(x))
			f.Apply(x, got)
			plainGates(x, f, want)
			require.Equal(t, want, got, "%v", f)
		}
	}
}

// TestGatedCellsTellEveryBin: the cell of a value tells its bins in all three views, most of all where a bin begins.
func TestGatedCellsTellEveryBin(t *testing.T) {
	placed := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 11))
		p := gateParams[seed%uint64(len(gateParams))]
		most := float32(math.Exp(5*r.Float64() - 1))
		key := gatedKey{alpha: p[0], beta: p[1]}
		key.grids[0] = grid{rng: most * float32(1+r.IntN(2)), exact: r.IntN(2) == 0}
		key.grids[1] = grid{rng: gate(most, p[0], p[1]), exact: true}
		key.grids[2] = grid{rng: most * gate(most, p[0], p[1]), exact: true}
		table := newGatedTable(key)
		if table == nil {
			continue
		}
		placed++
		at := table.placement
		check := func(x float32) {
			s := gate(x, p[0], p[1])
			if v := (extremes{absBits(x), absBits(x), absBits(s), absBits(x * s)}); !v.within(extremes{
				key.grids[0].limit(), key.grids[0].limit(), key.grids[1].limit(), key.grids[2].limit(),
			}) {
				return
			}
			c := at.gatedCell(x)
			for k, v := range [3]float32{x, s, x * s} {
				if want := index(math.Float32frombits(absBits(v)), at.views[k].scale); c >= table.cells || int(table.bins[k][c]) != want {
					t.Fatalf("seed %d, value %v, view %d, shift %d: cell %d of %d does not tell bin %d", seed, x, k, at.shift, c, table.cells, want)
				}
			}
		}
		around := func(x float64) {
			b := math.Float32bits(float32(x))
			for d := -3; d <= 3; d++ {
				check(math.Float32frombits(b + uint32(d)))
			}
		}
		alpha, beta := float64(p[0]), float64(p[1])
		for i := 1; i <= Bins; i++ {
			around(float64(i) / float64(at.views[0].scale))
			around(-float64(i) / float64(at.views[0].scale))
			around((float64(i)/float64(at.views[1].scale) - beta) / alpha)
			for _, sign := range []float64{-1, 1} { // alpha x^2 + beta x = the edge of a product's bin
				y := float64(i) / float64(at.views[2].scale)
				for _, side := range []float64{-1, 1} {
					if d := beta*beta + 4*alpha*sign*y; d >= 0 {
						around((-beta + side*math.Sqrt(d)) / (2 * alpha))
					}
				}
			}
		}
		for _, x := range []float64{0, math.Copysign(0, -1), -beta / alpha, -beta / alpha / 2, (1 - beta) / alpha} {
			around(x)
		}
		for range 20_000 {
			check(float32(r.NormFloat64()) * most / 3)
		}
	}
	require.Greater(t, placed, 30, "most of these grids allow a gated placement")
}

// Gates and products that are views count as when they are observed themselves, whether the grids allow a gated placement or not.
func TestGatedViewsCountAsTheirTensors(t *testing.T) {
	inf := float32(math.Inf(1))
	together, apart := 0, 0
	for _, m := range Methods() {
		for seed := range uint64(30) {
			r := rand.New(rand.NewPCG(seed, 3))
			p := gateParams[r.IntN(len(gateParams))]
			scale := []float32{0.01, 0.5, 1, 2, 30}[seed%5]
			views, names := append(trio(0, 1, 2, p[0], p[1]), bounded(3, 0, inf)), []string{"x", "gate", "product", "relu"}
			if seed%3 == 0 { // counted through the functions one by one
				names = append(names, "relu of the product", "bounded gate", "another gate")
				views = append(views, View{4, 0, inf, views[2].Func}, View{5, 0, 0.75, views[1].Func}, through(6, Func{HardSigmoid, 0.125, 0.75}))
			}
			joined, err := NewCollector(m, names, Options{})
			require.NoError(t, err)
			x, err := joined.Source(views...)
			require.NoError(t, err)
			each, err := NewCollector(m, names, Options{})
			require.NoError(t, err)
			one := each.NewShard()
			shards := []*Shard{joined.NewShard(), joined.NewShard()}
			for b, batch := range randomBatches(r, 1+r.IntN(5), 1+r.IntN(3000)) {
				for i := range batch {
					batch[i] *= scale
					if b == 0 && seed%4 == 1 { // gates that are shut or half open: small products beside large values
						batch[i] *= 1e-4
						if batch[i] < 0 {
							batch[i] -= 40
						}
					}
				}
				spoil(r, batch)
				half := r.IntN(len(batch) + 1)
				pass := func(observe func(*Shard) func(int, []float32)) {
					observe(shards[0])(x, batch[:half])
					observe(shards[1])(x, batch[half:])
					for _, v := range views {
						seen := make([]float32, len(batch))
						for i, b := range batch {
							seen[i] = v.of(b)
						}
						observe(one)(v.Tensor, seen)
					}
				}
				passBatch(t, pass, joined, each)
				if seed%3 > 0 && m != MinMax {
					if j := shards[0].sources[x][0].(*joint); j.gated != nil && j.apart == nil {
						together++
					} else {
						apart++
					}
				}
			}
			want, err := each.Results()
			require.NoError(t, err)
			got, err := joined.Results()
			require.NoError(t, err)
			require.Equal(t, want, got, "%s, seed %d", m, seed)
		}
	}
	require.Greater(t, together, 20)
	require.Greater(t, apart, 10)
}

func TestSourceRefusesFunctions(t *testing.T) {
	c, err := NewCollector(Entropy, []string{"x"}, Options{})
	require.NoError(t, err)
	_, err = c.Source(through(0, Func{Kind: "Tanh"}))
	require.EqualError(t, err, `tensor "x": a view through "Tanh": only HardSigmoid and HardSwish are known`)
}
