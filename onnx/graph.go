package onnx

import (
	"fmt"

	"github.com/quantgate/quantgate/onnx/internal/pb"
)

// validate checks what every later step relies on: tensors hold what their shapes say, names are defined once and before
// their use, and outputs exist.
func validate(p *pb.ModelProto) error {
	if err := eachTensor(p.Graph, validateTensor); err != nil {
		return err
	}
	return validateGraph(p.Graph, nil)
}

// validateGraph checks the names of one graph; outer says whether an enclosing graph defines a name.
func validateGraph(g *pb.GraphProto, outer func(string) bool) error {
	defined := map[string]bool{}
	known := func(name string) bool { return defined[name] || outer != nil && outer(name) }
	for _, v := range g.Input {
		if v.GetName() == "" || defined[v.GetName()] {
			return fmt.Errorf("input %q: name is empty or stands twice: %w", v.GetName(), ErrCorrupt)
		}
		defined[v.GetName()] = true
	}
	initialised := map[string]bool{}
	for _, t := range g.Initializer {
		if t.GetName() == "" || initialised[t.GetName()] {
			return fmt.Errorf("initialiser %q: name is empty or stands twice: %w", t.GetName(), ErrCorrupt)
		}
		initialised[t.GetName()] = true
		defined[t.GetName()] = true
	}
	for _, s := range g.SparseInitializer {
		defined[s.GetValues().GetName()] = true
	}
	for i, n := range g.Node {
		for _, in := range n.Input {
			if in != "" && !known(in) {
				return fmt.Errorf("node %s: input %q is made by no earlier node: %w", nodeName(n, i), in, ErrCorrupt)
			}
		}
		for _, a := range n.Attribute {
			for _, sub := range subgraphs(a) {
				if err := validateGraph(sub, known); err != nil {
					return err
				}
			}
		}
		for _, out := range n.Output {
			if out == "" {
				continue
			}
			if defined[out] {
				return fmt.Errorf("node %s: output %q is already defined: %w", nodeName(n, i), out, ErrCorrupt)
			}
			defined[out] = true
		}
	}
	if len(g.Output) == 0 {
		return fmt.Errorf("graph has no output: %w", ErrCorrupt)
	}
	seen := map[string]bool{}
	for _, v := range g.Output {
		if !known(v.GetName()) || seen[v.GetName()] {
			return fmt.Errorf("output %q: made by no node, or stands twice: %w", v.GetName(), ErrCorrupt)
		}
		seen[v.GetName()] = true
	}
	return nil
}

// nodeName is what messages call the node at index i: its name, else its first output, else its place.
func nodeName(n *pb.NodeProto, i int) string {
	switch {
	case n.GetName() != "":
		return fmt.Sprintf("%q (%s)", n.GetName(), n.GetOpType())
	case len(n.Output) > 0 && n.Output[0] != "":
		return fmt.Sprintf("that makes %q (%s)", n.Output[0], n.GetOpType())
	default:
		return fmt.Sprintf("%d (%s)", i, n.GetOpType())
	}
}
