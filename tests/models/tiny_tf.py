"""Tiny TensorFlow models of each head, with inputs and labels."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import models.roberta_tf as roberta
from tests.models.tiny import padded_ids, tiny_config, token_ids

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
