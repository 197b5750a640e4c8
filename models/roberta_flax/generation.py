"""A prompt's token ids in, the prompt and its greedy continuation out.

Every step has the same shapes, so that two compilations (the prompt, one token) serve all of them.
Legend: B batch, S tokens so far, V vocabulary.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from models.generation import plan_search
from models.roberta_flax.layers import Array

if TYPE_CHECKING:
    from models.roberta_flax.language import FlaxRobertaPreLayerNormForCausalLM


def greedy_search(
    model: "FlaxRobertaPreLayerNormForCausalLM",
    *,
    params: Any,
    input_ids: Array,
    attention_mask: Array | None,
    max_new_tokens: int | None,
    max_length: int | None,
    eos_token_id: int | Sequence[int] | None,
    pad_token_id: int | None,
    use_cache: bool,
    encoder_hidden_states: Array | None,
    encoder_attention_mask: Array | None,
) -> Array:
    """[B, S + generated]. With the cache a step feeds one token, without it the whole sequence: the same answer."""
    search = plan_search(
        prompt_BS=np.asarray(input_ids, dtype=np.int64),
        mask_BS=None if attention_mask is None else np.asarray(attention_mask),
        config=model.config,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        end_ids=eos_token_id,
        pad_id=pad_token_id,
    )
    cached = use_cache and model.config.is_decoder
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
