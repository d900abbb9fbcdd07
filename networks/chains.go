package networks

import (
	"fmt"
	"strings"

	"github.com/quantgate/quantgate/onnx"
)

// alexnet is bvlc_alexnet of Caffe's model zoo, less the Dropout, which does nothing at inference.
func alexnet(d *drawing, x blob) blob {
	x = d.convRelu("conv1", "relu1", x, conv{out: 96, kernel: 11, stride: 4})
	x = d.pool("MaxPool", "pool1", d.lrn("norm1", x), 3, 2, 0, 0)
	x = d.convRelu("conv2", "relu2", x, conv{out: 256, kernel: 5, pad: 2, group: 2})
	x = d.pool("MaxPool", "pool2", d.lrn("norm2", x), 3, 2, 0, 0)
	x = d.convRelu("conv3", "relu3", x, conv{out: 384, kernel: 3, pad: 1})
	x = d.convRelu("conv4", "relu4", x, conv{out: 384, kernel: 3, pad: 1, group: 2})
	x = d.convRelu("conv5", "relu5", x, conv{out: 256, kernel: 3, pad: 1, group: 2})
	x = d.pool("MaxPool", "pool5", x, 3, 2, 0, 0)
	x = d.relu("relu6", d.dense("fc6", d.flatten("flat5", x), 256*6*6, 4096, toRelu))
	x = d.relu("relu7", d.dense("fc7", x, 4096, 4096, toRelu))
	return d.dense("fc8", x, 4096, classes, toLinear)
}

// vgg19 is configuration E of the paper, with the names of Caffe's VGG_ILSVRC_19_layers.
func vgg19(d *drawing, x blob) blob {
	for stage, s := range []struct{ layers, out int64 }{{2, 64}, {2, 128}, {4, 256}, {4, 512}, {4, 512}} {
		for i := range s.layers {
			place := fmt.Sprintf("%d_%d", stage+1, i+1)
			x = d.convRelu("conv"+place, "relu"+place, x, conv{out: s.out, kernel: 3, pad: 1})
		}
		x = d.pool("MaxPool", fmt.Sprintf("pool%d", stage+1), x, 2, 2, 0, 0)
	}
	x = d.relu("relu6", d.dense("fc6", d.flatten("flat5", x), 512*7*7, 4096, toRelu))
	x = d.relu("relu7", d.dense("fc7", x, 4096, 4096, toRelu))
	return d.dense("fc8", x, 4096, classes, toLinear)
}

// googlenet is bvlc_googlenet of Caffe's model zoo, less the Dropout.
func googlenet(d *drawing, x blob) blob {
	x = d.convRelu("conv1/7x7_s2", "conv1/relu_7x7", x, conv{out: 64, kernel: 7, stride: 2, pad: 3})
	x = d.lrn("pool1/norm1", d.pool("MaxPool", "pool1/3x3_s2", x, 3, 2, 0, 1))
	x = d.convRelu("conv2/3x3_reduce", "conv2/relu_3x3_reduce", x, conv{out: 64, kernel: 1})
	x = d.lrn("conv2/norm2", d.convRelu("conv2/3x3", "conv2/relu_3x3", x, conv{out: 192, kernel: 3, pad: 1}))
	x = d.pool("MaxPool", "pool2/3x3_s2", x, 3, 2, 0, 1)
	for _, m := range []struct {
		name string
		// channels of the 1x1 branch, of the 3x3 branch and its reduction, of the 5x5 branch and its reduction, of the projected pooling
		one, reduce3, three, reduce5, five, project int64
	}{
		{"3a", 64, 96, 128, 16, 32, 32}, {"3b", 128, 128, 192, 32, 96, 64},
		{"4a", 192, 96, 208, 16, 48, 64}, {"4b", 160, 112, 224, 24, 64, 64}, {"4c", 128, 128, 256, 24, 64, 64},
		{"4d", 112, 144, 288, 32, 64, 64}, {"4e", 256, 160, 320, 32, 128, 128},
		{"5a", 256, 160, 320, 32, 128, 128}, {"5b", 384, 192, 384, 48, 128, 128},
	} {
		if stage := m.name[:1]; stage > "3" && strings.HasSuffix(m.name, "a") { // a pooling ends the stage before
			before := string(stage[0] - 1)
			x = d.pool("MaxPool", "pool"+before+"/3x3_s2", x, 3, 2, 0, 1)
		}
		name := "inception_" + m.name + "/"
		one := d.convRelu(name+"1x1", name+"relu_1x1", x, conv{out: m.one, kernel: 1})
		three := d.convRelu(name+"3x3_reduce", name+"relu_3x3_reduce", x, conv{out: m.reduce3, kernel: 1})
		three = d.convRelu(name+"3x3", name+"relu_3x3", three, conv{out: m.three, kernel: 3, pad: 1})
		five := d.convRelu(name+"5x5_reduce", name+"relu_5x5_reduce", x, conv{out: m.reduce5, kernel: 1})
		five = d.convRelu(name+"5x5", name+"relu_5x5", five, conv{out: m.five, kernel: 5, pad: 2})
		project := d.pool("MaxPool", name+"pool", x, 3, 1, 1, 1)
		project = d.convRelu(name+"pool_proj", name+"relu_pool_proj", project, conv{out: m.project, kernel: 1})
		d.Node("Concat", name+"output", []string{one.name, three.name, five.name, project.name}, onnx.Int("axis", 1))
		x = blob{name + "output", m.one + m.three + m.five + m.project}
		if head := map[string]string{"4a": "loss1/", "4d": "loss2/"}[m.name]; head != "" && d.aux {
			y := d.pool("AveragePool", head+"ave_pool", x, 5, 3, 0, 0)
			y = d.flatten(head+"flat", d.convRelu(head+"conv", head+"relu_conv", y, conv{out: 128, kernel: 1}))
			y = d.relu(head+"relu_fc", d.dense(head+"fc", y, 128*4*4, 1024, toRelu))
			d.heads = append(d.heads, d.dense(head+"classifier", y, 1024, classes, toLinear))
		}
	}
	x = d.flatten("pool5/flat", d.pool("AveragePool", "pool5/7x7_s1", x, 7, 1, 0, 0))
	return d.dense("loss3/classifier", x, 1024, classes, toLinear)
}
