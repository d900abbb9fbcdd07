package tensor

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestShape(t *testing.T) {
	for _, c := range []struct {
		shape Shape
		text  string
		elems int
		err   string
	}{
		{nil, "scalar", 1, ""},
		{Shape{25, 3, 224, 224}, "25x3x224x224", 25 * 3 * 224 * 224, ""},
		{Shape{0, 3}, "0x3", 0, ""},
		{Shape{Dynamic, 10}, "?x10", 0, "not fixed"},
		{Shape{math.MaxInt64, 2}, "9223372036854775807x2", 0, "more elements"},
	} {
		require.Equal(t, c.text, c.shape.String())
		n, err := c.shape.Elems()
		if c.err != "" {
			require.ErrorContains(t, err, c.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.elems, n)
	}
	require.True(t, Shape{1, 2}.Equal(Shape{1, 2}))
	require.False(t, Shape{1, 2}.Equal(Shape{1}))
	require.False(t, Shape{1, 2}.Equal(Shape{2, 1}))
}

func TestCloneSharesNothing(t *testing.T) {
	s := Shape{1, 2}
	c := s.Clone()
	c[0] = 9
	require.Equal(t, Shape{1, 2}, s)
	require.Nil(t, Shape(nil).Clone())
}

func TestResizeKeepsMemory(t *testing.T) {
	x := New(4, 3)
	first := &x.Data[0]
	x.Resize(2, 3)
	require.Len(t, x.Data, 6)
	require.Same(t, first, &x.Data[0])
	x.Resize(8, 3)
	require.Len(t, x.Data, 24)
	require.Panics(t, func() { x.Resize(Dynamic, 3) })
}

func TestRow(t *testing.T) {
	x := New(2, 3)
	copy(x.Data, []float32{0, 1, 2, 3, 4, 5})
	require.Equal(t, []float32{3, 4, 5}, x.Row(1))
	require.Equal(t, 3, cap(x.Row(0)), "appending to a row must not reach the next")
}

func TestDTypeNames(t *testing.T) {
	require.Equal(t, "float16", Float16.String())
	require.Equal(t, "string", String.String())
	require.Equal(t, "dtype(99)", DType(99).String())
}
