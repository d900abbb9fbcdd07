package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/quantgate/quantgate/caffe"
	"github.com/quantgate/quantgate/networks"
	"github.com/quantgate/quantgate/onnx"
)

func newModelCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "model",
		Short: "Show, build and import models",
		Long: `Show what a model costs, build a well-known network with random weights, or import a
Caffe model as ONNX.`,
		Example: `  quantgate model show
  quantgate model build resnet50 --out resnet50.onnx
  quantgate model import deploy.prototxt bvlc_googlenet.caffemodel --out googlenet.onnx`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newModelShowCmd(a), newModelBuildCmd(a), newModelImportCmd(a))
	return cmd
}

// modelFacts is what `model show --json` prints of each model.
type modelFacts struct {
	Model string `json:"model"`
	Input string `json:"input"`
	*onnx.Counts
}

func newModelShowCmd(a *app) *cobra.Command {
	var layers, asJSON bool
	cmd := &cobra.Command{
		Use:   "show [FILE | NETWORK]...",
		Short: "Count parameters and multiply-adds",
		Long: `Count the parameters and multiply-adds of ONNX models and of the networks that build knows
(all of these where none is named; a file of such a name is written ./alexnet).

Parameters are the weights, biases and scales that were learned, each value once; running
means and variances are not. Multiply-adds are those of convolutions and matrix products, for
one image where the model leaves the batch open and for its batch where it does not.`,
		Example: `  quantgate model show
  quantgate model show resnet50.onnx
  quantgate model show alexnet --layers
  quantgate model show googlenet model.onnx --json`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return networks.Names(), cobra.ShellCompDirectiveDefault
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = networks.Names()
			}
			facts := make([]modelFacts, len(args))
			for i, name := range args {
				counts, inputs, err := countModel(name)
				if err != nil {
					return err
				}
				described := make([]string, len(inputs))
				for j, p := range inputs {
					described[j] = p.String()
				}
				facts[i] = modelFacts{Model: name, Input: strings.Join(described, ", "), Counts: counts}
			}
			if asJSON {
				return printJSON(a.stdout, facts)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "model\tinput\tparameters\tmultiply-adds\tlayers\n")
			for _, f := range facts {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.Model, f.Input, thousands(f.Parameters), thousands(f.MultiplyAdds), countOps(f.Nodes))
			}
			for _, f := range facts {
				if layers {
					if err := w.Flush(); err != nil {
						return err
					}
					fmt.Fprintf(w, "\n%s\ttype\toutput\tparameters\tmultiply-adds\n", f.Model)
					for _, n := range f.Nodes {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", n.Name, n.Op, n.Output, thousands(n.Parameters), thousands(n.MultiplyAdds))
					}
				}
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&layers, "layers", false, "list every layer as well")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead of a table; it has every layer")
	return cmd
}

// countModel counts a network that build knows, or else a file.
func countModel(name string) (*onnx.Counts, []onnx.Port, error) {
	if slices.Contains(networks.Names(), name) {
		b, err := networks.New(name, networks.Options{})
		if err != nil {
			return nil, nil, err
		}
		counts, err := b.Count()
		return counts, b.Inputs(), err
	}
	m, err := onnx.Load(name)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil, fmt.Errorf("%w; networks that build knows are %s", err, strings.Join(networks.Names(), ", "))
		}
		return nil, nil, err
	}
	counts, err := m.Count()
	return counts, m.Inputs(), err
}

// countOps lists operator types with their numbers, in the order in which they appear.
func countOps(nodes []onnx.NodeCount) string {
	count := map[string]int{}
	var order []string
	for _, n := range nodes {
		if count[n.Op]++; count[n.Op] == 1 {
			order = append(order, n.Op)
		}
	}
	for i, op := range order {
		order[i] = fmt.Sprintf("%s %d", op, count[op])
	}
	return strings.Join(order, ", ")
}

func newModelBuildCmd(a *app) *cobra.Command {
	var (
		out string
		o   networks.Options
	)
	cmd := &cobra.Command{
		Use:   "build NETWORK --out FILE",
		Short: "Write a well-known network with random weights",
		Long: `Write a network with the published layers and random weights, for what does not depend on
what it has learned: speed, memory, which layers an engine runs in INT8. The same seed gives
the same bytes, on every machine.

  alexnet, googlenet   Caffe's bvlc_alexnet and bvlc_googlenet, with groups and LRN
  resnet50, resnet101  He et al. 2016: strides in the 1x1 convolutions, BatchNormalization kept
  vgg19                configuration E
  mobilenet_v2         width 1.0

The input is data, N x 3 x 224 x 224 (227 for alexnet) with N open; the output is N x 1000 logits.`,
		Example: `  quantgate model build resnet50 --out resnet50.onnx
  quantgate model build googlenet --seed 7 --softmax --out googlenet.onnx`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: networks.Names(),
		RunE: func(_ *cobra.Command, args []string) error {
			if out == "" {
				return errors.New("give --out FILE, the model to write")
			}
			b, err := networks.New(args[0], o)
			if err != nil {
				return err
			}
			return a.saveModel(b, out)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&out, "out", "", "ONNX `file` to write")
	fs.Uint64Var(&o.Seed, "seed", 0, "seed of the weights")
	fs.BoolVar(&o.Softmax, "softmax", false, "end in probabilities instead of logits")
	fs.BoolVar(&o.AuxiliaryHeads, "aux-heads", false, "add googlenet's two auxiliary classifiers as outputs two and three")
	return cmd
}

func newModelImportCmd(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "import PROTOTXT CAFFEMODEL --out FILE",
		Short: "Import a Caffe model as ONNX",
		Long: `Import the network of a deploy.prototxt with the weights of its caffemodel, in Caffe's
old form or its present one. The batch becomes open; BatchNorm and the Scale behind it become
one BatchNormalization; Dropout and Split disappear. Imported are the layer types
` + caffeLayers() + `.
Any other is an error, which lists them all.

Caffe's models read blue, green, red of 0 to 255 less a mean. --preset caffe is that with VGG's
mean; for bvlc's AlexNet and GoogLeNet, whose mean is 104, 117, 123, give
  --channel-order bgr --mean 0.407843,0.458824,0.482353 --std 0.00392157,0.00392157,0.00392157`,
		Example: `  quantgate model import deploy.prototxt bvlc_googlenet.caffemodel --out googlenet.onnx
  quantgate model import VGG_ILSVRC_19_layers_deploy.prototxt VGG_ILSVRC_19_layers.caffemodel --out vgg19.onnx
  quantgate run --model vgg19.onnx --preset caffe --resize 256 --images val --labels val.txt`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if out == "" {
				return errors.New("give --out FILE, the model to write")
			}
			if written, err := os.Stat(out); err == nil {
				for _, in := range args {
					if read, err := os.Stat(in); err == nil && os.SameFile(written, read) {
						return fmt.Errorf("--out %s is the file %s that is read: give another one", out, in)
					}
				}
			}
			b, err := caffe.Load(args[0], args[1])
			if err != nil {
				return err
			}
			return a.saveModel(b, out)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "ONNX `file` to write")
	return cmd
}

// caffeLayers lists the layer types that can be imported, in lines.
func caffeLayers() string {
	kinds := caffe.Layers()
	half := (len(kinds) + 1) / 2
	return strings.Join(kinds[:half], ", ") + ",\n" + strings.Join(kinds[half:], ", ")
}

// saveModel writes a model and says what it is.
func (a *app) saveModel(b *onnx.Builder, out string) error {
	counts, err := b.Count()
	if err != nil {
		return err
	}
	if err := b.Save(out); err != nil {
		return err
	}
	a.ui.Infof("%s parameters, %s multiply-adds an image: %s", thousands(counts.Parameters), thousands(counts.MultiplyAdds), countOps(counts.Nodes))
	a.wrote([]string{out})
	return nil
}
