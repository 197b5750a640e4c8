"""Measures a framework's plain matrix products at the model's sizes: the peak that its forward pass is compared to."""

from collections.abc import Callable
from typing import Any

import numpy as np

PEAK_TOKENS = {"cpu": 2_048, "cuda": 16_384}
"""Rows of the products: as many as the forward has."""


def products(*, framework: str, dtype: str, width: int, device: str) -> tuple[Callable[[], None], float]:
    """(one pass over the four products of a layer, its floating-point operations)."""
    tokens = PEAK_TOKENS[device]
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    operations = sum(2.0 * tokens * rows * columns for rows, columns in shapes)
    rng = np.random.default_rng(0)
    pairs = [
        (rng.standard_normal((tokens, rows), np.float32), rng.standard_normal((rows, columns), np.float32))
        for rows, columns in shapes
    ]
    if framework == "torch":
        return _torch(pairs, dtype, device), operations
    return {"flax": _flax, "tensorflow": _tensorflow}[framework](pairs, dtype), operations


def _torch(pairs: Any, dtype: str, device: str) -> Callable[[], None]:
    import torch

    kind = getattr(torch, dtype)
    # Weights lie as a linear layer has them.
    made = [(torch.tensor(x).to(device, kind), torch.tensor(w.T.copy()).to(device, kind)) for x, w in pairs]

    def once() -> None:
        with torch.inference_mode():
            for x, w in made:
                torch.nn.functional.linear(x, w)
            if device == "cuda":
                torch.cuda.synchronize()

    return once


def _flax(pairs: Any, dtype: str) -> Callable[[], None]:
    import jax
    import jax.numpy as jnp

    made = [(jnp.asarray(x, dtype), jnp.asarray(w, dtype)) for x, w in pairs]
    product = jax.jit(lambda x, w: x @ w)

    def once() -> None:
        for x, w in made:
            product(x, w).block_until_ready()

    return once


def _tensorflow(pairs: Any, dtype: str) -> Callable[[], None]:
    import tensorflow as tf

    made = [(tf.cast(x, dtype), tf.cast(w, dtype)) for x, w in pairs]
    product = tf.function(tf.matmul)

    def once() -> None:
        for x, w in made:
            product(x, w)

    return once
