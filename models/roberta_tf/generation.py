"""A prompt's token ids in, the prompt and its greedy continuation out.

Legend: B batch, S tokens so far, V vocabulary.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from models.generation import plan_search

if TYPE_CHECKING:
    from models.roberta_tf.language import TFRobertaPreLayerNormForCausalLM


def greedy_search(
    model: "TFRobertaPreLayerNormForCausalLM",
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
        prompt_BS=np.asarray(input_ids),
        mask_BS=None if attention_mask is None else np.asarray(attention_mask),
        config=model.config,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        end_ids=eos_token_id,
        pad_id=pad_token_id,
    )
    cached = use_cache and model.config.is_decoder
    last_B = search.last_real_B()
    fed_BS, past = tf.convert_to_tensor(input_ids), None
    while not search.done:
        output = model(
            input_ids=fed_BS,
            attention_mask=search.mask(),
            past_key_values=past,
            use_cache=cached,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            return_dict=True,
        )
        best_B = tf.argmax(tf.gather(output.logits, last_B, batch_dims=1), axis=-1)
        added_B = tf.cast(search.add(best_B.numpy()), fed_BS.dtype)
        if cached:
            fed_BS, past, last_B = added_B[:, None], output.past_key_values, np.zeros_like(last_B)
        else:
            fed_BS = tf.concat((fed_BS, added_B[:, None]), axis=1)
            # A finished row's token is never looked at, so every row reads the newest place.
            last_B = np.full_like(last_B, fed_BS.shape[1] - 1)
    return tf.cast(search.sequences(), fed_BS.dtype)
