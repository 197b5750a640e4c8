"""Rows that a person has reviewed in, the error rate of the answers out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.analysis.error_rate import Design, ErrorRate, Judgement, error_rate
from pipeline.analysis.predictions import Kind, same
from pipeline.errors import SpecError


@dataclass(frozen=True)
class Reviewed:
    """One row of a reviewed file. population, sample_rows: of its whole sample. weight: how many rows it stands for.

    prediction: the job's answer. truth: the reviewer's, if `done`. fault: why what the reviewer left can't be read.
    """

    task: str
    kind: Kind
    design: Design
    stratum: str
    stratum_rows: int
    population: int
    sample_rows: int
    weight: float
    prediction: Any
    truth: Any
    done: bool
    fault: str | None = None


@dataclass(frozen=True)
class Review:
    """What a reviewed file says. rows: of the sample. open: not reviewed, or not in the file. faults: rows whose review can't be
    read, by reason. population: all answered rows of the output."""

    task: str
    design: Design
    rows: int
    open: int
    population: int
    faults: Counter[str]
    error: ErrorRate


def review(rows: Sequence[Reviewed], *, confidence: float = 0.95) -> Review:
    """The error rate of one sample. Raises SpecError where rows are of several samples, or none was reviewed."""
    samples = {(one.task, one.kind, one.design, one.population, one.sample_rows) for one in rows}
    if len(samples) > 1:
        raise SpecError(
            f"the rows are of {len(samples)} samples, such as {sorted(samples)[:2]}; score each in a file of its own"
        )
    sizes = {(one.stratum, one.stratum_rows) for one in rows}
    strata = dict(sizes)
    if len(strata) < len(sizes):
        raise SpecError(
            "the rows are of several samples: a stratum has two sizes; score each sample in a file of its own"
        )
    ((task, kind, design, population, sample_rows),) = samples
    judged = [
        Judgement(
            wrong=not same(kind, one.prediction, one.truth),
            stratum=one.stratum,
            stratum_rows=one.stratum_rows,
            weight=one.weight,
        )
        for one in rows
        if one.done and one.fault is None
    ]
    faults = Counter(one.fault for one in rows if one.fault is not None)
    return Review(
        task=task,
        design=design,
        rows=sample_rows,
        open=sample_rows - len(judged) - faults.total(),
        population=population,
        faults=faults,
        error=error_rate(judged, design=design, strata=strata, population=population, confidence=confidence),
    )
