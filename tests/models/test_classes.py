"""What a user of the classes may give them in any framework, and where the specification overrules the reference."""

import inspect
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.frameworks import MODULES, Classes, each, each_with
from tests.models.tiny import KINDS, SEQUENCE_KINDS, inputs_of, labels_of, near, tiny_config, token_ids

# Inputs


@each_with("kind", KINDS, slow={"flax": lambda kind: kind not in ("Model", "ForMultipleChoice")})
def test_embeddings_of_the_ids_answer_as_the_ids(framework: Classes, kind: str) -> None:
    model = framework.kept(kind)
    ids = token_ids(3, 2, 9) if kind == "ForMultipleChoice" else token_ids(3, 9)
    embeds = framework.embedded(model, ids)
    near(framework.call(model, inputs_embeds=embeds)[0], framework.call(model, input_ids=ids)[0])


@each_with("kind", KINDS)
def test_tuples_hold_what_the_named_output_holds(framework: Classes, kind: str) -> None:
    model = framework.kept(kind, is_decoder=kind == "ForCausalLM")
    given_inputs = {**inputs_of(kind), **labels_of(kind), "output_attentions": True, "output_hidden_states": True}
    named = framework.call(model, **given_inputs)
    plain = framework.call(model, **given_inputs, return_dict=False)
    assert isinstance(plain, tuple)
    assert len(plain) == len(named.to_tuple())
    for one, (name, other) in zip(plain, named.items(), strict=True):
        if name == "past_key_values":
            assert one.get_seq_length() == other.get_seq_length()
        else:
            near(one, other, 0.0)


@each()
def test_the_bare_model_s_tuple_keeps_the_place_of_a_missing_pooler(framework: Classes) -> None:
    model = framework.named("Model")(tiny_config(), add_pooling_layer=False)
    last, pooled = framework.call(model, token_ids(3, 9), return_dict=False)
    assert last.shape == (3, 9, 32)
    assert pooled is None
    assert "pooler_output" not in framework.call(model, token_ids(3, 9))
    assert not [name for name in framework.tensors(model) if "pooler" in name]


@each()
def test_both_or_neither_of_ids_and_embeddings_are_refused(framework: Classes) -> None:
    model = framework.kept()
    with pytest.raises(ValueError, match="both input_ids and inputs_embeds"):
        framework.call(model, input_ids=token_ids(1, 3), inputs_embeds=np.zeros((1, 3, 32), np.float32))
    with pytest.raises(ValueError, match="neither input_ids nor inputs_embeds"):
        framework.call(framework.kept("ForMultipleChoice"))
    with pytest.raises((TypeError, ValueError), match="labels"):
        framework.call(model, input_ids=token_ids(1, 3), labels=token_ids(1, 3))


@each()
def test_what_is_out_of_range_is_refused_with_value_and_limit(framework: Classes) -> None:
    model, ids = framework.kept(), token_ids(1, 2)
    for match, given_inputs in {
        r"input_ids holds 61, outside 0 … 60 \(vocab_size 61\)": {"input_ids": np.array([[5, 61]])},
        r"token_type_ids holds 2, outside 0 … 1 \(type_vocab_size 2\)": {"token_type_ids": np.array([[0, 2]])},
        r"position_ids holds 40, outside 0 … 39 \(max_position_embeddings 40\)": {"position_ids": np.array([[0, 40]])},
        r"attention_mask has shape \(1, 1, 1, 2\); it must be": {"attention_mask": np.ones((1, 1, 1, 2), np.float32)},
        r"head_mask has shape \(3,\); it must be \(4,\) or \(2, 4\)": {"head_mask": np.ones(3, np.float32)},
    }.items():
        with pytest.raises(ValueError, match=match):
            framework.call(model, **{"input_ids": ids, **given_inputs})


@each()
def test_longer_than_the_position_table_is_refused_naming_the_limit(framework: Classes) -> None:
    model = framework.kept()
    assert framework.call(model, token_ids(1, 38)).last_hidden_state.shape == (1, 38, 32)
    for given_inputs in ({"input_ids": token_ids(1, 39)}, {"inputs_embeds": np.zeros((1, 39, 32), np.float32)}):
        with pytest.raises(ValueError, match=r"39 tokens, the model takes at most 38 .*max_length=38"):
            framework.call(model, **given_inputs)


@each()
def test_pads_do_not_count_towards_the_limit(framework: Classes) -> None:
    model, ids = framework.kept(), token_ids(1, 38)
    padded = np.concatenate((ids, np.ones((1, 6), np.int64)), axis=1)
    found = framework.call(model, padded, (padded != 1).astype(np.int64)).last_hidden_state
    near(found[:, :38], framework.call(model, ids).last_hidden_state)


# Masks and padding


@each_with("kind", SEQUENCE_KINDS)
def test_padding_does_not_change_the_answers_of_real_tokens(framework: Classes, kind: str) -> None:
    model, batch = framework.kept(kind, is_decoder=kind == "ForCausalLM"), inputs_of(kind)
    whole = framework.call(model, **batch)[0]
    # JAX compiles each length anew; test_frameworks_agree.py has many.
    for row, length in enumerate((9, 6, 4)):
        if framework.name != "flax" or length == 4:
            alone = framework.call(model, batch["input_ids"][row : row + 1, :length])[0][0]
            near(whole[row] if kind == "ForSequenceClassification" else whole[row, :length], alone)


@each_with("maps", [True, False])
def test_a_row_that_sees_nothing_attends_to_all_keys_alike(framework: Classes, maps: bool) -> None:
    model = framework.kept(is_decoder=True, use_cache=False)
    batch = {"input_ids": token_ids(3, 9), "attention_mask": np.tile([0, 0, 1, 1, 1, 1, 1, 1, 1], (3, 1))}
    output = framework.call(model, **batch, output_attentions=maps)
    explicit = framework.call(model, **batch, output_attentions=True)
    near(output.last_hidden_state, explicit.last_hidden_state)
    near(explicit.attentions[0][0, :, 0], np.full((4, 9), 1 / 9), 1e-6)


@each()
def test_boolean_masks_are_taken_and_what_is_half_masked_is_not_seen(framework: Classes) -> None:
    model, ids = framework.kept(), token_ids(3, 9)
    mask = np.tile([1, 1, 1, 1, 1, 1, 1, 1, 0], (3, 1))
    masked = framework.call(model, ids, mask).last_hidden_state
    near(framework.call(model, ids, mask.astype(bool)).last_hidden_state, masked, 0.0)
    # Half of the type's minimum hides a token as well as all of it.
    half = framework.call(model, ids, (mask * 0.5 + 0.5).astype(np.float32)).last_hidden_state
    near(half[:, :8], masked[:, :8])


@each()
def test_head_masks_are_differentiable_and_weigh_the_maps(framework: Classes) -> None:
    model, ids = framework.kept(), token_ids(3, 9)
    batch = {"input_ids": ids, "head_mask": np.ones((2, 4), np.float32)}
    assert (framework.gradients(model, batch, of="head_mask")["head_mask"] != 0).all()
    half = framework.call(model, ids, head_mask=np.full(4, 0.5, np.float32), output_attentions=True).attentions[0]
    near(np.asarray(half).sum(-1), np.full((3, 4, 9), 0.5), 1e-6)


# Types


def type_name(tensor: Any) -> str:
    """A tensor's type without the framework's way to write it."""
    return re.findall(r"b?float\d+", str(tensor.dtype))[0]


@each_with(
    "kind, dtype", [("ForCausalLM", "float16"), ("ForCausalLM", "bfloat16"), ("ForSequenceClassification", "bfloat16")]
)
def test_half_precision_models_answer_in_their_type(framework: Classes, kind: str, dtype: str, tmp_path: Path) -> None:
    framework.kept(kind, is_decoder=kind == "ForCausalLM").save_pretrained(str(tmp_path))
    output = framework.program(framework.load(kind, tmp_path, dtype=dtype))(**inputs_of(kind), **labels_of(kind))
    assert type_name(output.logits) == dtype
    assert type_name(output.loss) == ("float32" if kind == "ForCausalLM" else dtype)
    assert math.isfinite(float(output.loss))


# Padding and order


def padded(rows: list[int], *, width: int, side: str) -> tuple[Any, Any]:
    """(ids, mask) of texts of these lengths, the i-th always the same, padded to a width."""
    ids, mask = np.ones((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for i, length in enumerate(rows):
        place = slice(0, length) if side == "right" else slice(width - length, width)
        ids[i, place], mask[i, place] = token_ids(1, 12, seed=length)[0, :length], 1
    return ids, mask


def hidden(framework: Classes, model: Any, rows: list[int], *, width: int, side: str) -> list[Any]:
    """Each text's last hidden states without its pads."""
    ids, mask = padded(rows, width=width, side=side)
    states = np.asarray(framework.program(model)(input_ids=ids, attention_mask=mask).last_hidden_state)
    return [state[kept.astype(bool)] for state, kept in zip(states, mask, strict=True)]


TEXTS = {
    "rows": st.lists(st.integers(1, 12), min_size=4, max_size=4),
    "order": st.permutations(range(4)),
    "side": st.sampled_from(["left", "right"]),
    "is_decoder": st.booleans(),
    "positions": st.sampled_from(["absolute", "relative_key_query"]),
}


def check_padding(
    framework: Classes, *, rows: list[int], order: list[int], side: str, is_decoder: bool, positions: str
) -> None:
    model = framework.kept(is_decoder=is_decoder, use_cache=False, position_embedding_type=positions)
    expected = hidden(framework, model, rows, width=12, side="right")
    found = hidden(framework, model, [rows[i] for i in order], width=16, side=side)
    for place, i in enumerate(order):
        near(found[place], expected[i])


@each()
@settings(max_examples=6, deadline=None)
@given(**TEXTS)
def test_neither_padding_nor_the_order_of_the_batch_changes_a_text_s_states(framework: Classes, **drawn: Any) -> None:
    check_padding(framework, **drawn)


@pytest.mark.slow
@each()
@settings(max_examples=200, deadline=None)
@given(**TEXTS)
def test_neither_padding_nor_order_changes_anything_in_very_many_batches(framework: Classes, **drawn: Any) -> None:
    check_padding(framework, **drawn)


# What every class does alike


# One without a head, one with: the heads pass on what the encoder gives them, which the golden cases prove of each.
@each_with(
    "kind", SEQUENCE_KINDS, slow=dict.fromkeys(MODULES, lambda kind: kind not in ("Model", "ForTokenClassification"))
)
def test_maps_and_states_are_there_by_the_config_or_by_the_call(framework: Classes, kind: str) -> None:
    inputs, model = inputs_of(kind), framework.build(kind)
    plain = framework.answer(model, inputs)
    asked = framework.answer(model, {**inputs, "output_attentions": True, "output_hidden_states": True})
    maps, states = ["attentions.0", "attentions.1"], ["hidden_states.0", "hidden_states.1", "hidden_states.2"]
    assert sorted(set(asked) - set(plain)) == [*maps, *states]
    assert asked["attentions.1"].shape == (3, 4, 9, 9)
    assert asked["hidden_states.2"].shape == (3, 9, 32)
    model.config.output_attentions = model.config.output_hidden_states = True
    near(framework.answer(model, inputs), asked)


@each()
def test_the_same_call_twice_answers_the_same_bits(framework: Classes) -> None:
    model, batch = framework.kept("ForMaskedLM"), {**inputs_of(""), **labels_of("ForMaskedLM")}
    near(framework.answer(model, batch), framework.answer(model, batch), 0.0)


@each_with("tied", [True, False])
def test_a_saved_model_answers_the_same_bits_when_it_is_loaded(framework: Classes, tied: bool, tmp_path: Path) -> None:
    model = framework.kept("ForMaskedLM", tie_word_embeddings=tied)
    model.save_pretrained(str(tmp_path))
    again, batch = framework.load("ForMaskedLM", tmp_path), {**inputs_of(""), **labels_of("ForMaskedLM")}
    near(framework.answer(again, batch), framework.answer(model, batch), 0.0)


COMMON = ["input_ids", "attention_mask", "token_type_ids", "position_ids", "head_mask", "inputs_embeds"]
CROSS = ["encoder_hidden_states", "encoder_attention_mask"]
SHOWN = ["output_attentions", "output_hidden_states", "return_dict"]
ARGUMENTS = {
    "Model": [*COMMON, *CROSS, "past_key_values", "use_cache", *SHOWN],
    "ForCausalLM": [*COMMON, *CROSS, "labels", "past_key_values", "use_cache", *SHOWN],
    "ForMaskedLM": [*COMMON, *CROSS, "labels", *SHOWN],
    "ForSequenceClassification": [*COMMON, "labels", *SHOWN],
    "ForMultipleChoice": [
        *("input_ids", "token_type_ids", "attention_mask", "labels", "position_ids", "head_mask", "inputs_embeds"),
        *SHOWN,
    ],
    "ForTokenClassification": [*COMMON, "labels", *SHOWN],
    "ForQuestionAnswering": [*COMMON, "start_positions", "end_positions", *SHOWN],
}
"""Arguments in the order of transformers 4.57's PyTorch classes."""


# Flax's __call__ is one for all heads, by keyword.
@each_with("kind", KINDS, but={"flax": lambda kind: True})
def test_signatures_begin_with_the_reference_s_arguments_in_its_order(framework: Classes, kind: str) -> None:
    caller = {"torch": "forward", "tensorflow": "call"}[framework.name]
    _, *parameters = inspect.signature(getattr(framework.named(kind), caller)).parameters
    assert parameters[: len(ARGUMENTS[kind])] == ARGUMENTS[kind]
