"""A small config, random inputs and labels for tests of the classes; framework-free."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.config import RobertaPreLayerNormConfig

KINDS = (
    "Model",
    "ForCausalLM",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
SEQUENCE_KINDS = tuple(kind for kind in KINDS if kind != "ForMultipleChoice")
HEADS = tuple(kind for kind in KINDS if kind != "Model")
CLASS_LABELS = tuple(kind for kind in HEADS if kind != "ForQuestionAnswering")
TOLERANCE = 2e-5  # float32, the same sums in another order


def every_class_and_format(formats: Sequence[str]) -> list[Any]:
    """(class, weights format): every pair, those marked slow that have neither a new class nor a new format."""
    quick = {(KINDS[i % len(KINDS)], formats[i % len(formats)]) for i in range(max(len(KINDS), len(formats)))}
    pairs = [(kind, weights_format) for kind in KINDS for weights_format in formats]
    return [pair if pair in quick else pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs]


def tiny_config(**overrides: Any) -> RobertaPreLayerNormConfig:
    """Two layers of the sizes of the golden files; weights large enough to show mistakes.

    The same sizes, because JAX compiles every operation once for each shape: so the tests of one run share them.
    """
    sizes: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "max_position_embeddings": 40,
        "initializer_range": 0.2,
        "layer_norm_eps": 1e-5,
    }
    return RobertaPreLayerNormConfig(**{**sizes, **overrides})


def token_ids(*shape: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Random ids without specials."""
    return np.random.default_rng(seed).integers(4, 61, shape)


def padded_ids(seed: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(ids, mask) of three rows of 9, 6 and 4 tokens, padded right."""
    ids = token_ids(3, 9, seed=seed)
    mask = np.ones_like(ids)
    for row, length in enumerate((9, 6, 4)):
        ids[row, length:] = 1
        mask[row, length:] = 0
    return ids, mask


def inputs_of(kind: str) -> dict[str, Any]:
    """Those three rows; of two choices each for multiple choice."""
    padded, mask = padded_ids()
    if kind == "ForMultipleChoice":
        padded, mask = (np.stack((array, array[::-1]), axis=1) for array in (padded, mask))
    return {"input_ids": padded, "attention_mask": mask}


def labels_of(kind: str) -> dict[str, Any]:
    """Labels of those rows; none for the bare model."""
    if kind == "Model":
        return {}
    if kind == "ForQuestionAnswering":
        return {"start_positions": np.array([1, 2, 3]), "end_positions": np.array([2, 3, 3])}
    if kind in ("ForSequenceClassification", "ForMultipleChoice"):
        return {"labels": np.array([0, 1, 1])}
    high = 2 if kind == "ForTokenClassification" else 61
    return {"labels": np.random.default_rng(4).integers(0, high, (3, 9))}


def encoder_states() -> npt.NDArray[np.float32]:
    """What an encoder says of five tokens for each of those rows."""
    return np.random.default_rng(1).standard_normal((3, 5, 32)).astype(np.float32)


def near(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Equal within a tolerance: arrays of any framework, or mappings of them with the same names."""
    if isinstance(expected, dict):
        assert sorted(found) == sorted(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance, err_msg=name)
    else:
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance)
