//go:build cgo

package calib

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// kernelInput is what the kernels are compared on: anything a tensor may hold, on grids that hold most of it.
func kernelInput(r *rand.Rand, n int) ([]float32, []View, []counter) {
	x := make([]float32, n)
	odd := []float32{float32(math.NaN()), -float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 1e38, -3e38}
	for i := range x {
		switch r.IntN(8) {
		case 0:
			x[i] = 0
		case 1:
			x[i] = float32(math.Copysign(0, -1))
		case 2:
			x[i] = float32(6 - 12*r.IntN(2))
		case 3:
			x[i] = 1e-40
		default:
			x[i] = float32(r.NormFloat64())
		}
		if r.IntN(2*n+1) == 0 {
			x[i] = odd[r.IntN(len(odd))]
		}
	}
	inf := float32(math.Inf(1))
	all := []View{Whole(0), bounded(1, 0, inf), bounded(2, 0, 6), bounded(3, -1, 1), bounded(4, -inf, 0), bounded(5, 0, 0), bounded(6, -0.25, 2)}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	tensors := make([]counter, len(all))
	for i := range tensors {
		tensors[i].grid = grid{rng: []float32{0, 1, 5, 6, 8, 100}[r.IntN(6)], exact: r.IntN(2) == 0}
	}
	return x, all[:1+r.IntN(mostViews)], tensors
}

// gatedInput is kernelInput for a gated placement.
func gatedInput(r *rand.Rand, n int) ([]float32, *joint, []counter) {
	x, _, tensors := kernelInput(r, n)
	tensors[0].grid, tensors[1].grid = grid{rng: 8, exact: true}, grid{rng: 1, exact: true}
	tensors[2].grid = grid{rng: []float32{4, 5, 8}[r.IntN(3)], exact: r.IntN(2) == 0}
	return x, newCountings(trio(0, 1, 2, 1./6, 0.5), &gatedTables{})[0].(*joint), tensors
}

// compareKernels runs every instruction set of this machine and the plain code on the same values.
func compareKernels(t *testing.T, x []float32, j *joint, tensors []counter) {
	j.follow(tensors)
	require.NotEmpty(t, j.counts)
	want, wantMost := make([]uint32, len(j.counts)), extremes{}
	n := plainCount(x, &j.placed, j.summed(), j.limit, want, &wantMost)
	wantSeen := extremes{}
	seen := plainExtreme(x, j.limit, &wantSeen)
	for set := 0; set <= instructions; set++ {
		got, most := make([]uint32, len(j.counts)), extremes{}
		require.Equal(t, n, countWith(set, x, &j.placed, j.summed(), j.limit, got, &most), "instruction set %d", set)
		require.Equal(t, want, got, "instruction set %d", set)
		require.Equal(t, wantMost, most)
		most = extremes{}
		require.Equal(t, seen, extremeWith(set, x, j.limit, &most))
		require.Equal(t, wantSeen, most)
	}
}

func TestKernelsCountAsPlainly(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 5))
		x, views, tensors := kernelInput(r, r.IntN(5*block))
		compareKernels(t, x, newJoint(views), tensors)
		x, gated, tensors := gatedInput(r, r.IntN(5*block))
		compareKernels(t, x, gated, tensors)
	}
}

func TestGatesArePlain(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 5))
	for range 100 {
		x, _, _ := kernelInput(r, r.IntN(3*block))
		p := gateParams[r.IntN(len(gateParams))]
		for _, kind := range []FuncKind{HardSigmoid, HardSwish} {
			f := Func{kind, p[0], p[1]}
			want := make([]float32, len(x))
			plainGates(x, f, want)
			for set := 0; set <= instructions; set++ {
				got := make([]float32, len(x))
				gatesWith(set, x, f, got)
				for i := range x {
					require.True(t, got[i] == want[i] || got[i] != got[i] && want[i] != want[i], "instruction set %d, %v of %v: %v, want %v", set, f, x[i], got[i], want[i])
				}
			}
		}
	}
}

func FuzzKernels(f *testing.F) {
	f.Add([]byte("\x00\x00\x80\x3f\x00\x00\xc0\x7f\xff\xff\xff\xff"), uint64(1))
	f.Fuzz(func(t *testing.T, values []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 5))
		_, views, tensors := kernelInput(r, 0)
		_, gated, gatedTensors := gatedInput(r, 0)
		var x []float32
		for ; len(values) >= 4; values = values[4:] {
			x = append(x, math.Float32frombits(binary.LittleEndian.Uint32(values)))
		}
		compareKernels(t, x, newJoint(views), tensors)
		compareKernels(t, x, gated, gatedTensors)
	})
}

// BenchmarkKernels compares every instruction set of this machine with the plain code.
func BenchmarkKernels(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	x := make([]float32, 200_000)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	tensors := make([]counter, mostViews)
	for i := range tensors {
		tensors[i].grid = grid{rng: 6 + float32(i), exact: true}
	}
	j := newJoint([]View{Whole(0), bounded(1, 0, float32(math.Inf(1))), bounded(2, 0, 1)})
	j.follow(tensors)
	gated := newCountings(trio(0, 1, 2, 1./6, 0.5), &gatedTables{})[0].(*joint)
	tensors[1].grid.rng = 1
	gated.follow(tensors)
	bench := func(name string, views int, count func(views int, most *extremes) int) {
		b.Run(fmt.Sprintf("%s/%d views", name, views), func(b *testing.B) {
			for b.Loop() {
				var most extremes
				require.Equal(b, len(x), count(views, &most))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(x)), "ns/value")
		})
	}
	names := []string{"C", "AVX2", "AVX-512"}
	for views := 0; views <= mostViews; views++ {
		at := j
		if views == 0 {
			at = gated
		}
		bench("plain Go", views, func(n int, most *extremes) int { return plainCount(x, &at.placed, n, at.limit, at.counts, most) })
		for set := 0; set <= instructions; set++ {
			bench(names[set], views, func(n int, most *extremes) int {
				return countWith(set, x, &at.placed, n, at.limit, at.counts, most)
			})
		}
	}
}
