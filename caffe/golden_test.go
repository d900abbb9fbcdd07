package caffe

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/orttest"
	"github.com/quantgate/quantgate/tensor"
)

// golden is what testdata/golden.py computed of a case.
type golden struct {
	Input   goldenTensor
	Outputs []struct {
		Blob string
		goldenTensor
	}
}

type goldenTensor struct {
	Shape tensor.Shape
	Data  []float32
}

// Every layer type against Caffe's definitions in NumPy, which agree with OpenCV's Caffe reader: testdata/golden.py.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.json"))
	require.NoError(t, err)
	require.Len(t, files, 15)
	backend := orttest.Backend(t)
	ctx := context.Background()
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			var want golden
			require.NoError(t, json.Unmarshal(text, &want))
			b, err := Load(filepath.Join("testdata", name+".prototxt"), filepath.Join("testdata", name+".caffemodel"))
			require.NoError(t, err)
			m, err := b.Model()
			require.NoError(t, err)
			require.Equal(t, append(tensor.Shape{tensor.Dynamic}, want.Input.Shape[1:]...), m.Inputs()[0].Shape)
			data, err := m.Bytes()
			require.NoError(t, err)
			// As given and after the engine's own fusions.
			for _, o := range []engine.Options{{NoFusion: true}, {}} {
				s, err := backend.Open(ctx, engine.Model{Name: name, Data: data}, o)
				require.NoError(t, err)
				x := &tensor.Tensor{Shape: want.Input.Shape, Data: want.Input.Data}
				out := make([]*tensor.Tensor, len(m.Outputs()))
				for i := range out {
					out[i] = &tensor.Tensor{}
				}
				require.NoError(t, s.Run(ctx, x, out))
				require.NoError(t, s.Close())
				require.Len(t, out, len(want.Outputs))
				for i, w := range want.Outputs {
					require.Equal(t, w.Shape, out[i].Shape, w.Blob)
					require.Equal(t, append(tensor.Shape{tensor.Dynamic}, w.Shape[1:]...), m.Outputs()[i].Shape, w.Blob)
					for j := range w.Data {
						require.InDelta(t, w.Data[j], out[i].Data[j], 1e-5+1e-5*max(float64(w.Data[j]), -float64(w.Data[j])), "%s[%d]", w.Blob, j)
					}
				}
			}
		})
	}
}
