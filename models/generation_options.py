"""Reads generate()'s keywords and a generation_config for greedy decoding, and refuses what asks for anything else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# (values that change nothing in greedy decoding, why any other is refused)
ONE_ROW = "it decodes greedily, one row for each prompt"
AS_SCORED = "it takes the best token of the model's own scores"
ONLY_IDS = "it returns the ids; call the model for more"
REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "do_sample": ((False,), ONE_ROW),
    "num_beams": ((1,), ONE_ROW),
    "num_beam_groups": ((1,), ONE_ROW),
    "num_return_sequences": ((1,), ONE_ROW),
    "penalty_alpha": ((0,), ONE_ROW),
    "constraints": ((), ONE_ROW),
    "force_words_ids": ((), ONE_ROW),
    "assistant_model": ((), ONE_ROW),
    "prompt_lookup_num_tokens": ((), ONE_ROW),
    "dola_layers": ((), ONE_ROW),
    "custom_generate": ((), ONE_ROW),
    "repetition_penalty": ((1,), AS_SCORED),
    "encoder_repetition_penalty": ((1,), AS_SCORED),
    "no_repeat_ngram_size": ((0,), AS_SCORED),
    "encoder_no_repeat_ngram_size": ((0,), AS_SCORED),
    "bad_words_ids": ((), AS_SCORED),
    "suppress_tokens": (([],), AS_SCORED),
    "begin_suppress_tokens": (([],), AS_SCORED),
    "forced_bos_token_id": ((), AS_SCORED),
    "forced_eos_token_id": ((), AS_SCORED),
    "sequence_bias": ((), AS_SCORED),
    "guidance_scale": ((1,), AS_SCORED),
    "exponential_decay_length_penalty": ((), AS_SCORED),
    "watermarking_config": ((), AS_SCORED),
    "logits_processor": (([],), AS_SCORED),
    "prefix_allowed_tokens_fn": ((), AS_SCORED),
    "remove_invalid_values": ((False,), AS_SCORED),
    "min_length": ((0,), "a row ends at its first end token; give eos_token_id=[] for rows of full length"),
    "min_new_tokens": ((0,), "a row ends at its first end token; give eos_token_id=[] for rows of full length"),
    "stopping_criteria": (([],), "a row ends at an end token or at the length"),
    "stop_strings": ((), "a row ends at an end token or at the length"),
    "max_time": ((), "a row ends at an end token or at the length"),
    "streamer": ((), ONLY_IDS),
    "return_dict_in_generate": ((False,), ONLY_IDS),
    "output_scores": ((False,), ONLY_IDS),
    "output_logits": ((False,), ONLY_IDS),
    "output_attentions": ((False,), ONLY_IDS),
    "output_hidden_states": ((False,), ONLY_IDS),
    "inputs_embeds": ((), "a prompt is ids"),
    "token_type_ids": ((), "tokens of a prompt are of type 0"),
    "position_ids": ((), "positions follow from the mask"),
    "head_mask": ((), "prune the heads instead"),
    "past_key_values": ((), "a prompt is whole; call the model with the cache instead"),
    "negative_prompt_ids": ((), AS_SCORED),
    "negative_prompt_attention_mask": ((), AS_SCORED),
    "token_healing": ((False,), "the prompt stays as it is"),
}
# Settings of sampling, of beams, of assistants and of caches: without those they mean nothing.
IDLE = {
    "temperature", "top_k", "top_p", "top_h", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "renormalize_logits",
    "length_penalty", "early_stopping", "diversity_penalty", "low_memory", "synced_gpus", "use_model_defaults",
    "bos_token_id", "decoder_start_token_id", "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind",
    "max_matching_ngram_size", "cache_implementation", "cache_config", "compile_config", "disable_compile",
    "prefill_chunk_size", "transformers_version", "prng_key", "trace", "seed", "generation_kwargs",
}  # fmt: skip


@dataclass(frozen=True)
class GreedyOptions:
    """How far greedy decoding goes: the arguments of models.generation.plan_search, and whether a cache is kept."""

    max_new_tokens: int | None = None
    max_length: int | None = None
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None
    use_cache: bool = True


def greedy_options(
    generation_config: Any,
    more: Mapping[str, Any] | None = None,
    *,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    use_cache: bool | None = None,
) -> GreedyOptions:
    """What is given to generate() wins over its generation_config, transformers' or a dict. more: further keywords.

    Raises ValueError for what greedy decoding can't do, naming it and the reason, TypeError for what the reference does not
    know either.
    """
    given = {"max_new_tokens": max_new_tokens, "max_length": max_length, "eos_token_id": eos_token_id}
    given |= {"pad_token_id": pad_token_id, "use_cache": use_cache}
    merged = {name: value for name, value in _fields(generation_config).items() if name[0] != "_"}
    merged |= {name: value for name, value in {**given, **(more or {})}.items() if value is not None}
    found: dict[str, Any] = {}
    for name, value in merged.items():
        if name in GreedyOptions.__dataclass_fields__:
            if value is not None:
                found[name] = value
        elif name in REFUSED:
            harmless, reason = REFUSED[name]
            if not _is_one_of(value, harmless):
                raise ValueError(f"generate({name}={value!r}) is not supported: {reason}")
        elif name not in IDLE:
            raise TypeError(f"generate() knows no argument '{name}'")
    return GreedyOptions(**found)


def prompt_of(input_ids: Any, more: dict[str, Any]) -> Any:
    """The prompt, which the reference also calls `inputs`; raises ValueError without one."""
    inputs = more.pop("inputs", None)
    if (input_ids is None) == (inputs is None):
        raise ValueError("generate() needs input_ids, the prompt [B, S]; begin it with bos_token_id")
    return inputs if input_ids is None else input_ids


def _is_one_of(value: Any, harmless: tuple[Any, ...]) -> bool:
    return value is None or (isinstance(value, bool | int | float | list) and value in harmless)


def _fields(config: Any) -> Mapping[str, Any]:
    if config is None or isinstance(config, Mapping):
        return config or {}
    for name in ("to_diff_dict", "to_dict"):
        if callable(getattr(config, name, None)):
            found: Mapping[str, Any] = getattr(config, name)()
            return found
    return vars(config)
