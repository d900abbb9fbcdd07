package onnx

import "github.com/quantgate/quantgate/onnx/internal/pb"

// emulate is rewrite for EmulateINT8: a node with quantised weights sums integers.
func (q *quantizer) emulate(n *pb.NodeProto) error {
	axis, ok := q.weights[use{n, 1}]
	if !ok {
		return q.rewrite(n)
	}
	w, err := q.integers(n.Input[1], axis)
	if err != nil {
		return err
	}
	values := make([]float32, len(w.values))
	for i, v := range w.rounded() {
		values[i] = float32(v)
	}
	name := n.Input[1]
	weights := q.once("integers "+name, func() *pb.TensorProto { return floatTensor(q.fresh(name+"_integers"), w.dims, values) })

	_, amax, _ := q.rangeOf(n.Input[0])
	x := n.Input[0]
	if q.made["integers of "+x] == "" {
		quantized, _, _ := q.quantized(x)
		q.made["integers of "+x] = q.node("Cast", x+"_integers", []string{quantized}, intAttr("to", int64(pb.TensorProto_FLOAT)))
	}
	bias, out := input(n, 2), n.Output[0]
	alpha, beta := attrFloat(n, "alpha", 1), attrFloat(n, "beta", 1)
	sum := q.fresh(out + "_sum")
	n.Input = []string{q.made["integers of "+x], weights}
	n.Output = []string{sum}
	q.dropAttrs(n, "alpha", "beta")
	q.out = append(q.out, n)
	if isOp(n, "Conv", "ConvTranspose") {
		return q.scaleChannels(n, w, amax/127, bias, out)
	}
	scales := make([]float32, len(w.scales))
	for c, s := range w.scales {
		scales[c] = alpha * (amax / 127 * s)
	}
	scale := floatTensor(q.fresh(out+"_scale"), []int64{int64(len(scales))}, scales)
	q.addInitializer(scale)
	if bias == "" {
		q.out = append(q.out, newNode("Mul", q.fresh(out+"_scaled"), []string{sum, scale.GetName()}, []string{out}))
		return nil
	}
	scaled := q.node("Mul", out+"_scaled", []string{sum, scale.GetName()})
	if beta != 1 {
		b := scalarTensor(q.fresh(out+"_beta"), beta)
		q.addInitializer(b)
		bias = q.node("Mul", bias+"_scaled", []string{bias, b.GetName()})
	}
	q.out = append(q.out, newNode("Add", q.fresh(out+"_biased"), []string{scaled, bias}, []string{out}))
	return nil
}

func scalarTensor(name string, v float32) *pb.TensorProto {
	return floatTensor(name, nil, []float32{v})
}

// scaleChannels brings the sums of a convolution to scale and adds the bias, by a depthwise convolution of 1x1 kernels: one pass, in
// the layout that the convolution before it leaves behind, with the activation that follows in the same pass. Unlike a
// BatchNormalization or a Mul, no optimiser folds it into the integer weights.
func (q *quantizer) scaleChannels(n *pb.NodeProto, w *integers, scale float32, bias, out string) error {
	channels := len(w.scales)
	if isOp(n, "ConvTranspose") {
		channels *= int(attrInt(n, "group", 1))
	}
	kernel := []int64{int64(channels), 1}
	for range w.dims[2:] {
		kernel = append(kernel, 1)
	}
	scales := make([]float32, channels)
	for c := range scales {
		scales[c] = scale * w.scales[c%len(w.scales)]
	}
	weights := floatTensor(q.fresh(out+"_scale"), kernel, scales)
	q.addInitializer(weights)
	inputs := []string{n.Output[0], weights.GetName()}
	if bias != "" {
		inputs = append(inputs, bias)
	}
	q.out = append(q.out, newNode("Conv", q.fresh(out+"_scaled"), inputs, []string{out}, intAttr("group", int64(channels))))
	return nil
}
