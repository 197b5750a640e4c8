"""A built model in, the same model with other rows in its word table or fewer heads out.

Legend: V vocabulary, H hidden size.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from models.config import RobertaPreLayerNormConfig
from models.roberta_tf.encoder import TFRobertaPreLayerNormEncoder
from models.roberta_tf.heads import TFRobertaPreLayerNormLMHead
from models.roberta_tf.layers import Embedding
from models.roberta_tf.weights import resized


def resize_embedding(old: Embedding, *, rows: int, config: RobertaPreLayerNormConfig, mean: bool) -> None:
    """Give the table `rows` rows: the old ones first, further ones at their mean or from N(0, initializer_range)."""
    weight_VH = resized(np.asarray(old.weight.value), rows=rows, std=config.initializer_range, mean=mean)
    old.replace(name="weight", values=weight_VH)


def resize_language_head(
    lm_head: TFRobertaPreLayerNormLMHead, *, rows: int, config: RobertaPreLayerNormConfig, mean: bool
) -> None:
    """Grow or cut the decoder and its bias; a tied decoder's weight is tied again by the caller.

    The bias of new words is 0, and the mean of the old with mean in an untied decoder, as in the reference.
    """
    tied = lm_head.decoder.tied
    if not tied:
        weight = np.asarray(lm_head.decoder.weight.value)
        weight_VH = resized(weight, rows=rows, std=config.initializer_range, mean=mean)
        lm_head.decoder.replace(name="weight", values=weight_VH)
    bias_V = resized(np.asarray(lm_head.bias.value), rows=rows, std=0.0, mean=mean and not tied)
    lm_head.replace(name="bias", values=bias_V)


def prune(
    encoder: TFRobertaPreLayerNormEncoder,
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
        gone = set(config.pruned_heads.get(index, ()))
        present = [head for head in range(config.num_attention_heads) if head not in gone]
        kept = [place for place, head in enumerate(present) if head not in set(heads)]
        if not kept:
            raise ValueError(f"prune_heads: layer {index} would keep no head; leave it at least one")
        layer.attention.prune_heads(kept)
        config.pruned_heads = {**config.pruned_heads, index: sorted(gone | set(heads))}
