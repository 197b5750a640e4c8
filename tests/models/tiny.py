"""A small config and random inputs for tests of the classes; framework-free."""

from typing import Any

import numpy as np
import numpy.typing as npt

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


def tiny_config(**overrides: Any) -> RobertaPreLayerNormConfig:
    """Three layers of width 16; weights large enough to show mistakes."""
    sizes: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
        "initializer_range": 0.3,
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
