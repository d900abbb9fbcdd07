#!/usr/bin/env python3
"""Remakes the golden files of package caffe: tiny Caffe models of random weights and what they compute.

usage: golden.py

Each case is computed twice: by OpenCV's Caffe reader, and by the definitions of Caffe's layers written out below in NumPy and float64.
Both must agree, but for the outputs that a case says OpenCV computes otherwise than Caffe (OPENCV_DIFFERS); the golden values are
NumPy's. A case is NAME.prototxt, NAME.caffemodel and NAME.json (input, and the outputs in the order in which their blobs appear).
"""
import json
import math
import pathlib
import sys
import tempfile

import cv2
import numpy as np
from google.protobuf import text_format
from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
with tempfile.TemporaryDirectory() as made:
    proto = HERE.parent / "internal" / "pb"
    if protoc.main(["protoc", f"--proto_path={proto}", f"--python_out={made}", "caffe.proto"]) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, made)
    import caffe_pb2

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: %d dim: %d dim: %d } } }\n'


def layer(name, kind, bottom, top, params=""):
    ends = "".join(f' bottom: "{b}"' for b in bottom.split()) + "".join(f' top: "{t}"' for t in top.split())
    return f'layer {{ name: "{name}" type: "{kind}"{ends} {params} }}\n'


# name: (input shape, prototxt, {layer: shapes of its blobs})
CASES = {
    "convolution": ((2, 4, 9, 8), DATA % (4, 9, 8)
        + layer("grouped", "Convolution", "data", "a", "convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 2 group: 2 weight_filler { type: 'xavier' } }")
        + layer("sides", "Convolution", "data", "b", "convolution_param { num_output: 3 kernel_h: 3 kernel_w: 1 pad_h: 2 stride_h: 1 stride_w: 3 bias_term: false }")
        + layer("dilated", "Convolution", "data", "c", "convolution_param { num_output: 2 kernel_size: 3 pad: 2 dilation: 2 engine: CAFFE }")
        + layer("depthwise", "Convolution", "data", "d", "convolution_param { num_output: 4 kernel_size: 2 group: 4 }"),
        {"grouped": [(6, 2, 3, 3), (6,)], "sides": [(3, 4, 3, 1)], "dilated": [(2, 4, 3, 3), (2,)], "depthwise": [(4, 1, 2, 2), (4,)]}),
    "relu": ((2, 3, 4, 5), DATA % (3, 4, 5)
        + layer("conv", "Convolution", "data", "a", "convolution_param { num_output: 3 kernel_size: 1 }")
        + layer("in_place", "ReLU", "a", "a")
        + layer("leaky", "ReLU", "data", "b", "relu_param { negative_slope: 0.1 }"),
        {"conv": [(3, 3, 1, 1), (3,)]}),
    # 7 and 6 with a kernel of 3 and a stride of 2: 6 rounds up. "clipped": the last window would start in the padding.
    "pooling_max": ((2, 2, 7, 6), DATA % (2, 7, 6)
        + layer("up", "Pooling", "data", "a", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
        + layer("padded", "Pooling", "data", "b", "pooling_param { kernel_size: 3 stride: 2 pad: 1 }")
        + layer("clipped", "Pooling", "data", "c", "pooling_param { kernel_size: 2 stride: 2 pad: 1 }")
        + layer("sides", "Pooling", "data", "d", "pooling_param { kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0 }")
        + layer("same", "Pooling", "data", "e", "pooling_param { kernel_size: 3 stride: 1 pad: 1 }"),
        {"none": [(1,)]}),
    "pooling_ave": ((2, 2, 7, 6), DATA % (2, 7, 6)
        + layer("up", "Pooling", "data", "a", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }")
        + layer("padded", "Pooling", "data", "b", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }")
        + layer("beyond", "Pooling", "data", "c", "pooling_param { pool: AVE kernel_size: 5 stride: 3 pad: 2 }")
        + layer("sides", "Pooling", "data", "d", "pooling_param { pool: AVE kernel_h: 2 kernel_w: 5 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 2 }")
        + layer("all", "Pooling", "data", "e", "pooling_param { pool: AVE kernel_h: 7 kernel_w: 6 }"),
        {"none": [(1,)]}),
    "pooling_global": ((2, 2, 7, 6), DATA % (2, 7, 6)
        + layer("global_ave", "Pooling", "data", "a", "pooling_param { pool: AVE global_pooling: true }")
        + layer("global_max", "Pooling", "data", "b", "pooling_param { pool: MAX global_pooling: true }"),
        {"none": [(1,)]}),
    "pooling_floor": ((2, 2, 7, 6), DATA % (2, 7, 6)
        + layer("down", "Pooling", "data", "a", "pooling_param { pool: MAX kernel_size: 3 stride: 2 round_mode: FLOOR }")
        + layer("down_ave", "Pooling", "data", "b", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR }"),
        {"none": [(1,)]}),
    "lrn": ((2, 7, 3, 3), DATA % (7, 3, 3)
        + layer("defaults", "LRN", "data", "a")
        + layer("alexnet", "LRN", "data", "b", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
        + layer("strong", "LRN", "data", "c", "lrn_param { local_size: 3 alpha: 2 beta: 0.5 }")
        + layer("other_k", "LRN", "data", "d", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 }"),
        {"none": [(1,)]}),
    "inner_product": ((2, 3, 2, 4), DATA % (3, 2, 4)
        + layer("fc", "InnerProduct", "data", "a", "inner_product_param { num_output: 5 }")
        + layer("relu", "ReLU", "a", "a")
        + layer("fc2", "InnerProduct", "a", "b", "inner_product_param { num_output: 4 bias_term: false }")
        + layer("transposed", "InnerProduct", "data", "c", "inner_product_param { num_output: 3 transpose: true }"),
        {"fc": [(1, 1, 5, 24), (1, 1, 1, 5)], "fc2": [(4, 5)], "transposed": [(24, 3), (3,)]}),
    "eltwise": ((2, 3, 4, 4), DATA % (3, 4, 4)
        + layer("conv", "Convolution", "data", "a", "convolution_param { num_output: 3 kernel_size: 1 }")
        + layer("relu", "ReLU", "data", "b")
        + layer("sum", "Eltwise", "data a", "c")
        + layer("weighted", "Eltwise", "data a b", "d", "eltwise_param { operation: SUM coeff: 1 coeff: -1 coeff: 0.5 }")
        + layer("prod", "Eltwise", "data a b", "e", "eltwise_param { operation: PROD }")
        + layer("max", "Eltwise", "data a", "f", "eltwise_param { operation: MAX }"),
        {"conv": [(3, 3, 1, 1), (3,)]}),
    "batch_norm": ((2, 3, 4, 4), DATA % (3, 4, 4)
        + layer("conv", "Convolution", "data", "a", "convolution_param { num_output: 3 kernel_size: 1 bias_term: false }")
        + layer("bn", "BatchNorm", "a", "a", "batch_norm_param { use_global_stats: true }")
        + layer("scale", "Scale", "a", "a", "scale_param { bias_term: true }")
        + layer("bn_alone", "BatchNorm", "data", "b", "batch_norm_param { eps: 0.01 }")
        + layer("bn_apart", "BatchNorm", "data", "c")
        + layer("scale_apart", "Scale", "c", "d")
        + layer("bn_shared", "BatchNorm", "data", "e")
        + layer("scale_shared", "Scale", "e", "f", "scale_param { bias_term: true }")
        + layer("relu_shared", "ReLU", "e", "g"),
        {"conv": [(3, 3, 1, 1)], "bn": [(3,), (3,), (1,)], "scale": [(3,), (3,)], "bn_alone": [(3,), (3,), (1,)],
         "bn_apart": [(3,), (3,), (1,)], "scale_apart": [(3,)], "bn_shared": [(3,), (3,), (1,)], "scale_shared": [(3,), (3,)]}),
    "scale": ((2, 3, 4, 4), DATA % (3, 4, 4)
        + layer("factor", "Scale", "data", "a")
        + layer("both", "Scale", "data", "b", "scale_param { axis: 1 bias_term: true }"),
        {"factor": [(3,)], "both": [(3,), (3,)]}),
    "shapes": ((2, 4, 3, 2), DATA % (4, 3, 2)
        + layer("split", "Split", "data", "a b")
        + layer("relu", "ReLU", "a", "c")
        + layer("join", "Concat", "c b", "d")
        + layer("join_rows", "Concat", "c b", "e", "concat_param { axis: 2 }")
        + layer("join_old", "Concat", "c b", "f", "concat_param { concat_dim: 3 }")
        + layer("drop", "Dropout", "d", "d", "dropout_param { dropout_ratio: 0.4 }")
        + layer("flat", "Flatten", "d", "g")
        + layer("fold", "Reshape", "e", "h", "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 3 } }")
        + layer("prob", "Softmax", "g", "i")
        + layer("prob_rows", "Softmax", "f", "j", "softmax_param { axis: 2 }"),
        {"none": [(1,)]}),
    # The form of before 2014, with the layers of AlexNet.
    "alexnet_v1": ((2, 3, 19, 19), """name: "AlexNet"
input: "data"
input_dim: 2
input_dim: 3
input_dim: 19
input_dim: 19
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1 convolution_param { num_output: 8 kernel_size: 5 stride: 2 } }
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers { name: "norm1" type: LRN bottom: "conv1" top: "norm1" lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 } }
layers { name: "pool1" type: POOLING bottom: "norm1" top: "pool1" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layers { name: "conv2" type: CONVOLUTION bottom: "pool1" top: "conv2" convolution_param { num_output: 6 pad: 1 kernel_size: 3 group: 2 } }
layers { name: "relu2" type: RELU bottom: "conv2" top: "conv2" }
layers { name: "fc6" type: INNER_PRODUCT bottom: "conv2" top: "fc6" inner_product_param { num_output: 10 } }
layers { name: "relu6" type: RELU bottom: "fc6" top: "fc6" }
layers { name: "drop6" type: DROPOUT bottom: "fc6" top: "fc6" dropout_param { dropout_ratio: 0.5 } }
layers { name: "fc7" type: INNER_PRODUCT bottom: "fc6" top: "fc7" inner_product_param { num_output: 7 } }
layers { name: "prob" type: SOFTMAX bottom: "fc7" top: "prob" }
""", {"conv1": [(8, 3, 5, 5), (1, 1, 1, 8)], "conv2": [(6, 4, 3, 3), (1, 1, 1, 6)], "fc6": [(1, 1, 10, 96), (1, 1, 1, 10)], "fc7": [(1, 1, 7, 10), (1, 1, 1, 7)]}),
    "inception": ((2, 3, 12, 12), 'name: "Inception"\ninput: "data"\ninput_shape { dim: 2 dim: 3 dim: 12 dim: 12 }\n'
        + layer("conv1", "Convolution", "data", "conv1", "convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 }")
        + layer("relu_conv1", "ReLU", "conv1", "conv1")
        + layer("pool1", "Pooling", "conv1", "pool1", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
        + layer("a/1x1", "Convolution", "pool1", "a/1x1", "convolution_param { num_output: 2 kernel_size: 1 }")
        + layer("a/relu_1x1", "ReLU", "a/1x1", "a/1x1")
        + layer("a/3x3", "Convolution", "pool1", "a/3x3", "convolution_param { num_output: 3 kernel_size: 3 pad: 1 }")
        + layer("a/relu_3x3", "ReLU", "a/3x3", "a/3x3")
        + layer("a/pool", "Pooling", "pool1", "a/pool", "pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }")
        + layer("a/output", "Concat", "a/1x1 a/3x3 a/pool", "a/output")
        + layer("pool5", "Pooling", "a/output", "pool5", "pooling_param { pool: AVE kernel_size: 3 stride: 1 }")
        + layer("drop", "Dropout", "pool5", "pool5")
        + layer("classifier", "InnerProduct", "pool5", "classifier", "inner_product_param { num_output: 6 }")
        + layer("prob", "Softmax", "classifier", "prob"),
        {"conv1": [(4, 3, 3, 3), (4,)], "a/1x1": [(2, 4, 1, 1), (2,)], "a/3x3": [(3, 4, 3, 3), (3,)], "classifier": [(6, 9), (6,)]}),
    "residual": ((2, 3, 8, 8), 'name: "Residual"\n' + DATA % (3, 8, 8)
        + layer("conv1", "Convolution", "data", "conv1", "convolution_param { num_output: 4 kernel_size: 3 pad: 1 bias_term: false }")
        + layer("bn_conv1", "BatchNorm", "conv1", "conv1", "batch_norm_param { use_global_stats: true }")
        + layer("scale_conv1", "Scale", "conv1", "conv1", "scale_param { bias_term: true }")
        + layer("conv1_relu", "ReLU", "conv1", "conv1")
        + layer("res2a_branch2a", "Convolution", "conv1", "res2a_branch2a", "convolution_param { num_output: 4 kernel_size: 3 pad: 1 bias_term: false }")
        + layer("bn2a_branch2a", "BatchNorm", "res2a_branch2a", "res2a_branch2a", "batch_norm_param { use_global_stats: true }")
        + layer("scale2a_branch2a", "Scale", "res2a_branch2a", "res2a_branch2a", "scale_param { bias_term: true }")
        + layer("res2a", "Eltwise", "conv1 res2a_branch2a", "res2a")
        + layer("res2a_relu", "ReLU", "res2a", "res2a")
        + layer("pool5", "Pooling", "res2a", "pool5", "pooling_param { kernel_size: 8 stride: 1 pool: AVE }")
        + layer("fc", "InnerProduct", "pool5", "fc", "inner_product_param { num_output: 5 }")
        + layer("prob", "Softmax", "fc", "prob"),
        {"conv1": [(4, 3, 3, 3)], "bn_conv1": [(4,), (4,), (1,)], "scale_conv1": [(4,), (4,)], "res2a_branch2a": [(4, 4, 3, 3)],
         "bn2a_branch2a": [(4,), (4,), (1,)], "scale2a_branch2a": [(4,), (4,)], "fc": [(5, 4), (5,)]}),
}

# Where OpenCV leaves Caffe's definition: case or case/blob, and whether it runs it at all.
OPENCV_DIFFERS = {
    "convolution/b": True,  # it passes over a pad_h without a pad_w
    "lrn/a": True,  # its default alpha is 0.0001, Caffe's is 1
    "lrn/d": True,  # it passes over k
    "inner_product/c": True,  # over transpose
    "shapes/j": True,  # and over concat_dim
    "pooling_floor": False,  # it does not know round_mode
}


def window(size, kernel, stride, pad, up, clip):
    """Caffe's pooling_layer.cpp, Reshape and Forward_cpu: the windows' (start, end) before anything is cut off."""
    n = (math.ceil if up else math.floor)((size + 2 * pad - kernel) / stride) + 1
    if clip and (n - 1) * stride >= size + pad:
        n -= 1
    return [(i * stride - pad, i * stride - pad + kernel) for i in range(n)]


def two(p, name):
    h, w = getattr(p, name + "_h"), getattr(p, name + "_w")
    if p.HasField(name + "_h") or p.HasField(name + "_w"):
        return h, w
    both = getattr(p, "kernel_size" if name == "kernel" else name)
    both = [both] if isinstance(both, int) else list(both)
    return (both[0], both[-1]) if both else ((0, 0) if name == "pad" else (1, 1))


def convolution(p, blobs, x):
    (ph, pw), (sh, sw) = two(p, "pad"), two(p, "stride")
    d = p.dilation[0] if p.dilation else 1
    w = blobs[0]
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    n, per = w.shape[0] // p.group, w.shape[1]
    rows = (x.shape[2] - (w.shape[2] - 1) * d - 1) // sh + 1
    cols = (x.shape[3] - (w.shape[3] - 1) * d - 1) // sw + 1
    y = np.zeros((x.shape[0], w.shape[0], rows, cols))
    for g in range(p.group):
        for r in range(rows):
            for c in range(cols):
                part = x[:, g * per:(g + 1) * per, r * sh:r * sh + (w.shape[2] - 1) * d + 1:d, c * sw:c * sw + (w.shape[3] - 1) * d + 1:d]
                y[:, g * n:(g + 1) * n, r, c] = np.einsum("bchw,ochw->bo", part, w[g * n:(g + 1) * n])
    return y + blobs[1].reshape(1, -1, 1, 1) if len(blobs) > 1 else y


def pooling(p, _, x):
    height, width = x.shape[2:]
    if p.global_pooling:
        return x.mean((2, 3), keepdims=True) if p.pool == p.AVE else x.max((2, 3), keepdims=True)
    (kh, kw), (sh, sw), (ph, pw) = two(p, "kernel"), two(p, "stride"), two(p, "pad")
    up, clip = p.round_mode == p.CEIL, ph > 0 or pw > 0
    rows, cols = window(height, kh, sh, ph, up, clip), window(width, kw, sw, pw, up, clip)
    y = np.zeros(x.shape[:2] + (len(rows), len(cols)))
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(cols):
            part = x[:, :, max(top, 0):min(bottom, height), max(left, 0):min(right, width)]
            if p.pool == p.MAX:
                y[:, :, i, j] = part.max((2, 3))
            else:
                y[:, :, i, j] = part.sum((2, 3)) / ((min(bottom, height + ph) - top) * (min(right, width + pw) - left))
    return y


def lrn(p, _, x):
    reach = p.local_size // 2
    squares = np.stack([(x[:, max(c - reach, 0):c + reach + 1] ** 2).sum(1) for c in range(x.shape[1])], 1)
    return x / (p.k + p.alpha / p.local_size * squares) ** p.beta


def inner_product(p, blobs, x):
    x = x.reshape(x.shape[0], -1)
    w = blobs[0].reshape(blobs[0].shape[-2:])
    return x @ (w if p.transpose else w.T) + (blobs[1].reshape(-1) if len(blobs) > 1 else 0)


def eltwise(p, _, *xs):
    if p.operation == p.PROD:
        return np.prod(xs, 0)
    if p.operation == p.MAX:
        return np.max(xs, 0)
    return sum(c * x for c, x in zip(p.coeff or [1] * len(xs), xs))


def batch_norm(p, blobs, x):
    mean, variance = (b.reshape(1, -1, 1, 1) / blobs[2][0] for b in blobs[:2])
    return (x - mean) / np.sqrt(variance + p.eps)


def scale(p, blobs, x):
    y = x * blobs[0].reshape(1, -1, 1, 1)
    return y + blobs[1].reshape(1, -1, 1, 1) if p.bias_term else y


def softmax(p, _, x):
    e = np.exp(x - x.max(p.axis, keepdims=True))
    return e / e.sum(p.axis, keepdims=True)


def reshape(p, _, x):
    return x.reshape([x.shape[i] if d == 0 else d for i, d in enumerate(p.shape.dim)])


KINDS = {
    "Convolution": ("convolution_param", convolution), "Pooling": ("pooling_param", pooling), "LRN": ("lrn_param", lrn),
    "InnerProduct": ("inner_product_param", inner_product), "Eltwise": ("eltwise_param", eltwise), "BatchNorm": ("batch_norm_param", batch_norm),
    "Scale": ("scale_param", scale), "Softmax": ("softmax_param", softmax), "Reshape": ("reshape_param", reshape),
    "ReLU": ("relu_param", lambda p, _, x: np.where(x > 0, x, p.negative_slope * x)),
    "Concat": ("concat_param", lambda p, _, *xs: np.concatenate(xs, p.concat_dim if p.HasField("concat_dim") else p.axis)),
    "Flatten": ("flatten_param", lambda p, _, x: x.reshape(x.shape[0], -1)),
    "Dropout": (None, lambda p, _, x: x), "Split": (None, lambda p, _, x: x),
}
V1 = {"CONVOLUTION": "Convolution", "RELU": "ReLU", "LRN": "LRN", "POOLING": "Pooling", "INNER_PRODUCT": "InnerProduct", "DROPOUT": "Dropout", "SOFTMAX": "Softmax"}


def layers_of(net):
    for l in net.layer:
        if l.type != "Input":
            yield l, l.type
    for l in net.layers:
        yield l, V1[l.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[l.type].name]


def run(net, weights, x):
    """Every blob at the end, and by which layer it was made last; and the blobs that nothing reads, in order of appearance."""
    blobs, maker, unread = {"data": x}, {}, {"data": False}
    for l, kind in layers_of(net):
        param, f = KINDS[kind]
        for b in l.bottom:
            unread[b] = False
        y = f(getattr(l, param) if param else None, weights.get(l.name, []), *(blobs[b] for b in l.bottom))
        for t in l.top:
            blobs[t], maker[t], unread[t] = y, l.name, True
    return blobs, maker, [b for b, u in unread.items() if u]


def main():
    worst = 0
    for name, (shape, text, shapes) in CASES.items():
        rng = np.random.default_rng(sum(name.encode()))
        net = text_format.Parse(text, caffe_pb2.NetParameter(), allow_unknown_field=True)
        weights = {}
        model = caffe_pb2.Weights()
        for layer_name, blobs in shapes.items():
            values = [rng.normal(size=s).astype(np.float32) for s in blobs]
            if len(blobs) == 3:  # BatchNorm: sums of means and variances, and by what to divide them
                values[1], values[2] = np.abs(values[1]) + np.float32(0.5), np.float32([2.5])
            weights[layer_name] = [v.astype(np.float64) for v in values]
            holder = (model.layers if net.layers else model.layer).add(name=layer_name)
            for v in values:
                blob = holder.blobs.add(data=v.ravel())
                if net.layers:
                    blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - v.ndim) + v.shape
                else:
                    blob.shape.dim.extend(v.shape)
        (HERE / f"{name}.prototxt").write_text(text)
        (HERE / f"{name}.caffemodel").write_bytes(model.SerializeToString(deterministic=True))

        x = rng.normal(size=shape).astype(np.float32)
        blobs, maker, outputs = run(net, weights, x.astype(np.float64))
        for output in outputs:
            if not OPENCV_DIFFERS.get(name, True):
                continue
            cv = cv2.dnn.readNetFromCaffe(str(HERE / f"{name}.prototxt"), str(HERE / f"{name}.caffemodel"))
            cv.enableFusion(False)
            cv.setInput(x, "data")
            # OpenCV calls a layer by its top, unless it works in place.
            got = cv.forward(maker[output] if maker[output] in cv.getLayerNames() else output)
            same = got.shape == blobs[output].shape and np.allclose(got, blobs[output], rtol=1e-4, atol=1e-5)
            if same != (f"{name}/{output}" not in OPENCV_DIFFERS):
                gap = np.abs(got - blobs[output]).max() if got.shape == blobs[output].shape else (got.shape, blobs[output].shape)
                print(f"{name}/{output}: OpenCV and the definitions {'agree' if same else 'differ'}: {gap}")
                worst = 1

        def tensor(v):
            return {"shape": list(v.shape), "data": [float(f"{f:.7g}") for f in v.ravel()]}
        golden = {"input": tensor(x), "outputs": [{"blob": o} | tensor(blobs[o]) for o in outputs]}
        (HERE / f"{name}.json").write_text(json.dumps(golden, separators=(",", ":")).replace('"outputs"', '\n"outputs"').replace('{"blob"', '\n{"blob"') + "\n")
    sys.exit(worst)


if __name__ == "__main__":
    main()
