"""Hidden states in, hidden states with what each token attended to out: self- and cross-attention, pre-LayerNorm.

TensorFlow has no fused attention for its public use: two matrix products and a softmax, in float32 at least.
Legend: B batch, S queries, K keys, H hidden size, N heads, D width of one head, A = N x D, E encoder tokens.
"""

import math

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from models.config import RobertaPreLayerNormConfig
from models.roberta_tf.layers import Block, Dense, Dropout, Embedding, Seeds, at_least_float32, drop, sizes
from models.roberta_tf.norms import SubLayerNorm


class TFRobertaPreLayerNormSelfAttention(Block):
    """Queries, keys and values, and the weighted sum. Cross-attention has keys and values of other states."""

    def __init__(self, config: RobertaPreLayerNormConfig, *, heads: int, position_embedding_type: str) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = config.head_size
        self.position_embedding_type = position_embedding_type
        self.max_position_embeddings = config.max_position_embeddings
        self.dropout_rate = config.attention_probs_dropout_prob
        self.query = Dense(config.hidden_size, heads * self.head_size)
        self.key = Dense(config.hidden_size, heads * self.head_size)
        self.value = Dense(config.hidden_size, heads * self.head_size)
        if position_embedding_type != "absolute":
            self.distance_embedding = Embedding(2 * config.max_position_embeddings - 1, self.head_size)

    def split_heads(self, projected_BSA: Tensor) -> Tensor:
        """[B, S, A] -> [B, N, S, D]."""
        batch, length, _ = sizes(projected_BSA)
        return tf.transpose(tf.reshape(projected_BSA, (batch, length, self.heads, self.head_size)), (0, 2, 1, 3))

    def attend(
        self,
        query_BNSD: Tensor,
        key_BNKD: Tensor,
        value_BNKD: Tensor,
        *,
        bias_B1SK: Tensor | None = None,
        head_mask_N11: Tensor | None = None,
        causal: bool = False,
        seeds: Seeds | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Context [B, S, A], and the probabilities [B, N, S, K] that multiplied the values if they are asked for.

        bias_B1SK is added to the scores. causal: a token sees those up to itself, without a bias (S equals K).
        """
        # The queries are fewer than the scores where sequences are longer than a head is wide.
        scores_BNSK = tf.matmul(query_BNSD / math.sqrt(self.head_size), key_BNKD, transpose_b=True)
        if self.position_embedding_type != "absolute":
            scores_BNSK = scores_BNSK + self.relative_scores(query_BNSD, key_BNKD) / math.sqrt(self.head_size)
        if causal:
            bias_B1SK = causal_bias(sizes(query_BNSD)[2], sizes(key_BNKD)[2], query_BNSD)
        if bias_B1SK is not None:
            scores_BNSK = scores_BNSK + bias_B1SK
        probs_BNSK = tf.cast(tf.nn.softmax(at_least_float32(scores_BNSK)), scores_BNSK.dtype)
        probs_BNSK = drop(probs_BNSK, rate=self.dropout_rate, seeds=seeds)
        if head_mask_N11 is not None:
            probs_BNSK = probs_BNSK * head_mask_N11
        context_BSND = tf.transpose(tf.matmul(probs_BNSK, value_BNKD), (0, 2, 1, 3))
        batch, length = sizes(context_BSND)[:2]
        context_BSA = tf.reshape(context_BSND, (batch, length, self.heads * self.head_size))
        return context_BSA, probs_BNSK if output_attentions else None

    def relative_scores(self, query_BNSD: Tensor, key_BNKD: Tensor) -> Tensor:
        """q·E, and k·E for relative_key_query, with E the embedding of the distance between query and key.

        The queries are the last S of the K tokens. transformers gives every query the last one's distances when there is
        a cache, so that its cached and uncached logits differ.
        """
        queries, keys = sizes(query_BNSD)[2], sizes(key_BNKD)[2]
        place_S = tf.range(keys - queries, keys)
        place_K = tf.range(keys)
        furthest = self.max_position_embeddings - 1
        # Packed rows may be wider than the table reaches; what lies that far apart is masked there.
        distance_SK = tf.clip_by_value(place_S[:, None] - place_K[None, :] + furthest, 0, 2 * furthest)
        distance_SKD = self.distance_embedding(distance_SK)
        scores_BNSK = tf.einsum("bnsd,skd->bnsk", query_BNSD, distance_SKD)
        if self.position_embedding_type == "relative_key_query":
            scores_BNSK = scores_BNSK + tf.einsum("bnkd,skd->bnsk", key_BNKD, distance_SKD)
        return scores_BNSK


class TFRobertaPreLayerNormSelfOutput(Block):
    """The output projection and its dropout."""

    def __init__(self, config: RobertaPreLayerNormConfig, *, heads: int) -> None:
        super().__init__()
        self.dense = Dense(heads * config.head_size, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, context_BSA: Tensor, seeds: Seeds | None = None) -> Tensor:
        """[B, S, A] -> [B, S, H]."""
        return self.dropout(self.dense(context_BSA), seeds)


class TFRobertaPreLayerNormAttention(Block):
    """LayerNorm, attention, projection, residual: h + Wo·Attn(LN(h))."""

    def __init__(self, config: RobertaPreLayerNormConfig, *, layer: int = 0, cross: bool = False) -> None:
        super().__init__()
        heads = config.num_attention_heads - (0 if cross else len(config.pruned_heads.get(layer, ())))
        positions = "absolute" if cross else config.position_embedding_type
        # `self` and `output` in files; Keras keeps `output` for itself (models.roberta_tf.weights has the table).
        self.inner = TFRobertaPreLayerNormSelfAttention(config, heads=heads, position_embedding_type=positions)
        self.projection = TFRobertaPreLayerNormSelfOutput(config, heads=heads)
        self.LayerNorm = SubLayerNorm(config)

    def forward(
        self,
        hidden_BSH: Tensor,
        *,
        bias_B1SK: Tensor | None = None,
        head_mask_N11: Tensor | None = None,
        other_BEH: Tensor | None = None,
        known_cross: tuple[Tensor, Tensor] | None = None,
        past: tuple[Tensor, Tensor] | None = None,
        seeds: Seeds | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor]]:
        """(hidden [B, S, H], probabilities or None, (keys, values) of past and present).

        other_BEH: cross-attention's encoder states, not normalised. known_cross: their keys and values from a cache,
        taken instead. past: keys and values of earlier tokens.
        """
        attention = self.inner
        normed_BSH = self.LayerNorm.enter(hidden_BSH)
        query_BNSD = attention.split_heads(attention.query(normed_BSH))
        if known_cross is not None:
            key_BNKD, value_BNKD = known_cross
        else:
            source = normed_BSH if other_BEH is None else other_BEH
            key_BNKD = attention.split_heads(attention.key(source))
            value_BNKD = attention.split_heads(attention.value(source))
            if past is not None:
                key_BNKD = tf.concat((past[0], key_BNKD), axis=2)
                value_BNKD = tf.concat((past[1], value_BNKD), axis=2)
        context_BSA, probs_BNSK = attention.attend(
            query_BNSD,
            key_BNKD,
            value_BNKD,
            bias_B1SK=bias_B1SK,
            head_mask_N11=head_mask_N11,
            seeds=seeds,
            output_attentions=output_attentions,
        )
        hidden_BSH = self.LayerNorm.leave(hidden_BSH + self.projection(context_BSA, seeds))
        return hidden_BSH, probs_BNSK, (key_BNKD, value_BNKD)

    def prune_heads(self, kept: list[int]) -> None:
        """Keep only these of the present heads (indices into them), cutting the weights."""
        attention = self.inner
        width = attention.head_size
        rows_A = np.array([head * width + i for head in kept for i in range(width)], dtype=np.int64)
        for name in ("query", "key", "value"):
            getattr(attention, name).cut(rows_A, axis=0)
        self.projection.dense.cut(rows_A, axis=1)
        attention.heads = len(kept)


def causal_bias(queries: int | Tensor, keys: int | Tensor, like: Tensor) -> Tensor:
    """[S, K], the type's minimum where a key lies after the query; queries are the last S of the K tokens."""
    return (1.0 - causal_mask(queries, keys, like)) * like.dtype.min


def causal_mask(queries: int | Tensor, keys: int | Tensor, like: Tensor) -> Tensor:
    """[S, K], 1 up to the query's own place, 0 after it."""
    place_S = tf.range(keys - queries, keys)
    return tf.cast(tf.range(keys)[None, :] <= place_S[:, None], like.dtype)


def attention_bias(
    *, mask: Tensor | None, queries: int | Tensor, keys: int | Tensor, causal: bool, like: Tensor
) -> Tensor | None:
    """What is added to the scores, [B, 1, S or 1, K], or None for nothing.

    A [B, K] mask is multiplied by the causal one before the one multiplication by the type's minimum, so that nothing
    overflows; a [B, S, K] mask is used as it is, in a decoder too.
    """
    if mask is None:
        return causal_bias(queries, keys, like)[None, None] if causal else None
    mask = tf.cast(mask, like.dtype)
    if mask.shape.rank == 3:
        seen = mask[:, None]
    elif causal:
        seen = causal_mask(queries, keys, like)[None, None] * mask[:, None, None]
    else:
        seen = mask[:, None, None]
    return (1.0 - seen) * like.dtype.min
