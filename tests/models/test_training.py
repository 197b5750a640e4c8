"""The losses, gradients, modes and first weights of the classes of every framework."""

import math
from typing import Any

import numpy as np
import pytest

from models.tensors import PREFIX
from tests.models.frameworks import Classes, each, each_with
from tests.models.tiny import (
    CLASS_LABELS,
    HEADS,
    KINDS,
    encoder_states,
    inputs_of,
    labels_of,
    near,
    padded_ids,
    tiny_config,
    token_ids,
)

EMBEDDINGS = f"{PREFIX}embeddings."


def log_softmax(logits: Any) -> np.ndarray:
    exact = np.asarray(logits, np.float64)
    return exact - np.log(np.exp(exact).sum(-1, keepdims=True))


# Losses


@each_with("kind", CLASS_LABELS)
def test_every_integer_type_is_a_class_label(framework: Classes, kind: str) -> None:
    model, labels = framework.kept(kind), labels_of(kind)["labels"]
    loss = framework.call(model, **inputs_of(kind), labels=labels).loss
    assert loss.shape == ()
    types = ["int8", "uint8", "int32"] + ["int16"] * (framework.name != "flax")
    for dtype in types:
        near(framework.call(model, **inputs_of(kind), labels=labels.astype(dtype)).loss, loss, 0.0)


@each()
def test_the_kind_of_loss_is_decided_by_each_batch(framework: Classes) -> None:
    model, batch = framework.build("ForSequenceClassification", num_labels=3), inputs_of("")
    single = framework.call(model, **batch, labels=np.array([0, 1, 2]))
    near(single.loss, -np.trace(log_softmax(single.logits)) / 3)
    many = np.array([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]], np.float32)
    multiple = framework.call(model, **batch, labels=many)
    logits = np.asarray(multiple.logits)
    near(multiple.loss, np.mean(np.log1p(np.exp(logits)) - logits * many))
    assert model.config.problem_type is None


@each_with("labels", [1, 3])
def test_a_regression_s_loss_is_the_mean_squared_error(framework: Classes, labels: int) -> None:
    model = framework.kept("ForSequenceClassification", num_labels=labels, problem_type="regression")
    wanted = np.random.default_rng(2).normal(size=(3, labels)).astype(np.float32)
    output = framework.call(model, **inputs_of(""), labels=wanted if labels > 1 else wanted[:, 0])
    near(output.loss, np.mean((np.asarray(output.logits) - wanted) ** 2))


@each()
def test_labels_out_of_range_are_refused_and_ignored_ones_not(framework: Classes) -> None:
    model, ids = framework.kept("ForTokenClassification", num_labels=2), token_ids(3, 9)
    with pytest.raises(ValueError, match=r"labels hold 2, outside 0 … 1 \(-100 is ignored\)"):
        framework.call(model, ids, labels=np.full((3, 9), 2))
    with pytest.raises(ValueError, match="labels hold -1"):
        framework.call(model, ids, labels=np.full((3, 9), -1))
    assert math.isnan(float(framework.call(model, ids, labels=np.full((3, 9), -100)).loss))


@each()
def test_answer_positions_beyond_the_text_are_ignored_and_may_have_an_extra_axis(framework: Classes) -> None:
    model, ids = framework.kept("ForQuestionAnswering"), token_ids(3, 9)
    positions = {"start_positions": np.array([[1], [99], [-5]]), "end_positions": np.array([[2], [9], [-1]])}
    output = framework.call(model, ids, **positions)
    start, end = log_softmax(output.start_logits), log_softmax(output.end_logits)
    near(output.loss, -(start[0, 1] + start[2, 0] + end[0, 2] + end[2, 0]) / 4)
    assert framework.call(model, ids, start_positions=np.array([1, 1, 1])).loss is None


@each()
def test_a_causal_loss_can_be_a_sum_over_a_given_number(framework: Classes) -> None:
    model, batch = framework.kept("ForCausalLM", is_decoder=True), token_ids(3, 9)
    mean = framework.call(model, batch, labels=batch).loss
    near(framework.call(model, batch, labels=batch, num_items_in_batch=24).loss, mean)
    near(framework.call(model, batch, labels=batch, num_items_in_batch=12).loss, 2 * mean)


@each()
def test_a_question_answerer_needs_two_labels(framework: Classes) -> None:
    with pytest.raises(ValueError, match="question answering needs num_labels=2"):
        framework.build("ForQuestionAnswering", num_labels=3)


# Training


@each_with(
    "kind",
    KINDS,
    slow={
        "tensorflow": lambda kind: kind not in ("Model", "ForCausalLM", "ForMultipleChoice"),
        "flax": lambda kind: kind != "ForCausalLM",
    },
)
def test_checkpointed_gradients_are_the_same(framework: Classes, kind: str) -> None:
    decoder = kind == "ForCausalLM"
    model = framework.build(kind, is_decoder=decoder, add_cross_attention=decoder, hidden_dropout_prob=0.2)
    batch = {**inputs_of(kind), **labels_of(kind), **({"encoder_hidden_states": encoder_states()} if decoder else {})}
    plain = framework.training_gradients(model, batch)
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    near(framework.training_gradients(model, batch), plain, 1e-4)
    assert len(plain) > 10
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


@each()
def test_checkpointed_training_keeps_no_cache(framework: Classes) -> None:
    model = framework.build(is_decoder=True)
    model.gradient_checkpointing_enable()
    assert framework.training_call(model, token_ids(3, 9)).past_key_values is None


@each()
def test_dropout_follows_the_seed_and_the_mode(framework: Classes) -> None:
    model, ids = framework.build(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3), token_ids(3, 9)
    first = framework.training_call(model, ids, seed=1, output_attentions=True)
    near(framework.training_call(model, ids, seed=1, output_attentions=True)[0], first[0], 0.0)
    other = framework.training_call(model, ids, seed=2, output_attentions=True)[0]
    assert not np.allclose(np.asarray(other), np.asarray(first[0]))
    near(framework.call(model, ids)[0], framework.call(model, ids)[0], 0.0)
    dropped = np.asarray(first.attentions[0]) == 0
    assert (dropped[0] != dropped[1]).any(), "each element is dropped by itself"
    assert (dropped[:, 0] != dropped[:, 1]).any()


@each()
def test_chunks_of_the_feed_forward_change_nothing_and_must_divide(framework: Classes) -> None:
    whole, chunked = framework.kept(), framework.kept(chunk_size_feed_forward=3)
    near(framework.call(chunked, token_ids(3, 9))[0], framework.call(whole, token_ids(3, 9))[0])
    with pytest.raises(ValueError, match=r"5 tokens, not a multiple of config.chunk_size_feed_forward 3"):
        framework.call(chunked, token_ids(2, 5))


@each()
def test_a_fresh_model_starts_as_the_reference_s(framework: Classes) -> None:
    tensors = framework.tensors(framework.fresh("ForMaskedLM", tiny_config(initializer_range=0.02, hidden_size=64)))
    words = tensors[f"{EMBEDDINGS}word_embeddings.weight"]
    assert (words[1] == 0).all()
    assert (tensors[f"{EMBEDDINGS}position_embeddings.weight"][1] == 0).all()
    assert abs(float(words[2:].std()) - 0.02) < 0.002
    assert (tensors["lm_head.bias"] == 0).all()
    assert (tensors["lm_head.layer_norm.weight"] == 1).all()


@each_with(
    "kind", HEADS, slow={"tensorflow": lambda kind: kind != "ForCausalLM", "flax": lambda kind: kind != "ForCausalLM"}
)
def test_every_parameter_learns(framework: Classes, kind: str) -> None:
    decoder = kind == "ForCausalLM"
    model = framework.kept(kind, is_decoder=decoder, add_cross_attention=decoder)
    states = {"encoder_hidden_states": encoder_states()} if decoder else {}
    found = framework.training_gradients(model, {**inputs_of(kind), **labels_of(kind), **states})
    assert set(found) == set(model.expected_tensors())
    assert not [name for name, gradient in found.items() if not gradient.any() and not name.endswith("bias")]


@each()
def test_the_rows_of_the_pad_get_no_gradient(framework: Classes) -> None:
    labels = {"labels": np.zeros((3, 9), np.int64)}
    found = framework.gradients(framework.kept("ForTokenClassification"), {**inputs_of(""), **labels})
    for table in ("word_embeddings", "position_embeddings"):
        gradient = found[f"{EMBEDDINGS}{table}.weight"]
        assert (gradient[1] == 0).all()
        assert (gradient != 0).any()


@each("torch", "tensorflow")
def test_pads_without_a_mask_are_warned_about_once(framework: Classes, caplog: pytest.LogCaptureFixture) -> None:
    model = framework.build()
    for _ in range(2):
        framework.call(model, padded_ids()[0])
    assert caplog.text.count("pass the mask") == 1
