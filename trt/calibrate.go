package trt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/tensor"
	"github.com/quantgate/quantgate/trt/internal/cuda"
	"github.com/quantgate/quantgate/trt/internal/nvinfer"
)

// calibration feeds one build's calibrator, whose batches are always whole: images are put together anew, so that one left out as
// unreadable does not end the calibration.
type calibration struct {
	engine.Calibration
	b   *Backend
	ctx context.Context //nolint:containedctx // one build's, whose callbacks have no other way to it

	input   engine.Port
	size    int // images a batch
	width   int // values an image
	buffer  *cuda.Buffer
	stream  cuda.Stream
	left    []float32 // images that wait for the next batch
	images  int
	written []byte
	err     error
	failed  atomic.Bool // err is set; for the threads that watch the build
}

// calibrator makes TensorRT's calibrator and the memory that it takes batches from.
func (k *calibration) calibrator(input engine.Port) (*nvinfer.Calibrator, error) {
	k.input, k.size = input, max(k.Batch, 1)
	if input.Shape[0] != tensor.Dynamic {
		k.size = int(input.Shape[0])
	}
	var err error
	if k.width, err = input.Shape[1:].Elems(); err != nil {
		return nil, err
	}
	if k.buffer, err = k.b.device.NewBuffer(k.size * k.width * elementSize(input.DType)); err != nil {
		return nil, err
	}
	if err := k.buffer.Host(); err != nil {
		return nil, errors.Join(err, k.buffer.Free())
	}
	if k.stream, err = k.b.device.NewStream(); err != nil {
		return nil, errors.Join(err, k.buffer.Free())
	}
	return k.b.lib.NewCalibrator(k.b.opts.Calibrator, k.size, nvinfer.Source{
		Batch: k.next,
		Read:  func() []byte { return nil },
		Write: func(data []byte) { k.written = data },
	}), nil
}

func (k *calibration) free() {
	if err := errors.Join(k.b.device.FreeStream(k.stream), k.buffer.Free()); err != nil && k.err == nil {
		k.b.log.note(LevelWarn, err.Error())
	}
}

// next puts one batch on the device. The first error ends the calibration, and the build with that error.
func (k *calibration) next(name string) (uint64, bool) {
	if k.err != nil {
		return 0, false
	}
	if name != k.input.Name {
		k.failed.Store(true)
		k.err = fmt.Errorf("TensorRT calibrates input %q where the model has %q", name, k.input.Name)
		return 0, false
	}
	more, err := k.fill()
	if err != nil {
		k.failed.Store(true)
		k.err = err
		return 0, false
	}
	return k.buffer.Address, more
}

// fill collects one batch and copies it to the device; false when too few images are left for a whole one.
func (k *calibration) fill() (bool, error) {
	need := k.size * k.width
	for len(k.left) < need {
		if err := k.ctx.Err(); err != nil {
			return false, err
		}
		x, err := k.Next(k.ctx)
		if errors.Is(err, io.EOF) {
			if k.images == 0 {
				return false, fmt.Errorf("calibrate: %d images do not fill a batch of %d", len(k.left)/k.width, k.size)
			}
			if n := len(k.left) / k.width; n > 0 {
				k.b.log.note(LevelWarn, fmt.Sprintf("TensorRT calibrates on whole batches of %d: the last %d images are left out", k.size, n))
			}
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if err := engine.CheckRun(engine.Port{Name: k.input.Name, Shape: withBatch(k.input.Shape, int(tensor.Dynamic))}, 0, x, nil); err != nil {
			return false, err
		}
		k.left = append(k.left, x.Data...)
	}
	toBuffer(k.buffer, k.input.DType, k.left[:need])
	k.left = append(k.left[:0], k.left[need:]...)
	k.images += k.size
	if err := k.buffer.Upload(k.buffer.Size, k.stream); err != nil {
		return false, err
	}
	return true, k.b.device.Wait(k.stream)
}

// algorithmOf reads a cache's first line, TRT-8601-EntropyCalibration2. TensorRT ignores a cache of another version or calibrator without a
// word and would calibrate anew; here that is an error.
func algorithmOf(cache []byte, v nvinfer.Version) (Algorithm, error) {
	line, _, _ := strings.Cut(string(cache), "\n")
	version, name, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "TRT-"), "-")
	if !ok || !strings.HasPrefix(line, "TRT-") {
		return 0, fmt.Errorf("calibration cache: the first line %q is not TensorRT's", line)
	}
	if want := v.CacheNumber(); version != want {
		return 0, fmt.Errorf("calibration cache: written for TensorRT version %s, and TensorRT %s takes only %s", version, v, want)
	}
	switch name {
	case "EntropyCalibration2":
		return Entropy2, nil
	case "EntropyCalibration":
		return LegacyEntropy, nil
	case "MinMaxCalibration":
		return MinMax, nil
	}
	return 0, fmt.Errorf("calibration cache: unknown calibrator %q", name)
}
