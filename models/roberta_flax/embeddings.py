"""Token ids, or vectors in their place, in; word, type and position embeddings summed and normalised out.

Legend: B batch, S sequence, H hidden size. P stands for pad_token_id.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from models.checks import check_length, check_range
from models.config import RobertaPreLayerNormConfig
from models.roberta_flax.layers import Array, Dropout, embedding, readable
from models.roberta_flax.norms import embeddings_norm


class FlaxRobertaPreLayerNormEmbeddings(nn.Module):
    """word + token type + position, then LayerNorm and dropout. Relative positions: the table stays, unused."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        config, width = self.config, self.config.hidden_size
        padding_index = config.pad_token_id
        self.word_embeddings = embedding(config, config.vocab_size, width, self.dtype, padding_index=padding_index)
        self.position_embeddings = embedding(
            config, config.max_position_embeddings, width, self.dtype, padding_index=padding_index
        )
        self.token_type_embeddings = embedding(config, config.type_vocab_size, width, self.dtype)
        self.LayerNorm = embeddings_norm(config, self.dtype)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def __call__(
        self,
        *,
        input_ids_BS: Array | None = None,
        token_type_ids_BS: Array | None = None,
        position_ids_BS: Array | None = None,
        inputs_embeds_BSH: Array | None = None,
        past_tokens_B: Array | None = None,
        deterministic: bool = True,
    ) -> Array:
        """[B, S, H]. past_tokens_B: real tokens of each row before these ones."""
        if inputs_embeds_BSH is None:
            assert input_ids_BS is not None
            self._check_values("input_ids", input_ids_BS, self.config.vocab_size, "vocab_size")
            inputs_embeds_BSH = self.look_up(self.word_embeddings, input_ids_BS)
        if position_ids_BS is None:
            position_ids_BS = self.default_positions(input_ids_BS, inputs_embeds_BSH, past_tokens_B)
        else:
            limit = self.config.max_position_embeddings
            self._check_values("position_ids", position_ids_BS, limit, "max_position_embeddings")
        if token_type_ids_BS is None:
            token_type_ids_BS = jnp.zeros_like(position_ids_BS)
        else:
            self._check_values("token_type_ids", token_type_ids_BS, self.config.type_vocab_size, "type_vocab_size")
        return self.embed(inputs_embeds_BSH, token_type_ids_BS, position_ids_BS, deterministic=deterministic)

    def embed(
        self, words_BSH: Array, token_type_ids_BS: Array, position_ids_BS: Array, *, deterministic: bool = True
    ) -> Array:
        """The sum of the three, normalised; also of packed rows."""
        # Every table is made when parameters are: one that is never read would not be there.
        positions_BSH = self.look_up(self.position_embeddings, position_ids_BS)
        hidden_BSH = words_BSH + self.token_type_embeddings(token_type_ids_BS)
        if self.config.position_embedding_type == "absolute":
            hidden_BSH = hidden_BSH + positions_BSH
        return self.dropout(self.LayerNorm(hidden_BSH), deterministic=deterministic)

    def look_up(self, table: nn.Embed, ids_BS: Array) -> Array:
        """Rows of a table. The row of P gets no gradient from here, as nn.Embedding's padding_idx says in torch."""
        rows_BSH = table(ids_BS)
        real_BS1 = (ids_BS != self.config.pad_token_id)[..., None]
        return jnp.where(real_BS1, rows_BSH, jax.lax.stop_gradient(rows_BSH))

    def default_positions(
        self, input_ids_BS: Array | None, inputs_embeds_BSH: Array, past_tokens_B: Array | None
    ) -> Array:
        """From ids: real tokens count on from P + 1, pads get P. From vectors: P + 1 … for everybody. Past is added."""
        padding_index = self.config.pad_token_id
        batch, length = inputs_embeds_BSH.shape[:2]
        if input_ids_BS is None:
            positions_BS = jnp.broadcast_to(jnp.arange(1, length + 1), (batch, length))
            real_BS = jnp.ones_like(positions_BS)
        else:
            real_BS = (input_ids_BS != padding_index).astype(jnp.int32)
            positions_BS = jnp.cumsum(real_BS, axis=1)
        if past_tokens_B is not None:
            positions_BS = positions_BS + past_tokens_B[:, None]
        # Only a row with more slots than positions can run over: no need to look at the values of others.
        if readable(positions_BS) and (length > self.config.max_tokens or past_tokens_B is not None):
            check_length(tokens=int((positions_BS * real_BS).max()), config=self.config)
        return positions_BS * real_BS + padding_index

    def _check_values(self, name: str, values: Array, size: int, limit: str) -> None:
        if readable(values) and values.size:
            seen = np.asarray(values)
            check_range(name=name, low=int(seen.min()), high=int(seen.max()), size=size, limit=limit)
