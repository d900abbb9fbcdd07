package dataset

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// defaultSeed seeds the stratified draw. It is fixed so that the same data give the same split everywhere.
const defaultSeed = 20120513

// Split divides a dataset into the images that calibrate and those that are scored. No image is in both.
type Split struct {
	// Calib holds indices of Items in the order in which they are fed.
	Calib []int `json:"calib"`
	// Score holds the other indices in ascending order.
	Score []int `json:"score"`
	// Seed is the seed of the draw, 0 where the first images were taken.
	Seed uint64 `json:"seed"`
	// Stratified says that Calib is a draw in proportion to the classes, because the order is grouped by class.
	Stratified bool `json:"stratified"`
}

// Split takes the first calibBatches batches of batchSize images for calibration and leaves the rest to be scored. Where the
// order is grouped by class, the calibration images are a seeded, class-stratified draw instead.
// The error wraps ErrTooFew when no image would be left to score.
func (d *Dataset) Split(batchSize, calibBatches int) (Split, error) {
	if err := checkBatches(batchSize, calibBatches); err != nil {
		return Split{}, err
	}
	n := len(d.items)
	if calibBatches > (n-1)/batchSize {
		return Split{}, fmt.Errorf("%w: %d batches of %d for calibration need more than %d images, so that some are left to score; there are %d: lower --calib-batches or --batch-size, or raise --limit",
			ErrTooFew, calibBatches, batchSize, calibBatches*batchSize, n)
	}
	k := batchSize * calibBatches
	var s Split
	if k > 0 && groupedByClass(d.items) {
		s = Split{Calib: stratified(d.items, k, defaultSeed), Seed: defaultSeed, Stratified: true}
	} else {
		s = Split{Calib: make([]int, k)}
		for i := range s.Calib {
			s.Calib[i] = i
		}
	}
	taken := make([]bool, n)
	for _, i := range s.Calib {
		taken[i] = true
	}
	s.Score = make([]int, 0, n-k)
	for i := range n {
		if !taken[i] {
			s.Score = append(s.Score, i)
		}
	}
	return s, nil
}

// checkBatches refuses a batch size or number of batches that is out of range.
func checkBatches(batchSize, calibBatches int) error {
	switch {
	case batchSize < 1:
		return fmt.Errorf("batch size %d: give at least 1 (--batch-size)", batchSize)
	case calibBatches < 0:
		return fmt.Errorf("%d calibration batches: give 0 or more (--calib-batches)", calibBatches)
	}
	return nil
}

// groupedByClass reports whether the order groups the classes: every class is one run, or neighbours differ in class at most
// half as often as in a random order.
func groupedByClass(items []Item) bool {
	n := len(items)
	counts := map[int]int{}
	changes := 0
	for i, it := range items {
		counts[it.Label]++
		if i > 0 && it.Label != items[i-1].Label {
			changes++
		}
	}
	if len(counts) < 2 || len(counts) == n {
		return false
	}
	if changes == len(counts)-1 {
		return true
	}
	same := 0.0 // ordered pairs of images of one class
	for _, c := range counts {
		same += float64(c) * float64(c-1)
	}
	// In a random order each of the n-1 neighbouring pairs is of one class with probability same/(n(n-1)).
	expected := float64(n-1) - same/float64(n)
	return float64(changes) <= expected/2
}

// stratified draws k of the items so that every class has its share, rounded up or down, and returns their indices in random
// order. It is a systematic sample: classes in random order, the images of each in random order, every n/k-th of the row.
func stratified(items []Item, k int, seed uint64) []int {
	r := rand.NewPCG(seed, 0)
	byClass := map[int][]int{}
	var classes []int
	for i, it := range items {
		if byClass[it.Label] == nil {
			classes = append(classes, it.Label)
		}
		byClass[it.Label] = append(byClass[it.Label], i)
	}
	slices.Sort(classes)
	shuffle(r, classes)
	row := make([]int, 0, len(items))
	for _, c := range classes {
		shuffle(r, byClass[c])
		row = append(row, byClass[c]...)
	}
	// Position j is floor((j*n + start)/k) with 0 <= start < n: k different positions below n.
	n := uint64(len(row))
	start := below(r, n)
	drawn := make([]int, k)
	for j := range drawn {
		drawn[j] = row[(uint64(j)*n+start)/uint64(k)]
	}
	shuffle(r, drawn)
	return drawn
}

// shuffle is Fisher and Yates's. math/rand/v2 guarantees the stream of PCG but not that of its Shuffle.
func shuffle(r *rand.PCG, x []int) {
	for i := len(x) - 1; i > 0; i-- {
		j := below(r, uint64(i+1))
		x[i], x[j] = x[j], x[i]
	}
}

// below returns a number in [0, n), with a bias below n/2^64.
func below(r *rand.PCG, n uint64) uint64 {
	hi, _ := bits.Mul64(r.Uint64(), n)
	return hi
}
