package networks

import (
	"fmt"
	"math"
)

// resnet is the bottleneck ResNet of He et al. 2016, table 1, with the names of the authors' Caffe models: the stride of a
// stage is in its first 1x1 convolution (torchvision moved it to the 3x3 one, "v1.5", of 6 % more multiply-adds), and pool1
// rounds up without padding.
func resnet(d *drawing, x blob, blocks [4]int) blob {
	x = d.relu("conv1_relu", d.batchNorm("bn_conv1", d.conv("conv1", x, conv{out: 64, kernel: 7, stride: 2, pad: 3, noBias: true}), 1))
	x = d.pool("MaxPool", "pool1", x, 3, 2, 0, 1)
	depth := blocks[0] + blocks[1] + blocks[2] + blocks[3]
	// A sum adds the mean squares of its branches. Scaled so, the residual branches of all blocks together add about as much as
	// the first shortcut holds; unscaled, the mean square doubles at each block and overflows float16 behind 33 of them.
	residual := 1 / math.Sqrt(float64(depth))
	for stage, n := range blocks {
		width := int64(64) << stage
		for i := range n {
			block := string(rune('a' + i))
			if depth > 16 && n > 3 && i > 0 { // the deeper ones run out of letters
				block = fmt.Sprintf("b%d", i)
			}
			name := fmt.Sprintf("%d%s", stage+2, block)
			stride := int64(1)
			if stage > 0 && i == 0 {
				stride = 2
			}
			convBN := func(branch string, in blob, c conv, scale float64) blob {
				c.noBias = true
				return d.batchNorm("bn"+name+"_"+branch, d.conv("res"+name+"_"+branch, in, c), scale)
			}
			shortcut := x
			if i == 0 {
				shortcut = convBN("branch1", x, conv{out: 4 * width, kernel: 1, stride: stride, gain: toLinear}, 1)
			}
			y := d.relu("res"+name+"_branch2a_relu", convBN("branch2a", x, conv{out: width, kernel: 1, stride: stride}, 1))
			y = d.relu("res"+name+"_branch2b_relu", convBN("branch2b", y, conv{out: width, kernel: 3, pad: 1}, 1))
			y = convBN("branch2c", y, conv{out: 4 * width, kernel: 1}, residual)
			x = d.relu("res"+name+"_relu", d.add("res"+name, shortcut, y))
		}
	}
	x = d.flatten("flat5", d.pool("AveragePool", "pool5", x, 7, 1, 0, 0))
	return d.dense("fc1000", x, 2048, classes, toLinear)
}

// mobilenetV2 is table 2 of Sandler et al. 2018 at width 1.0, with the names of torchvision's mobilenet_v2.
func mobilenetV2(d *drawing, x blob) blob {
	zero, six := d.constant("zero", 0), d.constant("six", 6)
	convBN := func(layer, bn string, in blob, c conv, scale float64) blob {
		c.noBias = true
		return d.batchNorm(bn, d.conv(layer, in, c), scale)
	}
	relu6 := func(name string, in blob) blob {
		return blob{d.Node("Clip", name, []string{in.name, zero, six}), in.channels}
	}
	block := func(place string, i int, in blob, c conv) blob {
		name := fmt.Sprintf("%s.%d", place, i)
		return relu6(name+".2", convBN(name+".0", name+".1", in, c, 1))
	}
	x = block("features", 0, x, conv{out: 32, kernel: 3, stride: 2, pad: 1})
	place := 1
	for _, row := range []struct{ expand, out, repeat, stride int64 }{
		{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1},
	} {
		for i := range row.repeat {
			name := fmt.Sprintf("features.%d.conv", place)
			place++
			stride := int64(1)
			if i == 0 {
				stride = row.stride
			}
			y, hidden, at := x, x.channels*row.expand, 0
			if row.expand > 1 {
				y = block(name, at, y, conv{out: hidden, kernel: 1})
				at++
			}
			y = block(name, at, y, conv{out: hidden, kernel: 3, stride: stride, pad: 1, group: hidden})
			residual := stride == 1 && x.channels == row.out
			scale := 1.0
			if residual {
				scale = 0.5 // a bottleneck's sum is linear; see resnet
			}
			y = convBN(fmt.Sprintf("%s.%d", name, at+1), fmt.Sprintf("%s.%d", name, at+2), y, conv{out: row.out, kernel: 1}, scale)
			if residual {
				y = d.add(fmt.Sprintf("features.%d.add", place-1), x, y)
			}
			x = y
		}
	}
	x = block("features", place, x, conv{out: 1280, kernel: 1})
	x = blob{d.Node("GlobalAveragePool", "pool", []string{x.name}), x.channels}
	return d.dense("classifier.1", d.flatten("flat", x), 1280, classes, toLinear)
}

// constant adds a scalar.
func (d *drawing) constant(name string, v float32) string {
	return d.Weight(name, nil, func(yield func(float32) bool) { yield(v) })
}
