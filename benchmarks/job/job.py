"""The same job as quantgate run, as one writes it in Python: ONNX Runtime, Pillow and NumPy.

    python job.py quantize --model M.onnx --images DIR --out M.int8.onnx [--symmetric]   # ONNX Runtime's own quantize_static
    python job.py score --model M.onnx --candidate M.int8.onnx --images DIR --labels LABELS.txt

score decodes ahead on every core, runs both models on batches of 25 with ONNX Runtime's default session, and counts top-1. It prints one
line of JSON; its seconds leave out imports, and hold the opening of the sessions.
"""

import argparse
import json
import logging
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def load(path, resize):
    image = Image.open(path).convert("RGB")
    if resize:
        w, h = image.size
        scale = resize / min(w, h)
        image = image.resize((int(w * scale), int(h * scale)), Image.BILINEAR)
    w, h = image.size
    left, top = (w - 224) // 2, (h - 224) // 2
    x = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    return ((x / 255 - MEAN) / STD).transpose(2, 0, 1)


def listed(args):
    with open(args.labels) as f:
        rows = [line.split() for line in f if line.strip()]
    return [(os.path.join(args.images, name), int(label)) for name, label in rows][args.skip :][: args.limit or None]


def quantize(args):
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, paths):
            self.paths = iter(paths)

        def get_next(self):
            path = next(self.paths, None)
            return None if path is None else {name: load(path, args.resize)[None]}

    name = onnxruntime.InferenceSession(args.model).get_inputs()[0].name
    prepared = args.out + ".prepared.onnx"
    quant_pre_process(args.model, prepared)
    paths = [path for path, _ in listed(args)]
    quantize_static(
        prepared,
        args.out,
        Reader(paths),
        activation_type=QuantType.QUInt8 if args.activations == "uint8" else QuantType.QInt8,
        extra_options={"ActivationSymmetric": args.symmetric},
        per_channel=args.symmetric,
    )
    os.remove(prepared)


def score(args):
    rows = listed(args)
    started = time.perf_counter()
    sessions = []
    for model in (args.model, args.candidate):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        sessions.append(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]))
    correct = [0, 0]
    with ThreadPoolExecutor(args.threads) as pool:
        ahead, pending, batch = iter(rows), [], 25

        def submit():
            row = next(ahead, None)
            if row is not None:
                pending.append((pool.submit(load, row[0], args.resize), row[1]))

        for _ in range(4 * batch):
            submit()
        while pending:
            part = pending[:batch]
            del pending[:batch]
            x = np.stack([future.result() for future, _ in part])
            for _ in part:
                submit()
            labels = np.array([label for _, label in part])
            for i, session in enumerate(sessions):
                logits = session.run(None, {session.get_inputs()[0].name: x})[0]
                correct[i] += int((logits.reshape(len(part), -1).argmax(1) == labels).sum())
    print(json.dumps({"images": len(rows), "seconds": time.perf_counter() - started, "top1": [c / len(rows) for c in correct]}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["quantize", "score"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--candidate")
    parser.add_argument("--out")
    parser.add_argument("--images", required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--resize", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--activations", choices=["int8", "uint8"], default="int8")
    parser.add_argument("--symmetric", action="store_true", help="symmetric int8 activations and a weight scale per channel, as TensorRT wants")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    {"quantize": quantize, "score": score}[args.verb](args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
