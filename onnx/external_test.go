package onnx

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// wide is a model with a weight large enough to leave the file.
func wide() sketch {
	return sketch{
		inputs: []string{"x ?x3x2x2"}, output: []string{"y ?x12"},
		init: []*pb.TensorProto{randomTensor("w", 12, 40), randomTensor("w2", 40, 12), randomTensor("b", 12), int64Tensor("shape", []int64{-1, 12})},
		nodes: []*pb.NodeProto{
			node("Reshape", "x shape", "flat"), node("MatMul", "flat w", "h"), node("Gemm", "h w2 b", "y"),
		},
	}
}

func TestWeightsOutsideTheFile(t *testing.T) {
	m := wide().model(t)
	whole, err := m.Bytes()
	require.NoError(t, err)
	dir := t.TempDir()
	path := filepath.Join(dir, "big.onnx")
	require.NoError(t, m.save(path, 1000))

	// The first tensor starts at 0, the second at the next page; the small ones stay.
	info, err := os.Stat(path + ".data")
	require.NoError(t, err)
	require.Equal(t, int64(externalAlign+40*12*4), info.Size())
	small, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Less(t, len(small), 1000)

	loaded, err := Load(path)
	require.NoError(t, err)
	again, err := loaded.Bytes()
	require.NoError(t, err)
	require.Equal(t, whole, again)
	_, err = Parse(small, "big.onnx")
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorContains(t, err, "load the model from its path")

	// The digest covers the weights.
	before, err := loaded.Digest()
	require.NoError(t, err)
	data, err := os.ReadFile(path + ".data")
	require.NoError(t, err)
	data[5] ^= 1
	require.NoError(t, os.WriteFile(path+".data", data, 0o600))
	changed, err := Load(path)
	require.NoError(t, err)
	after, err := changed.Digest()
	require.NoError(t, err)
	require.NotEqual(t, before, after)
	data[5] ^= 1
	require.NoError(t, os.WriteFile(path+".data", data, 0o600))

	// ONNX Runtime reads the pair as it reads the one file.
	x := randomInput(2, 3, 2, 2)
	require.Equal(t, run(t, m, x, engine.Options{}), runModel(t, engine.Model{Path: path}, x, engine.Options{}))
}

func TestWeightsFilesRefused(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "model")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o700))
	weights := bytes.Repeat([]byte{0, 0, 128, 63}, 12*40)
	for _, file := range []string{filepath.Join(outer, "secret"), filepath.Join(dir, "w.bin"), filepath.Join(dir, "sub", "w.bin")} {
		require.NoError(t, os.WriteFile(file, weights, 0o600))
	}
	require.NoError(t, os.Symlink(filepath.Join(outer, "secret"), filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("..", filepath.Join(dir, "up")))
	require.NoError(t, os.Symlink("w.bin", filepath.Join(dir, "inside")))

	for name, c := range map[string]struct {
		data map[string]string
		want string
		is   error
	}{
		"beside":         {map[string]string{"location": "w.bin"}, "", nil},
		"in a folder":    {map[string]string{"location": "sub/w.bin", "offset": "0", "length": "1920"}, "", nil},
		"link inside":    {map[string]string{"location": "./inside"}, "", nil},
		"parent":         {map[string]string{"location": "../secret"}, "outside the model's folder", ErrOutside},
		"absolute":       {map[string]string{"location": filepath.Join(outer, "secret")}, "outside the model's folder", ErrOutside},
		"link outside":   {map[string]string{"location": "link"}, "outside the model's folder", ErrOutside},
		"folder link":    {map[string]string{"location": "up/secret"}, "outside the model's folder", ErrOutside},
		"missing":        {map[string]string{"location": "none.bin"}, "no such file", os.ErrNotExist},
		"a folder":       {map[string]string{"location": "sub"}, "not a regular file", ErrCorrupt},
		"nowhere":        {map[string]string{"offset": "0"}, "without a location", ErrCorrupt},
		"bad offset":     {map[string]string{"location": "w.bin", "offset": "x"}, `offset "x"`, ErrCorrupt},
		"before start":   {map[string]string{"location": "w.bin", "offset": "-4"}, `offset "-4"`, ErrCorrupt},
		"past the end":   {map[string]string{"location": "w.bin", "offset": "8", "length": "1920"}, "lie beyond", ErrCorrupt},
		"overflow":       {map[string]string{"location": "w.bin", "offset": "8", "length": "9223372036854775807"}, "lie beyond", ErrCorrupt},
		"negative":       {map[string]string{"location": "w.bin", "length": "-1"}, `length "-1"`, ErrCorrupt},
		"too few values": {map[string]string{"location": "w.bin", "length": "16"}, "do not fit its shape", ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			p := wide().proto(t)
			w := p.Graph.Initializer[0]
			w.RawData, w.DataLocation = nil, pb.TensorProto_EXTERNAL.Enum()
			for _, key := range []string{"location", "offset", "length"} {
				if v, ok := c.data[key]; ok {
					w.ExternalData = append(w.ExternalData, entry(key, v))
				}
			}
			data, err := marshal(p)
			require.NoError(t, err)
			path := filepath.Join(dir, "m.onnx")
			require.NoError(t, os.WriteFile(path, data, 0o600))
			m, err := Load(path)
			if c.want == "" {
				require.NoError(t, err)
				require.Equal(t, weights, m.proto.Graph.Initializer[0].RawData)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, path)
			require.ErrorContains(t, err, `tensor "w"`)
		})
	}
}
