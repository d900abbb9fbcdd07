//go:build !cgo

package calib

func count(x []float32, p *placement, views int, limit extremes, counts []uint32, most *extremes) int {
	return plainCount(x, p, views, limit, counts, most)
}

func extreme(x []float32, limit extremes, most *extremes) int { return plainExtreme(x, limit, most) }

func gates(x []float32, f Func, out []float32) { plainGates(x, f, out) }
