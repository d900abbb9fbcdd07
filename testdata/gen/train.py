"""Trains the three classifiers on Fashion-MNIST's training images 40,000..59,999 and writes ../models/NAME.onnx.

usage: train.py [NAME...]
"""

import functools
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import optax

import fashion
import models

OUT = pathlib.Path(__file__).parent.parent / "models"
SHIFT = 2  # pixels
SMOOTHING = 0.05


@jax.jit
def augment(images, key):
    """Shifts every image by up to SHIFT pixels either way and mirrors every second one, at random."""
    n = len(images)
    shift_key, flip_key = jax.random.split(key)
    shifts = jax.random.randint(shift_key, (n, 2), 0, 2 * SHIFT + 1)
    flips = jax.random.bernoulli(flip_key, 0.5, (n, 1, 1, 1))
    padded = jnp.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    shifted = jax.vmap(lambda x, s: jax.lax.dynamic_slice(x, (s[0], s[1], 0), (28, 28, 1)))(padded, shifts)
    return jnp.where(flips, shifted[:, :, ::-1], shifted)


def train(model, images, labels):
    """Returns the parameters and running statistics after model.epochs epochs."""
    params, stats = model.init()
    steps = len(images) // model.batch
    schedule = optax.warmup_cosine_decay_schedule(0, model.rate, steps, model.epochs * steps)
    # Only weights decay: not biases, gamma and beta.
    mask = functools.partial(jax.tree.map, lambda p: p.ndim > 1)
    optimizer = optax.adamw(schedule, weight_decay=model.decay, mask=mask)
    state = optimizer.init(params)

    def loss(params, stats, x, y):
        logits, stats = model.apply(params, stats, x, True)
        target = optax.smooth_labels(jax.nn.one_hot(y, models.CLASSES), SMOOTHING)
        return optax.softmax_cross_entropy(logits, target).mean(), stats

    @jax.jit
    def step(params, stats, state, x, y):
        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params, stats, x, y)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), stats, state, value

    order = np.random.default_rng(model.seed)
    key = jax.random.PRNGKey(1000 + model.seed)
    start = time.monotonic()
    for epoch in range(model.epochs):
        total = 0.0
        ids = order.permutation(len(images))
        for i in range(steps):
            batch = ids[i * model.batch : (i + 1) * model.batch]
            key, draw = jax.random.split(key)
            x = augment(images[batch], draw)
            params, stats, state, value = step(params, stats, state, x, labels[batch])
            total += float(value)
        print(f"{model.name} epoch {epoch + 1}/{model.epochs} loss {total / steps:.4f} {time.monotonic() - start:.0f} s", flush=True)
    return params, stats


def main():
    names = sys.argv[1:]
    unknown = set(names) - {m.name for m in models.ALL}
    if unknown:
        sys.exit(f"no such model: {', '.join(sorted(unknown))}")
    images, labels = fashion.training()
    images = fashion.unit(images)[..., None]
    OUT.mkdir(exist_ok=True)
    for kind in models.ALL:
        if names and kind.name not in names:
            continue
        model = kind()
        path = OUT / f"{model.name}.onnx"
        onnx.save(model.build(*train(model, images, labels)), path)
        print(f"wrote {path.name}, {path.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
