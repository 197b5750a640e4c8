"""A small config, random inputs and cases for tests of the classes; framework-free."""

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


def every_class_and_format(formats: Sequence[str]) -> list[Any]:
    """(class, weights format): every pair, those marked slow that have neither a new class nor a new format."""
    quick = {(KINDS[i % len(KINDS)], formats[i % len(formats)]) for i in range(max(len(KINDS), len(formats)))}
    pairs = [(kind, weights_format) for kind in KINDS for weights_format in formats]
    return [pair if pair in quick else pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs]


def tiny_config(**overrides: Any) -> RobertaPreLayerNormConfig:
    """Three layers of the sizes of the golden files; weights large enough to show mistakes.

    The same sizes, because JAX compiles every operation once for each shape: so the tests of one run share them.
    """
    sizes: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 32,
        "num_hidden_layers": 3,
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
