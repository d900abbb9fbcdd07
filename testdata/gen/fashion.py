"""Fashion-MNIST as the models see it: the training images 40,000..59,999 and the 50,000 validation images that they never see."""

import gzip
import os
import struct

import numpy as np

TRAIN_FROM = 40_000  # training images before this one are validation images
SOURCE = os.environ.get("QUANTGATE_FASHION_MNIST", "/usr/share/datasets/fashion-mnist")


def read_idx(path):
    """Returns the uint8 array of an IDX file, gzipped or not."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rb") as f:
        data = f.read()
    kind, rank = struct.unpack(">HBB", data[:4])[1:]
    if kind != 8:
        raise ValueError(f"{path}: element type {kind}, want 8 (unsigned byte)")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def source(split):
    """Returns images [N,28,28] and labels [N] of the split "train" or "t10k" as distributed."""
    images = read_idx(f"{SOURCE}/{split}-images-idx3-ubyte.gz")
    labels = read_idx(f"{SOURCE}/{split}-labels-idx1-ubyte.gz")
    if len(images) != len(labels):
        raise ValueError(f"{split}: {len(images)} images, {len(labels)} labels")
    return images, labels


def training():
    """Returns the 20,000 images and labels that the models are trained on."""
    images, labels = source("train")
    return images[TRAIN_FROM:], labels[TRAIN_FROM:]


def validation():
    """Returns the 50,000 validation images and labels: the test images, then training images 0..39,999."""
    test, train = source("t10k"), source("train")
    return tuple(np.concatenate([a, b[:TRAIN_FROM]]) for a, b in zip(test, train))


def unit(images):
    """Scales bytes to 0..1 as --preset unit does."""
    return images.astype(np.float32) / np.float32(255)
