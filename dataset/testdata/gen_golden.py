#!/usr/bin/env python3
"""Writes golden/: synthetic images, what Pillow decodes them to, and what it resizes them to.

usage: gen_golden.py        (needs numpy and Pillow; made with the versions in golden/VERSIONS)

decode-NAME.EXT   an image file
decode-NAME.png   its convert("RGB"); decode-NAME.grey.png its convert("L")
resize-IN.png     a source image
resize-IN.WxH.FILTER.png  its Image.resize((W, H), FILTER)
"""
import io
import os
import sys

import numpy as np
import PIL
from PIL import Image, features

out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
os.makedirs(out, exist_ok=True)
for name in os.listdir(out):
    os.remove(os.path.join(out, name))


def picture(w, h, seed, channels=3):
    """Smooth gradients with edges, discs and some noise, so that chroma upsampling and rounding matter."""
    r = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    planes = []
    for _ in range(channels):
        a, b, c, d = r.uniform(0.02, 0.6, 4)
        plane = 127 + 60 * np.sin(a * x + b * y) + 60 * np.cos(c * x - d * y)
        cx, cy, rad = r.uniform(0, w), r.uniform(0, h), r.uniform(1, min(w, h) / 2)
        plane[(x - cx) ** 2 + (y - cy) ** 2 < rad ** 2] = r.uniform(0, 255)
        plane += r.normal(0, 8, (h, w))
        planes.append(plane)
    a = np.clip(np.rint(np.stack(planes, -1)), 0, 255).astype(np.uint8)
    return a[:, :, 0] if channels == 1 else a


def plain(image):
    """The pixels alone, without the transparency and profiles that a PNG would keep."""
    return Image.fromarray(np.asarray(image))


def save_golden(name, ext, data):
    with open(os.path.join(out, f"decode-{name}.{ext}"), "wb") as f:
        f.write(data)
    plain(Image.open(io.BytesIO(data)).convert("RGB")).save(os.path.join(out, f"decode-{name}.golden.png"), optimize=True)
    if name in ("jpeg-420", "png-rgba", "png-palette", "jpeg-cmyk", "png-grey16"):
        plain(Image.open(io.BytesIO(data)).convert("L")).save(os.path.join(out, f"decode-{name}.grey.png"), optimize=True)


def encode(image, fmt, **kw):
    b = io.BytesIO()
    image.save(b, fmt, **kw)
    return b.getvalue()


rgb = Image.fromarray(picture(31, 27, 1))
grey = Image.fromarray(picture(31, 27, 2, 1))
rgba = Image.fromarray(picture(31, 27, 3, 4), "RGBA")
la = Image.fromarray(np.stack([picture(31, 27, 4, 1), picture(31, 27, 5, 1)], -1), "LA")
cmyk = Image.fromarray(picture(31, 27, 6, 4), "CMYK")

for sub in ("4:4:4", "4:2:2", "4:2:0"):
    save_golden("jpeg-" + sub.replace(":", ""), "jpg", encode(rgb, "JPEG", quality=88, subsampling=sub))
save_golden("jpeg-progressive", "jpg", encode(rgb, "JPEG", quality=80, progressive=True))
save_golden("jpeg-grey", "jpg", encode(grey, "JPEG", quality=90))
save_golden("jpeg-rgb", "jpg", encode(rgb, "JPEG", quality=90, keep_rgb=True))
save_golden("jpeg-restart", "jpg", encode(rgb, "JPEG", quality=85, restart_marker_blocks=3))
exif = Image.Exif()
exif[0x0112] = 6  # orientation: rotated by 90 degrees, and ignored
save_golden("jpeg-exif6", "jpg", encode(rgb, "JPEG", quality=85, exif=exif))
data = encode(cmyk, "JPEG", quality=90)
save_golden("jpeg-cmyk", "jpg", data)
i = data.index(b"Adobe") + 11  # the colour transform of the Adobe marker: 0 is CMYK, 2 is YCCK
save_golden("jpeg-ycck", "jpg", data[:i] + b"\x02" + data[i + 1:])
data = encode(rgb, "JPEG", quality=85)
save_golden("jpeg-trailing", "jpg", data + b"trailing bytes after the end marker")
save_golden("png-named", "JPEG", encode(rgb, "PNG", optimize=True))
save_golden("png-grey", "png8", encode(grey, "PNG"))
save_golden("png-rgba", "png8", encode(rgba, "PNG"))
save_golden("png-la", "png8", encode(la, "PNG"))
save_golden("png-1bit", "png8", encode(grey.convert("1"), "PNG"))
save_golden("png-palette", "png8", encode(rgb.quantize(37), "PNG"))
save_golden("png-palette-transparent", "png8", encode(rgb.quantize(16), "PNG", transparency=3))
save_golden("png-rgb-transparent", "png8", encode(rgb, "PNG", transparency=rgb.getpixel((5, 5))))
save_golden("png-grey16", "png8", encode(Image.fromarray((picture(31, 27, 7, 1).astype(np.uint16) - 60) * 3), "PNG"))


def png16(samples, colour_type):
    """A 16-bit PNG of several channels, which Pillow reads and does not write."""
    import struct
    import zlib
    h, w = samples.shape[:2]
    raw = b"".join(b"\0" + samples[y].astype(">u2").tobytes() for y in range(h))

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, colour_type, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


wide = np.random.default_rng(8).integers(0, 65536, (9, 11, 4))
save_golden("png-rgb16", "png8", png16(wide[:, :, :3], 2))
save_golden("png-rgba16", "png8", png16(wide, 6))
save_golden("png-la16", "png8", png16(wide[:, :, :2], 4))
save_golden("gif", "gif", encode(rgb.quantize(64), "GIF"))
save_golden("bmp", "bmp", encode(rgb, "BMP"))
save_golden("bmp-grey", "bmp", encode(grey, "BMP"))
save_golden("tiff", "tif", encode(rgb, "TIFF", compression="tiff_lzw"))
save_golden("tiff-grey", "tif", encode(grey, "TIFF"))
save_golden("webp-lossless", "webp", encode(rgb, "WEBP", lossless=True))
save_golden("webp-alpha", "webp", encode(rgba, "WEBP", lossless=True, exact=True))
save_golden("webp-lossy", "webp", encode(rgb, "WEBP", quality=85))

filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
cases = [
    (61, 43, 3, [(32, 22), (45, 32), (61, 20), (30, 43), (100, 70), (7, 5)]),
    (17, 50, 3, [(16, 47), (40, 117), (16, 50), (17, 16)]),
    (40, 40, 1, [(28, 28), (39, 39), (64, 64), (3, 3)]),
    (5, 3, 3, [(32, 19), (1, 1)]),
    (24, 70, 3, [(16, 46), (20, 62), (20, 61), (30, 40)]),  # tall: Pillow 13 resizes the columns first, at 20 x 62 just not
]
for i, (w, h, channels, sizes) in enumerate(cases):
    a = picture(w, h, 20 + i, channels)
    if i == 1:  # full contrast, so that bicubic overshoots and is clipped
        a = np.where(a > 127, 255, 0).astype(np.uint8)
    image = Image.fromarray(a)
    name = f"resize-{w}x{h}"
    image.save(os.path.join(out, name + ".png"), optimize=True)
    for size in sizes:
        for label, f in filters.items():
            image.resize(size, f).save(os.path.join(out, f"{name}.{size[0]}x{size[1]}.{label}.png"), optimize=True)

with open(os.path.join(out, "VERSIONS"), "w") as f:
    f.write(f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, libwebp {features.version('webp')}\n")
print(len(os.listdir(out)), "files,", sum(os.path.getsize(os.path.join(out, n)) for n in os.listdir(out)), "bytes", file=sys.stderr)
