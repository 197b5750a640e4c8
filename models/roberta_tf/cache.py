"""Keys and values of past tokens, layer by layer, for a decoder that goes on from them.

A cache is never changed in place: every step returns a new one. It counts the real tokens of each row, so that prompts
with pads go on with the right positions.
Legend: B batch, N heads, K past tokens, E encoder tokens, D width of one head.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow import Tensor

from models.roberta_tf.layers import sizes


@dataclass(frozen=True, eq=False)
class LayerCache:
    """One layer: self_key, self_value [B, N, K, D]; cross_key, cross_value [B, N, E, D] or None."""

    self_key: Tensor
    self_value: Tensor
    cross_key: Tensor | None = None
    cross_value: Tensor | None = None

    def cross(self) -> tuple[Tensor, Tensor] | None:
        """Keys and values of the encoder's states, None without cross-attention."""
        return None if self.cross_key is None or self.cross_value is None else (self.cross_key, self.cross_value)

    def as_tuple(self) -> tuple[Tensor, ...]:
        """(self_key, self_value), and the cross ones where there are any."""
        return (self.self_key, self.self_value, *(self.cross() or ()))


@dataclass(frozen=True, eq=False)
class KeyValueCache:
    """All layers; `cache[i]` is the layer's tuple, `len(cache)` the number of layers.

    real_tokens_B: how many of the past tokens of each row are not `<pad>`.
    """

    layers: tuple[LayerCache, ...]
    real_tokens_B: Tensor

    def __getitem__(self, layer: int) -> tuple[Tensor, ...]:
        return self.layers[layer].as_tuple()

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return (layer.as_tuple() for layer in self.layers)

    def get_seq_length(self) -> Any:
        """Past tokens, pads counted."""
        return sizes(self.layers[0].self_key)[2] if self.layers else 0

    def to_legacy_cache(self) -> tuple[tuple[Tensor, ...], ...]:
        """A tuple of tuples, as older code keeps it."""
        return tuple(self)

    def reorder(self, rows_B: Tensor) -> "KeyValueCache":
        """The cache with its batch rows picked by index."""
        layers = tuple(LayerCache(*(tf.gather(part, rows_B) for part in layer)) for layer in self)
        return KeyValueCache(layers=layers, real_tokens_B=tf.gather(self.real_tokens_B, rows_B))

    def __tf_flatten__(self) -> tuple[tuple[int, ...], tuple[Tensor, ...]]:
        return flatten_cache(self)

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple[int, ...], components: Sequence[Tensor]) -> "KeyValueCache":
        return unflatten_cache(metadata, components)


def as_cache(past: KeyValueCache | Sequence[Sequence[Tensor | None]], attention_mask: Tensor | None) -> KeyValueCache:
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
    batch, _, length, _ = sizes(layers[0].self_key)
    if attention_mask is not None and len(attention_mask.shape) == 2:
        real_tokens_B = tf.math.count_nonzero(attention_mask[:, :length], axis=1, dtype=tf.int32)
    else:
        real_tokens_B = tf.fill((batch,), length)
    return KeyValueCache(layers=layers, real_tokens_B=real_tokens_B)


def flatten_cache(cache: KeyValueCache) -> tuple[tuple[int, ...], tuple[Tensor, ...]]:
    """(tensors of each layer, all tensors): how tf.nest and Keras take a cache apart."""
    parts = [layer.as_tuple() for layer in cache.layers]
    return tuple(len(layer) for layer in parts), (*(part for layer in parts for part in layer), cache.real_tokens_B)


def unflatten_cache(layer_sizes: tuple[int, ...], values: Sequence[Tensor]) -> KeyValueCache:
    """A cache from what `flatten_cache` gave."""
    flat = iter(values)
    layers = tuple(LayerCache(*(next(flat) for _ in range(size))) for size in layer_sizes)
    return KeyValueCache(layers=layers, real_tokens_B=next(flat))
