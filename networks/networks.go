// Package networks builds well-known image classifiers with random weights, for what depends on a network's shape and not on
// what it has learned: throughput, latency, memory, which layers an engine has a kernel for.
package networks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/tensor"
)

// Options vary a network. The zero value is the network as published.
type Options struct {
	// Seed decides the weights: the same seed gives the same bytes, on every machine.
	Seed uint64
	// Softmax ends the network in probabilities instead of logits.
	Softmax bool
	// AuxiliaryHeads adds googlenet's two other classifiers, which only training uses, as outputs two and three; an error for any other
	// network.
	AuxiliaryHeads bool
}

// classes is the number of ImageNet's classes.
const classes = 1000

// network is how one network is drawn.
type network struct {
	name string
	side int64 // of the square input image
	draw func(*drawing, blob) blob
}

var all = []network{
	{"alexnet", 227, alexnet},
	{"googlenet", 224, googlenet},
	{"resnet50", 224, func(d *drawing, x blob) blob { return resnet(d, x, [4]int{3, 4, 6, 3}) }},
	{"resnet101", 224, func(d *drawing, x blob) blob { return resnet(d, x, [4]int{3, 4, 23, 3}) }},
	{"vgg19", 224, vgg19},
	{"mobilenet_v2", 224, mobilenetV2},
}

// Names lists the networks:
//
//	alexnet       Krizhevsky et al. 2012 as Caffe's bvlc_alexnet: two groups, LRN before pooling, 227 x 227
//	googlenet     Szegedy et al. 2015 as Caffe's bvlc_googlenet: LRN, poolings that round up
//	resnet50      He et al. 2016 as Caffe's ResNet-50: strides in the 1 x 1 convolutions, BatchNormalization kept as nodes
//	resnet101     the same, with 101 layers
//	vgg19         Simonyan and Zisserman 2015, configuration E
//	mobilenet_v2  Sandler et al. 2018 as torchvision's, width 1.0
func Names() []string {
	names := make([]string, len(all))
	for i, n := range all {
		names[i] = n.name
	}
	return names
}

// New draws a network, whose weights are not made before they are written: input data [N, 3, H, W] float32 with N dynamic, output
// [N, 1000] logits. Count, Model, WriteTo and Save of what it returns do the rest.
//
// Weights are scaled for inputs of about unit variance (preset imagenet), so that activations neither fade nor overflow float16 in any
// layer; inputs 70 times as large, as of preset caffe, do no harm either.
func New(name string, o Options) (*onnx.Builder, error) {
	i := slices.IndexFunc(all, func(n network) bool { return n.name == name })
	switch {
	case i < 0:
		return nil, fmt.Errorf("unknown network %q: use one of %s", name, strings.Join(Names(), ", "))
	case o.AuxiliaryHeads && name != "googlenet":
		return nil, fmt.Errorf("network %s has no auxiliary heads, only googlenet has", name)
	}
	n := all[i]
	d := &drawing{Builder: onnx.NewBuilder(name), seed: o.Seed, aux: o.AuxiliaryHeads}
	shape := tensor.Shape{tensor.Dynamic, 3, n.side, n.side}
	outputs := append([]blob{n.draw(d, blob{d.Input("data", shape), 3})}, d.heads...)
	for i, y := range outputs {
		if o.Softmax {
			name := "prob"
			if i > 0 {
				name = fmt.Sprintf("prob%d", i+1)
			}
			y.name = d.Node("Softmax", name, []string{y.name}, onnx.Int("axis", 1))
		}
		d.Output(y.name, tensor.Shape{tensor.Dynamic, y.channels})
	}
	return d.Builder, nil
}

// Build makes a network with all its weights in memory: up to 575 MB, for vgg19.
func Build(name string, o Options) (*onnx.Model, error) {
	b, err := New(name, o)
	if err != nil {
		return nil, err
	}
	return b.Model()
}
