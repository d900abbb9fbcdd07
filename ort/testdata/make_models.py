#!/usr/bin/env python3
"""Writes the models that only the ONNX Runtime backend's tests use into this folder. Needs numpy and onnx (1.23 made the committed files)."""
import pathlib

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

HERE = pathlib.Path(__file__).parent


def const(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def value(name, elem, shape):
    return h.make_tensor_value_info(name, elem, shape)


def save(name, nodes, inputs, outputs, constants=(), opset=13, check=True):
    graph = h.make_graph(nodes, name, inputs, outputs, constants)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=8, producer_name="make_models.py")
    if check:
        onnx.checker.check_model(model)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


# No dimension is declared but the channels: y = relu(x) has x's shape, flat is [N, C*H*W].
save(
    "open_shapes",
    [h.make_node("Relu", ["x"], ["y"]), h.make_node("Flatten", ["y"], ["flat"], axis=1)],
    [value("x", T.FLOAT, ["N", 1, "H", "W"])],
    [value("y", T.FLOAT, ["N", 1, "H", "W"]), value("flat", T.FLOAT, None)],
    check=False,  # the checker wants a shape for every output, exporters do not always give one
)

# The output's declaration is wrong (1 where the batch belongs), as some exporters leave it.
save(
    "wrong_declaration",
    [h.make_node("Flatten", ["x"], ["y"], axis=1)],
    [value("x", T.FLOAT, ["N", 1, 2, 2])],
    [value("y", T.FLOAT, [1, 4])],
)

# The output's shape depends on the values: the coordinates of what is above 0, as float32 [k, 2].
save(
    "data_dependent",
    [
        h.make_node("Relu", ["x"], ["r"]),
        h.make_node("NonZero", ["r"], ["nz"]),
        h.make_node("Transpose", ["nz"], ["nzt"], perm=[1, 0]),
        h.make_node("Cast", ["nzt"], ["y"], to=T.FLOAT),
    ],
    [value("x", T.FLOAT, ["N", 4])],
    [value("y", T.FLOAT, ["K", 2])],
)

save(
    "scalar",
    [h.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)],
    [value("x", T.FLOAT, ["N", 4])],
    [value("sum", T.FLOAT, [])],
)

# The input is an output too.
save(
    "input_as_output",
    [h.make_node("Relu", ["x"], ["y"])],
    [value("x", T.FLOAT, ["N", 4])],
    [value("x", T.FLOAT, ["N", 4]), value("y", T.FLOAT, ["N", 4])],
    check=False,
)

# x * 400 goes through float16 explicitly: 400 * 400 = 160,000 is beyond float16's 65,504.
save(
    "cast_float16",
    [
        h.make_node("MatMul", ["x", "W"], ["wide"]),
        h.make_node("Cast", ["wide"], ["half"], to=T.FLOAT16),
        h.make_node("Cast", ["half"], ["y"], to=T.FLOAT),
    ],
    [value("x", T.FLOAT, ["N", 1])],
    [value("y", T.FLOAT, ["N", 1])],
    [const("W", np.array([[400]], np.float32))],
)

# float16 output whose shape is not declared.
save(
    "half_open",
    [h.make_node("Flatten", ["x"], ["y"], axis=1)],
    [value("x", T.FLOAT16, ["N", 1, "H", "W"])],
    [value("y", T.FLOAT16, ["N", "K"])],
)

save(
    "unknown_operator",
    [h.make_node("Frobnicate", ["x"], ["y"])],
    [value("x", T.FLOAT, ["N", 4])],
    [value("y", T.FLOAT, ["N", 4])],
    check=False,
)

save(
    "opset99",
    [h.make_node("Relu", ["x"], ["y"])],
    [value("x", T.FLOAT, ["N", 4])],
    [value("y", T.FLOAT, ["N", 4])],
    opset=99,
    check=False,
)

# The model reshapes to one image, so a batch of two fails inside ONNX Runtime.
save(
    "one_image_only",
    [h.make_node("Reshape", ["x", "shape"], ["y"])],
    [value("x", T.FLOAT, ["N", 4])],
    [value("y", T.FLOAT, [1, 4])],
    [const("shape", np.array([1, 4], np.int64))],
)

# A convolution with BatchNormalization, Relu and pooling, big enough that reused memory shows: x [N,3,32,32] -> logits [N,10], with the
# Conv's and the BatchNormalization's own outputs tapped.
rng = np.random.default_rng(1)
save(
    "convnet",
    [
        h.make_node("Conv", ["x", "W1"], ["conv"], pads=[1, 1, 1, 1]),
        h.make_node("BatchNormalization", ["conv", "scale", "bias", "mean", "var"], ["bn"]),
        h.make_node("Relu", ["bn"], ["relu"]),
        h.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        h.make_node("Flatten", ["pool"], ["flat"], axis=1),
        h.make_node("Gemm", ["flat", "W2"], ["logits"]),
    ],
    [value("x", T.FLOAT, ["N", 3, 32, 32])],
    [value("logits", T.FLOAT, ["N", 10]), value("conv", T.FLOAT, ["N", 16, 32, 32]), value("bn", T.FLOAT, ["N", 16, 32, 32])],
    [
        const("W1", rng.normal(0, 0.2, (16, 3, 3, 3)).astype(np.float32)),
        const("scale", rng.uniform(0.5, 1.5, 16).astype(np.float32)),
        const("bias", rng.normal(0, 0.1, 16).astype(np.float32)),
        const("mean", rng.normal(0, 0.1, 16).astype(np.float32)),
        const("var", rng.uniform(0.5, 1.5, 16).astype(np.float32)),
        const("W2", rng.normal(0, 0.3, (16, 10)).astype(np.float32)),
    ],
)
