package onnx

import (
	"bytes"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
)

func values(v ...float32) iter.Seq[float32] { return slices.Values(v) }

// tiny is x -> Conv (1x1, doubles) -> Reshape -> y.
func tiny() *Builder {
	b := NewBuilder("tiny")
	x := b.Input("x", tensor.Shape{tensor.Dynamic, 1, 2, 2})
	y := b.Node("Conv", "conv", []string{x, b.Weight("w", tensor.Shape{1, 1, 1, 1}, values(2)), b.Weight("b", tensor.Shape{1}, values(0.5))}, Ints("kernel_shape", 1, 1))
	y = b.Node("LeakyRelu", "leaky", []string{y}, Float("alpha", 0.5))
	y = b.Node("Reshape", "flat", []string{y, b.Integers("shape", 0, -1)})
	b.Output(y, tensor.Shape{tensor.Dynamic, 4})
	return b
}

func TestBuilder(t *testing.T) {
	m, err := tiny().Model()
	require.NoError(t, err)
	require.Equal(t, []string{"Conv x,w,b -> conv", "LeakyRelu conv -> leaky", "Reshape leaky,shape -> flat"}, ops(m))
	require.Equal(t, []Port{{"x", tensor.Float32, tensor.Shape{-1, 1, 2, 2}}}, tiny().Inputs())
	data, err := m.Bytes()
	require.NoError(t, err)
	var written bytes.Buffer
	n, err := tiny().WriteTo(&written)
	require.NoError(t, err)
	require.Equal(t, data, written.Bytes())
	require.EqualValues(t, len(data), n)
	path := filepath.Join(t.TempDir(), "tiny.onnx")
	require.NoError(t, tiny().Save(path))
	loaded, err := Load(path)
	require.NoError(t, err)
	x := tensor.New(2, 1, 2, 2)
	copy(x.Data, []float32{1, -1, 2, -2, 0, 3, -3, 4})
	out := run(t, loaded, x, engine.Options{})
	require.Equal(t, tensor.Shape{2, 4}, out[0].Shape)
	require.Equal(t, []float32{2.5, -0.75, 4.5, -1.75, 0.5, 6.5, -2.75, 8.5}, out[0].Data)
}

func TestBuilderKeepsTheFirstMistake(t *testing.T) {
	for name, c := range map[string]struct {
		draw func(*Builder)
		want string
	}{
		"unknown input":  {func(b *Builder) { b.Node("Relu", "r", []string{"nothing"}); b.Input("", nil) }, `node "r" (Relu): input "nothing" is made by no earlier node`},
		"name twice":     {func(b *Builder) { b.Input("x", nil); b.Integers("x", 1) }, `constant "x": name is empty or stands twice`},
		"negative shape": {func(b *Builder) { b.Weight("w", tensor.Shape{-1}, values()) }, `tensor "w": dimension -1 is negative`},
		"no output":      {func(b *Builder) { b.Input("x", nil) }, "graph has no output"},
		"own error":      {func(b *Builder) { b.Fail(errors.New("layer 3")) }, "layer 3"},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBuilder("bad")
			c.draw(b)
			_, err := b.Model()
			require.ErrorContains(t, err, "build model bad: "+c.want)
			_, err = b.Count()
			require.ErrorContains(t, err, c.want)
			path := filepath.Join(t.TempDir(), "bad.onnx")
			require.ErrorContains(t, b.Save(path), c.want)
			require.NoFileExists(t, path)
		})
	}
	for _, v := range []iter.Seq[float32]{values(1), values(1, 2, 3)} {
		b := NewBuilder("bad")
		b.Output(b.Node("Identity", "y", []string{b.Weight("w", tensor.Shape{2}, v)}), nil)
		_, err := b.Model()
		require.ErrorContains(t, err, `weight "w": its shape 2 does not fit the number of its values`)
		dir := t.TempDir()
		require.ErrorContains(t, b.Save(filepath.Join(dir, "bad.onnx")), "does not fit")
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left)
	}
	b := NewBuilder("large")
	b.Output(b.Node("Identity", "y", []string{b.Weight("w", tensor.Shape{1 << 30}, values())}), nil)
	_, err := b.WriteTo(&bytes.Buffer{})
	require.ErrorIs(t, err, ErrUnsupported)
}
