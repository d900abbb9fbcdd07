#!/usr/bin/env python3
"""The Python side of benchmarks/images: reads tasks from stdin, prints a line of JSON for each.

A task is "NAME REPEATS": NAME is done with every image, REPEATS times over. "digest NAME" prints the SHA-256 of its tensors.
"""
import glob
import hashlib
import json
import os
import sys
import time

import numpy as np
import PIL
from PIL import Image, features

try:
    import simplejpeg
except ImportError:
    simplejpeg = None
try:
    import torch
    import torchvision
    import torchvision.transforms as tv

    torch.set_num_threads(1)
except ImportError:
    torchvision = None

MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]


def crop(image):
    """torchvision's Resize(256) and CenterCrop(224)."""
    w, h = image.size
    size = (256, 256 * h // w) if w <= h else (256 * w // h, 256)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    return image.crop((left, top, left + 224, top + 224))


def normalise(image):
    x = np.asarray(image).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return np.ascontiguousarray((x - MEAN) / STD)


def read(path):
    with open(path, "rb") as f:
        return f.read()


TASKS = {
    "pillow-decode": lambda path: Image.open(path).convert("RGB"),
    "pillow-resize": lambda path: crop(Image.open(path).convert("RGB")),
    "pillow-tensor": lambda path: normalise(crop(Image.open(path).convert("RGB"))),
}
if simplejpeg:
    TASKS["simplejpeg-decode"] = lambda path: simplejpeg.decode_jpeg(read(path))
    TASKS["simplejpeg-tensor"] = lambda path: normalise(crop(Image.fromarray(simplejpeg.decode_jpeg(read(path)))))
if torchvision:
    transform = tv.Compose([tv.Resize(256), tv.CenterCrop(224), tv.ToTensor(), tv.Normalize(MEAN.ravel().tolist(), STD.ravel().tolist())])
    TASKS["torchvision-tensor"] = lambda path: transform(Image.open(path).convert("RGB")).numpy()


def main():
    paths = sorted(glob.glob(os.path.join(sys.argv[1], "*")))
    versions = [f"Python {sys.version.split()[0]}", f"Pillow {PIL.__version__} with libjpeg-turbo {features.version('libjpeg_turbo')}", f"NumPy {np.__version__}"]
    if simplejpeg:
        versions.append(f"simplejpeg {simplejpeg.__version__}")
    if torchvision:
        versions.append(f"torchvision {torchvision.__version__}")
    print(json.dumps({"versions": versions, "tasks": list(TASKS)}), flush=True)
    for line in sys.stdin:
        name, argument = line.split()
        if name == "digest":
            h = hashlib.sha256()
            for path in paths:
                h.update(TASKS[argument](path).tobytes())
            print(json.dumps({"digest": h.hexdigest()}), flush=True)
            continue
        task, repeats = TASKS[name], int(argument)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            for path in paths:
                task(path)
        print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "images": repeats * len(paths)}), flush=True)


if __name__ == "__main__":
    main()
