"""A prompt's token ids in, the prompt and its greedy continuation out.

Legend: B batch, S tokens so far, V vocabulary.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.generation import plan_search

if TYPE_CHECKING:
    from models.roberta_torch.language import RobertaPreLayerNormForCausalLM


@torch.no_grad()
def greedy_search(
    model: "RobertaPreLayerNormForCausalLM",
    *,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    max_new_tokens: int | None,
    max_length: int | None,
    eos_token_id: int | Sequence[int] | None,
    pad_token_id: int | None,
    use_cache: bool,
    encoder_hidden_states: Tensor | None,
    encoder_attention_mask: Tensor | None,
) -> Tensor:
    """[B, S + generated]. With the cache a step feeds one token, without it the whole sequence: the same answer."""
    search = plan_search(
        prompt_BS=input_ids.cpu().numpy(),
        mask_BS=None if attention_mask is None else attention_mask.cpu().numpy(),
        config=model.config,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        end_ids=eos_token_id,
        pad_id=pad_token_id,
    )
    cached = use_cache and model.config.is_decoder
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
