"""The three classifiers: how each is initialised, computed in training, and written as an ONNX graph."""

import jax.numpy as jnp
import numpy as np

import layers
from graph import Graph

CLASSES = 10


class CNN:
    """Three convolutions with bias, ReLU and max-pooling, two dense layers; no normalisation anywhere."""

    name, seed, epochs, batch, rate, decay = "cnn", 1, 28, 100, 2e-3, 2e-2
    filters = (16, 24, 48)
    hidden = 64

    def init(self):
        draw, params, channels = layers.Initializer(self.seed), {}, 1
        for i, filters in enumerate(self.filters, 1):
            params[f"conv{i}"] = {
                "weight": draw.conv(3, channels, filters),
                "bias": jnp.zeros(filters),
            }
            channels = filters
        params["fc1"] = draw.dense(channels * 9, self.hidden)
        params["fc2"] = draw.dense(self.hidden, CLASSES)
        return params, {}

    def apply(self, params, stats, x, training):
        for i in range(1, len(self.filters) + 1):
            p = params[f"conv{i}"]
            x = layers.conv(x, p["weight"]) + p["bias"]
            x = layers.max_pool(jnp.maximum(x, 0))
        # ONNX flattens NCHW.
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        x = jnp.maximum(x @ params["fc1"]["weight"] + params["fc1"]["bias"], 0)
        return x @ params["fc2"]["weight"] + params["fc2"]["bias"], stats

    def build(self, params, stats):
        g, x = Graph(self.name), "data"
        for i in range(1, len(self.filters) + 1):
            p = params[f"conv{i}"]
            x = g.conv(x, f"conv{i}", p["weight"], p["bias"])
            x = g.node("Relu", [x], f"relu{i}")
            x = g.node("MaxPool", [x], f"pool{i}", kernel_shape=[2, 2], strides=[2, 2])
        x = g.node("Flatten", [x], "flatten", axis=1)
        x = g.gemm(x, "fc1", params["fc1"])
        x = g.node("Relu", [x], "relu_fc1")
        g.gemm(x, "logits", params["fc2"])
        return g.model()


class ResNetBN:
    """A small residual network (He et al. 2016, basic blocks) whose BatchNormalization stays in the graph."""

    name, seed, epochs, batch, rate, decay = "resnet_bn", 2, 24, 100, 4e-3, 2e-2
    stem = 16
    blocks = (("block1", 16, 1), ("block2", 32, 2))  # name, filters, stride

    def init(self):
        draw, params, stats = layers.Initializer(self.seed), {}, {}

        def conv_bn(name, size, channels, filters):
            params[name] = {"weight": draw.conv(size, channels, filters)} | draw.bn(filters)
            stats[name] = draw.stats(filters)

        conv_bn("stem", 3, 1, self.stem)
        channels = self.stem
        for name, filters, stride in self.blocks:
            conv_bn(f"{name}_conv1", 3, channels, filters)
            conv_bn(f"{name}_conv2", 3, filters, filters)
            if stride != 1 or channels != filters:
                conv_bn(f"{name}_shortcut", 1, channels, filters)
            channels = filters
        params["fc"] = draw.dense(channels, CLASSES)
        return params, stats

    def apply(self, params, stats, x, training):
        stats = dict(stats)

        def conv_bn(name, x, stride=1):
            y = layers.conv(x, params[name]["weight"], stride)
            y, stats[name] = layers.batch_norm(y, params[name], stats[name], training)
            return y

        x = layers.max_pool(jnp.maximum(conv_bn("stem", x), 0))
        for name, _, stride in self.blocks:
            y = jnp.maximum(conv_bn(f"{name}_conv1", x, stride), 0)
            y = conv_bn(f"{name}_conv2", y)
            if f"{name}_shortcut" in params:
                x = conv_bn(f"{name}_shortcut", x, stride)
            x = jnp.maximum(x + y, 0)
        x = x.mean((1, 2))
        return x @ params["fc"]["weight"] + params["fc"]["bias"], stats

    def build(self, params, stats):
        g = Graph(self.name)

        def conv_bn(name, x, stride=1):
            x = g.conv(x, name, params[name]["weight"], stride=stride)
            return g.batch_norm(x, f"{name}_bn", params[name], stats[name], layers.BN_EPSILON)

        x = g.node("Relu", [conv_bn("stem", "data")], "stem_relu")
        x = g.node("MaxPool", [x], "stem_pool", kernel_shape=[2, 2], strides=[2, 2])
        for name, _, stride in self.blocks:
            y = g.node("Relu", [conv_bn(f"{name}_conv1", x, stride)], f"{name}_relu1")
            y = conv_bn(f"{name}_conv2", y)
            if f"{name}_shortcut" in params:
                x = conv_bn(f"{name}_shortcut", x, stride)
            x = g.node("Add", [x, y], f"{name}_add")
            x = g.node("Relu", [x], f"{name}_relu2")
        x = g.node("GlobalAveragePool", [x], "pool")
        x = g.node("Flatten", [x], "flatten", axis=1)
        g.gemm(x, "logits", params["fc"])
        return g.model()


class DWSepHSwish:
    """Depthwise-separable convolutions with hard-swish, after MobileNetV3; BatchNormalization is folded when written."""

    name, seed, epochs, batch, rate, decay = "dwsep_hswish", 3, 24, 100, 4e-3, 0.0
    stem = 16
    blocks = ((24, 2), (32, 1), (64, 2), (64, 1))  # filters, stride of the depthwise convolution
    hidden = 64

    def init(self):
        draw, params, stats = layers.Initializer(self.seed), {}, {}

        def add(name, weight):
            params[name] = {"weight": weight} | draw.bn(weight.shape[-1])
            stats[name] = draw.stats(weight.shape[-1])

        add("stem", draw.conv(3, 1, self.stem))
        channels = self.stem
        for i, (filters, _) in enumerate(self.blocks, 1):
            add(f"block{i}_dw", draw.depthwise(3, channels))
            add(f"block{i}_pw", draw.conv(1, channels, filters))
            channels = filters
        params["fc1"] = draw.dense(channels, self.hidden)
        params["fc2"] = draw.dense(self.hidden, CLASSES)
        return params, stats

    def apply(self, params, stats, x, training):
        stats = dict(stats)

        def block(name, x, op, stride):
            y = op(x, params[name]["weight"], stride)
            y, stats[name] = layers.batch_norm(y, params[name], stats[name], training)
            return layers.hard_swish(y)

        x = block("stem", x, layers.conv, 1)
        for i, (_, stride) in enumerate(self.blocks, 1):
            x = block(f"block{i}_dw", x, layers.depthwise, stride)
            x = block(f"block{i}_pw", x, layers.conv, 1)
        x = x.mean((1, 2))
        x = layers.hard_swish(x @ params["fc1"]["weight"] + params["fc1"]["bias"])
        return x @ params["fc2"]["weight"] + params["fc2"]["bias"], stats

    def build(self, params, stats):
        g = Graph(self.name)

        def hard_swish(x, name):
            # torch exports Hardswish below opset 14 as these two nodes.
            gate = g.node("HardSigmoid", [x], f"{name}_gate", alpha=1 / 6, beta=0.5)
            return g.node("Mul", [x, gate], name)

        def block(name, x, stride):
            weight, bias = self.fold(params[name], stats[name])
            if name.endswith("_dw"):
                x = g.depthwise(x, name, weight, bias, stride)
            else:
                x = g.conv(x, name, weight, bias, stride)
            return hard_swish(x, f"{name}_hswish")

        x = block("stem", "data", 1)
        for i, (_, stride) in enumerate(self.blocks, 1):
            x = block(f"block{i}_dw", x, stride)
            x = block(f"block{i}_pw", x, 1)
        x = g.node("GlobalAveragePool", [x], "pool")
        x = g.node("Flatten", [x], "flatten", axis=1)
        x = hard_swish(g.gemm(x, "fc1", params["fc1"]), "fc1_hswish")
        g.gemm(x, "logits", params["fc2"])
        return g.model()

    @staticmethod
    def fold(params, stats):
        """Returns the convolution's weight and bias with the BatchNormalization that follows it folded in."""
        factor = np.asarray(params["gamma"]) / np.sqrt(np.asarray(stats["var"]) + layers.BN_EPSILON)
        weight = np.asarray(params["weight"]) * factor
        return weight, np.asarray(params["beta"]) - np.asarray(stats["mean"]) * factor


ALL = (CNN, ResNetBN, DWSepHSwish)
