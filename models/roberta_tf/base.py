"""Padded token ids in, final hidden states, pooled vectors, caches and attention maps out: the bare model.

Legend: B batch, S sequence, K past and present tokens, E encoder tokens, H hidden size, L layers, N heads.
"""

import logging
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow import Tensor

from models.checks import check_head_mask, check_inputs, check_mask
from models.config import RobertaPreLayerNormConfig
from models.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from models.roberta_tf.attention import attention_bias
from models.roberta_tf.cache import KeyValueCache, as_cache
from models.roberta_tf.embeddings import TFRobertaPreLayerNormEmbeddings
from models.roberta_tf.encoder import Attended, TFRobertaPreLayerNormEncoder
from models.roberta_tf.heads import TFRobertaPreLayerNormPooler
from models.roberta_tf.layers import readable, sizes, static_shape
from models.roberta_tf.norms import final_norm
from models.roberta_tf.pretrained import TFRobertaPreLayerNormPreTrainedModel

logger = logging.getLogger(__name__)

Past = KeyValueCache | Sequence[Sequence[Tensor | None]]


class TFRobertaPreLayerNormModel(TFRobertaPreLayerNormPreTrainedModel):
    """The encoder, or with config.is_decoder the decoder, without a head.

    add_pooling_layer: whether `pooler_output` is computed.
    """

    def __init__(
        self, config: RobertaPreLayerNormConfig, add_pooling_layer: bool = True, *, name: str | None = None
    ) -> None:
        super().__init__(config, name=name)
        config = self.config
        self.embeddings = TFRobertaPreLayerNormEmbeddings(config)
        self.encoder = TFRobertaPreLayerNormEncoder(config)
        self.LayerNorm = final_norm(config)
        self.pooler = TFRobertaPreLayerNormPooler(config) if add_pooling_layer else None
        self.warned = False
        self.post_init()

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Past | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """last_hidden_state [B, S, H] after the final LayerNorm, pooler_output [B, H], and what else is asked for.

        attention_mask: [B, K] with 1 for tokens to see, or [B, S, K] used as it is; all are seen without one.
        encoder_hidden_states [B, E, H] and encoder_attention_mask [B, E] or [B, S, E]: for cross-attention.
        past_key_values: the cache that an earlier call returned; use_cache: return one (decoders; config's default).
        return_dict False: a tuple, in which the pooler's place stays even if it is None.
        Raises ValueError for ids, positions, masks and lengths that don't fit, naming value and limit.
        """
        config = self.config
        check_inputs(ids_shape=static_shape(input_ids), embeds_shape=static_shape(inputs_embeds))
        self._warn_about_pads(input_ids, attention_mask)
        use_cache = config.is_decoder and (config.use_cache if use_cache is None else use_cache)
        if self.encoder.gradient_checkpointing and training:
            use_cache = False
        seeds = self.seeds(training)
        past = None if past_key_values is None else as_cache(past_key_values, attention_mask)
        hidden_BSH = self.embeddings(
            input_ids_BS=input_ids,
            token_type_ids_BS=token_type_ids,
            position_ids_BS=position_ids,
            inputs_embeds_BSH=inputs_embeds,
            past_tokens_B=None if past is None else past.real_tokens_B,
            seeds=seeds,
        )
        attended = self._attended(hidden_BSH, attention_mask, encoder_hidden_states, encoder_attention_mask, past)
        encoded = self.encoder(
            hidden_BSH,
            attended=attended,
            head_mask_LN11=self._layered_head_mask(head_mask, hidden_BSH),
            past=past,
            new_tokens_B=self._real_tokens(input_ids, hidden_BSH) if use_cache else None,
            seeds=seeds,
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=config.output_hidden_states if output_hidden_states is None else output_hidden_states,
        )
        final_BSH = self.LayerNorm(encoded.last_hidden_state)
        pooled_BH = None if self.pooler is None else self.pooler(final_BSH[:, 0])
        output = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=final_BSH,
            pooler_output=pooled_BH,
            past_key_values=encoded.past_key_values,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            cross_attentions=encoded.cross_attentions,
        )
        if config.use_return_dict if return_dict is None else return_dict:
            return output
        rest = output.to_tuple()[1 if pooled_BH is None else 2 :]
        return (final_BSH, pooled_BH, *rest)

    def _warn_about_pads(self, input_ids: Tensor | None, mask: Tensor | None) -> None:
        if mask is not None or input_ids is None or self.warned or not readable(input_ids):
            return
        if input_ids.shape[1] > 1 and self.config.pad_token_id in (*input_ids[:, 0].numpy(), *input_ids[:, -1].numpy()):
            logger.warning("input_ids hold pads and no attention_mask is given: pads are attended to; pass the mask")
            self.warned = True

    def _attended(
        self,
        hidden_BSH: Tensor,
        mask: Tensor | None,
        states_BEH: Tensor | None,
        encoder_mask: Tensor | None,
        past: KeyValueCache | None,
    ) -> Attended:
        """The additive masks for self- and cross-attention; keys are past tokens and new ones.

        Raises ValueError for masks of a wrong shape.
        """
        batch, queries = sizes(hidden_BSH)[:2]
        keys = queries + (0 if past is None else past.get_seq_length())
        if mask is not None:
            _check_mask("attention_mask", mask, batch, queries, keys)
        bias = attention_bias(mask=mask, queries=queries, keys=keys, causal=self.config.is_decoder, like=hidden_BSH)
        cross = None if past is None else past.layers[0].cross()
        if not self.config.add_cross_attention or (states_BEH is None and cross is None):
            return Attended(bias_B1SK=bias)
        encoder_bias = None
        if encoder_mask is not None:
            width = sizes(cross[0])[2] if cross is not None else sizes(states_BEH)[1]
            _check_mask("encoder_attention_mask", encoder_mask, batch, queries, width)
            encoder_bias = attention_bias(mask=encoder_mask, queries=queries, keys=width, causal=False, like=hidden_BSH)
        return Attended(bias_B1SK=bias, encoder_states_BEH=states_BEH, encoder_bias_B1SE=encoder_bias)

    def _layered_head_mask(self, head_mask: Tensor | None, like: Tensor) -> Tensor | None:
        if head_mask is None:
            return None
        layers, heads = self.config.num_hidden_layers, self.config.num_attention_heads
        check_head_mask(shape=head_mask.shape.as_list(), layers=layers, heads=heads)
        return tf.broadcast_to(tf.cast(head_mask, like.dtype), (layers, heads))[:, :, None, None]

    def _real_tokens(self, input_ids: Tensor | None, hidden_BSH: Tensor) -> Tensor:
        if input_ids is None:
            batch, length = sizes(hidden_BSH)[:2]
            return tf.fill((batch,), length)
        real_BS = tf.not_equal(input_ids, tf.cast(self.config.pad_token_id, input_ids.dtype))
        return tf.reduce_sum(tf.cast(real_BS, tf.int32), axis=1)


def _check_mask(name: str, mask: Tensor, batch: Any, queries: Any, keys: Any) -> None:
    """Where a graph is traced for any size, the sizes are compared when it runs, by the sums themselves."""
    known = mask.shape.as_list()
    unknown = None in known or not all(isinstance(size, int) for size in (batch, queries, keys))
    if not unknown or len(known) not in (2, 3):
        check_mask(name=name, shape=known, batch=batch, queries=queries, keys=keys)
