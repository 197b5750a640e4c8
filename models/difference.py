"""Compares two checkpoints: config, names, shapes, types and the largest difference of each tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.checkpoint import SILENT_FIELDS
from models.config import RobertaPreLayerNormConfig
from models.origin import Origin
from models.safetensors_file import AnyArray


@dataclass(frozen=True)
class CheckpointDifference:
    """The differences between a first and a second checkpoint, by neutral name.

    largest: tensor -> largest absolute difference (infinite where only one has NaN there), of tensors in both that have
    one shape. shapes, dtypes: tensor -> both. config: field -> both; fields that no answer depends on are left out.
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    dtypes: Mapping[str, tuple[str, str]]
    largest: Mapping[str, float]
    config: Mapping[str, tuple[Any, Any]]
    tolerance: float = 0.0

    @property
    def beyond(self) -> dict[str, float]:
        """Tensors that differ by more than the tolerance."""
        return {name: value for name, value in self.largest.items() if value > self.tolerance}

    @property
    def same(self) -> bool:
        """Whether both give the same answers: equal names, shapes, config, and values up to the tolerance."""
        return not (self.only_first or self.only_second or self.shapes or self.config or self.beyond)


def difference(*, first: Origin, second: Origin, tolerance: float = 0.0) -> CheckpointDifference:
    """Compare two opened checkpoints, tensor by tensor; types may differ where the values do not."""
    ours, theirs = first.tensors, second.tensors
    both = [name for name in ours if name in theirs]
    fitting = [name for name in both if ours[name].shape == theirs[name].shape]
    largest: dict[str, float] = {}
    for name in fitting:
        # One at a time: two large checkpoints need not fit into memory together.
        (_, a), (_, b) = next(iter(first.read([name]))), next(iter(second.read([name])))
        largest[name] = largest_difference(a, b)
    return CheckpointDifference(
        only_first=tuple(name for name in ours if name not in theirs),
        only_second=tuple(name for name in theirs if name not in ours),
        shapes={name: (ours[name].shape, theirs[name].shape) for name in both if name not in largest},
        dtypes={
            name: (ours[name].dtype, theirs[name].dtype) for name in fitting if ours[name].dtype != theirs[name].dtype
        },
        largest=largest,
        config=_config_difference(first.config, second.config),
        tolerance=tolerance,
    )


def largest_difference(first: AnyArray, second: AnyArray) -> float:
    """max |a - b| over two arrays of one shape; NaN equals NaN, infinity equals itself, 0 for empty ones."""
    if not first.size:
        return 0.0
    a, b = first.astype(np.float64), second.astype(np.float64)
    equal = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(equal, 0.0, np.abs(a - b))
    return float(np.where(np.isnan(apart), np.inf, apart).max())


def _config_difference(
    first: RobertaPreLayerNormConfig, second: RobertaPreLayerNormConfig
) -> dict[str, tuple[Any, Any]]:
    ours, theirs = first.to_dict(), second.to_dict()
    names = [name for name in {**ours, **theirs} if name not in SILENT_FIELDS]
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}
