package onnx

import (
	"math"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// Source is a tensor to tap, with the entries that hold its values: its own, and those that only bound, join or move values, such as that of
// a Relu, or compute each from one. They need not be tapped too.
type Source struct {
	Tensor string
	Views  []View
}

// View is an entry that holds what Func makes of a source's values, each moved to Low where it is below and to High where it is above.
// Low is at most 0 and -Inf where nothing bounds it, High at least 0 and +Inf. An entry with views of several sources holds the values
// of all of them.
type View struct {
	Entry     string
	Low, High float32
	Func      Func
}

// Func is a function of one value: HardSigmoid, max(0, min(1, Alpha x + Beta)), or HardSwish, x HardSigmoid(x). The zero Func is the identity.
type Func struct {
	Op          string // as ONNX names it
	Alpha, Beta float32
}

// Sources lists the tensors to tap, in graph order. Their views are the entries that are no constant and take no other's range.
// Without functions, what a function makes of a tensor is tapped too: an engine may compute it with other roundings than anyone else.
func (p *CalibrationPlan) Sources(functions bool) []Source {
	all := p.parts
	if !functions {
		all = p.bounded
	}
	var sources []Source
	at := map[string]int{}
	for _, e := range p.Entries {
		if e.Const || e.SharesScaleOf != "" {
			continue
		}
		parts := all[e.Tensor]
		if parts == nil {
			parts = []part{whole(e.Tensor)}
			at[e.Tensor] = len(sources)
			sources = append(sources, Source{Tensor: e.Tensor})
		}
		for _, b := range parts {
			s := &sources[at[b.source]]
			s.Views = append(s.Views, View{Entry: e.Name, Low: b.low, High: b.high, Func: b.f})
		}
	}
	return sources
}

// parts says what tensors are made of that need not be tapped.
type parts map[string][]part

// part says that a tensor holds what a function makes of source's values, within bounds.
type part struct {
	source    string
	low, high float32
	f         Func
}

func whole(tensor string) part {
	return part{source: tensor, low: float32(math.Inf(-1)), high: float32(math.Inf(1))}
}

// of returns what a tensor is made of; nil where that is not known.
func (p parts) of(tensor string, own map[string]bool) []part {
	if list := p[tensor]; list != nil {
		return list
	}
	if own[tensor] {
		return []part{whole(tensor)}
	}
	return nil
}

// derive notes what a node's output is made of.
func (p *planner) derive(n *pb.NodeProto) {
	out := n.Output[0]
	if p.types[out] != pb.TensorProto_FLOAT {
		return
	}
	for _, known := range []parts{p.bounded, p.parts} {
		if list := p.partsOf(n, known); list != nil {
			known[out] = list
		}
	}
	if in, f, ok := p.gateOf(n); ok {
		p.addGate(out, in, f)
	}
}

// gateOf returns the function that a HardSigmoid or HardSwish is of its first input, and a product of a tensor with its own HardSigmoid of
// that tensor. ok is false for any other node.
func (p *planner) gateOf(n *pb.NodeProto) (in string, f Func, ok bool) {
	switch {
	case isOp(n, "HardSigmoid"):
		return n.Input[0], Func{"HardSigmoid", attrFloat(n, "alpha", 0.2), attrFloat(n, "beta", 0.5)}, true
	case isOp(n, "HardSwish"):
		return n.Input[0], Func{"HardSwish", hardSwishAlpha, hardSwishBeta}, true
	case isOp(n, "Mul"):
		for i, in := range n.Input[:2] {
			if g := p.producer[n.Input[1-i]]; isOp(g, "HardSigmoid") && g.Input[0] == in {
				_, f, _ = p.gateOf(g)
				f.Op = "HardSwish"
				return in, f, true
			}
		}
	}
	return "", Func{}, false
}

// addGate notes that a tensor is a function of another, where that is tapped itself.
func (p *planner) addGate(tensor, in string, f Func) {
	if list := p.parts.of(in, p.own); len(list) == 1 && list[0] == whole(in) {
		w := whole(in)
		w.f = f
		p.parts[tensor] = []part{w}
	}
}

// permutes lists operators whose output holds the very values of their first input.
var permutes = []string{"DepthToSpace", "Flatten", "Identity", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze"}

// partsOf returns what the output of a node that bounds, joins or moves values is made of, with what is known of its inputs; nil where it
// must be tapped.
func (p *planner) partsOf(n *pb.NodeProto, known parts) []part {
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
	var list []part
	for _, in := range inputs {
		of := known.of(in, p.own)
		if of == nil {
			return nil
		}
		for _, b := range of {
			list = append(list, part{b.source, min(max(b.low, low), high), max(min(b.high, high), low), b.f})
		}
	}
	return list
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
