"""The TensorFlow classes are Keras models: inputs in every form, training, prediction, saving, graphs."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("tensorflow is not installed", allow_module_level=True)

import keras
import tensorflow as tf

from tests.models.frameworks import CLASSES
from tests.models.tiny import HEADS, inputs_of, labels_of, near, token_ids

pytestmark = pytest.mark.tensorflow

# One label a row, one a token, two: what Keras does to y. The losses themselves are the golden files' business.
FITTED = ("ForMultipleChoice", "ForCausalLM", "ForQuestionAnswering")


def build(kind: str = "Model", **overrides: Any) -> Any:
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return CLASSES["tensorflow"].build(kind, **{**quiet, **overrides})


# Inputs


def test_inputs_are_taken_by_keyword_mapping_list_tuple_and_place() -> None:
    model, batch = build(), inputs_of("")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    expected = model(**batch).last_hidden_state
    for found in (
        model(batch),
        model([ids, mask]),
        model((ids, mask)),
        model(ids, mask),
        model(ids, attention_mask=mask),
    ):
        near(found.last_hidden_state, expected, 0.0)
    near(model(ids.tolist(), mask.tolist()).last_hidden_state, expected, 0.0)
    near(model({**batch, "token_type_ids": None}).last_hidden_state, expected, 0.0)
    alone = model(ids[:1]).last_hidden_state
    for found in (model(tf.constant(ids[:1])), model([ids[:1]]), model({"input_ids": ids[:1]})):
        near(found.last_hidden_state, alone, 0.0)


def test_embeddings_need_no_ids_beside_them() -> None:
    model, batch = build(), inputs_of("")
    embeds = model.get_input_embeddings()(batch["input_ids"])
    expected = model(token_ids(3, 9)).last_hidden_state.shape
    for found in (model(inputs_embeds=embeds), model(None, inputs_embeds=embeds), model({"inputs_embeds": embeds})):
        assert found.last_hidden_state.shape == expected


def test_an_unknown_input_and_one_given_twice_are_refused() -> None:
    model, batch = build(), inputs_of("")
    with pytest.raises(ValueError, match="has no input 'labels'; it takes input_ids, attention_mask"):
        model(**batch, labels=np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="given 'input_ids' twice"):
        model(batch, input_ids=batch["input_ids"])


# Training


def test_fit_learns_from_labels_among_the_inputs() -> None:
    kind = "ForQuestionAnswering"
    model = build(kind, num_hidden_layers=1)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    given = {**inputs_of(kind), **labels_of(kind)}
    first = float(model(given).loss)
    history = model.fit(given, epochs=3, batch_size=3, verbose=0, shuffle=False).history["loss"]
    near(history[0], first, 1e-4)
    assert history[2] < history[0]


@pytest.mark.parametrize(
    "kind", [kind if kind in FITTED else pytest.param(kind, marks=pytest.mark.slow) for kind in HEADS]
)
def test_fit_and_evaluate_take_labels_as_y(kind: str) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM")
    model.compile(optimizer=keras.optimizers.Adam(1e-3), run_eagerly=True)
    answers = labels_of(kind)
    y = answers if len(answers) > 1 else answers["labels"]
    first = float(model({**inputs_of(kind), **answers}).loss)
    near(model.evaluate(inputs_of(kind), y, batch_size=3, verbose=0), first, 1e-4)
    near(model.fit(inputs_of(kind), y, batch_size=3, verbose=0).history["loss"][0], first, 1e-4)
    assert model.evaluate(inputs_of(kind), y, batch_size=3, verbose=0) < first


def test_compile_s_loss_and_metrics_see_the_logits() -> None:
    model = build("ForSequenceClassification", num_labels=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss=loss, metrics=["accuracy"])
    history = model.fit(inputs_of(""), np.array([0, 1, 2]), batch_size=3, verbose=0).history
    assert set(history) == {"accuracy", "loss"}
    own = build("ForSequenceClassification", num_labels=3)
    near(history["loss"], [own(**inputs_of(""), labels=np.array([0, 1, 2])).loss], 1e-4)


def test_nothing_to_learn_from_is_refused() -> None:
    model = build("ForTokenClassification")
    model.compile(optimizer="sgd")
    with pytest.raises(ValueError, match="give labels among the inputs"):
        model.fit(inputs_of(""), batch_size=3, verbose=0)


def test_training_with_xla_learns_the_same() -> None:
    losses = []
    for jit in (False, True):
        model = build("ForSequenceClassification", num_hidden_layers=1)
        model.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=jit)
        given = {**inputs_of(""), **labels_of("ForSequenceClassification")}
        losses.append(model.fit(given, epochs=2, verbose=0).history["loss"])
    near(losses[1], losses[0], 1e-4)


def test_dropout_drops_each_element_by_itself() -> None:
    model = build(hidden_dropout_prob=0.3)
    drops = np.asarray(model.embeddings.dropout(tf.ones((4, 8, 16)), model.seeds(training=True)))
    assert len({row.tobytes() for row in (drops == 0).reshape(-1, 16)}) == 32


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_float32_variables_and_finite_masked_rows(policy: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build("ForCausalLM", is_decoder=True)
    finally:
        keras.config.set_dtype_policy(before)
    logits = model(token_ids(1, 4), attention_mask=tf.constant([[0, 0, 1, 1]])).logits
    assert logits.dtype == policy.removeprefix("mixed_")
    assert np.isfinite(tf.cast(logits, tf.float32)).all()
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}


# Prediction, saving, graphs


@pytest.mark.parametrize("kind", ["ForCausalLM", pytest.param("ForQuestionAnswering", marks=pytest.mark.slow)])
def test_predict_gathers_what_the_calls_answer(kind: str) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM")
    expected = model(inputs_of(kind), output_hidden_states=True)
    given = {**inputs_of(kind), **labels_of(kind)}
    found = model.predict(given, batch_size=2, verbose=0)
    assert type(found) is type(expected)
    assert "loss" not in found
    near(found[0], expected[0])


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn.t accept a copy keyword:DeprecationWarning"
)  # Keras's
@pytest.mark.parametrize("kind", ["ForMaskedLM"])
def test_weights_saved_by_keras_load_again(kind: str, tmp_path: Path) -> None:
    model, other = build(kind), build(kind, initializer_range=0.1)
    model.save_weights(tmp_path / "mlm.weights.h5")
    other.load_weights(tmp_path / "mlm.weights.h5")
    near(other(**inputs_of(""))[0], model(**inputs_of(""))[0], 0.0)
    if kind == "ForMaskedLM":
        assert other.get_output_embeddings().weight is other.get_input_embeddings().weight


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn.t accept a copy keyword:DeprecationWarning"
)  # Keras's
def test_a_whole_model_saved_by_keras_loads_again(tmp_path: Path) -> None:
    model = build("ForMaskedLM")
    model.save(tmp_path / "mlm.keras")
    again = keras.models.load_model(tmp_path / "mlm.keras", custom_objects={type(model).__name__: type(model)})
    near(again(**inputs_of("")).logits, model(**inputs_of("")).logits, 0.0)


def test_a_model_is_rebuilt_from_keras_s_description() -> None:
    model = build("ForTokenClassification", num_labels=5)
    again = type(model).from_config(model.get_config())
    assert again.config == model.config
    assert again(**inputs_of("")).logits.shape == (3, 9, 5)
    assert type(model).from_config(model.config).num_parameters() == model.num_parameters()


def test_a_model_is_a_layer_of_a_functional_model() -> None:
    model = build("ForSequenceClassification")
    ids = keras.Input((None,), dtype="int64", name="input_ids")
    mask = keras.Input((None,), dtype="int64", name="attention_mask")
    scores = keras.layers.Softmax()(model(input_ids=ids, attention_mask=mask).logits)
    whole = keras.Model({"input_ids": ids, "attention_mask": mask}, scores)
    near(whole(inputs_of("")), tf.nn.softmax(model(**inputs_of("")).logits))


def test_an_exported_model_serves_any_length(tmp_path: Path) -> None:
    model = build("ForTokenClassification")
    ids = tf.TensorSpec((None, None), tf.int64)
    serve = tf.function(
        lambda input_ids, attention_mask: dict(model(input_ids=input_ids, attention_mask=attention_mask)),
        input_signature=(ids, ids),
        autograph=False,
    )
    holder = tf.Module()
    holder.model, holder.serve = model, serve
    tf.saved_model.save(holder, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for length in (5, 9):
        batch = {name: tf.constant(array[:, :length]) for name, array in inputs_of("").items()}
        near(loaded.serve(**batch)["logits"], model(**batch).logits)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_decoding_step_is_a_graph_with_the_cache_among_its_inputs(jit_compile: bool) -> None:
    model = build("ForCausalLM", is_decoder=True)
    step = tf.function(lambda ids, past: model(ids, past_key_values=past), jit_compile=jit_compile, autograph=False)
    ids = tf.constant(token_ids(2, 6))
    past = model(ids[:, :4]).past_key_values
    output = step(ids[:, 4:5], past)
    last = step(ids[:, 5:], output.past_key_values)
    near(last.logits[:, 0], model(ids).logits[:, 5])
    assert last.past_key_values.get_seq_length() == 6
