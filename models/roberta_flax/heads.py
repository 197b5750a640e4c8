"""Final hidden states in, logits out: the small networks on top of the encoder.

Each takes any leading axes: padded [B, S, H] as well as gathered [G, H]. Legend: H hidden size, V vocabulary, L labels.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from models.config import RobertaPreLayerNormConfig
from models.roberta_flax.activations import gelu
from models.roberta_flax.layers import Array, Dropout, layer_norm, linear


class FlaxRobertaPreLayerNormPooler(nn.Module):
    """tanh(W·h) of each sequence's first token."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.dense = linear(self.config, self.config.hidden_size, self.dtype)

    def __call__(self, first_BH: Array) -> Array:
        """[B, H] -> [B, H]."""
        return jnp.tanh(self.dense(first_BH))


class FlaxRobertaPreLayerNormLMHead(nn.Module):
    """dense, exact GELU whatever hidden_act says, LayerNorm, decoder; the decoder's bias is `bias`."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        self.dense = linear(config, config.hidden_size, self.dtype)
        self.layer_norm = layer_norm(config, self.dtype)
        if not config.tie_word_embeddings:
            kernel_init = nn.initializers.normal(config.initializer_range)
            self.decoder = nn.Dense(config.vocab_size, use_bias=False, dtype=self.dtype, kernel_init=kernel_init)
        self.bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,))

    def __call__(self, hidden_BSH: Array, words_VH: Array) -> Array:
        """[…, H] -> […, V]. words_VH: the word table, which is the decoder's weight if tied."""
        hidden_BSH = self.layer_norm(gelu(self.dense(hidden_BSH)))
        tied = self.config.tie_word_embeddings
        logits_BSV = hidden_BSH @ words_VH.astype(self.dtype).T if tied else self.decoder(hidden_BSH)
        return logits_BSV + self.bias.astype(self.dtype)


class FlaxRobertaPreLayerNormClassificationHead(nn.Module):
    """dropout, dense, tanh, dropout, out_proj on each sequence's first token."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.dense = linear(self.config, self.config.hidden_size, self.dtype)
        self.dropout = Dropout(classifier_dropout(self.config))
        self.out_proj = linear(self.config, self.config.num_labels, self.dtype)

    def __call__(self, first_BH: Array, *, deterministic: bool = True) -> Array:
        """[B, H] -> [B, L]."""
        hidden_BH = jnp.tanh(self.dense(self.dropout(first_BH, deterministic=deterministic)))
        return self.out_proj(self.dropout(hidden_BH, deterministic=deterministic))


def classifier_dropout(config: RobertaPreLayerNormConfig) -> float:
    """classifier_dropout, or hidden_dropout_prob where that is None."""
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
