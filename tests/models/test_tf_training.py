"""Labels in; proof that the TensorFlow classes' losses, gradients and modes are right, out."""

import importlib.util
import math
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("tensorflow is not installed", allow_module_level=True)

import tensorflow as tf

from tests.models.tiny import KINDS, padded_ids
from tests.models.tiny_tf import build, fresh, ids, inputs, labels, near

pytestmark = pytest.mark.tensorflow


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
