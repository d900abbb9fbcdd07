"""Writes the small models that tests need, ../models/tiny/NAME.onnx: odd shapes, odd values, things that must be refused."""

import os
import pathlib
import shutil

import numpy as np
import onnx
from onnx import TensorProto, helper

import fashion
from graph import Graph, port

OUT = pathlib.Path(__file__).parent.parent / "models" / "tiny"
SEED = 4


def relu_mlp():
    """Two MatMul with a Relu between; the second is fitted by ridge regression to the models' training images."""
    images, labels = fashion.training()
    x = fashion.unit(images).reshape(len(images), -1)
    draw = np.random.default_rng(SEED)
    weight = (draw.standard_normal((784, 24)) / 14).astype(np.float32)
    bias = draw.standard_normal(24).astype(np.float32)
    hidden = np.maximum(x @ weight + bias, 0).astype(np.float64)
    hidden1 = np.hstack([hidden, np.ones((len(hidden), 1))])
    target = np.eye(10)[labels]
    fit = np.linalg.solve(hidden1.T @ hidden1 + 1e-3 * np.eye(25), hidden1.T @ target)

    g = Graph("relu_mlp")
    h = g.node("Flatten", ["data"], "flatten", axis=1)
    h = g.node("MatMul", [h, g.constant("fc1.weight", weight)], "fc1")
    h = g.node("Add", [h, g.constant("fc1.bias", bias)], "fc1_add")
    h = g.node("Relu", [h], "relu")
    h = g.node("MatMul", [h, g.constant("fc2.weight", fit[:-1])], "fc2")
    g.node("Add", [h, g.constant("fc2.bias", fit[-1])], "logits")
    return g.model()


def fp16_overflow():
    """An all-ones 4x4 image makes the MatMul reach 160,000 + 128 * class; float16 ends at 65,504. The logits are a 16,384th of it."""
    g = Graph("fp16_overflow", [port("data", ["N", 1, 4, 4])])
    weight = np.tile(10_000 + 8 * np.arange(10), (16, 1))
    x = g.node("Flatten", ["data"], "flatten", axis=1)
    x = g.node("MatMul", [x, g.constant("weight", weight)], "matmul")
    g.node("Mul", [x, g.constant("factor", 1 / 16384)], "logits")
    return g.model()


def nan_logits():
    """Every logit is NaN for an image darker than a quarter on average: the square root of mean - 0.25 is added to all."""
    g = Graph("nan_logits")
    x = g.node("Flatten", [small_conv(g)], "flatten", axis=1)
    x = dense(g, x, "fc", 4 * 49, 10)
    m = g.node("ReduceMean", ["data"], "mean", axes=[1, 2, 3], keepdims=0)
    m = g.node("Unsqueeze", [m, g.constant("axis", [1], np.int64)], "mean_column")
    m = g.node("Sub", [m, g.constant("quarter", 0.25)], "above_quarter")
    m = g.node("Sqrt", [m], "root")
    g.node("Add", [x, m], "logits")
    return g.model()


def dead_relu():
    """The Relu's output is zero for every image, so the logits are one constant row."""
    g = Graph("dead_relu")
    x = small_conv(g, bias=-100)
    x = g.node("Relu", [x], "relu")
    x = g.node("Flatten", [x], "flatten", axis=1)
    dense(g, x, "logits", 4 * 49, 10)
    return g.model()


def tied_logits():
    """Rounds the logits to multiples of 4, so that many images tie."""
    g = Graph("tied_logits")
    x = g.node("Flatten", [small_conv(g)], "flatten", axis=1)
    x = dense(g, x, "fc", 4 * 49, 10)
    x = g.node("Mul", [x, g.constant("quarter", 0.25)], "quarter_logits")
    x = g.node("Floor", [x], "floor")
    g.node("Mul", [x, g.constant("four", 4)], "logits")
    return g.model()


def wrong_width():
    """Seven logits where the data has ten classes."""
    return plain("wrong_width", outputs=7)


def background():
    """Eleven outputs: 0 is the background, class = output - 1."""
    return plain("background", outputs=11)


def fixed_batch():
    """Takes exactly 25 images."""
    return plain("fixed_batch", batch=25)


def fixed_batch1():
    """Takes exactly one image."""
    return plain("fixed_batch1", batch=1)


def rgb():
    """Three channels of 32x32."""
    g = Graph("rgb", [port("data", ["N", 3, 32, 32])])
    x = g.node("Relu", [small_conv(g, channels=3)], "relu")
    x = g.node("GlobalAveragePool", [x], "pool")
    x = g.node("Flatten", [x], "flatten", axis=1)
    dense(g, x, "logits", 4, 10)
    return g.model()


def dynamic_size():
    """Height and width are free."""
    g = Graph("dynamic_size", [port("data", ["N", 1, "H", "W"])])
    x = g.node("Relu", [small_conv(g)], "relu")
    x = g.node("GlobalAveragePool", [x], "pool")
    x = g.node("Flatten", [x], "flatten", axis=1)
    dense(g, x, "logits", 4, 10)
    return g.model()


def no_image_input():
    """The only input is a row of 16 numbers."""
    g = Graph("no_image_input", [port("features", ["N", 16])])
    dense(g, "features", "logits", 16, 10)
    return g.model()


def integer_input():
    """An image input of uint8."""
    g = Graph("integer_input", [port("data", ["N", 1, 28, 28], TensorProto.UINT8)])
    x = g.node("Cast", ["data"], "float", to=TensorProto.FLOAT)
    x = g.node("Flatten", [x], "flatten", axis=1)
    dense(g, x, "logits", 784, 2)
    g.outputs = [port("logits", ["N", 2])]
    return g.model()


def two_inputs():
    """Two image inputs."""
    g = Graph("two_inputs", [port("left", ["N", 1, 28, 28]), port("right", ["N", 1, 28, 28])])
    x = g.node("Add", ["left", "right"], "sum")
    x = g.node("Flatten", [small_conv(g, x)], "flatten", axis=1)
    dense(g, x, "logits", 4 * 49, 10)
    return g.model()


def two_outputs():
    """Features beside the logits."""
    g = Graph("two_outputs", outputs=[port("features", ["N", 4 * 49]), port("logits", ["N", 10])])
    x = g.node("Flatten", [small_conv(g)], "features", axis=1)
    dense(g, x, "logits", 4 * 49, 10)
    return g.model()


def shared_scale():
    """Everything that shares a scale or stays float when quantised: MaxPool, Transpose, Reshape, Concat, a residual Add, Softmax."""
    g = Graph("shared_scale")
    x = g.node("Relu", [small_conv(g)], "relu")
    p = g.node("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    y = g.node("Add", [x, p], "residual")
    c = g.node("Concat", [x, y], "concat", axis=1)
    t = g.node("Transpose", [c], "transpose", perm=[0, 2, 3, 1])
    r = g.node("Reshape", [t, g.constant("row", [0, 49, 8], np.int64)], "rows")
    s = g.node("Softmax", [r], "softmax", axis=-1)
    m = g.node("Mul", [r, s], "attended")
    f = g.node("Flatten", [m], "flatten", axis=1)
    dense(g, f, "logits", 8 * 49, 10)
    return g.model()


def opset9():
    """An old model: opset 9, Clip with attributes, Dropout, BatchNormalization, IR version 4 with initializers among the inputs."""
    g = Graph("opset9")
    x = small_conv(g)
    ones, zeros = np.ones(4), np.zeros(4)
    x = g.batch_norm(x, "bn", {"gamma": 2 * ones, "beta": ones}, {"mean": zeros, "var": 3 * ones}, 1e-5)
    x = g.node("Clip", [x], "clip", min=0.0, max=6.0)
    x = g.node("Flatten", [x], "flatten", axis=1)
    x = g.node("Dropout", [x], "dropout", ratio=0.5)
    dense(g, x, "logits", 4 * 49, 10)
    for i in g.initializers:
        g.inputs.append(port(i.name, list(i.dims)))
    model = g.model(opset=9)
    model.ir_version = 4
    onnx.checker.check_model(model, full_check=True)
    return model


def future_opset():
    """States opset 99."""
    model = plain("future_opset")
    model.opset_import[0].version = 99
    return model


def unquantised_ops():
    """Operators that no INT8 rule covers but every engine runs: Elu, LpNormalization, Einsum."""
    g = Graph("unquantised_ops")
    x = g.node("Elu", [small_conv(g)], "elu", alpha=1.0)
    x = g.node("Flatten", [x], "flatten", axis=1)
    x = g.node("LpNormalization", [x], "normalised", axis=1, p=2)
    weight = np.random.default_rng(SEED).standard_normal((4 * 49, 10))
    g.node("Einsum", [x, g.constant("weight", weight)], "logits", equation="nc,ck->nk")
    return g.model()


def custom_op():
    """A node of the domain com.example, which no engine knows."""
    g = Graph("custom_op")
    x = g.node("Sparkle", [small_conv(g)], "sparkle", domain="com.example")
    x = g.node("Flatten", [x], "flatten", axis=1)
    dense(g, x, "logits", 4 * 49, 10)
    model = g.model(check=False)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def subgraph():
    """An If node whose branches are graphs."""
    g = Graph("subgraph")
    x = g.node("Relu", [small_conv(g)], "relu")
    branches = {}
    for name, factor in (("then_branch", 1.0), ("else_branch", 2.0)):
        b = Graph(name, [], [port(name, ["N", 4, 7, 7])])
        b.node("Mul", [x, b.constant(f"{name}_factor", factor)], name)
        branches[name] = helper.make_graph(b.nodes, name, [], b.outputs, b.initializers)
    m = g.node("ReduceMean", ["data"], "mean", axes=[0, 1, 2, 3], keepdims=0)
    dark = g.node("Less", [m, g.constant("quarter", 0.25)], "dark")
    x = g.node("If", [dark], "choice", **branches)
    x = g.node("Flatten", [x], "flatten", axis=1)
    dense(g, x, "logits", 4 * 49, 10)
    return g.model()


def softmax():
    """Ends in a Softmax: output `probabilities` [N,10]."""
    return probabilities("softmax", 13, axis=-1)


def softmax_opset8():
    """Ends in a Softmax as older exports have it: opset 8, axis left to its default, output `probabilities` [N,10]."""
    return probabilities("softmax_opset8", 8)


MODELS = (
    relu_mlp,
    fp16_overflow,
    nan_logits,
    dead_relu,
    tied_logits,
    wrong_width,
    background,
    fixed_batch,
    fixed_batch1,
    rgb,
    dynamic_size,
    no_image_input,
    integer_input,
    two_inputs,
    two_outputs,
    shared_scale,
    opset9,
    future_opset,
    unquantised_ops,
    custom_op,
    subgraph,
    softmax,
    softmax_opset8,
)


def small_conv(g, x="data", channels=1, bias=None):
    """Adds a 4x4 convolution with stride 4 to 4 channels and returns its output: 7x7 for a 28x28 image."""
    weight = np.random.default_rng(SEED).standard_normal((4, channels, 4, 4))
    value = np.linspace(-0.5, 0.5, 4) if bias is None else np.full(4, bias)
    inputs = [x, g.constant("conv.weight", weight), g.constant("conv.bias", value)]
    return g.node("Conv", inputs, "conv", kernel_shape=[4, 4], strides=[4, 4])


def dense(g, x, name, channels, outputs):
    draw = np.random.default_rng(SEED + 1)
    params = {"weight": draw.standard_normal((channels, outputs)), "bias": draw.standard_normal(outputs)}
    return g.gemm(x, name, params)


def plain(name, batch="N", outputs=10):
    """A convolution, a Relu and a dense layer."""
    g = Graph(name, [port("data", [batch, 1, 28, 28])], [port("logits", [batch, outputs])])
    x = g.node("Relu", [small_conv(g)], "relu")
    x = g.node("Flatten", [x], "flatten", axis=1)
    dense(g, x, "logits", 4 * 49, outputs)
    return g.model()


def probabilities(name, opset, **softmax_attributes):
    """As plain, with a Softmax behind."""
    g = Graph(name, outputs=[port("probabilities", ["N", 10])])
    x = g.node("Relu", [small_conv(g)], "relu")
    x = g.node("Flatten", [x], "flatten", axis=1)
    x = dense(g, x, "logits", 4 * 49, 10)
    g.node("Softmax", [x], "probabilities", **softmax_attributes)
    return g.model(opset=opset)


def write_external():
    """Writes external.onnx, whose weights lie in external.bin, and escape.onnx, which claims that they lie outside its folder."""
    options = dict(save_as_external_data=True, location="external.bin", size_threshold=0)
    for leftover in ("external.onnx", "external.bin"):
        (OUT / leftover).unlink(missing_ok=True)
    onnx.save(plain("external"), OUT / "external.onnx", **options)
    (OUT / "external.bin").chmod(0o644)
    model = onnx.load(OUT / "external.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../gen/requirements.txt"
    (OUT / "escape.onnx").write_bytes(model.SerializeToString())


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    lines = []
    for make in MODELS:
        path = OUT / f"{make.__name__}.onnx"
        path.write_bytes(make().SerializeToString(deterministic=True))
        lines.append(f"| `{path.name}` | {make.__doc__.strip()} |")
    write_external()
    whole = (OUT / "wrong_width.onnx").read_bytes()
    (OUT / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    lines += [
        "| `external.onnx`, `external.bin` | Weights outside the model file, in its folder. |",
        "| `escape.onnx` | Claims that its weights lie outside its folder: must be refused. |",
        "| `truncated.onnx` | The first half of wrong_width.onnx: a corrupt file. |",
    ]
    text = "# Small models for tests\n\nWritten by testdata/gen/tiny.py; input `data` [N,1,28,28] and output `logits` [N,10], float32, opset 13, unless the line says else.\n\n"
    text += "| file | what it is |\n|---|---|\n" + "\n".join(lines) + "\n"
    (OUT / "README.md").write_text(text)


if __name__ == "__main__":
    main()
