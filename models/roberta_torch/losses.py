"""Logits and labels in, one scalar loss out.

Every integer type is a class label. Labels are checked where Python may look at them. All ignored gives nan, as a mean
of nothing. Legend: B batch, S sequence, V vocabulary, L labels, C choices, X any leading axes.
"""

import torch
from torch import Tensor
from torch.nn import functional

from models.checks import IGNORED_LABEL, check_labels, loss_kind
from models.roberta_torch.embeddings import readable


def class_loss(logits_XL: Tensor, labels_X: Tensor) -> Tensor:
    """Mean cross entropy over the labels that are not -100; every leading axis is flattened."""
    flat_logits = logits_XL.reshape(-1, logits_XL.shape[-1])
    flat_labels = labels_X.reshape(-1).to(device=logits_XL.device, dtype=torch.long)
    _check_values(flat_labels, logits_XL.shape[-1])
    return functional.cross_entropy(flat_logits, flat_labels, ignore_index=IGNORED_LABEL)


def causal_loss(logits_BSV: Tensor, labels_BS: Tensor, num_items_in_batch: int | Tensor | None = None) -> Tensor:
    """Cross entropy of each next token in float32; a sum over num_items_in_batch where that is given, else the mean."""
    logits = logits_BSV.float().reshape(-1, logits_BSV.shape[-1])
    labels_BS = labels_BS.to(device=logits.device, dtype=torch.long)
    next_BS = functional.pad(labels_BS, (0, 1), value=IGNORED_LABEL)[:, 1:].reshape(-1)
    _check_values(next_BS, logits.shape[-1])
    if num_items_in_batch is None:
        return functional.cross_entropy(logits, next_BS, ignore_index=IGNORED_LABEL)
    total = functional.cross_entropy(logits, next_BS, ignore_index=IGNORED_LABEL, reduction="sum")
    return total / num_items_in_batch


def sequence_loss(logits_BL: Tensor, labels: Tensor, *, problem_type: str | None) -> Tensor:
    """Mean squared error, cross entropy or binary cross entropy, as `models.checks.loss_kind` decides per call."""
    labels = labels.to(logits_BL.device)
    integer = not (labels.is_floating_point() or labels.is_complex())
    kind = loss_kind(problem_type=problem_type, num_labels=logits_BL.shape[-1], integer_labels=integer)
    if kind == "regression":
        targets = labels.to(logits_BL.dtype)
        if logits_BL.shape[-1] == 1:
            return functional.mse_loss(logits_BL.reshape(-1), targets.reshape(-1))
        return functional.mse_loss(logits_BL, targets.reshape(logits_BL.shape))
    if kind == "single_label_classification":
        return class_loss(logits_BL, labels)
    return functional.binary_cross_entropy_with_logits(logits_BL, labels.to(logits_BL.dtype))


def span_loss(start_BS: Tensor, end_BS: Tensor, start_positions: Tensor, end_positions: Tensor) -> Tensor:
    """Mean of start's and end's cross entropy; below 0 counts as 0, at S or beyond is ignored."""
    return (_place_loss(start_BS, start_positions) + _place_loss(end_BS, end_positions)) / 2


def _place_loss(logits_BS: Tensor, positions: Tensor) -> Tensor:
    length = logits_BS.shape[1]
    places_B = positions.to(device=logits_BS.device, dtype=torch.long).reshape(-1).clamp(0, length)
    return functional.cross_entropy(logits_BS, places_B, ignore_index=length)


def _check_values(labels: Tensor, size: int) -> None:
    if readable(labels) and labels.numel():
        kept = torch.where(labels == IGNORED_LABEL, torch.zeros_like(labels), labels)
        low, high = torch.aminmax(kept)
        check_labels(low=int(low), high=int(high), size=size)
