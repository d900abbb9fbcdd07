package accuracy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMcNemarAgainstReference(t *testing.T) {
	for _, r := range readReference(t) {
		closeTo(t, r.exact, McNemarExact(r.table.BaseOnly, r.table.CandOnly), 1e-11, 1e-300, r, "exact")
		closeTo(t, r.mid, McNemarMidP(r.table.BaseOnly, r.table.CandOnly), 1e-11, 1e-300, r, "mid-p")
	}
}

// Values of R 4.2.2, digits far beyond what a sum of rounded terms keeps:
//
//	b <- c(1,6,5,10,25,450,700,500,495000,499000,9500); c <- c(7,16,5,2,75,700,450,510,505000,501000,12000)
//	exact <- mapply(function(b,c) binom.test(b, b+c)$p.value, b, c)
//	mid <- ifelse(b == c, 1 - dbinom(b,b+c,.5)/2, 2*pbinom(pmin(b,c),b+c,.5) - dbinom(b,b+c,.5))
//	cat(sprintf("{%d, %d, %.16g, %.16g},\n", b, c, exact, mid))
func TestMcNemarAgainstR(t *testing.T) {
	for _, x := range []struct {
		b, c       int
		exact, mid float64
	}{
		{1, 7, 0.07031250000000003, 0.03906250000000001},
		{6, 16, 0.05247879028320316, 0.03468966484069828},
		{5, 5, 1, 0.876953125},
		{10, 2, 0.03857421875000001, 0.02246093750000001},
		{25, 75, 5.636282034205421e-07, 3.723142327754168e-07},
		{450, 700, 1.690345985270858e-13, 1.384315115006544e-13},
		{700, 450, 1.690345985270858e-13, 1.384315115006544e-13},
		{500, 510, 0.7770457393130563, 0.7531570087732133},
		{495000, 505000, 1.538155504390706e-23, 1.522778361607169e-23},
		{499000, 501000, 0.0456082998653821, 0.04550031788736319},
		{9500, 12000, 2.834084053256658e-65, 2.537975929644019e-65},
	} {
		closeTo(t, x.exact, McNemarExact(x.b, x.c), 2e-10, 1e-300, x, "exact")
		closeTo(t, x.mid, McNemarMidP(x.b, x.c), 2e-10, 1e-300, x, "mid-p")
	}
}

func TestMcNemarEdges(t *testing.T) {
	require.Equal(t, 1.0, McNemarExact(0, 0))
	require.Equal(t, 1.0, McNemarMidP(0, 0))
	require.Equal(t, 1.0, McNemarExact(1, 0))
	require.InDelta(t, 0.5, McNemarMidP(0, 1), 1e-15)
	require.Equal(t, 1.0, McNemarExact(500000, 500000))
	require.Zero(t, McNemarExact(0, 1000000), "2^-999999 is below the smallest float")
	for b := range 40 {
		for c := range 40 {
			require.Equal(t, McNemarExact(b, c), McNemarExact(c, b))
			require.LessOrEqual(t, McNemarMidP(b, c), McNemarExact(b, c))
		}
	}
}
