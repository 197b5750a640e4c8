"""Scores of annotated rows in, how far they have drifted from those of a job's labelled rows out.

The known error rate of accepted labels holds for rows like the labelled ones. Whether rows are like them can't be seen without
true labels; that their scores are spread otherwise can.

Legend: B bins of a histogram of scores from 0 to 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.job import FrozenJob
from pipeline.spec.accepts import certificates_of
from pipeline.tasks.acceptance import BINS, Counts, histogram

CRITICAL = 1.628
"""Of the two-sample Kolmogorov-Smirnov test at 1 %: times sqrt(1/n + 1/m)."""
SMALL, MODERATE = 0.05, 0.15


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Scores of one task's answered rows, as far as they were counted."""

    counts_B: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))
    accepted: int = 0

    def __add__(self, other: "ScoreCounts") -> "ScoreCounts":
        return ScoreCounts(self.counts_B + other.counts_B, self.accepted + other.accepted)


@dataclass(frozen=True)
class Drift:
    """A task's scores against those of its labelled rows.

    distance: the largest distance between both distribution functions (Kolmogorov-Smirnov, from 0 to 1). chance: what rows that
    are like the labelled ones exceed once in a hundred. accepted: share of the rows; expected: of labelled rows.
    """

    task: str
    rows: int
    labelled_rows: int
    distance: float
    chance: float
    accepted: float
    expected: float

    @property
    def meaning(self) -> str:
        """In words, whether the error rate is to be relied on."""
        if self.distance <= self.chance:
            return "no drift: the scores are spread as those of the labelled rows"
        if self.distance <= SMALL:
            return "small drift: more than chance, but too little to matter much"
        if self.distance <= MODERATE:
            return "moderate drift: label some of these rows before you rely on the error rate"
        return "large drift: these rows are unlike the labelled ones, and the error rate is not known for them"

    def __str__(self) -> str:
        return (
            f"{self.task}: {self.meaning} (largest distance {self.distance:.3f}, by chance up to {self.chance:.3f}; "
            f"{self.accepted:.1%} accepted, {self.expected:.1%} of labelled rows)"
        )


def counted_columns(job: FrozenJob) -> dict[str, tuple[str, str]]:
    """Task -> its columns of scores and of what is accepted, for tasks with a known error rate."""
    tasks = job.spec.named_tasks
    return {name: (f"{tasks[name].prefix}score", f"{tasks[name].prefix}accepted") for name in certificates_of(job.spec)}


def counts_of(table: pa.Table, *, job: FrozenJob) -> dict[str, ScoreCounts]:
    """Scores of some annotated rows, by task; rows with errors have none."""
    return {
        name: ScoreCounts(
            counts_B=histogram(pc.drop_null(table[score]).to_numpy()), accepted=pc.sum(table[accepted]).as_py() or 0
        )
        for name, (score, accepted) in counted_columns(job).items()
    }


def drift_of(job: FrozenJob, counts: Mapping[str, ScoreCounts]) -> tuple[Drift, ...]:
    """The drift of each task with a known error rate, from the counts of its rows; none where no row was answered."""
    found = []
    for name, certificate in certificates_of(job.spec).items():
        scores = counts.get(name, ScoreCounts())
        rows = int(scores.counts_B.sum())
        if not rows:
            continue
        here_B = np.cumsum(scores.counts_B) / rows
        there_B = np.cumsum(np.array(certificate.scores, np.int64)) / certificate.rows
        found.append(
            Drift(
                task=name,
                rows=rows,
                labelled_rows=certificate.rows,
                distance=float(np.abs(here_B - there_B).max()),
                chance=CRITICAL * math.sqrt(1 / rows + 1 / certificate.rows),
                accepted=scores.accepted / rows,
                expected=certificate.accepted / max(1, certificate.tested),
            )
        )
    return tuple(found)
