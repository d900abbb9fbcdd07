#!/usr/bin/env python3
"""Calibrates a model with ONNX Runtime's or NNCF's calibrator, and prints what that cost as one line of JSON.

    peer.py --method minmax|entropy|nncf [--collect each|all] --model squeezenet1.1 --shared ../shared --count 500

entropy collects after every batch, or (--collect all) once, over all activations, as its own examples do. Decoding is left out of
cpu_s and wall_s: quantgate's figures leave it out too. NNCF calibrates without its bias correction, which is another step. All run the
engine on --threads threads: idle ones that spin would count against them. A package that is not installed is said in "absent", exit code 3.
"""
import argparse
import importlib.metadata
import json
import os
import resource
import shutil
import sys
import tempfile
import time


def fail(package):
    print(json.dumps({"absent": f"{package} is not installed: make bench-peers"}))
    sys.exit(3)


try:
    import numpy as np
except ImportError:
    fail("numpy")
try:
    from PIL import Image
except ImportError:
    fail("Pillow")
try:
    import onnxruntime
except ImportError:
    fail("onnxruntime")

# mean and std of pixels on the scale 0..1, by model; the rest take inputs in -1..1.
NORMALISATION = {
    "squeezenet1.1": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "darknet_tiny": ((0, 0, 0), (1, 1, 1)),
}
SIDE = 224


def cpu():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return u.ru_utime + u.ru_stime


def peak_mib():
    """Of this process alone: getrusage counts in what its parent had when it started it."""
    try:
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) / 1024 for line in f if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Images:
    """The first images of a list in batches; decoding costs are kept apart."""

    def __init__(self, shared, model, count, batch):
        with open(os.path.join(shared, "imagenet", "val1300.txt")) as f:
            names = sorted(line.split()[0] for line in f)[:count]
        if len(names) < count:
            sys.exit(f"peer.py: {count} images were asked for and {shared} has {len(names)}")
        self.paths = [os.path.join(shared, "imagenet", "val1300", name) for name in names]
        mean, std = NORMALISATION.get(model, ((0.5,) * 3, (0.5,) * 3))
        self.mean, self.std = (np.float32(v).reshape(3, 1, 1) for v in (mean, std))
        self.batch, self.at, self.cpu, self.wall = batch, 0, 0.0, 0.0

    def image(self, path):
        x = np.asarray(Image.open(path).convert("RGB"))
        top, left = (x.shape[0] - SIDE) // 2, (x.shape[1] - SIDE) // 2
        x = x[top:top + SIDE, left:left + SIDE].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        return (x - self.mean) / self.std

    def next(self):
        """The next batch, N x 3 x 224 x 224, or None."""
        began, wall = cpu(), time.perf_counter()
        paths = self.paths[self.at:self.at + self.batch]
        self.at += len(paths)
        x = np.stack([self.image(p) for p in paths]) if paths else None
        self.cpu += cpu() - began
        self.wall += time.perf_counter() - wall
        return x


def ort(method, collect, model, images, scratch):
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self, batches):
            self.left = batches

        def get_next(self):
            if self.left == 0:
                return None
            self.left -= 1
            x = images.next()
            return None if x is None else {"data": x}

    how = CalibrationMethod.MinMax if method == "minmax" else CalibrationMethod.Entropy
    calibrator = create_calibrator(
        model, None, augmented_model_path=os.path.join(scratch, "augmented.onnx"), calibrate_method=how,
        extra_options={"symmetric": True})
    each = 1 if collect == "each" and method == "entropy" else -1
    while images.at < len(images.paths):
        calibrator.collect_data(Reader(each))
    return len(calibrator.compute_data().keys())


def nncf(model, images):
    try:
        import nncf as lib
        import onnx
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    except ImportError:
        fail("nncf")

    def batches():
        while (x := images.next()) is not None:
            yield {"data": x}

    class Once:
        """A data source that may be asked for an iterator again."""

        def __iter__(self):
            images.at = 0
            return batches()

    quantized = lib.quantize(
        onnx.load(model), lib.Dataset(Once()), subset_size=-(-len(images.paths) // images.batch),
        advanced_parameters=AdvancedQuantizationParameters(disable_bias_correction=True))
    return sum(n.op_type == "QuantizeLinear" for n in quantized.graph.node)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--method", choices=["minmax", "entropy", "nncf"], required=True)
    p.add_argument("--collect", choices=["each", "all"], default="each", help="entropy: after each batch, or once")
    p.add_argument("--shared", default="../shared")
    p.add_argument("--model", default="squeezenet1.1")
    p.add_argument("--count", type=int, default=500)
    p.add_argument("--batch", type=int, default=25)
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()

    class Options(onnxruntime.SessionOptions):
        def __init__(self):
            super().__init__()
            self.intra_op_num_threads = a.threads

    onnxruntime.SessionOptions = Options  # what both packages make their sessions with
    if a.method == "nncf":
        try:
            import nncf as _  # noqa: F401  imported before the clock starts, as onnxruntime is
        except ImportError:
            fail("nncf")
    else:
        try:
            import onnxruntime.quantization as _  # noqa: F401
        except ImportError as e:
            fail(e.name or "onnxruntime.quantization")

    with tempfile.TemporaryDirectory() as scratch:
        model = os.path.join(scratch, a.model + ".onnx")  # a copy: onnxruntime writes beside the model
        shutil.copyfile(os.path.join(a.shared, "imagenet", "models", a.model + ".onnx"), model)
        images = Images(a.shared, a.model, a.count, a.batch)
        stdout, sys.stdout = sys.stdout, sys.stderr  # both packages print to stdout
        began, wall = cpu(), time.perf_counter()
        tensors = nncf(model, images) if a.method == "nncf" else ort(a.method, a.collect, model, images, scratch)
        spent, took = cpu() - began, time.perf_counter() - wall
        sys.stdout = stdout

    versions = {n: importlib.metadata.version(n) for n in ["onnxruntime", "onnx", "numpy"] + (["nncf"] if a.method == "nncf" else [])}
    print(json.dumps({
        "method": a.method, "collect": a.collect, "model": a.model, "images": a.count, "batch": a.batch, "threads": a.threads,
        "tensors": tensors, "cpu_s": spent - images.cpu, "cpu_decode_s": images.cpu, "wall_s": took - images.wall,
        "peak_rss_mib": peak_mib(), "versions": versions,
    }))


if __name__ == "__main__":
    main()
