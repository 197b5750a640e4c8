"""Final hidden states in, logits out: the small networks on top of the encoder.

Each takes any leading axes: padded [B, S, H] as well as gathered [G, H]. Legend: H hidden size, V vocabulary, L labels.
"""

from typing import Any

import tensorflow as tf
from tensorflow import Tensor

from models.config import RobertaPreLayerNormConfig
from models.roberta_tf.activations import gelu
from models.roberta_tf.layers import Block, Dense, Dropout, LayerNorm, Seeds, project


class TFRobertaPreLayerNormPooler(Block):
    """tanh(W·h) of each sequence's first token."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.dense = Dense(config.hidden_size, config.hidden_size)

    def forward(self, first_BH: Tensor) -> Tensor:
        """[B, H] -> [B, H]."""
        return tf.tanh(self.dense(first_BH))


class TFRobertaPreLayerNormDecoder(Block):
    """Scores of the vocabulary by a [V, H] table, its own or the word embeddings' (`tie_weights`); the head has the bias."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.tied = config.tie_word_embeddings
        self.weight: Any = (
            None if self.tied else self.variable(name="weight", shape=(config.vocab_size, config.hidden_size))
        )

    def forward(self, hidden_BSH: Tensor, bias_V: Tensor) -> Tensor:
        """[…, H] -> […, V]."""
        return project(hidden_BSH, tf.convert_to_tensor(self.weight), bias_V, transposed=True)

    def tie(self, weight_VH: Any) -> None:
        """Take another layer's table as the decoder's."""
        if self.weight is not None:
            self.forget(self.weight)
        self.weight = weight_VH

    def save_own_variables(self, store: dict[str, object]) -> None:
        """Keras's save_weights: a tied table is written once, by the embeddings."""
        if not self.tied:
            super().save_own_variables(store)

    def load_own_variables(self, store: dict[str, object]) -> None:
        """Keras's load_weights."""
        if not self.tied:
            super().load_own_variables(store)


class TFRobertaPreLayerNormLMHead(Block):
    """dense, exact GELU whatever hidden_act says, LayerNorm, decoder with `bias`."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.dense = Dense(config.hidden_size, config.hidden_size)
        self.layer_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = TFRobertaPreLayerNormDecoder(config)
        self.bias = self.variable(name="bias", shape=(config.vocab_size,))

    def forward(self, hidden_BSH: Tensor) -> Tensor:
        """[…, H] -> […, V]."""
        return self.decoder(self.layer_norm(gelu(self.dense(hidden_BSH))), tf.convert_to_tensor(self.bias))


class TFRobertaPreLayerNormClassificationHead(Block):
    """dropout, dense, tanh, dropout, out_proj on each sequence's first token."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.dense = Dense(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(classifier_dropout(config))
        self.out_proj = Dense(config.hidden_size, config.num_labels)

    def forward(self, first_BH: Tensor, seeds: Seeds | None = None) -> Tensor:
        """[B, H] -> [B, L]."""
        hidden_BH = tf.tanh(self.dense(self.dropout(first_BH, seeds)))
        return self.out_proj(self.dropout(hidden_BH, seeds))


def classifier_dropout(config: RobertaPreLayerNormConfig) -> float:
    """classifier_dropout, or hidden_dropout_prob where that is None."""
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
