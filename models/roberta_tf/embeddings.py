"""Token ids, or vectors in their place, in; word, type and position embeddings summed and normalised out.

Legend: B batch, S sequence, H hidden size. P stands for pad_token_id.
"""

import tensorflow as tf
from tensorflow import Tensor

from models.checks import check_length, check_range
from models.config import RobertaPreLayerNormConfig
from models.roberta_tf.layers import Block, Dropout, Embedding, Seeds, readable, sizes
from models.roberta_tf.norms import embeddings_norm


class TFRobertaPreLayerNormEmbeddings(Block):
    """word + token type + position, then LayerNorm and dropout. Relative positions: the table stays, unused."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = Embedding(
            config.max_position_embeddings, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.token_type_embeddings = Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = embeddings_norm(config)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        *,
        input_ids_BS: Tensor | None = None,
        token_type_ids_BS: Tensor | None = None,
        position_ids_BS: Tensor | None = None,
        inputs_embeds_BSH: Tensor | None = None,
        past_tokens_B: Tensor | None = None,
        seeds: Seeds | None = None,
    ) -> Tensor:
        """[B, S, H]. past_tokens_B: real tokens of each row before these ones."""
        if inputs_embeds_BSH is None:
            assert input_ids_BS is not None
            self._check_values("input_ids", input_ids_BS, self.config.vocab_size, "vocab_size")
            inputs_embeds_BSH = self.word_embeddings(input_ids_BS)
        if position_ids_BS is None:
            position_ids_BS = self.default_positions(input_ids_BS, inputs_embeds_BSH, past_tokens_B)
        else:
            limit = self.config.max_position_embeddings
            self._check_values("position_ids", position_ids_BS, limit, "max_position_embeddings")
        if token_type_ids_BS is None:
            token_type_ids_BS = tf.zeros_like(position_ids_BS)
        else:
            self._check_values("token_type_ids", token_type_ids_BS, self.config.type_vocab_size, "type_vocab_size")
        return self.embed(inputs_embeds_BSH, token_type_ids_BS, position_ids_BS, seeds)

    def embed(
        self, words_BSH: Tensor, token_type_ids_BS: Tensor, position_ids_BS: Tensor, seeds: Seeds | None = None
    ) -> Tensor:
        """The sum of the three, normalised; also of flat tokens [T, H]."""
        hidden_BSH = words_BSH + self.token_type_embeddings(token_type_ids_BS)
        if self.config.position_embedding_type == "absolute":
            hidden_BSH = hidden_BSH + self.position_embeddings(position_ids_BS)
        return self.dropout(self.LayerNorm(hidden_BSH), seeds)

    def default_positions(
        self, input_ids_BS: Tensor | None, inputs_embeds_BSH: Tensor, past_tokens_B: Tensor | None
    ) -> Tensor:
        """From ids: real tokens count on from P + 1, pads get P. From vectors: P + 1 … for everybody. Past is added."""
        padding_index = self.config.pad_token_id
        batch, length = sizes(inputs_embeds_BSH)[:2]
        if input_ids_BS is None:
            positions_BS = tf.tile(tf.range(1, length + 1)[None, :], (batch, 1))
            real_BS = tf.ones_like(positions_BS)
        else:
            real_BS = tf.cast(tf.not_equal(input_ids_BS, tf.cast(padding_index, input_ids_BS.dtype)), tf.int32)
            positions_BS = tf.cumsum(real_BS, axis=1)
        if past_tokens_B is not None:
            positions_BS = positions_BS + past_tokens_B[:, None]
        known_length = inputs_embeds_BSH.shape[1] or 0
        # Only a row with more slots than positions can run over: no need to look at the values of others.
        if (known_length > self.config.max_tokens or past_tokens_B is not None) and readable(positions_BS):
            check_length(tokens=int(tf.reduce_max(positions_BS * real_BS)), config=self.config)
        elif known_length > self.config.max_tokens and input_ids_BS is None:
            check_length(tokens=known_length, config=self.config)
        return positions_BS * real_BS + padding_index

    def _check_values(self, name: str, values: Tensor, size: int, limit: str) -> None:
        if readable(values) and values.shape.num_elements():
            low, high = tf.reduce_min(values), tf.reduce_max(values)
            check_range(name=name, low=int(low), high=int(high), size=size, limit=limit)
