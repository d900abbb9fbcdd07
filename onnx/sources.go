package onnx

import (
	"math"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// Source is a tensor to tap, with the entries that hold its values: its own, and those that only bound, join or move values, such as that of
// a Relu. They need not be tapped too.
type Source struct {
	Tensor string
	Views  []View
}

// View is an entry that holds a source's values, each of them moved to Low where it is below and to High where it is above.
// Low is at most 0 and -Inf where nothing bounds it, High at least 0 and +Inf. An entry with views of several sources holds the values
// of all of them.
type View struct {
	Entry     string
	Low, High float32
}

// Sources lists the tensors to tap, in graph order. Their views are the entries that are no constant and take no other's range.
func (p *CalibrationPlan) Sources() []Source {
	var sources []Source
	at := map[string]int{}
	for _, e := range p.Entries {
		if e.Const || e.SharesScaleOf != "" {
			continue
		}
		parts := p.parts[e.Tensor]
		if parts == nil {
			parts = []part{whole(e.Tensor)}
			at[e.Tensor] = len(sources)
			sources = append(sources, Source{Tensor: e.Tensor})
		}
		for _, b := range parts {
			s := &sources[at[b.source]]
			s.Views = append(s.Views, View{Entry: e.Name, Low: b.low, High: b.high})
		}
	}
	return sources
}

// part says that a tensor holds source's values within bounds.
type part struct {
	source    string
	low, high float32
}

func whole(tensor string) part {
	return part{source: tensor, low: float32(math.Inf(-1)), high: float32(math.Inf(1))}
}

// permutes lists operators whose output holds the very values of their first input.
var permutes = []string{"DepthToSpace", "Flatten", "Identity", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze"}

// partsOf returns what the output of a node that bounds, joins or moves values is made of; nil where it must be tapped.
func (p *planner) partsOf(n *pb.NodeProto) []part {
	if p.types[n.Output[0]] != pb.TensorProto_FLOAT {
		return nil
	}
	low, high := float32(math.Inf(-1)), float32(math.Inf(1))
	inputs := n.Input[:min(1, len(n.Input))]
	switch {
	case isOp(n, "Relu"):
		low = 0
	case isOp(n, "Clip"):
		var ok bool
		if low, high, ok = p.clipBounds(n); !ok {
			return nil
		}
	case isOp(n, "Concat"):
		inputs = n.Input
	case !isOp(n, permutes...):
		return nil
	}
	var parts []part
	for _, in := range inputs {
		of := p.parts[in]
		if of == nil {
			if !p.own[in] {
				return nil
			}
			of = []part{whole(in)}
		}
		for _, b := range of {
			parts = append(parts, part{b.source, min(max(b.low, low), high), max(min(b.high, high), low)})
		}
	}
	return parts
}

// clipBounds returns a Clip's bounds if the model states them and 0 lies between.
func (p *planner) clipBounds(n *pb.NodeProto) (low, high float32, ok bool) {
	bounds := [2]float32{float32(math.Inf(-1)), float32(math.Inf(1))}
	if p.opset < 11 {
		bounds = [2]float32{attrFloat(n, "min", bounds[0]), attrFloat(n, "max", bounds[1])}
	}
	for i := range bounds {
		name := input(n, 1+i)
		if name == "" {
			continue
		}
		t := p.graph.constants[name]
		if t == nil || !isFloat(t) {
			return 0, 0, false
		}
		values, err := floats(t)
		if err != nil || len(values) != 1 {
			return 0, 0, false
		}
		bounds[i] = values[0]
	}
	return bounds[0], bounds[1], bounds[0] <= 0 && bounds[1] >= 0
}
