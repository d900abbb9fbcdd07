package onnx

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"

	"github.com/quantgate/quantgate/onnx/internal/pb"
	"github.com/quantgate/quantgate/tensor"
)

// elemTypes gives each ONNX element type its tensor.DType and its width in raw_data, in bytes; 0 where values are not stored so.
var elemTypes = map[pb.TensorProto_DataType]struct {
	dtype tensor.DType
	width int64
}{
	pb.TensorProto_FLOAT:    {tensor.Float32, 4},
	pb.TensorProto_FLOAT16:  {tensor.Float16, 2},
	pb.TensorProto_BFLOAT16: {tensor.BFloat16, 2},
	pb.TensorProto_DOUBLE:   {tensor.Float64, 8},
	pb.TensorProto_INT8:     {tensor.Int8, 1},
	pb.TensorProto_UINT8:    {tensor.Uint8, 1},
	pb.TensorProto_INT16:    {tensor.Int16, 2},
	pb.TensorProto_UINT16:   {tensor.Uint16, 2},
	pb.TensorProto_INT32:    {tensor.Int32, 4},
	pb.TensorProto_UINT32:   {tensor.Uint32, 4},
	pb.TensorProto_INT64:    {tensor.Int64, 8},
	pb.TensorProto_UINT64:   {tensor.Uint64, 8},
	pb.TensorProto_BOOL:     {tensor.Bool, 1},
	pb.TensorProto_STRING:   {tensor.String, 0},
}

func dtypeOf(elem int32) tensor.DType { return elemTypes[pb.TensorProto_DataType(elem)].dtype }

func elemsOf(t *pb.TensorProto) (int, error) {
	for _, d := range t.Dims {
		if d < 0 {
			return 0, fmt.Errorf("tensor %q: dimension %d is negative: %w", t.GetName(), d, ErrCorrupt)
		}
	}
	n, err := tensor.Shape(t.Dims).Elems()
	if err != nil {
		return 0, fmt.Errorf("tensor %q: more values than memory holds: %w", t.GetName(), ErrCorrupt)
	}
	return n, nil
}

// validateTensor checks that a tensor holds as many values as its dimensions say. Element types that this package does not
// know are left to the engine.
func validateTensor(t *pb.TensorProto) error {
	n, err := elemsOf(t)
	if err != nil {
		return err
	}
	elem, known := elemTypes[pb.TensorProto_DataType(t.GetDataType())]
	if !known {
		return nil
	}
	got, want := 0, n
	if t.RawData != nil {
		if elem.width == 0 || int64(n) > math.MaxInt64/elem.width {
			return fmt.Errorf("tensor %q: %s values cannot be raw bytes of shape %s: %w", t.GetName(), elem.dtype, tensor.Shape(t.Dims), ErrCorrupt)
		}
		got, want = len(t.RawData), n*int(elem.width)
	} else {
		switch elem.dtype {
		case tensor.Float32:
			got = len(t.FloatData)
		case tensor.Float64:
			got = len(t.DoubleData)
		case tensor.Int64:
			got = len(t.Int64Data)
		case tensor.Uint32, tensor.Uint64:
			got = len(t.Uint64Data)
		case tensor.String:
			got = len(t.StringData)
		default:
			got = len(t.Int32Data)
		}
	}
	if got != want {
		return fmt.Errorf("tensor %q: shape %s of %s does not fit what is stored (%d, wanted %d): %w", t.GetName(), tensor.Shape(t.Dims), elem.dtype, got, want, ErrCorrupt)
	}
	return nil
}

func isFloat(t *pb.TensorProto) bool {
	switch pb.TensorProto_DataType(t.GetDataType()) {
	case pb.TensorProto_FLOAT, pb.TensorProto_FLOAT16, pb.TensorProto_BFLOAT16, pb.TensorProto_DOUBLE:
		return true
	}
	return false
}

// floats returns a float tensor's values as float32, in row-major order. They are the tensor's own where it holds them as this machine does,
// since weights can be most of the memory there is: the slice must not be written to.
func floats(t *pb.TensorProto) ([]float32, error) {
	if err := validateTensor(t); err != nil {
		return nil, err
	}
	n, err := elemsOf(t)
	if err != nil {
		return nil, err
	}
	raw := t.RawData
	if pb.TensorProto_DataType(t.GetDataType()) == pb.TensorProto_FLOAT && n > 0 {
		if raw == nil {
			return t.FloatData, nil
		}
		if values, ok := asFloats(raw); ok {
			return values, nil
		}
	}
	out := make([]float32, n)
	le := binary.LittleEndian
	bits16 := func(i int) uint16 {
		if raw != nil {
			return le.Uint16(raw[2*i:])
		}
		return uint16(t.Int32Data[i])
	}
	switch elem := pb.TensorProto_DataType(t.GetDataType()); {
	case elem == pb.TensorProto_FLOAT:
		for i := range out {
			out[i] = math.Float32frombits(le.Uint32(raw[4*i:]))
		}
	case elem == pb.TensorProto_DOUBLE && raw != nil:
		for i := range out {
			out[i] = float32(math.Float64frombits(le.Uint64(raw[8*i:])))
		}
	case elem == pb.TensorProto_DOUBLE:
		for i, v := range t.DoubleData {
			out[i] = float32(v)
		}
	case elem == pb.TensorProto_FLOAT16:
		for i := range out {
			out[i] = float16.Frombits(bits16(i)).Float32()
		}
	case elem == pb.TensorProto_BFLOAT16:
		for i := range out {
			out[i] = math.Float32frombits(uint32(bits16(i)) << 16)
		}
	default:
		return nil, fmt.Errorf("tensor %q: holds %s, wanted float values: %w", t.GetName(), dtypeOf(t.GetDataType()), ErrUnsupported)
	}
	return out, nil
}

// floatTensor makes a float32 initialiser. The values may be its own from then on: they must not be written to.
func floatTensor(name string, dims []int64, values []float32) *pb.TensorProto {
	raw, ok := asBytes(values)
	if !ok {
		raw = make([]byte, 4*len(values))
		for i, v := range values {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(v))
		}
	}
	return rawTensor(name, pb.TensorProto_FLOAT, dims, raw)
}

// halfTensor makes a float16 initialiser, each value rounded to nearest, ties to even.
func halfTensor(name string, dims []int64, values []float32) *pb.TensorProto {
	raw := make([]byte, 2*len(values))
	for i, v := range values {
		binary.LittleEndian.PutUint16(raw[2*i:], halfBits(v))
	}
	return rawTensor(name, pb.TensorProto_FLOAT16, dims, raw)
}

// roundedTensor makes a float32 initialiser of values rounded to float16.
func roundedTensor(name string, dims []int64, values []float32) *pb.TensorProto {
	rounded := make([]float32, len(values))
	for i, v := range values {
		rounded[i] = roundToHalf(v)
	}
	return floatTensor(name, dims, rounded)
}

func int8Tensor(name string, dims []int64, values []int8) *pb.TensorProto {
	raw := make([]byte, len(values))
	for i, v := range values {
		raw[i] = byte(v)
	}
	return rawTensor(name, pb.TensorProto_INT8, dims, raw)
}

func int64Tensor(name string, values []int64) *pb.TensorProto {
	raw := make([]byte, 8*len(values))
	for i, v := range values {
		binary.LittleEndian.PutUint64(raw[8*i:], uint64(v))
	}
	return rawTensor(name, pb.TensorProto_INT64, []int64{int64(len(values))}, raw)
}

func rawTensor(name string, elem pb.TensorProto_DataType, dims []int64, raw []byte) *pb.TensorProto {
	return &pb.TensorProto{Name: &name, DataType: new(int32(elem)), Dims: append([]int64{}, dims...), RawData: raw}
}
