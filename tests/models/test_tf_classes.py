"""What a user of the TensorFlow classes may give them, and where the specification overrules the reference."""

import importlib.util
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("tensorflow is not installed", allow_module_level=True)

import keras
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import models.roberta_tf as roberta
from tests.models.tiny import KINDS, SEQUENCE_KINDS, tiny_config, token_ids
from tests.models.tiny_tf import build, fresh, ids, inputs, labels, near

pytestmark = pytest.mark.tensorflow


# Inputs


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_of_the_ids_answer_as_the_ids(kind: str) -> None:
    model = build(kind)
    given_ids = ids(3, 2, 9) if kind == "ForMultipleChoice" else ids(3, 9)
    embeds = model.get_input_embeddings()(given_ids)
    near(model(inputs_embeds=embeds)[0], model(input_ids=given_ids)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_tuples_hold_what_the_named_output_holds(kind: str) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM")
    wants = {"output_attentions": True, "output_hidden_states": True}
    named = model(**inputs(kind), **(labels(kind) if kind != "Model" else {}), **wants)
    plain = model(**inputs(kind), **(labels(kind) if kind != "Model" else {}), **wants, return_dict=False)
    assert isinstance(plain, tuple)
    assert len(plain) == len(named.to_tuple())
    for one, other in zip(plain, named.to_tuple(), strict=True):
        if tf.is_tensor(one):
            near(one, other, 0.0)


def test_the_bare_model_s_tuple_keeps_the_place_of_a_missing_pooler() -> None:
    model = roberta.TFRobertaPreLayerNormModel(tiny_config(), add_pooling_layer=False)
    last, pooled = model(ids(2, 5), return_dict=False)
    assert last.shape == (2, 5, 32)
    assert pooled is None
    assert "pooler_output" not in model(ids(2, 5))


def test_both_or_neither_of_ids_and_embeddings_are_refused() -> None:
    model = build()
    with pytest.raises(ValueError, match="both input_ids and inputs_embeds"):
        model(input_ids=ids(1, 3), inputs_embeds=tf.zeros((1, 3, 32)))
    with pytest.raises(ValueError, match="neither input_ids nor inputs_embeds"):
        build("ForMultipleChoice")()


def test_what_is_out_of_range_is_refused_with_value_and_limit() -> None:
    model = build()
    with pytest.raises(ValueError, match=r"input_ids holds 61, outside 0 … 60 \(vocab_size 61\)"):
        model(tf.constant([[5, 61]]))
    with pytest.raises(ValueError, match=r"token_type_ids holds 2, outside 0 … 1 \(type_vocab_size 2\)"):
        model(ids(1, 2), token_type_ids=tf.constant([[0, 2]]))
    with pytest.raises(ValueError, match=r"position_ids holds 40, outside 0 … 39 \(max_position_embeddings 40\)"):
        model(ids(1, 2), position_ids=tf.constant([[0, 40]]))
    with pytest.raises(ValueError, match=r"attention_mask has shape \(1, 1, 1, 4\); it must be"):
        model(ids(1, 4), attention_mask=tf.ones((1, 1, 1, 4)))
    with pytest.raises(ValueError, match=r"head_mask has shape \(3,\); it must be \(4,\) or \(3, 4\)"):
        model(ids(1, 4), head_mask=tf.ones((3,)))


def test_longer_than_the_position_table_is_refused_naming_the_limit() -> None:
    model = build()
    assert model(ids(1, 38)).last_hidden_state.shape == (1, 38, 32)
    for arguments in ({"input_ids": ids(1, 39)}, {"inputs_embeds": tf.zeros((1, 39, 32))}):
        with pytest.raises(ValueError, match=r"39 tokens, the model takes at most 38 .*max_length=38"):
            model(**arguments)


def test_pads_do_not_count_towards_the_limit() -> None:
    padded = np.concatenate((token_ids(1, 38), np.ones((1, 6), np.int64)), axis=1)
    near(build()(padded, (padded != 1).astype(int)).last_hidden_state[:, :38], build()(ids(1, 38)).last_hidden_state)


# Masks and padding


@pytest.mark.parametrize("kind", SEQUENCE_KINDS)
def test_padding_does_not_change_the_answers_of_real_tokens(kind: str) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM")
    batch = inputs(kind)
    whole = model(**batch)[0]
    for row, length in enumerate((9, 6, 4)):
        alone = model(batch["input_ids"][row : row + 1, :length])[0][0]
        near(whole[row] if kind == "ForSequenceClassification" else whole[row, :length], alone)


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(4)), st.integers(1, 12), st.booleans())
def test_the_order_of_the_batch_never_matters(order: list[int], length: int, is_decoder: bool) -> None:
    model = build(is_decoder=is_decoder, use_cache=False)
    batch = ids(4, length, seed=length)
    near(model(tf.gather(batch, order)).last_hidden_state, tf.gather(model(batch).last_hidden_state, order))


@pytest.mark.parametrize("maps", [True, False])
def test_a_row_that_sees_nothing_attends_to_all_keys_alike(maps: bool) -> None:
    model = build(is_decoder=True, use_cache=False)
    mask = tf.constant([[0, 0, 1, 1]])
    output = model(ids(1, 4), attention_mask=mask, output_attentions=maps)
    explicit = model(ids(1, 4), attention_mask=mask, output_attentions=True)
    near(output.last_hidden_state, explicit.last_hidden_state)
    near(explicit.attentions[0][0, :, 0], np.full((4, 4), 0.25), 1e-6)


def test_boolean_masks_are_taken_and_what_is_half_masked_is_not_seen() -> None:
    model, mask = build(), tf.constant([[1, 1, 0]])
    masked = model(ids(1, 3), mask).last_hidden_state
    near(model(ids(1, 3), tf.cast(mask, tf.bool)).last_hidden_state, masked, 0.0)
    # Half of the type's minimum hides a token as well as all of it.
    near(model(ids(1, 3), [[1.0, 1.0, 0.5]]).last_hidden_state[:, :2], masked[:, :2])


# Types


@pytest.mark.parametrize(("kind", "dtype"), [("ForCausalLM", "float16"), ("ForSequenceClassification", "bfloat16")])
def test_half_precision_models_answer_in_their_type(kind: str, dtype: Any, tmp_path: Any) -> None:
    build(kind, is_decoder=kind == "ForCausalLM").save_pretrained(str(tmp_path))
    model = getattr(roberta, f"TFRobertaPreLayerNorm{kind}").from_pretrained(str(tmp_path), dtype=dtype)
    output = model(**inputs(kind), **labels(kind))
    assert output.logits.dtype == dtype
    assert output.loss.dtype == ("float32" if kind == "ForCausalLM" else dtype)
    assert np.isfinite(tf.cast(output.logits, tf.float32)).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_float32_variables_and_finite_masked_rows(policy: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = fresh("ForCausalLM", is_decoder=True)
    finally:
        keras.config.set_dtype_policy(before)
    logits = model(ids(1, 4), attention_mask=tf.constant([[0, 0, 1, 1]])).logits
    assert logits.dtype == policy.removeprefix("mixed_")
    assert np.isfinite(tf.cast(logits, tf.float32)).all()
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
