"""Three frameworks, one model: the same answers, losses and gradients on any config, and each reads what each writes."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.checks import ACTIVATIONS
from tests.models import golden
from tests.models.frameworks import CLASSES, INSTALLED
from tests.models.tiny import KINDS, SEQUENCE_KINDS, padded_ids, tiny_config, token_ids

FRAMEWORKS = ["torch", "tensorflow", "flax"]
if INSTALLED != FRAMEWORKS:
    pytest.skip(f"only {', '.join(INSTALLED) or 'none'} of the frameworks is installed", allow_module_level=True)

pytestmark = [pytest.mark.torch, pytest.mark.tensorflow, pytest.mark.flax]

FORMATS = ["safetensors", "safetensors-tf", "safetensors-flax", "h5", "msgpack"]
TOLERANCE = 2e-5  # float32, the same sums in another order
WIDE = 200  # random examples under `make slow`
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_hidden_layers": 2}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny tensors: a second thread only waits, for long where other processes share the cores."""
    import torch

    torch.set_num_threads(1)


def batch(kind: str) -> dict[str, Any]:
    """Three padded rows with labels, where the head has a loss."""
    ids, mask = padded_ids()
    draw = np.random.default_rng(4)
    if kind == "ForMultipleChoice":
        ids, mask = (np.stack((array, array[::-1]), axis=1) for array in (ids, mask))
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": draw.integers(0, 2, ids.shape)}
    if kind == "ForQuestionAnswering":
        return {**inputs, "start_positions": np.array([1, 2, 99]), "end_positions": np.array([-2, 3, 3])}
    if kind in ("ForSequenceClassification", "ForMultipleChoice"):
        return {**inputs, "labels": np.array([0, 1, 1])}
    if kind == "Model":
        return inputs
    return {**inputs, "labels": draw.integers(0, 2 if kind == "ForTokenClassification" else 61, ids.shape)}


def near(found: dict[str, Any], expected: dict[str, Any], tolerance: float = TOLERANCE) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance, err_msg=name)


def same_bits(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


# Files


@pytest.mark.parametrize("weights_format", FORMATS)
@pytest.mark.parametrize("writer", FRAMEWORKS)
def test_what_one_framework_saves_in_any_format_the_others_load_bit_for_bit(
    writer: str, weights_format: Any, tmp_path: Path
) -> None:
    config = tiny_config(
        is_decoder=True, add_cross_attention=True, tie_word_embeddings=False, position_embedding_type="relative_key"
    )
    saved = CLASSES[writer].fresh("ForCausalLM", config)
    saved.save_pretrained(str(tmp_path), weights_format=weights_format, max_shard_size="20KB")
    expected = CLASSES[writer].tensors(saved)
    for reader in FRAMEWORKS:
        model, info = CLASSES[reader].load("ForCausalLM", str(tmp_path), output_loading_info=True)
        assert not info["missing_keys"] + info["unexpected_keys"] + info["mismatched_keys"]
        same_bits(CLASSES[reader].tensors(model), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_goes_round_the_frameworks_unchanged(kind: str, tmp_path: Path) -> None:
    first = CLASSES["torch"].fresh(kind, tiny_config())
    expected = CLASSES["torch"].tensors(first)
    first.save_pretrained(str(tmp_path / "torch"))
    at = "torch"
    for reader in ("tensorflow", "flax", "torch"):
        model = CLASSES[reader].load(kind, str(tmp_path / at))
        same_bits(CLASSES[reader].tensors(model), expected)
        model.save_pretrained(str(tmp_path / f"{reader}-saved"))
        at = f"{reader}-saved"
        assert (tmp_path / at / "config.json").read_text() == (tmp_path / "torch/config.json").read_text()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights_travel_unchanged(dtype: str, tmp_path: Path) -> None:
    CLASSES["torch"].fresh("ForTokenClassification", tiny_config()).save_pretrained(str(tmp_path / "full"))
    half = CLASSES["torch"].load("ForTokenClassification", str(tmp_path / "full"), dtype=dtype)
    half.save_pretrained(str(tmp_path / "half"))
    expected = {k: v.astype(np.float32) for k, v in CLASSES["torch"].tensors(half).items()}
    for reader in FRAMEWORKS:
        model = CLASSES[reader].load("ForTokenClassification", str(tmp_path / "half"))
        same_bits(CLASSES[reader].tensors(model), expected)


# Answers and gradients


def all_three(kind: str, folder: Path, **overrides: Any) -> dict[str, Any]:
    """The same weights in every framework."""
    first = CLASSES["torch"].fresh(kind, tiny_config(**{**QUIET, **overrides}))
    first.save_pretrained(str(folder))
    return {"torch": first} | {name: CLASSES[name].load(kind, str(folder)) for name in ("tensorflow", "flax")}


LOSSES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **{kind: (kind, {}, {}) for kind in KINDS if kind != "Model"},
    "regression": ("ForSequenceClassification", {"num_labels": 1}, {"labels": np.array([0.5, -1, 2], np.float32)}),
    "regression of several": (
        "ForSequenceClassification",
        {"num_labels": 2, "problem_type": "regression"},
        {"labels": np.array([[0.5, 1], [-1, 0], [2, 3]], np.float32)},
    ),
    "multi-label": (
        "ForSequenceClassification",
        {"num_labels": 3},
        {"labels": np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1]], np.float32)},
    ),
    "causal": ("ForCausalLM", {"is_decoder": True}, {}),
    "distances": ("ForMaskedLM", {"position_embedding_type": "relative_key_query"}, {}),
}


# The golden files hold every head's loss and its gradients, for all three frameworks; here is what they don't.
BEYOND_GOLDEN = ("ForQuestionAnswering", "causal", "distances")


@pytest.mark.parametrize(
    "case", [case if case in BEYOND_GOLDEN else pytest.param(case, marks=pytest.mark.slow) for case in LOSSES]
)
def test_losses_and_their_gradients_agree(case: str, tmp_path: Path) -> None:
    kind, overrides, labels = LOSSES[case]
    built = all_three(kind, tmp_path, **overrides)
    inputs = {**batch(kind), **labels}
    expected = CLASSES["torch"].answer(built["torch"], inputs)
    gradients = CLASSES["torch"].gradients(built["torch"], inputs)
    assert expected["loss"].shape == ()
    for name in ("tensorflow", "flax"):
        near(CLASSES[name].answer(built[name], inputs), expected)
        golden.compare_gradients(CLASSES[name].gradients(built[name], inputs), gradients)


RANDOM_CONFIGS = {
    "kind": st.sampled_from(KINDS),
    "act": st.sampled_from(ACTIVATIONS),
    "positions": st.sampled_from(["absolute", "relative_key", "relative_key_query"]),
    "heads": st.sampled_from([1, 2, 4]),
    "layers": st.integers(0, 3),
    "inner": st.integers(1, 40),
    "is_decoder": st.booleans(),
    "tied": st.booleans(),
    "pad": st.integers(0, 3),
    "eps": st.sampled_from([1e-12, 1e-5, 1e-3]),
}


def check_random_config(folder: Path, *, kind: str, **drawn: Any) -> None:
    built = all_three(
        kind,
        folder,
        hidden_act=drawn["act"],
        position_embedding_type=drawn["positions"],
        num_attention_heads=drawn["heads"],
        num_hidden_layers=drawn["layers"],
        intermediate_size=drawn["inner"],
        is_decoder=drawn["is_decoder"],
        tie_word_embeddings=drawn["tied"],
        pad_token_id=drawn["pad"],
        layer_norm_eps=drawn["eps"],
        initializer_range=0.2,
    )
    inputs = {**batch(kind), "output_attentions": True, "output_hidden_states": True}
    expected = CLASSES["torch"].answer(built["torch"], inputs)
    for name in ("tensorflow", "flax"):
        near(CLASSES[name].answer(built[name], inputs), expected)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**RANDOM_CONFIGS)
def test_random_configs_agree_in_every_output(tmp_path: Path, **drawn: Any) -> None:
    check_random_config(tmp_path, **drawn)


@pytest.mark.slow
@settings(max_examples=WIDE, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**RANDOM_CONFIGS)
def test_very_many_random_configs_agree_in_every_output(tmp_path: Path, **drawn: Any) -> None:
    check_random_config(tmp_path, **drawn)


# Padding and order


def padded(rows: list[int], *, width: int, side: str) -> tuple[Any, Any]:
    """(ids, mask) of texts of these lengths, the i-th always the same, padded to a width."""
    ids, mask = np.ones((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for i, length in enumerate(rows):
        place = slice(0, length) if side == "right" else slice(width - length, width)
        ids[i, place], mask[i, place] = token_ids(1, 12, seed=length)[0, :length], 1
    return ids, mask


def hidden(call: Callable[..., Any], rows: list[int], *, width: int, side: str) -> list[Any]:
    """Each text's last hidden states without its pads."""
    ids, mask = padded(rows, width=width, side=side)
    states = call({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
    return [state[kept.astype(bool)] for state, kept in zip(states, mask, strict=True)]


BUILT: dict[tuple[str, bool, str], Any] = {}


def built_once(name: str, *, is_decoder: bool, positions: str) -> Any:
    key = (name, is_decoder, positions)
    if key not in BUILT:
        config = tiny_config(is_decoder=is_decoder, use_cache=False, position_embedding_type=positions)
        BUILT[key] = CLASSES[name].program(CLASSES[name].fresh("Model", config))
    return BUILT[key]


TEXTS = {
    "rows": st.lists(st.integers(1, 12), min_size=4, max_size=4),
    "order": st.permutations(range(4)),
    "side": st.sampled_from(["left", "right"]),
    "is_decoder": st.booleans(),
    "positions": st.sampled_from(["absolute", "relative_key_query"]),
}


def check_padding(name: str, *, rows: list[int], order: list[int], side: str, is_decoder: bool, positions: str) -> None:
    call = built_once(name, is_decoder=is_decoder, positions=positions)
    expected = hidden(call, rows, width=12, side="right")
    found = hidden(call, [rows[i] for i in order], width=16, side=side)
    for place, i in enumerate(order):
        np.testing.assert_allclose(found[place], expected[i], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", FRAMEWORKS)
@settings(max_examples=4, deadline=None)
@given(**TEXTS)
def test_neither_padding_nor_the_order_of_the_batch_changes_a_text_s_states(name: str, **drawn: Any) -> None:
    check_padding(name, **drawn)


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORKS)
@settings(max_examples=WIDE, deadline=None)
@given(**TEXTS)
def test_neither_padding_nor_order_changes_anything_in_very_many_batches(name: str, **drawn: Any) -> None:
    check_padding(name, **drawn)


# What every class of every framework does alike

# One without a head, one with: the heads pass on what the encoder gives them, which the golden cases prove of each.
WITH_STATES = ("Model", "ForTokenClassification")


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize(
    "kind", [kind if kind in WITH_STATES else pytest.param(kind, marks=pytest.mark.slow) for kind in SEQUENCE_KINDS]
)
def test_maps_and_states_are_there_by_the_config_or_by_the_call(kind: str, name: str) -> None:
    inputs = {key: value for key, value in batch(kind).items() if key in ("input_ids", "attention_mask")}
    model = CLASSES[name].fresh(kind, tiny_config(num_hidden_layers=2))
    plain = CLASSES[name].answer(model, inputs)
    asked = CLASSES[name].answer(model, {**inputs, "output_attentions": True, "output_hidden_states": True})
    assert sorted(set(asked) - set(plain)) == [
        "attentions.0",
        "attentions.1",
        "hidden_states.0",
        "hidden_states.1",
        "hidden_states.2",
    ]
    assert asked["attentions.1"].shape == (3, 4, 9, 9)
    assert asked["hidden_states.2"].shape == (3, 9, 32)
    model.config.output_attentions = model.config.output_hidden_states = True
    near(CLASSES[name].answer(model, inputs), asked)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_same_call_twice_answers_the_same_bits(name: str) -> None:
    model = CLASSES[name].fresh("ForMaskedLM", tiny_config())
    first, second = (CLASSES[name].answer(model, batch("ForMaskedLM")) for _ in range(2))
    assert all(np.array_equal(first[key], second[key]) for key in first)


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


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_begin_with_the_reference_s_arguments_in_its_order(kind: str) -> None:
    callers = {"torch": "forward", "tensorflow": "call"}  # Flax's __call__ is one for all heads, by keyword
    for name, caller in callers.items():
        _, *parameters = inspect.signature(getattr(CLASSES[name].named(kind), caller)).parameters
        assert parameters[: len(ARGUMENTS[kind])] == ARGUMENTS[kind], name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_saved_model_answers_the_same_bits_when_it_is_loaded(name: str, tied: bool, tmp_path: Path) -> None:
    model = CLASSES[name].fresh("ForMaskedLM", tiny_config(tie_word_embeddings=tied))
    model.save_pretrained(str(tmp_path))
    again = CLASSES[name].load("ForMaskedLM", str(tmp_path))
    inputs = batch("ForMaskedLM")
    near(CLASSES[name].answer(again, inputs), CLASSES[name].answer(model, inputs), tolerance=0)
