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
	all := []View{Whole(0), {1, 0, inf}, {2, 0, 6}, {3, -1, 1}, {4, -inf, 0}, {5, 0, 0}, {6, -0.25, 2}}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	tensors := make([]counter, len(all))
	for i := range tensors {
		tensors[i].grid = grid{rng: []float32{0, 1, 5, 6, 8, 100}[r.IntN(6)], exact: r.IntN(2) == 0}
	}
	return x, all[:1+r.IntN(mostViews)], tensors
}

// compareKernels runs every instruction set of this machine and the plain code on the same values.
func compareKernels(t *testing.T, x []float32, views []View, tensors []counter) {
	j := newJoint(views)
	j.follow(tensors)
	want, wantMost := make([]uint32, len(j.counts)), extremes{}
	n := plainCount(x, j.params, j.below, j.limit, want, &wantMost)
	wantSeen := extremes{}
	seen := plainExtreme(x, j.limit, &wantSeen)
	for set := 0; set <= instructions; set++ {
		got, most := make([]uint32, len(j.counts)), extremes{}
		require.Equal(t, n, countWith(set, x, j.params, j.below, j.limit, got, &most), "instruction set %d", set)
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
		compareKernels(t, x, views, tensors)
	}
}

func FuzzKernels(f *testing.F) {
	f.Add([]byte("\x00\x00\x80\x3f\x00\x00\xc0\x7f\xff\xff\xff\xff"), uint64(1))
	f.Fuzz(func(t *testing.T, values []byte, seed uint64) {
		_, views, tensors := kernelInput(rand.New(rand.NewPCG(seed, 5)), 0)
		var x []float32
		for ; len(values) >= 4; values = values[4:] {
			x = append(x, math.Float32frombits(binary.LittleEndian.Uint32(values)))
		}
		compareKernels(t, x, views, tensors)
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
	j := newJoint([]View{Whole(0), {1, 0, float32(math.Inf(1))}, {2, 0, 1}})
	j.follow(tensors)
	bench := func(name string, views int, count func(views []viewParams, most *extremes) int) {
		b.Run(fmt.Sprintf("%s/%d views", name, views), func(b *testing.B) {
			for b.Loop() {
				var most extremes
				require.Equal(b, len(x), count(j.params[:views], &most))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(x)), "ns/value")
		})
	}
	for views := 1; views <= mostViews; views++ {
		bench("plain Go", views, func(p []viewParams, most *extremes) int { return plainCount(x, p, j.below, j.limit, j.counts, most) })
		for set := 0; set <= instructions; set++ {
			name := []string{"C", "AVX2", "AVX-512"}[set]
			bench(name, views, func(p []viewParams, most *extremes) int {
				return countWith(set, x, p, j.below, j.limit, j.counts, most)
			})
		}
	}
}
