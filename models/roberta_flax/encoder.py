"""Embedded tokens in, the residual stream after every layer out.

Legend: B batch, S queries, K keys, E encoder tokens, H hidden size, I intermediate size, N heads, L layers.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from models.checks import check_chunks
from models.config import RobertaPreLayerNormConfig
from models.outputs import EncoderOutput
from models.roberta_flax.activations import activation
from models.roberta_flax.attention import FlaxRobertaPreLayerNormAttention
from models.roberta_flax.cache import KeyValueCache, LayerCache
from models.roberta_flax.layers import Array, Dropout, linear
from models.roberta_flax.norms import sub_layer_norm


@struct.dataclass
class Attended:
    """What all layers attend by: self-attention's bias, the encoder's states and the bias on them."""

    bias_B1SK: Array | None = None
    encoder_states_BEH: Array | None = None
    encoder_bias_B1SE: Array | None = None


class FlaxRobertaPreLayerNormIntermediate(nn.Module):
    """LayerNorm, then the wide half of the feed-forward."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.LayerNorm = sub_layer_norm(self.config, self.dtype)
        self.dense = linear(self.config, self.config.intermediate_size, self.dtype)
        self.activation = activation(self.config.hidden_act)

    def __call__(self, hidden_BSH: Array) -> Array:
        """[B, S, H] -> [B, S, I]."""
        return self.activation(self.dense(self.LayerNorm.enter(hidden_BSH)))


class FlaxRobertaPreLayerNormOutput(nn.Module):
    """The narrow half of the feed-forward, dropout and the residual."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.dense = linear(self.config, self.config.hidden_size, self.dtype)
        self.dropout = Dropout(self.config.hidden_dropout_prob)

    def __call__(self, wide_BSI: Array, hidden_BSH: Array, *, deterministic: bool = True) -> Array:
        """([B, S, I], [B, S, H]) -> [B, S, H]."""
        return hidden_BSH + self.dropout(self.dense(wide_BSI), deterministic=deterministic)


class FlaxRobertaPreLayerNormLayer(nn.Module):
    """Self-attention, cross-attention where the config adds it, feed-forward."""

    config: RobertaPreLayerNormConfig
    layer: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        self.attention = FlaxRobertaPreLayerNormAttention(config, layer=self.layer, dtype=self.dtype)
        if config.add_cross_attention:
            self.crossattention = FlaxRobertaPreLayerNormAttention(config, cross=True, dtype=self.dtype)
        self.intermediate = FlaxRobertaPreLayerNormIntermediate(config, dtype=self.dtype)
        self.output = FlaxRobertaPreLayerNormOutput(config, dtype=self.dtype)

    def __call__(
        self,
        hidden_BSH: Array,
        attended: Attended,
        head_mask_N11: Array | None = None,
        past: LayerCache | None = None,
        filled: Array | None = None,
        # By place: nn.remat knows its static arguments by number, `self` being 0.
        deterministic: bool = True,
        output_attentions: bool = False,
    ) -> tuple[Array, Array | None, Array | None, LayerCache]:
        """(hidden [B, S, H], self probabilities, cross probabilities, keys and values)."""
        hidden_BSH, probs_BNSK, own = self.attention(
            hidden_BSH,
            bias_B1SK=attended.bias_B1SK,
            head_mask_N11=head_mask_N11,
            past=None if past is None else (past.self_key, past.self_value),
            filled=filled,
            deterministic=deterministic,
            output_attentions=output_attentions,
        )
        cross_probs_BNSE: Array | None = None
        cross: tuple[Array | None, Array | None] = (None, None)
        known_cross = None if past is None else past.cross()
        if attended.encoder_states_BEH is not None or known_cross is not None:
            hidden_BSH, cross_probs_BNSE, cross = self.crossattention(
                hidden_BSH,
                bias_B1SK=attended.encoder_bias_B1SE,
                head_mask_N11=head_mask_N11,
                other_BEH=attended.encoder_states_BEH,
                known_cross=known_cross,
                deterministic=deterministic,
                output_attentions=output_attentions,
            )
        return (
            self.feed_forward(hidden_BSH, deterministic=deterministic),
            probs_BNSK,
            cross_probs_BNSE,
            LayerCache(own[0], own[1], cross[0], cross[1]),
        )

    def feed_forward(self, hidden_BSH: Array, *, deterministic: bool = True) -> Array:
        """h + W2·act(W1·LN(h)), in pieces of chunk_size_feed_forward tokens if that is set."""
        chunk = self.config.chunk_size_feed_forward
        if chunk <= 0:
            fed_BSH = self.output(self.intermediate(hidden_BSH), hidden_BSH, deterministic=deterministic)
            return self.intermediate.LayerNorm.leave(fed_BSH)
        check_chunks(length=hidden_BSH.shape[1], chunk=chunk)
        pieces = jnp.split(hidden_BSH, hidden_BSH.shape[1] // chunk, axis=1)
        fed = [self.output(self.intermediate(piece), piece, deterministic=deterministic) for piece in pieces]
        return self.intermediate.LayerNorm.leave(jnp.concatenate(fed, axis=1))


class FlaxRobertaPreLayerNormLayerStack(nn.Module):
    """The layers under the file format's names `layer/0`, `layer/1`, …"""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32
    gradient_checkpointing: bool = False

    def setup(self) -> None:
        layer_class: Any = FlaxRobertaPreLayerNormLayer
        if self.gradient_checkpointing:
            layer_class = nn.remat(FlaxRobertaPreLayerNormLayer, static_argnums=(6, 7))
        self.layers = [
            layer_class(self.config, layer=i, dtype=self.dtype, name=str(i))
            for i in range(self.config.num_hidden_layers)
        ]


class FlaxRobertaPreLayerNormEncoder(nn.Module):
    """The stack of layers."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32
    gradient_checkpointing: bool = False

    def setup(self) -> None:
        self.layer = FlaxRobertaPreLayerNormLayerStack(
            self.config, dtype=self.dtype, gradient_checkpointing=self.gradient_checkpointing
        )

    def __call__(
        self,
        hidden_BSH: Array,
        *,
        attended: Attended,
        head_mask_LN11: Array | None = None,
        past: KeyValueCache | None = None,
        new_tokens_B: Array | None = None,
        deterministic: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
        """new_tokens_B: real tokens of each row in this call; given, a cache is returned.

        hidden_states: L + 1 tensors, the last one before the model's final LayerNorm, as in transformers 4.x (5.x: after it).
        """
        hidden_states = [hidden_BSH]
        queries = hidden_BSH.shape[1]
        attentions, cross_attentions, caches = [], [], []
        for i, layer in enumerate(self.layer.layers):
            hidden_BSH, probs, cross_probs, cache = layer(
                hidden_BSH,
                attended,
                None if head_mask_LN11 is None else head_mask_LN11[i],
                None if past is None else past.layers[i],
                None if past is None else past.filled,
                deterministic,
                output_attentions,
            )
            # Only what is asked for is kept: the rest would stay in memory until the last layer.
            if output_hidden_states:
                hidden_states.append(hidden_BSH)
            if output_attentions:
                attentions.append(probs)
                cross_attentions.append(cross_probs)
            if new_tokens_B is not None:
                caches.append(cache)
        new_cache = None
        if new_tokens_B is not None:
            real_tokens_B = new_tokens_B if past is None else past.real_tokens_B + new_tokens_B
            filled = None if past is None or past.filled is None else past.filled + queries
            new_cache = KeyValueCache(layers=tuple(caches), real_tokens_B=real_tokens_B, filled=filled)
        has_cross = output_attentions and any(probs is not None for probs in cross_attentions)
        return EncoderOutput(
            last_hidden_state=hidden_BSH,
            past_key_values=new_cache,
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
            cross_attentions=tuple(cross_attentions) if has_cross else None,
        )
