"""Caches and prompts in; proof that the torch classes go on from them as if they saw all at once, out."""

import importlib.util
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

from tests.models.tiny import padded_ids
from tests.models.tiny_torch import build, ids, near

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("positions", ["absolute", "relative_key", "relative_key_query"])
@pytest.mark.parametrize("steps", [1, 3])
def test_cached_and_uncached_logits_agree(positions: str, steps: int) -> None:
    model = build("ForCausalLM", is_decoder=True, position_embedding_type=positions)
    batch = ids(2, 9)
    whole = model(batch).logits
    past: Any = None
    pieces = []
    for piece in (batch[:, :3], *batch[:, 3:].split(steps, dim=1)):
        output = model(piece, past_key_values=past)
        past = output.past_key_values
        pieces.append(output.logits)
    near(torch.cat(pieces, dim=1), whole)
    assert past.get_seq_length() == 9


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_prompt_with_pads_goes_on_right_from_its_cache(side: str) -> None:
    model = build("ForCausalLM", is_decoder=True)
    prompt, mask = (torch.from_numpy(array) for array in padded_ids())
    if side == "left":
        prompt, mask = prompt.flip(1), mask.flip(1)
    following = ids(3, 1, seed=9)
    past = model(prompt, attention_mask=mask).past_key_values
    longer = torch.cat((mask, torch.ones(3, 1, dtype=torch.long)), dim=1)
    cached = model(following, attention_mask=longer, past_key_values=past).logits[:, 0]
    for row in range(3):
        alone = torch.cat((prompt[row][mask[row] == 1], following[row]))[None]
        near(cached[row], model(alone).logits[0, -1])


def test_embeddings_with_a_cache_count_the_past() -> None:
    model = build(is_decoder=True)
    batch = ids(2, 6)
    embeds = model.get_input_embeddings()(batch)
    past = model(inputs_embeds=embeds[:, :4]).past_key_values
    stepped = model(inputs_embeds=embeds[:, 4:], past_key_values=past).last_hidden_state
    near(stepped, model(batch).last_hidden_state[:, 4:])


@pytest.mark.parametrize("cross", [True, False])
def test_a_cache_as_tuples_goes_on_with_a_warning(cross: bool) -> None:
    model = build("ForCausalLM", is_decoder=True, add_cross_attention=cross)
    states = {"encoder_hidden_states": torch.randn(2, 5, 32)} if cross else {}
    batch = ids(2, 6)
    past = model(batch[:, :4], **states).past_key_values
    legacy = past.to_legacy_cache()
    assert len(legacy[0]) == (4 if cross else 2)
    if not cross:
        legacy = tuple((*layer, None, None) for layer in legacy)
    with pytest.warns(UserWarning, match="tuple of tuples"):
        stepped = model(batch[:, 4:], past_key_values=legacy, **states).logits
    near(stepped, model(batch, **states).logits[:, 4:])


def test_cross_attention_goes_on_from_the_cache_alone() -> None:
    model = build("ForCausalLM", is_decoder=True, add_cross_attention=True)
    states, batch = torch.randn(2, 5, 32), ids(2, 6)
    past = model(batch[:, :4], encoder_hidden_states=states).past_key_values
    near(
        model(batch[:, 4:], past_key_values=past).logits,
        model(batch, encoder_hidden_states=states).logits[:, 4:],
    )


def test_maps_without_encoder_states_have_no_cross_attentions() -> None:
    model = build(is_decoder=True, add_cross_attention=True)
    output = model(ids(2, 4), output_attentions=True)
    assert output.cross_attentions is None
    assert len(output.attentions) == 3


def test_an_encoder_keeps_no_cache_and_a_decoder_only_if_asked() -> None:
    assert build()(ids(1, 4), use_cache=True).past_key_values is None
    assert build(is_decoder=True)(ids(1, 4)).past_key_values is not None
    assert build(is_decoder=True)(ids(1, 4), use_cache=False).past_key_values is None


def test_a_step_does_not_change_the_cache_it_was_given() -> None:
    model = build(is_decoder=True)
    past = model(ids(1, 4)).past_key_values
    first = model(ids(1, 1), past_key_values=past).last_hidden_state
    near(model(ids(1, 1), past_key_values=past).last_hidden_state, first, 0.0)
    assert past.get_seq_length() == 4
    assert past.reorder(torch.tensor([0, 0])).layers[0].self_key.shape[0] == 2


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_takes_the_forward_pass_s_best_token_each_time(side: str, use_cache: bool) -> None:
    model = build("ForCausalLM", is_decoder=True)
    prompt, mask = (torch.from_numpy(array) for array in padded_ids())
    if side == "none":
        prompt = ids(3, 9)
    if side == "left":
        prompt, mask = prompt.flip(1), mask.flip(1)
    found = model.generate(prompt, max_new_tokens=5, eos_token_id=-1, use_cache=use_cache)
    assert found.shape == (3, 14)
    assert (found[:, :9] == prompt).all()
    for row in range(3):
        text = prompt[row][prompt[row] != 1]
        for token in found[row, 9:]:
            assert token == model(text[None]).logits[0, -1].argmax()
            text = torch.cat((text, token[None]))


def test_generation_ends_a_row_at_its_end_token_and_pads_it() -> None:
    model = build("ForCausalLM", is_decoder=True)
    prompt = ids(2, 4)
    free = model.generate(prompt, max_new_tokens=6, eos_token_id=-1)
    ended = model.generate(prompt, max_new_tokens=6, eos_token_id=int(free[0, 4]))
    assert ended[0, 4] == free[0, 4]
    assert (ended[0, 5:] == 1).all()


def test_generation_beyond_the_model_is_refused_before_it_begins() -> None:
    model = build("ForCausalLM", is_decoder=True)
    with pytest.raises(ValueError, match="a sequence has 42 tokens, the model takes at most 38"):
        model.generate(ids(1, 3), max_new_tokens=40)
    with pytest.raises(ValueError, match="nothing to generate"):
        model.generate(ids(1, 30))
