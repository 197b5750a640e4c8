"""Three frameworks, one model: the same answers, losses and gradients on any config, and each reads what each writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.checks import ACTIVATIONS
from tests.models import golden
from tests.models.frameworks import CLASSES, INSTALLED
from tests.models.tiny import KINDS, inputs_of, labels_of, near, tiny_config

FRAMEWORKS = ["torch", "tensorflow", "flax"]
if INSTALLED != FRAMEWORKS:
    pytest.skip(f"only {', '.join(INSTALLED) or 'none'} of the frameworks is installed", allow_module_level=True)

pytestmark = [pytest.mark.torch, pytest.mark.tensorflow, pytest.mark.flax]

FORMATS = ["safetensors", "safetensors-tf", "safetensors-flax", "h5", "msgpack"]
WIDE = 200  # random examples under `make slow`
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def batch(kind: str) -> dict[str, Any]:
    """Three padded rows of two segments, with labels where the head has a loss, some of them beyond the text."""
    inputs = inputs_of(kind)
    segments = {"token_type_ids": np.random.default_rng(4).integers(0, 2, inputs["input_ids"].shape)}
    labels = labels_of(kind)
    if kind == "ForQuestionAnswering":
        labels = {"start_positions": np.array([1, 2, 99]), "end_positions": np.array([-2, 3, 3])}
    return {**inputs, **segments, **labels}


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
