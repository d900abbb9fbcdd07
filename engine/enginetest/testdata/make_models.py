#!/usr/bin/env python3
"""Writes the models of the engine conformance table into this folder. Needs numpy and onnx (1.23 made the committed files).

All weights are small integers and halves, so that every engine gives the same bits whatever order it adds in.
"""
import pathlib

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

HERE = pathlib.Path(__file__).parent
W = np.array([[1, 0, -1], [2, 1, 0], [0, -2, 1], [1, 1, 1]], np.float32)  # 4 values of an image -> 3 logits
B = np.array([0.5, 0, -0.5], np.float32)


def const(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def value(name, elem, shape):
    return h.make_tensor_value_info(name, elem, shape)


def save(name, nodes, inputs, outputs, constants):
    graph = h.make_graph(nodes, name, inputs, outputs, constants)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8, producer_name="make_models.py")
    onnx.checker.check_model(model, full_check=True)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def linear(name, batch, extra_nodes=(), extra_outputs=()):
    """x [batch,1,2,2] -> scaled = 2 * flattened x [batch,4] -> logits = scaled W + B [batch,3]"""
    save(
        name,
        [
            h.make_node("Flatten", ["x"], ["flat"], axis=1),
            h.make_node("Mul", ["flat", "two"], ["scaled"]),
            h.make_node("Gemm", ["scaled", "W", "B"], ["logits"]),
            *extra_nodes,
        ],
        [value("x", T.FLOAT, [batch, 1, 2, 2])],
        [value("scaled", T.FLOAT, [batch, 4]), value("logits", T.FLOAT, [batch, 3]), *extra_outputs],
        [const("two", np.float32(2)), const("W", W), const("B", B)],
    )


linear("linear", "N")
linear("fixed4", 4)
linear(
    "labels",
    "N",
    [h.make_node("ArgMax", ["logits"], ["class"], axis=1, keepdims=0)],
    [value("class", T.INT64, ["N"])],
)

# The outermost dimension of the output is not the batch: a batch of another size cannot be put together from runs of 4.
save(
    "total4",
    [h.make_node("Flatten", ["x"], ["flat"], axis=1), h.make_node("ReduceMax", ["flat"], ["total"], axes=[0], keepdims=1)],
    [value("x", T.FLOAT, [4, 1, 2, 2])],
    [value("total", T.FLOAT, [1, 4])],
    [],
)

# float16 in, float16 out: y = 2x
save(
    "half",
    [h.make_node("Mul", ["x", "two"], ["y"])],
    [value("x", T.FLOAT16, ["N", 1, 2, 2])],
    [value("y", T.FLOAT16, ["N", 1, 2, 2])],
    [const("two", np.float16(2))],
)

save(
    "two_inputs",
    [h.make_node("Add", ["left", "right"], ["y"])],
    [value("left", T.FLOAT, ["N", 4]), value("right", T.FLOAT, ["N", 4])],
    [value("y", T.FLOAT, ["N", 4])],
    [],
)

save(
    "integers",
    [h.make_node("Cast", ["x"], ["y"], to=T.FLOAT)],
    [value("x", T.UINT8, ["N", 1, 2, 2])],
    [value("y", T.FLOAT, ["N", 1, 2, 2])],
    [],
)
