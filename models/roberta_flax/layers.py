"""A config in, flax.linen's own layers with this model's settings out.

In torch these are nn.Linear, nn.LayerNorm and nn.Embedding with their defaults; here each needs its type and its start.
Legend: H hidden size.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.config import RobertaPreLayerNormConfig

# jax.Array, or a NumPy array or a tracer in its place.
Array: TypeAlias = Any


def linear(config: RobertaPreLayerNormConfig, features: int, dtype: Any) -> nn.Dense:
    """[…, in] -> […, features]; parameters `kernel` [in, features] and `bias`."""
    return nn.Dense(features, dtype=dtype, kernel_init=nn.initializers.normal(config.initializer_range))


def layer_norm(config: RobertaPreLayerNormConfig, dtype: Any) -> nn.LayerNorm:
    """Over the last axis, in float32 inside. The variance takes two passes: E[x²] - E[x]² loses digits (B9)."""
    return nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False)


def embedding(
    config: RobertaPreLayerNormConfig, rows: int, width: int, dtype: Any, *, padding_index: int | None = None
) -> nn.Embed:
    """ids -> [rows, width] table rows; the row of padding_index begins as zeros."""

    def start(key: Array, shape: tuple[int, ...], param_dtype: Any = jnp.float32, **_: Any) -> Array:
        table = jax.random.normal(key, shape, param_dtype) * config.initializer_range
        return table if padding_index is None else table.at[padding_index].set(0.0)

    return nn.Embed(rows, width, dtype=dtype, embedding_init=start)


def readable(values: Any) -> bool:
    """Whether Python may look at the values: not while tracing for jit, grad or vmap."""
    return not isinstance(values, jax.core.Tracer)
