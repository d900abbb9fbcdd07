"""Prints top-1 and top-5 of the committed models on the 50,000 validation images, with ONNX Runtime in FP32.

usage: measure.py [FILE...]
"""

import hashlib
import pathlib
import sys
import time

import numpy as np
import onnxruntime

import fashion

BATCH = 25
MODELS = pathlib.Path(__file__).parent.parent / "models"


def measure(path, images, labels):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    ranks, start = [], time.monotonic()
    for i in range(0, len(images), BATCH):
        x, y = images[i : i + BATCH], labels[i : i + BATCH]
        (z,) = session.run(["logits"], {"data": x})
        own = z[np.arange(len(y)), y][:, None]
        lower = np.arange(z.shape[1]) < y[:, None]
        rank = 1 + ((z > own) | ((z == own) & lower)).sum(1)
        ranks.append(np.where(np.isnan(z).any(1), z.shape[1] + 1, rank))  # NaN: a miss at every k
    rank = np.concatenate(ranks)
    return (rank <= 1).mean(), (rank <= 5).mean(), (time.monotonic() - start) / len(images)


def main():
    paths = [pathlib.Path(p) for p in sys.argv[1:]] or sorted(MODELS.glob("*.onnx"))
    images, labels = fashion.validation()
    images = fashion.unit(images)[:, None]
    print("model top1 top5 ms/image bytes sha256")
    for path in paths:
        top1, top5, seconds = measure(path, images, labels)
        data = path.read_bytes()
        print(f"{path.stem} {top1:.5f} {top5:.5f} {1000 * seconds:.4f} {len(data)} {hashlib.sha256(data).hexdigest()}", flush=True)


if __name__ == "__main__":
    main()
