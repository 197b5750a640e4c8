"""Final hidden states in, logits out: the small networks on top of the encoder.

Each takes any leading axes: padded [B, S, H] as well as gathered [G, H]. Legend: H hidden size, V vocabulary, L labels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import RobertaPreLayerNormConfig


class RobertaPreLayerNormPooler(nn.Module):
    """tanh(W·h) of each sequence's first token."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first_BH: Tensor) -> Tensor:
        """[B, H] -> [B, H]."""
        return torch.tanh(self.dense(first_BH))


class RobertaPreLayerNormLMHead(nn.Module):
    """dense, exact GELU whatever hidden_act says, LayerNorm, decoder; `bias` and `decoder.bias` are one tensor."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = self.decoder.bias

    def forward(self, hidden_BSH: Tensor) -> Tensor:
        """[…, H] -> […, V]."""
        logits_BSV: Tensor = self.decoder(self.layer_norm(functional.gelu(self.dense(hidden_BSH))))
        return logits_BSV


class RobertaPreLayerNormClassificationHead(nn.Module):
    """dropout, dense, tanh, dropout, out_proj on each sequence's first token."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, first_BH: Tensor) -> Tensor:
        """[B, H] -> [B, L]."""
        hidden_BH = torch.tanh(self.dense(self.dropout(first_BH)))
        logits_BL: Tensor = self.out_proj(self.dropout(hidden_BH))
        return logits_BL


def classifier_dropout(config: RobertaPreLayerNormConfig) -> float:
    """classifier_dropout, or hidden_dropout_prob where that is None."""
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
