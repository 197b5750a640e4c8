"""The causal language model, and its greedy continuation of a prompt.

Legend: B batch, S tokens so far, V vocabulary.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.config import RobertaPreLayerNormConfig
from models.generation import plan_search
from models.generation_options import GreedyOptions, greedy_options, prompt_of
from models.outputs import CausalLMOutputWithCrossAttentions
from models.roberta_torch.base import Past, RobertaPreLayerNormModel
from models.roberta_torch.heads import RobertaPreLayerNormLMHead
from models.roberta_torch.losses import causal_loss
from models.roberta_torch.pretrained import RobertaPreLayerNormPreTrainedModel

logger = logging.getLogger(__name__)


class RobertaPreLayerNormForCausalLM(RobertaPreLayerNormPreTrainedModel):
    """Predicts the next token: logits [B, S, V]; labels [B, S] are shifted inside. Wants config.is_decoder=True."""

    head = "causal-lm"

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__(config)
        config = self.config
        if not config.is_decoder:
            logger.warning(
                "a causal LM with is_decoder=False sees later tokens; set is_decoder=True to predict the next"
            )
        self.roberta_prelayernorm = RobertaPreLayerNormModel(config, add_pooling_layer=False)
        self.lm_head = RobertaPreLayerNormLMHead(config)
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
        labels: Tensor | None = None,
        past_key_values: Past | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: int | Tensor | None = None,
    ) -> Any:
        """Arguments as RobertaPreLayerNormModel's; labels switch the cache off.

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
            return_dict=True,
        )
        logits_BSV = self.lm_head(encoded.last_hidden_state)
        output = CausalLMOutputWithCrossAttentions(
            loss=None if labels is None else causal_loss(logits_BSV, labels, num_items_in_batch),
            logits=logits_BSV,
            past_key_values=encoded.past_key_values,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            cross_attentions=encoded.cross_attentions,
        )
        return self.answer(output, return_dict=return_dict)

    def generate(
        self,
        input_ids: Tensor | None = None,
        generation_config: Any = None,
        *,
        attention_mask: Tensor | None = None,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        use_cache: bool | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **keywords: Any,
    ) -> Tensor:
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
            input_ids=prompt_BS,
            attention_mask=attention_mask,
            options=options,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
        )


@torch.no_grad()
def greedy_search(
    model: "RobertaPreLayerNormForCausalLM",
    *,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    options: GreedyOptions,
    encoder_hidden_states: Tensor | None,
    encoder_attention_mask: Tensor | None,
) -> Tensor:
    """[B, S + generated]. With the cache a step feeds one token, without it the whole sequence: the same answer."""
    search = plan_search(
        prompt_BS=input_ids.cpu().numpy(),
        mask_BS=None if attention_mask is None else attention_mask.cpu().numpy(),
        config=model.config,
        max_new_tokens=options.max_new_tokens,
        max_length=options.max_length,
        end_ids=options.eos_token_id,
        pad_id=options.pad_token_id,
    )
    cached = options.use_cache and model.config.is_decoder
    last_B = torch.from_numpy(search.last_real_B()).to(input_ids.device)
    fed_BS, past = input_ids, None
    while not search.done:
        output = model(
            input_ids=fed_BS,
            attention_mask=torch.from_numpy(search.mask()).to(input_ids.device),
            past_key_values=past,
            use_cache=cached,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            return_dict=True,
        )
        rows_B = torch.arange(len(input_ids), device=input_ids.device)
        best_B = output.logits[rows_B, last_B].argmax(dim=-1)
        added_B = torch.from_numpy(search.add(best_B.cpu().numpy())).to(input_ids.device)
        if cached:
            fed_BS, past, last_B = added_B[:, None], output.past_key_values, torch.zeros_like(last_B)
        else:
            fed_BS = torch.cat((fed_BS, added_B[:, None]), dim=1)
            # A finished row's token is never looked at, so every row reads the newest place.
            last_B = torch.full_like(last_B, fed_BS.shape[1] - 1)
    return torch.from_numpy(search.sequences()).to(input_ids.device)
