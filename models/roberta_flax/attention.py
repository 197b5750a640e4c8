"""Hidden states in, hidden states with what each token attended to out: self- and cross-attention, pre-LayerNorm.

Through jax.nn.dot_product_attention, unless attention maps, head masks, relative positions or dropout are asked for. On a
CPU, where it is nothing fused, two products are twice as quick.
Legend: B batch, S queries, K keys, H hidden size, N heads, D width of one head, A = N x D, E encoder tokens.
"""

import math
from contextvars import ContextVar
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.config import RobertaPreLayerNormConfig
from models.roberta_flax.cache import append
from models.roberta_flax.layers import Array, Dropout, embedding, linear
from models.roberta_flax.norms import sub_layer_norm

# The kernel that models traced in this context take; None: XLA's own, which on a GPU writes all scores in float32.
KERNEL: ContextVar[Literal["cudnn"] | None] = ContextVar("KERNEL", default=None)


class FlaxRobertaPreLayerNormSelfAttention(nn.Module):
    """Queries, keys and values, and the weighted sum. Cross-attention has keys and values of other states."""

    config: RobertaPreLayerNormConfig
    heads: int
    position_embedding_type: str
    dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        self.head_size = config.head_size
        self.query = linear(config, self.heads * self.head_size, self.dtype)
        self.key = linear(config, self.heads * self.head_size, self.dtype)
        self.value = linear(config, self.heads * self.head_size, self.dtype)
        self.dropout = Dropout(config.attention_probs_dropout_prob)
        if self.position_embedding_type != "absolute":
            self.distance_embedding = embedding(
                config, 2 * config.max_position_embeddings - 1, self.head_size, self.dtype
            )

    def split_heads(self, projected_BSA: Array) -> Array:
        """[B, S, A] -> [B, N, S, D]."""
        return projected_BSA.reshape(*projected_BSA.shape[:2], self.heads, self.head_size).transpose(0, 2, 1, 3)

    def merge_heads(self, context_BNSD: Array) -> Array:
        """[B, N, S, D] -> [B, S, A]."""
        batch, _, queries, _ = context_BNSD.shape
        return context_BNSD.transpose(0, 2, 1, 3).reshape(batch, queries, self.heads * self.head_size)

    def attend(
        self,
        query_BNSD: Array,
        key_BNKD: Array,
        value_BNKD: Array,
        *,
        bias_B1SK: Array | None = None,
        head_mask_N11: Array | None = None,
        past_tokens: Array = 0,
        deterministic: bool = True,
        output_attentions: bool = False,
    ) -> tuple[Array, Array | None]:
        """Context [B, S, A], and the probabilities [B, N, S, K] that multiplied the values if they are asked for.

        bias_B1SK is added to the scores. past_tokens: the place of the first query among the keys.
        """
        dropout = 0.0 if deterministic else self.config.attention_probs_dropout_prob
        absolute = self.position_embedding_type == "absolute"
        implementation = KERNEL.get()
        fused = absolute and (implementation is not None or jax.default_backend() != "cpu")
        if fused and head_mask_N11 is None and not output_attentions and dropout == 0.0:
            # jax.nn wants heads behind tokens.
            query, key, value = (part.transpose(0, 2, 1, 3) for part in (query_BNSD, key_BNKD, value_BNKD))
            context_BSND = jax.nn.dot_product_attention(
                query, key, value, bias=bias_B1SK, implementation=implementation
            )
            return context_BSND.reshape(*context_BSND.shape[:2], self.heads * self.head_size), None
        scores_BNSK = query_BNSD @ key_BNKD.swapaxes(-1, -2)
        if not absolute:
            scores_BNSK = scores_BNSK + self.relative_scores(query_BNSD, key_BNKD, past_tokens)
        scores_BNSK = scores_BNSK / math.sqrt(self.head_size)
        if bias_B1SK is not None:
            scores_BNSK = scores_BNSK + bias_B1SK
        probs_BNSK = jax.nn.softmax(scores_BNSK.astype(jnp.float32), axis=-1).astype(self.dtype)
        probs_BNSK = self.dropout(probs_BNSK, deterministic=dropout == 0.0)
        if head_mask_N11 is not None:
            probs_BNSK = probs_BNSK * head_mask_N11
        context_BNSD = probs_BNSK @ value_BNKD
        return self.merge_heads(context_BNSD), probs_BNSK if output_attentions else None

    def relative_scores(self, query_BNSD: Array, key_BNKD: Array, past_tokens: Array) -> Array:
        """q·E, and k·E for relative_key_query, with E the embedding of the distance between query and key.

        The first query is at past_tokens. The reference's torch class gives every query the last one's distances when there
        is a cache, so that its cached and uncached logits differ.
        """
        queries, keys = query_BNSD.shape[2], key_BNKD.shape[2]
        furthest = self.config.max_position_embeddings - 1
        place_S = past_tokens + jnp.arange(queries)
        place_K = jnp.arange(keys)
        # Packed rows and caches may be wider than the table reaches; what lies that far apart is masked there.
        distance_SK = jnp.clip(place_S[:, None] - place_K[None, :] + furthest, 0, 2 * furthest)
        distance_SKD = self.distance_embedding(distance_SK)
        scores_BNSK = jnp.einsum("bnsd,skd->bnsk", query_BNSD, distance_SKD)
        if self.position_embedding_type == "relative_key_query":
            scores_BNSK = scores_BNSK + jnp.einsum("bnkd,skd->bnsk", key_BNKD, distance_SKD)
        return scores_BNSK


class FlaxRobertaPreLayerNormSelfOutput(nn.Module):
    """The output projection and its dropout."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.dense = linear(self.config, self.config.hidden_size, self.dtype)
        self.dropout = Dropout(self.config.hidden_dropout_prob)

    def __call__(self, context_BSA: Array, *, deterministic: bool = True) -> Array:
        """[B, S, A] -> [B, S, H]."""
        return self.dropout(self.dense(context_BSA), deterministic=deterministic)


class FlaxRobertaPreLayerNormAttention(nn.Module):
    """LayerNorm, attention, projection, residual: h + Wo·Attn(LN(h))."""

    config: RobertaPreLayerNormConfig
    layer: int = 0
    cross: bool = False
    dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        heads = config.num_attention_heads - (0 if self.cross else len(config.pruned_heads.get(self.layer, ())))
        positions = "absolute" if self.cross else config.position_embedding_type
        # The file format's name for it.
        self.self = FlaxRobertaPreLayerNormSelfAttention(
            config, heads=heads, position_embedding_type=positions, dtype=self.dtype
        )
        self.output = FlaxRobertaPreLayerNormSelfOutput(config, dtype=self.dtype)
        self.LayerNorm = sub_layer_norm(config, self.dtype)

    def __call__(
        self,
        hidden_BSH: Array,
        *,
        bias_B1SK: Array | None = None,
        head_mask_N11: Array | None = None,
        other_BEH: Array | None = None,
        known_cross: tuple[Array, Array] | None = None,
        past: tuple[Array, Array] | None = None,
        filled: Array | None = None,
        deterministic: bool = True,
        output_attentions: bool = False,
    ) -> tuple[Array, Array | None, tuple[Array, Array]]:
        """(hidden [B, S, H], probabilities or None, (keys, values) of past and present).

        other_BEH: cross-attention's encoder states, not normalised. known_cross: their keys and values from a cache,
        taken instead. past: keys and values of earlier tokens, in the first `filled` slots if that is given.
        """
        attention = self.self
        normed_BSH = self.LayerNorm.enter(hidden_BSH)
        query_BNSD = attention.split_heads(attention.query(normed_BSH))
        past_tokens: Array = 0
        if known_cross is not None:
            key_BNKD, value_BNKD = known_cross
        else:
            source = normed_BSH if other_BEH is None else other_BEH
            key_BNKD = attention.split_heads(attention.key(source))
            value_BNKD = attention.split_heads(attention.value(source))
            if past is not None:
                past_tokens = past[0].shape[2] if filled is None else filled
                key_BNKD = append(past[0], key_BNKD, filled)
                value_BNKD = append(past[1], value_BNKD, filled)
        context_BSA, probs_BNSK = attention.attend(
            query_BNSD,
            key_BNKD,
            value_BNKD,
            bias_B1SK=bias_B1SK,
            head_mask_N11=head_mask_N11,
            past_tokens=past_tokens,
            deterministic=deterministic,
            output_attentions=output_attentions,
        )
        projected_BSH = self.output(context_BSA, deterministic=deterministic)
        return self.LayerNorm.leave(hidden_BSH + projected_BSH), probs_BNSK, (key_BNKD, value_BNKD)


def causal_mask(queries: int, keys: int, dtype: Any, filled: Array | None = None) -> Array:
    """[S, K], 1 where a key is the query or before it, else 0; queries are the last S of the K, or follow `filled`."""
    place_S = (keys - queries if filled is None else filled) + jnp.arange(queries)
    place_K = jnp.arange(keys)
    return (place_K[None, :] <= place_S[:, None]).astype(dtype)


def attention_bias(
    *,
    mask: Array | None,
    queries: int,
    keys: int,
    causal: bool,
    dtype: Any,
    filled: Array | None = None,
) -> Array | None:
    """What is added to the scores, [B, 1, S or 1, K], or None for nothing.

    A [B, K] mask is multiplied by the causal one before the one multiplication by the type's minimum, so that nothing
    overflows; a [B, S, K] mask is used as it is, in a decoder too. filled: the slots taken before these queries.
    """
    if mask is None and not causal and filled is None:
        return None
    if mask is None:
        seen = causal_mask(queries, keys, dtype, filled)[None, None] if causal else jnp.ones((1, 1, 1, keys), dtype)
    elif mask.ndim == 3:
        seen = mask.astype(dtype)[:, None]
    else:
        seen = mask.astype(dtype)[:, None, None]
        if causal:
            seen = seen * causal_mask(queries, keys, dtype, filled)
    bias = (1.0 - seen) * jnp.finfo(dtype).min
    if filled is None:
        return bias
    # Slots that hold no token yet are nothing to attend to, even for a query whose keys are all masked.
    return jnp.where(jnp.arange(keys) < filled + queries, bias, -jnp.inf)
