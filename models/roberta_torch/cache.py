"""Keys and values of past tokens, layer by layer, for a decoder that goes on from them.

A cache is never changed in place: every step returns a new one. It counts the real tokens of each row, so that prompts
with pads go on with the right positions.
Legend: B batch, N heads, K past tokens, E encoder tokens, D width of one head.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree


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

    def get_seq_length(self) -> int:
        """Past tokens, pads counted."""
        return self.layers[0].self_key.shape[2] if self.layers else 0

    def to_legacy_cache(self) -> tuple[tuple[Tensor, ...], ...]:
        """A tuple of tuples, as older code keeps it."""
        return tuple(self)

    def reorder(self, rows_B: Tensor) -> "KeyValueCache":
        """The cache with its batch rows picked by index."""
        layers = tuple(LayerCache(*(part.index_select(0, rows_B) for part in layer)) for layer in self)
        return KeyValueCache(layers=layers, real_tokens_B=self.real_tokens_B.index_select(0, rows_B))


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
    layers = tuple(LayerCache(*layer) for layer in past)  # type: ignore[arg-type]
    batch, _, length, _ = layers[0].self_key.shape
    if attention_mask is not None and attention_mask.dim() == 2:
        real_tokens_B = attention_mask[:, :length].to(torch.bool).sum(dim=1)
    else:
        real_tokens_B = torch.full((batch,), length, device=layers[0].self_key.device)
    return KeyValueCache(layers=layers, real_tokens_B=real_tokens_B)


def _flatten(cache: KeyValueCache) -> tuple[list[Tensor], list[int]]:
    parts = [layer.as_tuple() for layer in cache.layers]
    return [*(part for layer in parts for part in layer), cache.real_tokens_B], [len(layer) for layer in parts]


def _unflatten(values: object, sizes: list[int]) -> KeyValueCache:
    flat = iter(values)  # type: ignore[call-overload]
    layers = tuple(LayerCache(*(next(flat) for _ in range(size))) for size in sizes)
    return KeyValueCache(layers=layers, real_tokens_B=next(flat))


_pytree.register_pytree_node(
    KeyValueCache,
    _flatten,
    _unflatten,
    serialized_type_name="preln.KeyValueCache",
)
