"""Padded token ids in, final hidden states, pooled vectors, caches and attention maps out: the bare model.

Legend: B batch, S sequence, K past and present tokens, E encoder tokens, H hidden size, L layers, N heads.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.checks import check_head_mask, check_inputs, check_mask
from models.config import RobertaPreLayerNormConfig
from models.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from models.roberta_torch.attention import attention_bias
from models.roberta_torch.cache import KeyValueCache, as_cache
from models.roberta_torch.embeddings import RobertaPreLayerNormEmbeddings, readable
from models.roberta_torch.encoder import Attended, RobertaPreLayerNormEncoder
from models.roberta_torch.exporting import traceable, tracing
from models.roberta_torch.heads import RobertaPreLayerNormPooler
from models.roberta_torch.norms import final_norm
from models.roberta_torch.pretrained import RobertaPreLayerNormPreTrainedModel

logger = logging.getLogger(__name__)

Past = KeyValueCache | Sequence[Sequence[Tensor | None]]


class RobertaPreLayerNormModel(RobertaPreLayerNormPreTrainedModel):
    """The encoder, or with config.is_decoder the decoder, without a head.

    add_pooling_layer: whether `pooler_output` is computed.
    """

    def __init__(self, config: RobertaPreLayerNormConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        config = self.config
        self.embeddings = RobertaPreLayerNormEmbeddings(config)
        self.encoder = RobertaPreLayerNormEncoder(config)
        self.LayerNorm = final_norm(config)
        self.pooler = RobertaPreLayerNormPooler(config) if add_pooling_layer else None
        self.warned = False
        self.post_init()

    def forward(
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
    ) -> Any:
        """last_hidden_state [B, S, H] after the final LayerNorm, pooler_output [B, H], and what else is asked for.

        attention_mask: [B, K] with 1 for tokens to see, or [B, S, K] used as it is; all are seen without one.
        encoder_hidden_states [B, E, H] and encoder_attention_mask [B, E] or [B, S, E]: for cross-attention.
        past_key_values: the cache that an earlier call returned; use_cache: return one (decoders; config's default).
        return_dict False: a tuple, in which the pooler's place stays even if it is None.
        Raises ValueError for ids, positions, masks and lengths that don't fit, naming value and limit.
        """
        config = self.config
        ids_shape = None if input_ids is None else input_ids.shape
        embeds_shape = None if inputs_embeds is None else inputs_embeds.shape
        batch, length = check_inputs(ids_shape=ids_shape, embeds_shape=embeds_shape)
        self._warn_about_pads(input_ids, attention_mask)
        use_cache = config.is_decoder and (config.use_cache if use_cache is None else use_cache)
        if self.encoder.gradient_checkpointing and self.training:
            use_cache = False
        past = None if past_key_values is None else as_cache(past_key_values, attention_mask)
        hidden_BSH = self.embeddings(
            input_ids_BS=input_ids,
            token_type_ids_BS=token_type_ids,
            position_ids_BS=position_ids,
            inputs_embeds_BSH=inputs_embeds,
            past_tokens_B=None if past is None else past.real_tokens_B,
        )
        attended = self._attended(hidden_BSH, attention_mask, encoder_hidden_states, encoder_attention_mask, past)
        encoded = self.encoder(
            hidden_BSH,
            attended=attended,
            head_mask_LN11=self._layered_head_mask(head_mask, hidden_BSH),
            past=past,
            new_tokens_B=self._real_tokens(input_ids, batch, length, hidden_BSH) if use_cache else None,
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
        if self.names_output(return_dict=return_dict):
            return output
        rest = output.to_tuple()[1 if pooled_BH is None else 2 :]
        # torch.jit.trace knows no None among the outputs.
        pooled = () if pooled_BH is None and tracing() else (pooled_BH,)
        return traceable((final_BSH, *pooled, *rest))

    def _warn_about_pads(self, input_ids: Tensor | None, mask: Tensor | None) -> None:
        if mask is not None or input_ids is None or self.warned or not readable(input_ids):
            return
        if input_ids.shape[1] > 1 and bool((input_ids[:, [0, -1]] == self.config.pad_token_id).any()):
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
        batch, queries = hidden_BSH.shape[:2]
        keys = queries + (0 if past is None else past.get_seq_length())
        if mask is not None and not tracing():
            check_mask(name="attention_mask", shape=mask.shape, batch=batch, queries=queries, keys=keys)
        bias = attention_bias(mask=mask, queries=queries, keys=keys, causal=self.config.is_decoder, like=hidden_BSH)
        cross = None if past is None else past.layers[0].cross()
        if not self.config.add_cross_attention or (states_BEH is None and cross is None):
            return Attended(bias_B1SK=bias)
        encoder_bias = None
        if encoder_mask is not None:
            width = cross[0].shape[2] if cross is not None else states_BEH.shape[1] if states_BEH is not None else 0
            shape = encoder_mask.shape
            if not tracing():
                check_mask(name="encoder_attention_mask", shape=shape, batch=batch, queries=queries, keys=width)
            encoder_bias = attention_bias(mask=encoder_mask, queries=queries, keys=width, causal=False, like=hidden_BSH)
        return Attended(bias_B1SK=bias, encoder_states_BEH=states_BEH, encoder_bias_B1SE=encoder_bias)

    def _layered_head_mask(self, head_mask: Tensor | None, like: Tensor) -> Tensor | None:
        if head_mask is None:
            return None
        layers, heads = self.config.num_hidden_layers, self.config.num_attention_heads
        check_head_mask(shape=head_mask.shape, layers=layers, heads=heads)
        return head_mask.to(like.dtype).expand(layers, heads)[:, :, None, None]

    def _real_tokens(self, input_ids: Tensor | None, batch: int, length: int, like: Tensor) -> Tensor:
        if input_ids is None:
            return torch.full((batch,), length, device=like.device)
        return (input_ids != self.config.pad_token_id).sum(dim=1)
