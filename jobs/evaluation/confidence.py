"""Whether scores mean what they say: calibration error, Brier score, accuracy against coverage, each with its source.

Legend: N rows, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Marks: TypeAlias = npt.NDArray[np.bool_]

BINS = 15
COVERAGES = (0.5, 0.8, 0.9, 0.95, 1.0)
"""Shares of the rows, best scores first, whose accuracy is shown."""


@dataclass(frozen=True)
class Bin:
    """Rows whose scores are alike. score: their mean. accuracy: share whose label is right."""

    rows: int
    score: float
    accuracy: float


def reliability(*, score_N: Floats, right_N: Marks) -> list[Bin]:
    """Bins of equal width over scores from 0 to 1, without empty ones (Guo et al., 2017)."""
    place_N = np.clip((score_N * BINS).astype(np.int64), 0, BINS - 1)
    bins = []
    for place in np.unique(place_N).tolist():
        inside = place_N == place
        bins.append(Bin(int(inside.sum()), float(score_N[inside].mean()), float(right_N[inside].mean())))
    return bins


def calibration_error(*, score_N: Floats, right_N: Marks) -> float:
    """Expected calibration error: the mean distance of score and accuracy in a bin, by its rows (Naeini et al., 2015)."""
    bins = reliability(score_N=score_N, right_N=right_N)
    rows = sum(part.rows for part in bins)
    return sum(part.rows * abs(part.score - part.accuracy) for part in bins) / rows if rows else 0.0


def brier(*, scores_NL: Floats, truth_NL: Marks) -> float:
    """Squared distance of scores and truth, summed over labels, mean over rows (Brier, 1950: from 0 to 2 for one label a row)."""
    return float(np.square(scores_NL - truth_NL).sum(axis=1).mean()) if len(scores_NL) else 0.0


def accuracy_at(
    *, score_N: Floats, right_N: Marks, rows: int, coverages: Sequence[float] = COVERAGES
) -> dict[float, float]:
    """Coverage -> accuracy of that share of `rows`, best scores first; nothing for a share that was not answered."""
    right_N = right_N[np.argsort(-score_N, kind="stable")]
    wanted = {coverage: max(1, round(coverage * rows)) for coverage in coverages}
    return {coverage: float(right_N[:count].mean()) for coverage, count in wanted.items() if count <= len(right_N)}


def label_scores(column: pa.ChunkedArray, *, labels: Sequence[str]) -> Floats:
    """[N, L] of a column that lists every label with its score; NaN in rows without an answer."""
    lists = column.combine_chunks()
    flat = lists.flatten()
    scores_NL = np.full((len(lists), len(labels)), np.nan, np.float32)
    place = pc.index_in(pc.struct_field(flat, "label"), value_set=pa.array(labels, pa.string())).to_numpy()
    row = np.repeat(np.arange(len(lists)), pc.fill_null(lists.value_lengths(), 0).to_numpy())
    scores_NL[row, place] = pc.struct_field(flat, "score").to_numpy()
    return scores_NL


def truth_marks(column: pa.ChunkedArray, *, labels: Sequence[str]) -> tuple[Marks, Marks]:
    """([N, L] the true labels of each row, [N] rows whose true labels are all of these). A row has one label, or a list."""
    place = {label: index for index, label in enumerate(labels)}
    truth_NL, known_N = np.zeros((len(column), len(labels)), bool), np.zeros(len(column), bool)
    for row, value in enumerate(column.to_pylist()):
        if value is None:
            continue
        names = [str(name) for name in (value if isinstance(value, list) else [value])]
        known_N[row] = all(name in place for name in names)
        truth_NL[row, [place[name] for name in names if name in place]] = True
    return truth_NL, known_N
