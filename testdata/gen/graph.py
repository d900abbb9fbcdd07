"""Writes ONNX graphs node by node. A node and its only output share one name."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
IR_VERSION = 7


class Graph:
    """A classifier with input data [N,1,28,28] and output logits [N,10], both float32."""

    def __init__(self, name, inputs=None, outputs=None):
        self.name = name
        self.inputs = [port("data", ["N", 1, 28, 28])] if inputs is None else inputs
        self.outputs = [port("logits", ["N", 10])] if outputs is None else outputs
        self.nodes, self.initializers = [], []

    def constant(self, name, value, dtype=np.float32):
        """Adds an initializer; returns its name."""
        array = np.ascontiguousarray(np.asarray(value), dtype=dtype)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op, inputs, name, **attributes):
        """Adds a node; returns its output's name."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(self, x, name, weight, bias=None, stride=1):
        """Adds a Conv; weight is [size, size, in, out]."""
        return self._conv(x, name, np.asarray(weight).transpose(3, 2, 0, 1), bias, stride, 1)

    def depthwise(self, x, name, weight, bias=None, stride=1):
        """Adds a Conv with a group for each channel; weight is [size, size, channels]."""
        weight = np.asarray(weight).transpose(2, 0, 1)[:, None]
        return self._conv(x, name, weight, bias, stride, len(weight))

    def _conv(self, x, name, weight, bias, stride, group):
        size = weight.shape[-1]
        inputs = [x, self.constant(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.constant(f"{name}.bias", bias))
        return self.node(
            "Conv",
            inputs,
            name,
            dilations=[1, 1],
            group=group,
            kernel_shape=[size, size],
            pads=[size // 2] * 4,
            strides=[stride, stride],
        )

    def batch_norm(self, x, name, params, stats, epsilon):
        values = (
            ("scale", params["gamma"]),
            ("bias", params["beta"]),
            ("mean", stats["mean"]),
            ("var", stats["var"]),
        )
        inputs = [x] + [self.constant(f"{name}.{k}", v) for k, v in values]
        return self.node("BatchNormalization", inputs, name, epsilon=epsilon)

    def gemm(self, x, name, params):
        """Adds a Gemm; the weight [in, out] is stored [out, in] as torch does."""
        inputs = [
            x,
            self.constant(f"{name}.weight", np.asarray(params["weight"]).T),
            self.constant(f"{name}.bias", params["bias"]),
        ]
        return self.node("Gemm", inputs, name, alpha=1.0, beta=1.0, transB=1)

    def model(self, opset=OPSET, check=True):
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.initializers)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset)],
            producer_name="quantgate testdata/gen",
            ir_version=IR_VERSION,
        )
        if check:
            onnx.checker.check_model(model, full_check=True)
        return model


def port(name, shape, kind=TensorProto.FLOAT):
    """Describes a graph input or output."""
    return helper.make_tensor_value_info(name, kind, shape)
