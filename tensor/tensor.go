// Package tensor holds the shapes, element types and float32 tensors that the other packages exchange.
package tensor

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// DType is the element type of a tensor as an engine or a model declares it.
type DType uint8

// The element types that models of image classifiers declare.
const (
	Undefined DType = iota
	Float32
	Float16
	BFloat16
	Float64
	Int8
	Uint8
	Int16
	Uint16
	Int32
	Uint32
	Int64
	Uint64
	Bool
	String
)

var dtypeNames = [...]string{
	"undefined", "float32", "float16", "bfloat16", "float64", "int8", "uint8",
	"int16", "uint16", "int32", "uint32", "int64", "uint64", "bool", "string",
}

// String returns the type's name in lower case, as NumPy spells it.
func (d DType) String() string {
	if int(d) < len(dtypeNames) {
		return dtypeNames[d]
	}
	return "dtype(" + strconv.Itoa(int(d)) + ")"
}

// Dynamic marks a dimension that is fixed only when a tensor is fed.
const Dynamic int64 = -1

// Shape lists a tensor's dimensions, outermost first; Dynamic where one is not fixed.
// The empty shape is a scalar.
type Shape []int64

// String prints the shape as 25x3x224x224, with ? for a dynamic dimension and "scalar" for the empty shape.
func (s Shape) String() string {
	if len(s) == 0 {
		return "scalar"
	}
	parts := make([]string, len(s))
	for i, d := range s {
		if d < 0 {
			parts[i] = "?"
		} else {
			parts[i] = strconv.FormatInt(d, 10)
		}
	}
	return strings.Join(parts, "x")
}

// Equal reports whether both shapes have the same dimensions.
func (s Shape) Equal(o Shape) bool {
	if len(s) != len(o) {
		return false
	}
	for i := range s {
		if s[i] != o[i] {
			return false
		}
	}
	return true
}

// Clone returns a copy that shares nothing with s.
func (s Shape) Clone() Shape {
	if s == nil {
		return nil
	}
	return append(Shape{}, s...)
}

// Elems returns the number of elements, 1 for a scalar. It fails when a dimension is dynamic
// or when the product overflows an int.
func (s Shape) Elems() (int, error) {
	n := int64(1)
	for _, d := range s {
		if d < 0 {
			return 0, fmt.Errorf("shape %s: dimension is not fixed", s)
		}
		if d != 0 && n > math.MaxInt/d {
			return 0, fmt.Errorf("shape %s: more elements than an int holds", s)
		}
		n *= d
	}
	return int(n), nil
}

// Tensor is a dense float32 tensor in row-major order: an image batch is NCHW.
type Tensor struct {
	Shape Shape
	Data  []float32
}

// New returns a zeroed tensor. It panics on a dynamic or negative dimension, which is a programming error.
func New(dims ...int64) *Tensor {
	t := &Tensor{}
	t.Resize(dims...)
	return t
}

// Resize gives the tensor a new shape, keeping its memory where the capacity suffices. The content is then unspecified.
// It panics on a dynamic or negative dimension, which is a programming error.
func (t *Tensor) Resize(dims ...int64) {
	n, err := Shape(dims).Elems()
	if err != nil {
		panic("tensor: " + err.Error())
	}
	if cap(t.Data) < n {
		t.Data = make([]float32, n)
	}
	t.Data = t.Data[:n]
	t.Shape = append(t.Shape[:0], dims...)
}

// Row returns the values of entry i of the outermost dimension; the slice shares the tensor's memory.
func (t *Tensor) Row(i int) []float32 {
	width := len(t.Data) / int(t.Shape[0])
	return t.Data[i*width : (i+1)*width : (i+1)*width]
}
