"""Layers for training on a CPU, NHWC. Convolutions are slices and one matrix product, several times faster here than XLA's own gradients."""

import jax
import jax.numpy as jnp

BN_EPSILON = 1e-3
BN_MOMENTUM = 0.9


def windows(x, size, stride):
    """Returns the size*size shifted views of x that a convolution with padding size//2 sums over, in row order."""
    pad = size // 2
    height, width = x.shape[1], x.shape[2]
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return [
        x[:, r : r + height : stride, c : c + width : stride, :]
        for r in range(size)
        for c in range(size)
    ]


def conv(x, weight, stride=1):
    """Convolves x with weight [size, size, in, out]; padding size//2."""
    size, _, channels, filters = weight.shape
    if size == 1:
        return x[:, ::stride, ::stride, :] @ weight[0, 0]
    patches = jnp.concatenate(windows(x, size, stride), axis=-1)
    return patches @ weight.reshape(size * size * channels, filters)


def depthwise(x, weight, stride=1):
    """Convolves each channel of x with its own filter; weight is [size, size, channels]."""
    size, _, channels = weight.shape
    taps = weight.reshape(size * size, channels)
    return sum(w * t for w, t in zip(windows(x, size, stride), taps))


def max_pool(x):
    """Takes the largest of every 2x2 square; an odd last row or column is dropped."""
    n, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2, :]
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def hard_swish(x):
    """x * hard_sigmoid(x), Howard et al. 2019, "Searching for MobileNetV3"."""
    return x * jnp.clip(x / 6 + 0.5, 0, 1)


def batch_norm(x, params, stats, training):
    """Normalises per channel; returns the result and the running statistics."""
    if training:
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        stats = {
            "mean": BN_MOMENTUM * stats["mean"] + (1 - BN_MOMENTUM) * mean,
            "var": BN_MOMENTUM * stats["var"] + (1 - BN_MOMENTUM) * var,
        }
    else:
        mean, var = stats["mean"], stats["var"]
    y = (x - mean) * jax.lax.rsqrt(var + BN_EPSILON) * params["gamma"] + params["beta"]
    return y, stats


class Initializer:
    """Draws parameters in a fixed order from one seed."""

    def __init__(self, seed):
        self.key = jax.random.PRNGKey(seed)

    def weight(self, *shape, fan_in):
        """He-normal weights."""
        self.key, key = jax.random.split(self.key)
        return jax.random.normal(key, shape, jnp.float32) * (2 / fan_in) ** 0.5

    def conv(self, size, channels, filters):
        return self.weight(size, size, channels, filters, fan_in=size * size * channels)

    def depthwise(self, size, channels):
        return self.weight(size, size, channels, fan_in=size * size)

    def dense(self, channels, outputs):
        return {
            "weight": self.weight(channels, outputs, fan_in=channels),
            "bias": jnp.zeros(outputs),
        }

    @staticmethod
    def bn(channels):
        return {"gamma": jnp.ones(channels), "beta": jnp.zeros(channels)}

    @staticmethod
    def stats(channels):
        return {"mean": jnp.zeros(channels), "var": jnp.ones(channels)}
