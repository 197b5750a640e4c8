"""Padded token ids in, final hidden states, pooled vectors, caches and attention maps out: the bare model.

Legend: B batch, S sequence, K past and present tokens, E encoder tokens, H hidden size, L layers, N heads.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from models.checks import check_head_mask, check_inputs, check_mask
from models.config import RobertaPreLayerNormConfig
from models.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from models.roberta_flax.attention import attention_bias
from models.roberta_flax.cache import KeyValueCache, as_cache
from models.roberta_flax.embeddings import FlaxRobertaPreLayerNormEmbeddings
from models.roberta_flax.encoder import Attended, FlaxRobertaPreLayerNormEncoder
from models.roberta_flax.heads import FlaxRobertaPreLayerNormPooler
from models.roberta_flax.layers import Array, readable
from models.roberta_flax.norms import final_norm
from models.roberta_flax.pretrained import FlaxRobertaPreLayerNormPreTrainedModel

Past = KeyValueCache | Sequence[Sequence[Array | None]]


class FlaxRobertaPreLayerNormModule(nn.Module):
    """The encoder, or with config.is_decoder the decoder, without a head.

    add_pooling_layer: whether `pooler_output` is computed.
    """

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32
    add_pooling_layer: bool = True
    gradient_checkpointing: bool = False

    def setup(self) -> None:
        config = self.config
        self.embeddings = FlaxRobertaPreLayerNormEmbeddings(config, dtype=self.dtype)
        self.encoder = FlaxRobertaPreLayerNormEncoder(
            config, dtype=self.dtype, gradient_checkpointing=self.gradient_checkpointing
        )
        self.LayerNorm = final_norm(config, self.dtype)
        self.pooler = FlaxRobertaPreLayerNormPooler(config, dtype=self.dtype) if self.add_pooling_layer else None

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        inputs_embeds: Array | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_attention_mask: Array | None = None,
        past_key_values: Past | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        deterministic: bool = True,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """last_hidden_state [B, S, H] after the final LayerNorm, pooler_output [B, H], and what else is asked for.

        attention_mask: [B, K] with 1 for tokens to see, or [B, S, K] used as it is; all are seen without one.
        encoder_hidden_states [B, E, H] and encoder_attention_mask [B, E] or [B, S, E]: for cross-attention.
        past_key_values: the cache that an earlier call or `init_cache` returned; use_cache: return one (decoders;
        config's default). deterministic: no dropout.
        Raises ValueError for ids, positions, masks and lengths that don't fit, naming value and limit; values are
        looked at only outside jit, grad and vmap.
        """
        config = self.config
        ids_shape = None if input_ids is None else input_ids.shape
        embeds_shape = None if inputs_embeds is None else inputs_embeds.shape
        batch, length = check_inputs(ids_shape=ids_shape, embeds_shape=embeds_shape)
        use_cache = config.is_decoder and (config.use_cache if use_cache is None else use_cache)
        if self.gradient_checkpointing and not deterministic:
            use_cache = False
        past = None if past_key_values is None else as_cache(past_key_values, attention_mask)
        hidden_BSH = self.embeddings(
            input_ids_BS=input_ids,
            token_type_ids_BS=token_type_ids,
            position_ids_BS=position_ids,
            inputs_embeds_BSH=inputs_embeds,
            past_tokens_B=None if past is None else past.real_tokens_B,
            deterministic=deterministic,
        )
        attended = self._attended(hidden_BSH, attention_mask, encoder_hidden_states, encoder_attention_mask, past)
        encoded = self.encoder(
            hidden_BSH,
            attended=attended,
            head_mask_LN11=self._layered_head_mask(head_mask),
            past=past,
            new_tokens_B=self._real_tokens(input_ids, batch, length) if use_cache else None,
            deterministic=deterministic,
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=config.output_hidden_states if output_hidden_states is None else output_hidden_states,
        )
        final_BSH = self.LayerNorm(encoded.last_hidden_state)
        pooled_BH = None if self.pooler is None else self.pooler(final_BSH[:, 0])
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=final_BSH,
            pooler_output=pooled_BH,
            past_key_values=encoded.past_key_values,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            cross_attentions=encoded.cross_attentions,
        )

    def words(self) -> Array:
        """The word table [V, H]."""
        return self.embeddings.word_embeddings.embedding

    def _attended(
        self,
        hidden_BSH: Array,
        mask: Array | None,
        states_BEH: Array | None,
        encoder_mask: Array | None,
        past: KeyValueCache | None,
    ) -> Attended:
        """The additive masks for self- and cross-attention.

        With a cache of fixed size (`filled`) the keys are all its slots; with a growing one, past tokens and new ones. Raises
        ValueError for masks of a wrong shape.
        """
        batch, queries = hidden_BSH.shape[:2]
        filled = None if past is None else past.filled
        keys = queries
        if past is not None:
            keys = past.layers[0].self_key.shape[2] + (queries if filled is None else 0)
            check_slots(filled=filled, queries=queries, slots=keys)
        if mask is not None:
            mask = _widened(mask, keys) if filled is not None else mask
            check_mask(name="attention_mask", shape=mask.shape, batch=batch, queries=queries, keys=keys)
        bias = attention_bias(
            mask=mask, queries=queries, keys=keys, causal=self.config.is_decoder, dtype=self.dtype, filled=filled
        )
        cross = None if past is None else past.layers[0].cross()
        if not self.config.add_cross_attention or (states_BEH is None and cross is None):
            return Attended(bias_B1SK=bias)
        encoder_bias = None
        if encoder_mask is not None:
            width = cross[0].shape[2] if cross is not None else states_BEH.shape[1] if states_BEH is not None else 0
            shape = encoder_mask.shape
            check_mask(name="encoder_attention_mask", shape=shape, batch=batch, queries=queries, keys=width)
            encoder_bias = attention_bias(
                mask=encoder_mask, queries=queries, keys=width, causal=False, dtype=self.dtype
            )
        return Attended(bias_B1SK=bias, encoder_states_BEH=states_BEH, encoder_bias_B1SE=encoder_bias)

    def _layered_head_mask(self, head_mask: Array | None) -> Array | None:
        if head_mask is None:
            return None
        layers, heads = self.config.num_hidden_layers, self.config.num_attention_heads
        check_head_mask(shape=head_mask.shape, layers=layers, heads=heads)
        return jnp.broadcast_to(head_mask.astype(self.dtype), (layers, heads))[:, :, None, None]

    def _real_tokens(self, input_ids: Array | None, batch: int, length: int) -> Array:
        if input_ids is None:
            return jnp.full((batch,), length)
        return (input_ids != self.config.pad_token_id).sum(axis=1)


class FlaxRobertaPreLayerNormModel(FlaxRobertaPreLayerNormPreTrainedModel):
    """FlaxRobertaPreLayerNormModule with its parameters."""

    module_class = FlaxRobertaPreLayerNormModule


def check_slots(*, filled: Array | None, queries: int, slots: int) -> None:
    """A cache of fixed size has room for these tokens; looked at only outside jit."""
    if filled is not None and readable(filled) and int(filled) + queries > slots:
        raise ValueError(
            f"the cache has {slots} slots, {int(filled)} of them taken: no room for {queries} more tokens; "
            "make it with a greater max_length in init_cache"
        )


def _widened(mask: Array, keys: int) -> Array:
    """A [B, K] mask of past and present tokens, with ones for the slots that are still empty."""
    if mask.ndim != 2 or mask.shape[1] >= keys:
        return mask
    return jnp.pad(mask, ((0, 0), (0, keys - mask.shape[1])), constant_values=1)
