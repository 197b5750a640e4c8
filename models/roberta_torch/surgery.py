"""A built model in, the same model with other rows in its word table or fewer heads out.

Legend: V vocabulary, H hidden size.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.config import RobertaPreLayerNormConfig
from models.roberta_torch.encoder import RobertaPreLayerNormEncoder, RobertaPreLayerNormLayer

# What the reference spreads the rows that it starts at the mean by, of the old rows' own covariance.
MEAN_SPREAD = 1e-9


def resized_embedding(old: nn.Embedding, *, rows: int, config: RobertaPreLayerNormConfig, mean: bool) -> nn.Embedding:
    """A table of `rows` rows: the old ones first, further ones at their mean or from N(0, initializer_range)."""
    new = nn.Embedding(rows, old.embedding_dim, padding_idx=old.padding_idx, device="meta")
    weight_VH = resized(old.weight, rows=rows, std=config.initializer_range, mean=mean)
    new.weight = nn.Parameter(weight_VH, requires_grad=old.weight.requires_grad)
    return new


def resized(old: Tensor, *, rows: int, std: float, mean: bool) -> Tensor:
    """The first `rows` rows, further ones at the old ones' mean, or from N(0, std) (zeros for std 0)."""
    new = torch.empty(rows, *old.shape[1:], dtype=old.dtype, device=old.device).normal_(std=std)
    kept = min(rows, old.shape[0])
    new[:kept] = old.detach()[:kept]
    if mean:
        new[kept:] = around_mean(old, rows=rows - kept).to(old.dtype)
    return new


def around_mean(old: Tensor, *, rows: int) -> Tensor:
    """[rows, …] samples of the old rows' mean and MEAN_SPREAD of their covariance, row by row: the old table may be large."""
    exact = old.detach().float()
    centre = exact.mean(dim=0)
    deviations = exact - centre
    scale = (MEAN_SPREAD / len(old)) ** 0.5
    samples = [centre + scale * (torch.randn(len(old), device=old.device) @ deviations) for _ in range(rows)]
    return torch.stack(samples) if samples else exact[:0]


def resize_language_head(lm_head: nn.Module, *, rows: int, config: RobertaPreLayerNormConfig, mean: bool) -> None:
    """Grow or cut the decoder and its bias; a tied decoder's weight is tied again by the caller.

    The bias of new words is 0, and the mean of the old with mean in an untied decoder, as in the reference.
    """
    decoder = lm_head.get_submodule("decoder")
    assert isinstance(decoder, nn.Linear)
    tied = config.tie_word_embeddings
    decoder.weight = nn.Parameter(
        resized(decoder.weight, rows=rows, std=config.initializer_range, mean=mean and not tied)
    )
    decoder.bias = nn.Parameter(resized(decoder.bias, rows=rows, std=0.0, mean=mean and not tied))
    decoder.out_features = rows
    lm_head.bias = decoder.bias


def prune(
    encoder: RobertaPreLayerNormEncoder,
    *,
    heads_to_prune: Mapping[int, Sequence[int]],
    config: RobertaPreLayerNormConfig,
) -> None:
    """Cut heads, numbered as in the unpruned model, out of self-attention; config.pruned_heads remembers them all."""
    for index, heads in heads_to_prune.items():
        if not 0 <= index < config.num_hidden_layers or not set(heads) <= set(range(config.num_attention_heads)):
            raise ValueError(
                f"prune_heads: layer {index} with heads {sorted(heads)}; the model has "
                f"{config.num_hidden_layers} layers of {config.num_attention_heads} heads"
            )
        layer = encoder.layer[index]
        assert isinstance(layer, RobertaPreLayerNormLayer)
        gone = set(config.pruned_heads.get(index, ()))
        present = [head for head in range(config.num_attention_heads) if head not in gone]
        kept = [place for place, head in enumerate(present) if head not in set(heads)]
        if not kept:
            raise ValueError(f"prune_heads: layer {index} would keep no head; leave it at least one")
        layer.attention.prune_heads(kept)
        config.pruned_heads = {**config.pruned_heads, index: sorted(gone | set(heads))}
