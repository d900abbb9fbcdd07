#!/usr/bin/env python3
"""Writes the first 300 test images of Fashion-MNIST, and their labels, as testdata/fashion300: what the tests of the verbs run on.

usage: sample.py [FOLDER_OF_DEBIANS_dataset-fashion-mnist]
Fashion-MNIST is (c) Zalando SE, MIT licence.
"""
import gzip
import pathlib
import struct
import sys

COUNT = 300
source = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
out = pathlib.Path(__file__).resolve().parent.parent / "fashion300"
out.mkdir(exist_ok=True)
for name, header, width in (("t10k-images-idx3-ubyte", 16, 28 * 28), ("t10k-labels-idx1-ubyte", 8, 1)):
    data = gzip.decompress((source / (name + ".gz")).read_bytes())
    part = data[:4] + struct.pack(">i", COUNT) + data[8:header] + data[header:header + COUNT * width]
    with gzip.GzipFile(out / (name + ".gz"), "wb", mtime=0, compresslevel=9) as f:
        f.write(part)
