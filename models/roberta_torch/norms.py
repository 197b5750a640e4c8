"""A config in, the LayerNorms out where its family has them: the one place that knows where a norm stands.

Legend: S any leading axes, H hidden size.
"""

from torch import Tensor, nn

from models.config import RobertaPreLayerNormConfig


class SubLayerNorm(nn.LayerNorm):
    """The norm of a sub-layer f: x + f(LN(x)), or LN(x + f(x)) in a post-norm family."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__(config.hidden_size, eps=config.layer_norm_eps)
        self.before = config.family.norm == "pre"

    def enter(self, hidden_SH: Tensor) -> Tensor:
        """What the sub-layer reads, [S, H] -> [S, H]."""
        return self(hidden_SH) if self.before else hidden_SH

    def leave(self, hidden_SH: Tensor) -> Tensor:
        """The sub-layer's output, residual added, [S, H] -> [S, H]."""
        return hidden_SH if self.before else self(hidden_SH)


def embeddings_norm(config: RobertaPreLayerNormConfig) -> nn.Module:
    """The norm on the sum of the embeddings, nothing where the family has none."""
    return _norm(config, wanted=config.family.embeddings_norm)


def final_norm(config: RobertaPreLayerNormConfig) -> nn.Module:
    """The norm after the last layer, nothing where the family has none."""
    return _norm(config, wanted=config.family.final_norm)


def _norm(config: RobertaPreLayerNormConfig, *, wanted: bool) -> nn.Module:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if wanted else nn.Identity()
