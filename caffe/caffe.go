// Package caffe imports Caffe models, a deploy.prototxt and its caffemodel, as ONNX: the layers of AlexNet, GoogLeNet, VGG and
// ResNet with the arithmetic that Caffe gives them at test time.
//
// Caffe's models read blue, green, red, of 0 to 255 less a mean (quantgate's preset caffe); importing changes nothing about that.
package caffe

import (
	"errors"
	"fmt"
	"os"

	"github.com/quantgate/quantgate/onnx"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrCorrupt says that a file is no Caffe model, or one that contradicts itself or its weights.
	ErrCorrupt = errors.New("not a valid Caffe model")
	// ErrUnsupported says that the model holds something that this package does not import.
	ErrUnsupported = errors.New("unsupported Caffe model")
)

// Load imports the network that the file prototxt describes, with the weights of the file caffemodel.
func Load(prototxt, caffemodel string) (*onnx.Builder, error) {
	text, err := os.ReadFile(prototxt)
	if err != nil {
		return nil, fmt.Errorf("read network: %w", err)
	}
	weights, err := os.ReadFile(caffemodel)
	if err != nil {
		return nil, fmt.Errorf("read weights: %w", err)
	}
	return Import(prototxt, text, caffemodel, weights)
}

// Import is Load of files in memory; prototxt and caffemodel are what messages call them.
//
// The batch becomes dynamic. Tensors have the names of Caffe's blobs, and that of its layer where a layer works in place. A
// BatchNorm and the Scale behind it become one BatchNormalization; Dropout and Split, which do nothing at test time, disappear.
// Outputs are the blobs that no layer reads.
func Import(prototxt string, text []byte, caffemodel string, weights []byte) (*onnx.Builder, error) {
	net, err := parseNet(prototxt, text)
	if err != nil {
		return nil, err
	}
	blobs, err := parseWeights(caffemodel, weights)
	if err != nil {
		return nil, err
	}
	return convert(net, caffemodel, blobs)
}
