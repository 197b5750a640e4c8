"""A model's parameters in, the same with other rows in the word table or fewer heads out.

Legend: V vocabulary, H hidden size.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from models.config import RobertaPreLayerNormConfig
from models.roberta_flax.layers import Array
from models.roberta_flax.weights import Params, param_path
from models.tensors import HEAD_AXIS, PREFIX

WORDS = PREFIX + "embeddings.word_embeddings.weight"


# What the reference spreads the rows that it starts at the mean by, of the old rows' own covariance.
MEAN_SPREAD = 1e-9


def resized(old: Array, *, rows: int, std: float, key: Array, mean: bool) -> Array:
    """The first `rows` rows, further ones at the old ones' mean, or from N(0, std) (zeros for std 0)."""
    kept = min(rows, old.shape[0])
    if mean:
        new = around_mean(old, rows=rows - kept, key=key).astype(old.dtype)
    else:
        new = jax.random.normal(key, (rows - kept, *old.shape[1:]), old.dtype) * std
    return jnp.concatenate((old[:kept], new), axis=0)


def around_mean(old: Array, *, rows: int, key: Array) -> Array:
    """[rows, …] samples of the old rows' mean and MEAN_SPREAD of their covariance, row by row: the old table may be large."""
    exact = old.astype(jnp.float32)
    centre = exact.mean(axis=0)
    deviations = exact - centre
    scale = (MEAN_SPREAD / old.shape[0]) ** 0.5
    keys = [jax.random.fold_in(key, row) for row in range(rows)]
    samples = [centre + scale * (jax.random.normal(key, (old.shape[0],)) @ deviations) for key in keys]
    return jnp.stack(samples) if samples else exact[:0]


def resize_vocabulary(
    params: Params, *, rows: int, bare: bool, config: RobertaPreLayerNormConfig, key: Array, mean: bool
) -> Params:
    """Grow or cut the word table, and a language model's bias and untied decoder.

    The bias of new words is 0, and the mean of the old with mean in an untied decoder, as in the reference.
    """
    flat = flatten_dict(params)
    words = param_path(WORDS, bare=bare)
    std = config.initializer_range
    flat[words] = resized(flat[words], rows=rows, std=std, key=key, mean=mean)
    untied = ("lm_head", "decoder", "kernel") in flat
    if ("lm_head", "bias") in flat:
        flat["lm_head", "bias"] = resized(flat["lm_head", "bias"], rows=rows, std=0.0, key=key, mean=mean and untied)
    if untied:
        decoder_VH = flat["lm_head", "decoder", "kernel"].T
        flat["lm_head", "decoder", "kernel"] = resized(decoder_VH, rows=rows, std=std, key=key, mean=mean).T
    tree: Params = unflatten_dict(flat)
    return tree


def prune(
    params: Params,
    *,
    heads_to_prune: Mapping[int, Sequence[int]],
    bare: bool,
    config: RobertaPreLayerNormConfig,
) -> Params:
    """Cut heads, numbered as in the unpruned model, out of self-attention; config.pruned_heads remembers them all."""
    flat = flatten_dict(params)
    for index, heads in heads_to_prune.items():
        if not 0 <= index < config.num_hidden_layers or not set(heads) <= set(range(config.num_attention_heads)):
            raise ValueError(
                f"prune_heads: layer {index} with heads {sorted(heads)}; the model has "
                f"{config.num_hidden_layers} layers of {config.num_attention_heads} heads"
            )
        gone = set(config.pruned_heads.get(index, ()))
        present = [head for head in range(config.num_attention_heads) if head not in gone]
        kept = [place for place, head in enumerate(present) if head not in set(heads)]
        if not kept:
            raise ValueError(f"prune_heads: layer {index} would keep no head; leave it at least one")
        _prune_layer(flat, layer=f"{PREFIX}encoder.layer.{index}.attention.", kept=kept, bare=bare, config=config)
        config.pruned_heads = {**config.pruned_heads, index: sorted(gone | set(heads))}
    tree: Params = unflatten_dict(flat)
    return tree


def _prune_layer(
    flat: dict[tuple[str, ...], Array], *, layer: str, kept: list[int], bare: bool, config: RobertaPreLayerNormConfig
) -> None:
    width = config.head_size
    rows_A = np.array([head * width + i for head in kept for i in range(width)], dtype=np.int32)
    for name, axis in HEAD_AXIS.items():
        kernel = param_path(f"{layer}{name}.weight", bare=bare)
        # The table's axis is torch's; a kernel lies transposed.
        flat[kernel] = jnp.take(flat[kernel], rows_A, axis=1 - axis)
        if axis == 0:
            bias = param_path(f"{layer}{name}.bias", bare=bare)
            flat[bias] = jnp.take(flat[bias], rows_A, axis=0)
