#!/usr/bin/env python3
"""Compares quantgate's tensors with Pillow's and torchvision's. See README.md beside this file."""
import argparse
import io
import os
import random
import struct
import subprocess
import sys
import tempfile

import numpy as np
import PIL
from PIL import Image, features

try:
    import torchvision.transforms as tv
    from torchvision.transforms import InterpolationMode
except ImportError:
    tv = None

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
# name, quantgate flags, settings of the reference
SETTINGS = [
    ("imagenet", ["--resize", "256"], dict(size=224, resize=256)),
    ("bicubic", ["--crop-pct", "0.9", "--interpolation", "bicubic", "--preset", "tf"],
     dict(size=224, resize=248, filter="bicubic", mean=[0.5] * 3, std=[0.5] * 3)),
    ("bgr", ["--resize", "232", "--channel-order", "bgr", "--mean", "0.4,0.45,0.48", "--std", "0.2,0.25,0.3"],
     dict(size=224, resize=232, mean=[0.4, 0.45, 0.48], std=[0.2, 0.25, 0.3], bgr=True)),
    ("small", ["--resize", "37", "--input-size", "32", "--preset", "unit"], dict(size=32, resize=37, mean=[0.0] * 3, std=[1.0] * 3)),
    ("unresized", ["--resize", "none"], dict(size=224, resize=None)),
    ("grey", ["--resize", "256", "--channels", "1"], dict(size=224, resize=256, mean=[0.0], std=[1.0], grey=True)),
]


def reference(path, size, resize, filter="bilinear", mean=IMAGENET[0], std=IMAGENET[1], bgr=False, grey=False):
    """The tensor of one image, C x H x W, float32."""
    image = Image.open(path).convert("L" if grey else "RGB")
    if tv is not None:
        steps = [tv.Resize(resize, InterpolationMode(filter))] if resize else []
        x = tv.Compose(steps + [tv.CenterCrop(size), tv.ToTensor()])(image)
        x = x.flip(0) if bgr else x
        return tv.functional.normalize(x, mean, std).numpy()
    if resize:
        w, h = image.size
        short, long = min(w, h), max(w, h)
        new = (resize, int(resize * long / short))
        new = new if w <= h else new[::-1]
        if new != image.size:
            image = image.resize(new, {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[filter])
    a = np.asarray(image)
    a = a[:, :, None] if a.ndim == 2 else a
    h, w = a.shape[:2]
    ph, pw = max(size - h, 0), max(size - w, 0)
    a = np.pad(a, ((ph // 2, (ph + 1) // 2), (pw // 2, (pw + 1) // 2), (0, 0)))
    h, w = a.shape[:2]
    top, left = int(round((h - size) / 2.0)), int(round((w - size) / 2.0))
    x = a[top:top + size, left:left + size].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    x = x[::-1] if bgr else x
    return (x - np.float32(mean)[:, None, None]) / np.float32(std)[:, None, None]


def picture(w, h, r, channels):
    """Gradients, edges and noise."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    planes = []
    for _ in range(channels):
        a, b, c, d = r.uniform(0.005, 0.3, 4)
        plane = 127 + 60 * np.sin(a * x + b * y) + 60 * np.cos(c * x - d * y)
        for _ in range(4):
            cx, cy, rad = r.uniform(0, w), r.uniform(0, h), r.uniform(1, max(w, h) / 3)
            plane[(x - cx) ** 2 + (y - cy) ** 2 < rad ** 2] = r.uniform(0, 255)
        planes.append(plane + r.normal(0, 6, (h, w)))
    return np.clip(np.rint(np.stack(planes, -1)), 0, 255).astype(np.uint8)


def make(folder, n, seed):
    """Writes n images, each with a size and a kind of its own."""
    r = np.random.default_rng(seed)

    def jpeg(image, **kw):
        b = io.BytesIO()
        image.save(b, "JPEG", quality=int(r.integers(50, 97)), **kw)
        return b.getvalue()

    def other(image, fmt, **kw):
        b = io.BytesIO()
        image.save(b, fmt, **kw)
        return b.getvalue()

    def rgb(w, h): return Image.fromarray(picture(w, h, r, 3))
    def grey(w, h): return Image.fromarray(picture(w, h, r, 1)[:, :, 0])
    def rgba(w, h): return Image.fromarray(picture(w, h, r, 4), "RGBA")

    def ycck(w, h):
        data = jpeg(Image.fromarray(picture(w, h, r, 4), "CMYK"))
        i = data.index(b"Adobe") + 11
        return data[:i] + b"\x02" + data[i + 1:]

    def rotated(w, h):
        exif = Image.Exif()
        exif[0x0112] = int(r.integers(2, 9))
        return jpeg(rgb(w, h), exif=exif)

    kinds = [
        ("jpg", lambda w, h: jpeg(rgb(w, h), subsampling="4:2:0")),
        ("jpg", lambda w, h: jpeg(rgb(w, h), subsampling="4:2:2")),
        ("jpg", lambda w, h: jpeg(rgb(w, h), subsampling="4:4:4")),
        ("jpg", lambda w, h: jpeg(rgb(w, h), progressive=True)),
        ("jpg", lambda w, h: jpeg(grey(w, h))),
        ("jpg", lambda w, h: jpeg(Image.fromarray(picture(w, h, r, 4), "CMYK"))),
        ("jpg", ycck),
        ("jpg", rotated),
        ("jpg", lambda w, h: jpeg(rgb(w, h), keep_rgb=True)),
        ("JPEG", lambda w, h: other(rgb(w, h), "PNG")),
        ("png", lambda w, h: other(rgba(w, h), "PNG")),
        ("png", lambda w, h: other(rgb(w, h).quantize(int(r.integers(2, 257))), "PNG")),
        ("png", lambda w, h: other(grey(w, h).convert("LA"), "PNG")),
        ("png", lambda w, h: other(grey(w, h).convert("1"), "PNG")),
        ("png", lambda w, h: other(Image.fromarray(picture(w, h, r, 1)[:, :, 0].astype(np.uint16) * 2), "PNG")),
        ("gif", lambda w, h: other(rgb(w, h).quantize(128), "GIF")),
        ("bmp", lambda w, h: other(rgb(w, h), "BMP")),
        ("tif", lambda w, h: other(rgb(w, h), "TIFF", compression="tiff_lzw")),
        ("webp", lambda w, h: other(rgb(w, h), "WEBP", lossless=True)),
        ("webp", lambda w, h: other(rgb(w, h), "WEBP", quality=80)),
    ]
    names = []
    for i in range(n):
        ext, encode = kinds[i % len(kinds)]
        w, h = (int(v) for v in np.exp(r.uniform(np.log(30), np.log(900), 2)))
        if i % 7 == 0:
            w, h = 500, 375
        name = f"synthetic{i:03d}-{w}x{h}.{ext}"
        with open(os.path.join(folder, name), "wb") as f:
            f.write(encode(w, h))
        names.append(name)
    return names


def read_batches(folder, n):
    """The tensors of sampleINT8 batch files, in order, with their labels."""
    images, labels = [], []
    i = 0
    while len(images) < n:
        with open(os.path.join(folder, f"batch{i}"), "rb") as f:
            shape = struct.unpack("<4i", f.read(16))
            data = np.frombuffer(f.read(), np.float32)
        count = int(np.prod(shape))
        images += list(data[:count].reshape(shape))
        labels += data[count:].astype(int).tolist()
        i += 1
    return images, labels


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--quantgate", required=True, help="the program")
    p.add_argument("--photos", action="append", default=[], help="folder of photographs to take as well (repeatable)")
    p.add_argument("--max-photos", type=int, default=50, help="at most this many of each folder")
    p.add_argument("--images", type=int, default=200, help="images in all, the photographs included")
    p.add_argument("--seed", type=int, default=1)
    o = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        folder = os.path.join(tmp, "images")
        os.mkdir(folder)
        names = []
        for d in o.photos:
            found = sorted(f for f in os.listdir(d) if not f.startswith("."))
            for f in sorted(random.Random(o.seed).sample(found, min(o.max_photos, len(found)))):
                os.symlink(os.path.abspath(os.path.join(d, f)), os.path.join(folder, f))
                names.append(f)
        names += make(folder, o.images - len(names), o.seed)
        names.sort(key=lambda s: s.encode())
        with open(os.path.join(tmp, "labels.txt"), "w") as f:
            f.writelines(f"{name} {i}\n" for i, name in enumerate(names))
        how = "torchvision " + tv.__version__ if tv else "torchvision's arithmetic in NumPy"
        print(f"{len(names)} images ({len(names) - sum(n.startswith('synthetic') for n in names)} photographs), "
              f"Pillow {PIL.__version__} with libjpeg-turbo {features.version('libjpeg_turbo')}, {how}")
        worst = 0.0
        for label, flags, settings in SETTINGS:
            out = os.path.join(tmp, label)
            command = [o.quantgate, "dataset", "pack", "-q", "--images", folder, "--labels", os.path.join(tmp, "labels.txt"), "--out", out]
            subprocess.run(command + (flags if "--input-size" in flags else flags + ["--input-size", "224"]), check=True, stdout=subprocess.DEVNULL)
            tensors, labels = read_batches(out, len(names))
            assert labels == list(range(len(names))), "the labels are out of order"
            largest, unequal = 0.0, []
            for name, x in zip(names, tensors):
                want = reference(os.path.join(folder, name), **settings)
                d = float(np.abs(want.astype(np.float64) - x).max()) if want.shape == x.shape else float("inf")
                largest = max(largest, d)
                if d > 1e-6:
                    unequal.append(f"{name} ({d:.3g})")
            worst = max(worst, largest)
            print(f"{label:10s} largest difference {largest:.3g}; beyond 1e-6: {len(unequal)} {' '.join(unequal[:12])}")
    if worst > 1e-6:
        sys.exit("not equal")
    print("equal to 1e-6")


if __name__ == "__main__":
    main()
