"""Logits and labels in, one scalar loss out.

Every integer type is a class label. Labels are checked where Python may look at them. All ignored gives nan, as a mean
of nothing. Legend: B batch, S sequence, V vocabulary, L labels, C choices, X any leading axes.
"""

import jax
import jax.numpy as jnp
import numpy as np

from models.checks import IGNORED_LABEL, check_labels, loss_kind
from models.roberta_flax.layers import Array, readable


def class_loss(logits_XL: Array, labels_X: Array) -> Array:
    """Mean cross entropy over the labels that are not -100; every leading axis is flattened."""
    flat_logits = logits_XL.reshape(-1, logits_XL.shape[-1])
    flat_labels = labels_X.reshape(-1)
    _check_values(flat_labels, logits_XL.shape[-1])
    total, count = _cross_entropy(flat_logits, flat_labels, ignored=IGNORED_LABEL)
    return total / count


def causal_loss(logits_BSV: Array, labels_BS: Array, num_items_in_batch: int | Array | None = None) -> Array:
    """Cross entropy of each next token in float32; a sum over num_items_in_batch where that is given, else the mean."""
    logits = logits_BSV.astype(jnp.float32).reshape(-1, logits_BSV.shape[-1])
    next_BS = jnp.pad(labels_BS.astype(jnp.int32), ((0, 0), (0, 1)), constant_values=IGNORED_LABEL)[:, 1:].reshape(-1)
    _check_values(next_BS, logits.shape[-1])
    total, count = _cross_entropy(logits, next_BS, ignored=IGNORED_LABEL)
    return total / (count if num_items_in_batch is None else num_items_in_batch)


def sequence_loss(logits_BL: Array, labels: Array, *, problem_type: str | None) -> Array:
    """Mean squared error, cross entropy or binary cross entropy, as `models.checks.loss_kind` decides per call."""
    integer = not jnp.issubdtype(labels.dtype, jnp.inexact)
    kind = loss_kind(problem_type=problem_type, num_labels=logits_BL.shape[-1], integer_labels=integer)
    if kind == "regression":
        targets = labels.astype(logits_BL.dtype)
        return jnp.mean(jnp.square(logits_BL - targets.reshape(logits_BL.shape)))
    if kind == "single_label_classification":
        return class_loss(logits_BL, labels)
    targets = labels.astype(logits_BL.dtype)
    present, absent = jax.nn.log_sigmoid(logits_BL), jax.nn.log_sigmoid(-logits_BL)
    return -jnp.mean(targets * present + (1.0 - targets) * absent)


def span_loss(start_BS: Array, end_BS: Array, start_positions: Array, end_positions: Array) -> Array:
    """Mean of start's and end's cross entropy; below 0 counts as 0, at S or beyond is ignored."""
    return (_place_loss(start_BS, start_positions) + _place_loss(end_BS, end_positions)) / 2


def _place_loss(logits_BS: Array, positions: Array) -> Array:
    length = logits_BS.shape[1]
    places_B = jnp.clip(positions.reshape(-1), 0, length)
    total, count = _cross_entropy(logits_BS, places_B, ignored=length)
    return total / count


def _cross_entropy(logits_XL: Array, labels_X: Array, *, ignored: int) -> tuple[Array, Array]:
    """(sum over the labels that are not ignored, their number)."""
    kept_X = labels_X != ignored
    classes_X = jnp.where(kept_X, labels_X, 0).astype(jnp.int32)
    log_probs_X = jnp.take_along_axis(jax.nn.log_softmax(logits_XL, axis=-1), classes_X[:, None], axis=-1)[:, 0]
    return -jnp.sum(jnp.where(kept_X, log_probs_X, 0.0)), jnp.sum(kept_X).astype(logits_XL.dtype)


def _check_values(labels: Array, size: int) -> None:
    if readable(labels) and labels.size:
        seen = np.asarray(labels)
        kept = np.where(seen == IGNORED_LABEL, 0, seen)
        check_labels(low=int(kept.min()), high=int(kept.max()), size=size)
