"""The causal language model, and its greedy continuation of a prompt.

Every step has the same shapes, so that two compilations (the prompt, one token) serve all of them.
Legend: B batch, S tokens so far, V vocabulary, H hidden size.
"""

import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from models.config import RobertaPreLayerNormConfig
from models.generation import plan_search
from models.generation_options import GreedyOptions, greedy_options, prompt_of
from models.outputs import CausalLMOutputWithCrossAttentions
from models.roberta_flax.base import FlaxRobertaPreLayerNormModule, Past
from models.roberta_flax.heads import FlaxRobertaPreLayerNormLMHead
from models.roberta_flax.layers import Array
from models.roberta_flax.losses import causal_loss
from models.roberta_flax.pretrained import FlaxRobertaPreLayerNormPreTrainedModel

logger = logging.getLogger(__name__)


class FlaxRobertaPreLayerNormForCausalLMModule(nn.Module):
    """Predicts the next token: logits [B, S, V]; labels [B, S] are shifted inside. Wants config.is_decoder=True."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32
    gradient_checkpointing: bool = False

    def setup(self) -> None:
        self.roberta_prelayernorm = FlaxRobertaPreLayerNormModule(
            self.config,
            dtype=self.dtype,
            add_pooling_layer=False,
            gradient_checkpointing=self.gradient_checkpointing,
        )
        self.lm_head = FlaxRobertaPreLayerNormLMHead(self.config, dtype=self.dtype)

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
        labels: Array | None = None,
        past_key_values: Past | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: int | Array | None = None,
        deterministic: bool = True,
    ) -> CausalLMOutputWithCrossAttentions:
        """Arguments as the bare module's; labels switch the cache off.

        num_items_in_batch: the loss is a sum divided by it, for gradients gathered over several batches.
        """
        encoded = self.roberta_prelayernorm(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache if labels is None else False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            deterministic=deterministic,
        )
        logits_BSV = self.scores(encoded.last_hidden_state)
        return CausalLMOutputWithCrossAttentions(
            loss=None if labels is None else causal_loss(logits_BSV, labels, num_items_in_batch),
            logits=logits_BSV,
            past_key_values=encoded.past_key_values,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            cross_attentions=encoded.cross_attentions,
        )

    def scores(self, hidden_BSH: Array) -> Array:
        """[…, H] -> logits […, V]."""
        return self.lm_head(hidden_BSH, self.roberta_prelayernorm.words())


class FlaxRobertaPreLayerNormForCausalLM(FlaxRobertaPreLayerNormPreTrainedModel):
    """FlaxRobertaPreLayerNormForCausalLMModule with its parameters."""

    head = "causal-lm"
    module_class = FlaxRobertaPreLayerNormForCausalLMModule

    def check(self) -> None:
        """Say what the config does that a causal LM rarely wants."""
        super().check()
        if not self.config.is_decoder:
            logger.warning(
                "a causal LM with is_decoder=False sees later tokens; set is_decoder=True to predict the next"
            )

    def generate(
        self,
        input_ids: Array | None = None,
        generation_config: Any = None,
        *,
        params: Any = None,
        attention_mask: Array | None = None,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        use_cache: bool | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_attention_mask: Array | None = None,
        **keywords: Any,
    ) -> Array:
        """The prompt [B, S] and its greedy continuation, up to an end token or max_length (20, prompt counted).

        Pads in the prompt are masked out on either side. Positions count a row's real tokens only and start at P + 1, as in the
        forward pass; transformers passes 0, 1, 2, … here, which are positions the model was not trained on.

        generation_config: transformers' or a dict; what is given here wins over it. keywords: the reference's, refused by name
        where they ask for more than greedy decoding (models.generation_options).
        """
        prompt_BS = prompt_of(input_ids, keywords)
        options = greedy_options(
            generation_config,
            keywords,
            max_new_tokens=max_new_tokens,
            max_length=max_length,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            use_cache=use_cache,
        )
        return greedy_search(
            self,
            params=self.params if params is None else params,
            input_ids=prompt_BS,
            attention_mask=attention_mask,
            options=options,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
        )


def greedy_search(
    model: "FlaxRobertaPreLayerNormForCausalLM",
    *,
    params: Any,
    input_ids: Array,
    attention_mask: Array | None,
    options: GreedyOptions,
    encoder_hidden_states: Array | None,
    encoder_attention_mask: Array | None,
) -> Array:
    """[B, S + generated]. With the cache a step feeds one token, without it the whole sequence: the same answer."""
    search = plan_search(
        prompt_BS=np.asarray(input_ids, dtype=np.int64),
        mask_BS=None if attention_mask is None else np.asarray(attention_mask),
        config=model.config,
        max_new_tokens=options.max_new_tokens,
        max_length=options.max_length,
        end_ids=options.eos_token_id,
        pad_id=options.pad_token_id,
    )
    cached = options.use_cache and model.config.is_decoder
    batch, length = search.prompt_BS.shape
    slots = length + search.new_tokens
    encoder = {
        name: value
        for name, value in (
            ("encoder_hidden_states", encoder_hidden_states),
            ("encoder_attention_mask", encoder_attention_mask),
        )
        if value is not None
    }

    @jax.jit
    def best(params: Any, fed_BS: Array, mask_BS: Array, last_B: Array, past: Any) -> tuple[Array, Any]:
        output = model(fed_BS, mask_BS, params=params, past_key_values=past, use_cache=cached, **encoder)
        return output.logits[jnp.arange(batch), last_B].argmax(axis=-1), output.past_key_values

    last_B = search.last_real_B()
    past = model.init_cache(batch, slots) if cached else None
    fed_BS = search.prompt_BS
    while not search.done:
        mask_BS = search.mask()
        # Slots behind the newest token: with a cache they are known to be empty, without one they are pads.
        mask_BS = np.pad(mask_BS, ((0, 0), (0, slots - mask_BS.shape[1])), constant_values=int(cached))
        if not cached:
            free = slots - fed_BS.shape[1]
            fed_BS = np.pad(fed_BS, ((0, 0), (0, free)), constant_values=model.config.pad_token_id)
        best_B, past = best(params, fed_BS, mask_BS, last_B, past)
        added_B = search.add(np.asarray(best_B, dtype=np.int64))
        if cached:
            fed_BS, last_B = added_B[:, None], np.zeros_like(last_B)
        else:
            fed_BS = search.sequences()
            # A finished row's token is never looked at, so every row reads the newest place.
            last_B = np.full_like(last_B, fed_BS.shape[1] - 1)
    return jnp.asarray(search.sequences())
