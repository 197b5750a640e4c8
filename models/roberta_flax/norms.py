"""A config in, the LayerNorms out where its family has them: the one place that knows where a norm stands.

Legend: S any leading axes, H hidden size.
"""

from collections.abc import Callable
from typing import Any

from models.config import RobertaPreLayerNormConfig
from models.roberta_flax.layers import Array, LayerNorm, layer_norm


class SubLayerNorm(LayerNorm):
    """The norm of a sub-layer f: x + f(LN(x)), or LN(x + f(x)) in a post-norm family."""

    before: bool = True

    def enter(self, hidden_SH: Array) -> Array:
        """What the sub-layer reads, [S, H] -> [S, H]."""
        return self(hidden_SH) if self.before else hidden_SH

    def leave(self, hidden_SH: Array) -> Array:
        """The sub-layer's output, residual added, [S, H] -> [S, H]."""
        return hidden_SH if self.before else self(hidden_SH)


def sub_layer_norm(config: RobertaPreLayerNormConfig, dtype: Any) -> SubLayerNorm:
    """The norm of a sub-layer of this config."""
    return SubLayerNorm(epsilon=config.layer_norm_eps, dtype=dtype, before=config.family.norm == "pre")


def embeddings_norm(config: RobertaPreLayerNormConfig, dtype: Any) -> Callable[[Array], Array]:
    """The norm on the sum of the embeddings, nothing where the family has none."""
    return layer_norm(config, dtype) if config.family.embeddings_norm else _no_norm


def final_norm(config: RobertaPreLayerNormConfig, dtype: Any) -> Callable[[Array], Array]:
    """The norm after the last layer, nothing where the family has none."""
    return layer_norm(config, dtype) if config.family.final_norm else _no_norm


def _no_norm(hidden_SH: Array) -> Array:
    return hidden_SH
