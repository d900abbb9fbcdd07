//go:build !cgo

package calib

func count(x []float32, views []viewParams, below int, limit extremes, counts []uint32, most *extremes) int {
	return plainCount(x, views, below, limit, counts, most)
}

func extreme(x []float32, limit extremes, most *extremes) int { return plainExtreme(x, limit, most) }
