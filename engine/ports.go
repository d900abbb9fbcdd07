package engine

import (
	"errors"
	"fmt"
	"strings"

	"github.com/quantgate/quantgate/tensor"
)

// OneInput returns a model's only input after checking that an engine can feed it images: float32 or float16, with the batch as its
// outermost dimension. The error does not name the model.
func OneInput(ins []Port) (Port, error) {
	if len(ins) != 1 {
		return Port{}, fmt.Errorf("it has %d inputs where one is needed%s", len(ins), list(ins))
	}
	in := ins[0]
	if !isFloat(in.DType) {
		return Port{}, fmt.Errorf("input %q is %s where float32 or float16 is needed", in.Name, in.DType)
	}
	if len(in.Shape) == 0 {
		return Port{}, fmt.Errorf("input %q has no dimensions where a batch of images is needed", in.Name)
	}
	if in.Shape[0] == 0 {
		return Port{}, fmt.Errorf("input %q has the shape %s, a batch of nothing", in.Name, in.Shape)
	}
	return in, nil
}

// ChooseOutputs picks the outputs named by wanted, in that order, or all of them when wanted is nil, and refuses those that are neither
// float32 nor float16 by name. The error does not name the model.
func ChooseOutputs(outs []Port, wanted []string) ([]Port, error) {
	chosen := outs
	if wanted != nil {
		byName := make(map[string]Port, len(outs))
		for _, p := range outs {
			byName[p.Name] = p
		}
		chosen = make([]Port, len(wanted))
		for i, name := range wanted {
			p, ok := byName[name]
			if !ok {
				return nil, fmt.Errorf("it has no output %q%s", name, list(outs))
			}
			chosen[i] = p
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no output was asked for")
	}
	seen := make(map[string]bool, len(chosen))
	for _, p := range chosen {
		if seen[p.Name] {
			return nil, fmt.Errorf("output %q was asked for twice", p.Name)
		}
		seen[p.Name] = true
		if !isFloat(p.DType) {
			return nil, fmt.Errorf("output %q is %s where float32 or float16 is needed: choose other outputs", p.Name, p.DType)
		}
	}
	return chosen, nil
}

// CheckRun compares the tensors of a call of Run with the model's ports, except for a batch that the model fixes (see RunPieces).
// The error wraps ErrShape and does not name the model.
func CheckRun(input Port, outputs int, in *tensor.Tensor, out []*tensor.Tensor) error {
	if len(out) != outputs {
		return fmt.Errorf("%d output tensors were given for %d outputs: %w", len(out), outputs, ErrShape)
	}
	fits := len(in.Shape) == len(input.Shape) && in.Shape[0] > 0
	for i := 1; fits && i < len(in.Shape); i++ {
		fits = in.Shape[i] > 0 && (input.Shape[i] == tensor.Dynamic || input.Shape[i] == in.Shape[i])
	}
	if !fits {
		return fmt.Errorf("input %q wants %s, given %s: %w", input.Name, input.Shape, in.Shape, ErrShape)
	}
	if n, err := in.Shape.Elems(); err != nil || n != len(in.Data) {
		return fmt.Errorf("input %q: %d values were given for the shape %s: %w", input.Name, len(in.Data), in.Shape, ErrShape)
	}
	return nil
}

func isFloat(d tensor.DType) bool { return d == tensor.Float32 || d == tensor.Float16 }

// list names ports for a message: the first few of them.
func list(ports []Port) string {
	const most = 8
	if len(ports) == 0 {
		return ""
	}
	names := make([]string, 0, most+1)
	for _, p := range ports {
		if len(names) == most {
			names = append(names, fmt.Sprintf("and %d more", len(ports)-most))
			break
		}
		names = append(names, p.Name)
	}
	return " (it has " + strings.Join(names, ", ") + ")"
}
