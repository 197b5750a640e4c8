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

import models.roberta_tf as roberta
from tests.models.tiny import KINDS, padded_ids, tiny_config, token_ids

pytestmark = pytest.mark.tensorflow

TOLERANCE = 2e-5  # float32, the same sums in another order
HEADS = tuple(kind for kind in KINDS if kind != "Model")
# One label a row, one a token, two: what Keras does to y. The losses themselves are the golden files' business.
FITTED = ("ForMultipleChoice", "ForCausalLM", "ForQuestionAnswering")


def build(kind: str = "Model", **overrides: Any) -> Any:
    keras.utils.set_random_seed(11)
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_hidden_layers": 2}
    return getattr(roberta, f"TFRobertaPreLayerNorm{kind}")(tiny_config(**{**quiet, **overrides}))


def inputs(kind: str = "Model") -> dict[str, Any]:
    ids, mask = padded_ids()
    if kind == "ForMultipleChoice":
        ids, mask = (np.stack((array, array[::-1]), axis=1) for array in (ids, mask))
    return {"input_ids": ids, "attention_mask": mask}


def labels(kind: str) -> dict[str, Any]:
    if kind == "ForQuestionAnswering":
        return {"start_positions": np.array([1, 2, 3]), "end_positions": np.array([2, 3, 3])}
    if kind in ("ForSequenceClassification", "ForMultipleChoice"):
        return {"labels": np.array([0, 1, 1])}
    high = 2 if kind == "ForTokenClassification" else 61
    return {"labels": np.random.default_rng(4).integers(0, high, (3, 9))}


def near(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance)


# Inputs


def test_inputs_are_taken_by_keyword_mapping_list_tuple_and_place() -> None:
    model, batch = build(), inputs()
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
    model, batch = build(), inputs()
    embeds = model.get_input_embeddings()(batch["input_ids"])
    expected = model(token_ids(3, 9)).last_hidden_state.shape
    for found in (model(inputs_embeds=embeds), model(None, inputs_embeds=embeds), model({"inputs_embeds": embeds})):
        assert found.last_hidden_state.shape == expected


def test_an_unknown_input_and_one_given_twice_are_refused() -> None:
    model, batch = build(), inputs()
    with pytest.raises(ValueError, match="has no input 'labels'; it takes input_ids, attention_mask"):
        model(**batch, labels=np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="given 'input_ids' twice"):
        model(batch, input_ids=batch["input_ids"])


# Training


def test_fit_learns_from_labels_among_the_inputs() -> None:
    kind = "ForQuestionAnswering"
    model = build(kind, num_hidden_layers=1)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    given = {**inputs(kind), **labels(kind)}
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
    answers = labels(kind)
    y = answers if len(answers) > 1 else answers["labels"]
    first = float(model({**inputs(kind), **answers}).loss)
    near(model.evaluate(inputs(kind), y, batch_size=3, verbose=0), first, 1e-4)
    near(model.fit(inputs(kind), y, batch_size=3, verbose=0).history["loss"][0], first, 1e-4)
    assert model.evaluate(inputs(kind), y, batch_size=3, verbose=0) < first


def test_compile_s_loss_and_metrics_see_the_logits() -> None:
    model = build("ForSequenceClassification", num_labels=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss=loss, metrics=["accuracy"])
    history = model.fit(inputs(), np.array([0, 1, 2]), batch_size=3, verbose=0).history
    assert set(history) == {"accuracy", "loss"}
    own = build("ForSequenceClassification", num_labels=3)
    near(history["loss"], [own(**inputs(), labels=np.array([0, 1, 2])).loss], 1e-4)


def test_nothing_to_learn_from_is_refused() -> None:
    model = build("ForTokenClassification")
    model.compile(optimizer="sgd")
    with pytest.raises(ValueError, match="give labels among the inputs"):
        model.fit(inputs(), batch_size=3, verbose=0)


def test_training_with_xla_learns_the_same() -> None:
    losses = []
    for jit in (False, True):
        model = build("ForSequenceClassification", num_hidden_layers=1)
        model.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=jit)
        given = {**inputs(), **labels("ForSequenceClassification")}
        losses.append(model.fit(given, epochs=2, verbose=0).history["loss"])
    near(losses[1], losses[0], 1e-4)


def test_dropout_follows_the_seed_and_the_mode() -> None:
    batch = inputs()
    first, second = (build(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3) for _ in range(2))
    near(first(batch, training=True).last_hidden_state, second(batch, training=True).last_hidden_state, 0.0)
    again = first(batch, training=True).last_hidden_state
    assert not np.allclose(again, second(batch).last_hidden_state)
    near(first(batch).last_hidden_state, second(batch).last_hidden_state, 0.0)
    drops = np.asarray(first.embeddings.dropout(tf.ones((4, 8, 16)), first.seeds(training=True)))
    assert len({row.tobytes() for row in (drops == 0).reshape(-1, 16)}) == 32, "each element is dropped by itself"


@pytest.mark.parametrize(
    "kind", [kind if kind == "ForCausalLM" else pytest.param(kind, marks=pytest.mark.slow) for kind in HEADS]
)
def test_every_parameter_learns(kind: str) -> None:
    decoder = kind == "ForCausalLM"
    model = build(kind, is_decoder=decoder, add_cross_attention=decoder)
    batch = {**inputs(kind), **labels(kind)}
    if decoder:
        batch["encoder_hidden_states"] = np.random.default_rng(1).standard_normal((3, 5, 32)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = model(batch, training=True).loss
    variables = model.trainable_variables
    assert len(variables) == len(model.expected_tensors())
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    assert not [v.path for v, gradient in zip(variables, gradients, strict=True) if gradient is None]


def test_the_rows_of_the_pad_get_no_gradient() -> None:
    model = build("ForTokenClassification")
    tables = [
        getattr(model.base_model.embeddings, name).weight.value for name in ("word_embeddings", "position_embeddings")
    ]
    with tf.GradientTape() as tape:
        loss = model(inputs(), labels=np.zeros((3, 9), int)).loss
    for gradient in tape.gradient(loss, tables):
        dense = np.asarray(tf.convert_to_tensor(gradient))
        assert (dense[1] == 0).all()
        assert (dense != 0).any()


def test_head_masks_are_differentiable_and_weigh_the_maps() -> None:
    model = build()
    mask = tf.ones((2, 4))
    with tf.GradientTape() as tape:
        tape.watch(mask)
        last = tf.reduce_sum(model(token_ids(2, 5), head_mask=mask).last_hidden_state)
    assert (np.asarray(tape.gradient(last, mask)) != 0).all()
    half = model(token_ids(2, 5), head_mask=tf.fill((4,), 0.5), output_attentions=True).attentions[0]
    near(tf.reduce_sum(half, axis=-1), np.full((2, 4, 5), 0.5), 1e-6)


# Prediction, saving, graphs


@pytest.mark.parametrize("kind", ["ForCausalLM", pytest.param("ForQuestionAnswering", marks=pytest.mark.slow)])
def test_predict_gathers_what_the_calls_answer(kind: str) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM")
    expected = model(inputs(kind), output_hidden_states=True)
    given = {**inputs(kind), **(labels(kind) if kind != "Model" else {})}
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
    near(other(**inputs())[0], model(**inputs())[0], 0.0)
    if kind == "ForMaskedLM":
        assert other.get_output_embeddings().weight is other.get_input_embeddings().weight


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn.t accept a copy keyword:DeprecationWarning"
)  # Keras's
def test_a_whole_model_saved_by_keras_loads_again(tmp_path: Path) -> None:
    model = build("ForMaskedLM")
    model.save(tmp_path / "mlm.keras")
    again = keras.models.load_model(tmp_path / "mlm.keras", custom_objects={type(model).__name__: type(model)})
    near(again(**inputs()).logits, model(**inputs()).logits, 0.0)


def test_a_model_is_rebuilt_from_keras_s_description() -> None:
    model = build("ForTokenClassification", num_labels=5)
    again = type(model).from_config(model.get_config())
    assert again.config == model.config
    assert again(**inputs()).logits.shape == (3, 9, 5)
    assert type(model).from_config(model.config).num_parameters() == model.num_parameters()


def test_a_model_is_a_layer_of_a_functional_model() -> None:
    model = build("ForSequenceClassification")
    ids = keras.Input((None,), dtype="int64", name="input_ids")
    mask = keras.Input((None,), dtype="int64", name="attention_mask")
    scores = keras.layers.Softmax()(model(input_ids=ids, attention_mask=mask).logits)
    whole = keras.Model({"input_ids": ids, "attention_mask": mask}, scores)
    near(whole(inputs()), tf.nn.softmax(model(**inputs()).logits))


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
        batch = {name: tf.constant(array[:, :length]) for name, array in inputs().items()}
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
