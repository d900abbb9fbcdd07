package trt

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/quantgate/quantgate/engine"
)

// inspected is what is read of the engine inspector's JSON. With little verbosity a layer is its name alone.
type inspected struct {
	Layers []json.RawMessage
}

type inspectedLayer struct {
	Name       string
	LayerType  string
	Inputs     []inspectedTensor
	Precision  string
	Weights    struct{ Type string }
	TacticName string
}

type inspectedTensor struct {
	Format string `json:"Format/Datatype"`
}

// parseLayers reads the inspector's JSON.
func parseLayers(text string) ([]engine.Layer, error) {
	var all inspected
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, fmt.Errorf("read the engine inspector's answer: %w", err)
	}
	layers := make([]engine.Layer, 0, len(all.Layers))
	for _, raw := range all.Layers {
		var name string
		if json.Unmarshal(raw, &name) == nil {
			layers = append(layers, engine.Layer{Name: name, Precision: unknown})
			continue
		}
		var l inspectedLayer
		if err := json.Unmarshal(raw, &l); err != nil {
			return nil, fmt.Errorf("read the engine inspector's answer: %w", err)
		}
		layers = append(layers, engine.Layer{Name: l.Name, Type: l.LayerType, Precision: l.precision(), Kernel: l.TacticName})
	}
	return layers, nil
}

// unknown is the precision of a layer that tells none.
const unknown = "unknown"

// movers are the types of layers that compute nothing.
var movers = []string{"Constant", "MyelinReformat", "NoOp", "Reformat", "Shuffle"}

// precision is the layer's arithmetic: its weights' type, or else that of its first input, or else the one that its kernel is named for. 8.6
// tells no formats of an engine with an open batch, not even to an inspector that has a context with shapes.
func (l inspectedLayer) precision() string {
	if slices.Contains(movers, l.LayerType) {
		return engine.NoArithmetic
	}
	candidates := []string{l.Precision, l.Weights.Type}
	if len(l.Inputs) > 0 {
		candidates = append(candidates, l.Inputs[0].Format)
	}
	// IMMA, the integer matrix unit, stands for INT8 in a kernel's name.
	candidates = append(candidates, strings.ReplaceAll(strings.ToLower(l.TacticName), "imma", "int8"))
	for _, c := range candidates {
		if t := typeName(c); t != unknown {
			return t
		}
	}
	return unknown
}

// typeName finds the element type in a format such as "Row major linear FP32" or "Thirty-two wide channel vectorized row major Int8 format".
func typeName(format string) string {
	f := strings.ToLower(format)
	for _, t := range []struct{ text, name string }{
		{"int8", "int8"}, {"fp16", "fp16"}, {"half", "fp16"}, {"bf16", "bf16"}, {"fp8", "fp8"}, {"fp32", "fp32"}, {"float", "fp32"}, {"int32", "int32"}, {"int64", "int64"}, {"bool", "bool"},
	} {
		if strings.Contains(f, t.text) {
			return t.name
		}
	}
	return unknown
}
