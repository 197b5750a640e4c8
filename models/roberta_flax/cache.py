"""Keys and values of past tokens, layer by layer, for a decoder that goes on from them.

A cache is never changed in place: every step returns a new one. It counts the real tokens of each row, so that prompts
with pads go on with the right positions. It grows by concatenation, or, made by `init_cache`, has slots for all tokens
from the start, so that every step has the same shapes and one compilation serves all.
Legend: B batch, N heads, K past tokens or slots, E encoder tokens, D width of one head, S new tokens.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from models.config import RobertaPreLayerNormConfig
from models.roberta_flax.layers import Array


@struct.dataclass
class LayerCache:
    """One layer: self_key, self_value [B, N, K, D]; cross_key, cross_value [B, N, E, D] or None."""

    self_key: Array
    self_value: Array
    cross_key: Array | None = None
    cross_value: Array | None = None

    def cross(self) -> tuple[Array, Array] | None:
        """Keys and values of the encoder's states, None without cross-attention."""
        return None if self.cross_key is None or self.cross_value is None else (self.cross_key, self.cross_value)

    def as_tuple(self) -> tuple[Array, ...]:
        """(self_key, self_value), and the cross ones where there are any."""
        return (self.self_key, self.self_value, *(self.cross() or ()))


@struct.dataclass
class KeyValueCache:
    """All layers; `cache[i]` is the layer's tuple, `len(cache)` the number of layers. A pytree.

    real_tokens_B: how many of the past tokens of each row are not `<pad>`.
    filled: None where every slot holds a past token, else how many of the first slots do.
    """

    layers: tuple[LayerCache, ...]
    real_tokens_B: Array
    filled: Array | None = None

    def __getitem__(self, layer: int) -> tuple[Array, ...]:
        return self.layers[layer].as_tuple()

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[tuple[Array, ...]]:
        return (layer.as_tuple() for layer in self.layers)

    def get_seq_length(self) -> Array:
        """Past tokens, pads counted."""
        if self.filled is not None:
            return self.filled
        return self.layers[0].self_key.shape[2] if self.layers else 0

    def to_legacy_cache(self) -> tuple[tuple[Array, ...], ...]:
        """A tuple of tuples, as older code keeps it."""
        return tuple(self)

    def reorder(self, rows_B: Array) -> "KeyValueCache":
        """The cache with its batch rows picked by index."""
        layers = tuple(LayerCache(*(jnp.take(part, rows_B, axis=0) for part in layer)) for layer in self)
        return KeyValueCache(
            layers=layers, real_tokens_B=jnp.take(self.real_tokens_B, rows_B, axis=0), filled=self.filled
        )


def empty_cache(config: RobertaPreLayerNormConfig, *, batch: int, slots: int, dtype: Any) -> KeyValueCache:
    """A cache of that many empty slots. Raises ValueError for none, or for more than relative positions reach."""
    # Pads take slots but no absolute positions, so only distances limit the slots.
    if slots < 1 or (config.position_embedding_type != "absolute" and slots > config.max_tokens):
        raise ValueError(f"max_length is {slots}; it must be at least 1 and at most {config.max_tokens}")

    def layer_cache(layer: int) -> LayerCache:
        heads = config.num_attention_heads - len(config.pruned_heads.get(layer, ()))
        zeros_BNKD = jnp.zeros((batch, heads, slots, config.head_size), dtype)
        return LayerCache(self_key=zeros_BNKD, self_value=zeros_BNKD)

    return KeyValueCache(
        layers=tuple(layer_cache(layer) for layer in range(config.num_hidden_layers)),
        real_tokens_B=jnp.zeros((batch,), jnp.int32),
        filled=jnp.zeros((), jnp.int32),
    )


def append(past_BNKD: Array, new_BNSD: Array, filled: Array | None) -> Array:
    """New tokens behind the past ones: as more of them, or in the first free slots."""
    if filled is None:
        return jnp.concatenate((past_BNKD, new_BNSD), axis=2)
    return jax.lax.dynamic_update_slice_in_dim(past_BNKD, new_BNSD.astype(past_BNKD.dtype), filled, axis=2)


def as_cache(past: KeyValueCache | Sequence[Sequence[Array | None]], attention_mask: Array | None) -> KeyValueCache:
    """A cache as it is, or one made of a tuple per layer: (k, v) or (k, v, cross k, cross v), Nones allowed.

    Tuples don't say which past tokens were pads: a [B, K] attention mask is asked, else all count as real.
    """
    if isinstance(past, KeyValueCache):
        return past
    warnings.warn(
        "past_key_values is a tuple of tuples, which does not say which tokens were pads; "
        "pass the cache that the model returned",
        stacklevel=2,
    )
    layers = tuple(LayerCache(*layer) for layer in past)
    batch, _, length, _ = layers[0].self_key.shape
    if attention_mask is not None and attention_mask.ndim == 2:
        real_tokens_B = attention_mask[:, :length].astype(bool).sum(axis=1)
    else:
        real_tokens_B = jnp.full((batch,), length)
    return KeyValueCache(layers=layers, real_tokens_B=real_tokens_B)
