"""Logits and labels in, one scalar loss out.

Every integer type is a class label. Labels are checked where Python may look at them. All ignored gives nan, as a mean
of nothing. Legend: B batch, S sequence, V vocabulary, L labels, C choices, X any leading axes.
"""

import tensorflow as tf
from tensorflow import Tensor

from models.checks import IGNORED_LABEL, check_labels, loss_kind
from models.roberta_tf.layers import readable


def class_loss(logits_XL: Tensor, labels_X: Tensor) -> Tensor:
    """Mean cross entropy over the labels that are not -100; every leading axis is flattened."""
    flat_logits = tf.reshape(logits_XL, (-1, logits_XL.shape[-1]))
    flat_labels = tf.reshape(tf.cast(labels_X, tf.int64), (-1,))
    _check_values(flat_labels, logits_XL.shape[-1])
    total, count = cross_entropy(flat_logits, flat_labels, ignored=IGNORED_LABEL)
    return total / count


def causal_loss(logits_BSV: Tensor, labels_BS: Tensor, num_items_in_batch: int | Tensor | None = None) -> Tensor:
    """Cross entropy of each next token in float32; a sum over num_items_in_batch where that is given, else the mean."""
    logits = tf.reshape(tf.cast(logits_BSV, tf.float32), (-1, logits_BSV.shape[-1]))
    labels_BS = tf.cast(labels_BS, tf.int64)
    next_BS = tf.reshape(tf.pad(labels_BS, ((0, 0), (0, 1)), constant_values=IGNORED_LABEL)[:, 1:], (-1,))
    _check_values(next_BS, logits.shape[-1])
    total, count = cross_entropy(logits, next_BS, ignored=IGNORED_LABEL)
    return total / (count if num_items_in_batch is None else tf.cast(num_items_in_batch, total.dtype))


def sequence_loss(logits_BL: Tensor, labels: Tensor, *, problem_type: str | None) -> Tensor:
    """Mean squared error, cross entropy or binary cross entropy, as `models.checks.loss_kind` decides per call."""
    integer = not (labels.dtype.is_floating or labels.dtype.is_complex)
    kind = loss_kind(problem_type=problem_type, num_labels=logits_BL.shape[-1], integer_labels=integer)
    if kind == "regression":
        targets = tf.cast(labels, logits_BL.dtype)
        return tf.reduce_mean(tf.math.squared_difference(logits_BL, tf.reshape(targets, tf.shape(logits_BL))))
    if kind == "single_label_classification":
        return class_loss(logits_BL, labels)
    return tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.cast(labels, logits_BL.dtype), logits=logits_BL)
    )


def span_loss(start_BS: Tensor, end_BS: Tensor, start_positions: Tensor, end_positions: Tensor) -> Tensor:
    """Mean of start's and end's cross entropy; below 0 counts as 0, at S or beyond is ignored."""
    return (_place_loss(start_BS, start_positions) + _place_loss(end_BS, end_positions)) / 2


def cross_entropy(logits_XL: Tensor, labels_X: Tensor, *, ignored: int | Tensor) -> tuple[Tensor, Tensor]:
    """(sum over the labels that are not ignored, how many they are), in the logits' type."""
    counted_X = tf.not_equal(labels_X, tf.cast(ignored, labels_X.dtype))
    # An ignored label is no class: any class in its place, with its loss cut off.
    safe_X = tf.where(counted_X, labels_X, tf.zeros_like(labels_X))
    losses_X = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=safe_X, logits=logits_XL)
    total = tf.reduce_sum(tf.where(counted_X, losses_X, tf.zeros_like(losses_X)))
    return total, tf.reduce_sum(tf.cast(counted_X, losses_X.dtype))


def _place_loss(logits_BS: Tensor, positions: Tensor) -> Tensor:
    length = tf.shape(logits_BS, out_type=tf.int64)[1]
    places_B = tf.clip_by_value(tf.reshape(tf.cast(positions, tf.int64), (-1,)), 0, length)
    total, count = cross_entropy(logits_BS, places_B, ignored=length)
    return total / count


def _check_values(labels: Tensor, size: int) -> None:
    if readable(labels) and labels.shape.num_elements():
        kept = tf.where(tf.equal(labels, IGNORED_LABEL), tf.zeros_like(labels), labels)
        low, high = tf.reduce_min(kept), tf.reduce_max(kept)
        check_labels(low=int(low), high=int(high), size=size)
