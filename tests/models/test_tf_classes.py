"""What a user of the TensorFlow classes can do with them, and where the specification overrules the reference."""

import functools
import importlib.util
import math
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
from tests.models.tiny import KINDS, SEQUENCE_KINDS, padded_ids, tiny_config, token_ids

pytestmark = pytest.mark.tensorflow

TOLERANCE = 2e-5  # float32, the same sums in another order


@functools.cache
def build(kind: str = "Model", **overrides: Any) -> Any:
    """A model for all tests that do not change it."""
    return fresh(kind, **overrides)


def fresh(kind: str = "Model", **overrides: Any) -> Any:
    keras.utils.set_random_seed(11)
    return getattr(roberta, f"TFRobertaPreLayerNorm{kind}")(tiny_config(**overrides))


def ids(*shape: int, seed: int = 0) -> Any:
    return tf.constant(token_ids(*shape, seed=seed))


def inputs(kind: str) -> dict[str, Any]:
    padded, mask = padded_ids()
    if kind == "ForMultipleChoice":
        padded, mask = (np.stack((array, array[::-1]), axis=1) for array in (padded, mask))
    return {"input_ids": padded, "attention_mask": mask}


def labels(kind: str) -> dict[str, Any]:
    if kind == "ForQuestionAnswering":
        return {"start_positions": tf.constant([1, 2, 3]), "end_positions": tf.constant([2, 3, 3])}
    if kind in ("ForSequenceClassification", "ForMultipleChoice"):
        return {"labels": tf.constant([0, 1, 1])}
    high = 2 if kind == "ForTokenClassification" else 61
    return {"labels": tf.constant(np.random.default_rng(4).integers(0, high, (3, 9)))}


def near(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance)


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


# Decoder, cache and generation


@pytest.mark.parametrize(("positions", "steps"), [("absolute", 3), ("relative_key", 3), ("relative_key_query", 1)])
def test_cached_and_uncached_logits_agree(positions: str, steps: int) -> None:
    model = build("ForCausalLM", is_decoder=True, position_embedding_type=positions)
    batch = ids(2, 9)
    whole = model(batch).logits
    past: Any = None
    pieces = []
    for piece in (batch[:, :3], *tf.split(batch[:, 3:], 6 // steps, axis=1)):
        output = model(piece, past_key_values=past)
        past = output.past_key_values
        pieces.append(output.logits)
    near(tf.concat(pieces, axis=1), whole)
    assert past.get_seq_length() == 9


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_prompt_with_pads_goes_on_right_from_its_cache(side: str) -> None:
    model = build("ForCausalLM", is_decoder=True)
    prompt, mask = padded_ids()
    if side == "left":
        prompt, mask = prompt[:, ::-1], mask[:, ::-1]
    following = ids(3, 1, seed=9)
    past = model(prompt, attention_mask=mask).past_key_values
    longer = np.concatenate((mask, np.ones((3, 1), np.int64)), axis=1)
    cached = model(following, attention_mask=longer, past_key_values=past).logits[:, 0]
    for row in range(3):
        alone = np.concatenate((prompt[row][mask[row] == 1], following[row]))[None]
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
    states = {"encoder_hidden_states": tf.random.stateless_normal((2, 5, 32), (1, 2))} if cross else {}
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
    states, batch = tf.random.stateless_normal((2, 5, 32), (1, 2)), ids(2, 6)
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
    assert past.reorder(tf.constant([0, 0])).layers[0].self_key.shape[0] == 2


@pytest.mark.parametrize(("side", "use_cache"), [("left", True), ("right", True), ("left", False)])
def test_generation_takes_the_forward_pass_s_best_token_each_time(side: str, use_cache: bool) -> None:
    model = build("ForCausalLM", is_decoder=True)
    prompt, mask = padded_ids()
    if side == "left":
        prompt, mask = prompt[:, ::-1], mask[:, ::-1]
    found = model.generate(prompt, max_new_tokens=5, eos_token_id=-1, use_cache=use_cache)
    assert found.shape == (3, 14)
    assert (found[:, :9].numpy() == np.asarray(prompt)).all()
    for row in range(3):
        text = prompt[row][prompt[row] != 1]
        for token in found[row, 9:]:
            assert token == model(text[None]).logits[0, -1].numpy().argmax()
            text = np.append(text, token)


def test_generation_ends_a_row_at_its_end_token_and_pads_it() -> None:
    model = build("ForCausalLM", is_decoder=True)
    prompt = ids(2, 4)
    free = model.generate(prompt, max_new_tokens=6, eos_token_id=-1)
    ended = model.generate(prompt, max_new_tokens=6, eos_token_id=int(free[0, 4]))
    assert ended[0, 4] == free[0, 4]
    assert (ended[0, 5:].numpy() == 1).all()


def test_generation_beyond_the_model_is_refused_before_it_begins() -> None:
    model = build("ForCausalLM", is_decoder=True)
    with pytest.raises(ValueError, match="a sequence has 42 tokens, the model takes at most 38"):
        model.generate(ids(1, 3), max_new_tokens=40)
    with pytest.raises(ValueError, match="nothing to generate"):
        model.generate(ids(1, 30))


# Losses


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("Model", "ForQuestionAnswering")])
def test_every_integer_type_is_a_class_label(kind: str) -> None:
    model = build(kind)
    given_labels = labels(kind)["labels"]
    loss = model(**inputs(kind), labels=given_labels).loss
    assert loss.shape == ()
    for dtype in ("int8", "uint8", "int16", "int32"):
        near(model(**inputs(kind), labels=tf.cast(given_labels, dtype)).loss, loss, 0.0)


def test_the_kind_of_loss_is_decided_by_each_batch() -> None:
    model = build("ForSequenceClassification", num_labels=3)
    batch = inputs("")
    single = model(**batch, labels=tf.constant([0, 1, 2]))
    near(single.loss, -np.trace(tf.nn.log_softmax(single.logits).numpy()) / 3)
    many = tf.constant([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]])
    multiple = model(**batch, labels=many)
    near(multiple.loss, np.mean(np.log1p(np.exp(multiple.logits)) - multiple.logits.numpy() * many))
    assert model.config.problem_type is None


def test_labels_out_of_range_are_refused_and_ignored_ones_not() -> None:
    model = build("ForTokenClassification", num_labels=2)
    with pytest.raises(ValueError, match=r"labels hold 2, outside 0 … 1 \(-100 is ignored\)"):
        model(ids(1, 2), labels=tf.constant([[0, 2]]))
    with pytest.raises(ValueError, match="labels hold -1"):
        model(ids(1, 2), labels=tf.constant([[0, -1]]))
    assert math.isnan(model(ids(1, 2), labels=tf.fill((1, 2), -100)).loss)


def test_answer_positions_beyond_the_text_are_ignored_and_may_have_an_extra_axis() -> None:
    model = build("ForQuestionAnswering")
    outside = {"start_positions": tf.constant([1, 99]), "end_positions": tf.constant([2, 99])}
    both = model(ids(2, 5), **outside).loss
    one = model(ids(2, 5)[:1], start_positions=tf.constant([[1]]), end_positions=tf.constant([[2]])).loss
    near(both, one)
    assert model(ids(1, 5), start_positions=tf.constant([1])).loss is None


def test_a_causal_loss_can_be_a_sum_over_a_given_number() -> None:
    model = build("ForCausalLM", is_decoder=True)
    batch = ids(2, 5)
    near(model(batch, labels=batch, num_items_in_batch=8).loss, model(batch, labels=batch).loss)
    near(model(batch, labels=batch, num_items_in_batch=4).loss, 2 * model(batch, labels=batch).loss)


# Training


def test_checkpointed_training_keeps_no_cache() -> None:
    model = fresh(is_decoder=True)
    model.gradient_checkpointing_enable()
    assert model(ids(1, 4), training=True).past_key_values is None


def test_chunks_of_the_feed_forward_change_nothing_and_must_divide() -> None:
    whole, chunked = build(), build(chunk_size_feed_forward=3)
    near(chunked(ids(2, 6)).last_hidden_state, whole(ids(2, 6)).last_hidden_state)
    with pytest.raises(ValueError, match=r"5 tokens, not a multiple of config.chunk_size_feed_forward 3"):
        chunked(ids(2, 5))


def test_a_fresh_model_starts_as_the_reference_s() -> None:
    model = fresh("ForMaskedLM", initializer_range=0.02, hidden_size=64)
    words = model.get_input_embeddings().weight
    assert (words.numpy()[1] == 0).all()
    assert (model.roberta_prelayernorm.embeddings.position_embeddings.weight.numpy()[1] == 0).all()
    assert abs(words.numpy()[2:].std() - 0.02) < 0.002
    assert (model.lm_head.bias.numpy() == 0).all()
    assert (model.lm_head.layer_norm.weight.numpy() == 1).all()


def test_a_question_answerer_needs_two_labels() -> None:
    with pytest.raises(ValueError, match="question answering needs num_labels=2"):
        build("ForQuestionAnswering", num_labels=3)


def test_pads_without_a_mask_are_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    model, padded = fresh(), tf.constant(padded_ids()[0])
    model(padded)
    model(padded)
    assert caplog.text.count("pass the mask") == 1


# Surgery


@pytest.mark.parametrize("tied", [True, False])
def test_a_resized_vocabulary_keeps_the_old_words(tied: bool) -> None:
    model = fresh("ForMaskedLM", tie_word_embeddings=tied)
    batch = ids(2, 5)
    before = model(batch).logits
    table = model.resize_token_embeddings(70)
    assert (table.weight.shape[0], model.config.vocab_size, model.lm_head.bias.shape) == (70, 70, (70,))
    assert (model.get_output_embeddings().weight is table.weight) == tied
    near(model(batch).logits[..., :61], before)
    assert model.resize_token_embeddings(pad_to_multiple_of=64).weight.shape[0] == 128
    model.resize_token_embeddings(61)
    near(model(batch).logits, before)
    assert len(model.trainable_variables) == len(model.expected_tensors())


def test_pruned_heads_answer_as_masked_ones_and_are_remembered(tmp_path: Any) -> None:
    model, batch = fresh("ForTokenClassification"), ids(2, 5)
    mask = np.ones((3, 4), np.float32)
    mask[0, [1, 2]] = mask[2, 0] = 0
    # A masked head adds nothing but its share of the output bias, and so does a pruned one.
    masked = model(batch, head_mask=mask).logits
    model.prune_heads({0: [1], 2: [0]})
    model.prune_heads({0: [2]})
    assert model.config.pruned_heads == {0: [1, 2], 2: [0]}
    near(model(batch).logits, masked)
    model.save_pretrained(str(tmp_path))
    near(type(model).from_pretrained(str(tmp_path))(batch).logits, masked)
    with pytest.raises(ValueError, match="layer 0 would keep no head"):
        model.prune_heads({0: [0, 3]})


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


# Training


def gradients(model: Any, batch: Any, *, training: bool = True) -> list[Any]:
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(batch, training=training)[0])
    found = tape.gradient(loss, variables)
    return [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in found]


@pytest.mark.parametrize("kind", ["Model", "ForCausalLM", "ForMultipleChoice"])
def test_checkpointed_gradients_are_the_same(kind: str) -> None:
    decoder = kind == "ForCausalLM"
    model = fresh(kind, is_decoder=decoder, add_cross_attention=decoder, hidden_dropout_prob=0.2)
    batch = {**inputs(kind), **(labels(kind) if kind != "Model" else {})}
    if decoder:
        batch["encoder_hidden_states"] = np.random.default_rng(1).standard_normal((3, 5, 32)).astype(np.float32)
    found = []
    for enable in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        enable()
        for generator in (model.seed_generator, model.base_model.seed_generator):
            generator.state.assign([3, 4])
        found.append(gradients(model, batch))
    assert model.is_gradient_checkpointing
    for plain, checkpointed in zip(*found, strict=True):
        assert (plain is None) == (checkpointed is None)
        if plain is not None:
            near(checkpointed, plain, 1e-4)
