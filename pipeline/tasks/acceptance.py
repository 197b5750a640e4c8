"""Scores of labelled rows in, the score out from which a task's labels keep an error rate: learn then test.

Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control", 2021
(arXiv 2110.01052). Thresholds are tested from the strictest down, each by a binomial test of "more than error_rate of the labels
from this score on are wrong", until one is not rejected. The sequence is chosen on rows that no test uses (the paper's split
fixed sequence testing), so that each test is exact: the last rejected one holds with the confidence asked for.

Legend: N rows, K wrong labels among them, B bins.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from pipeline.urls import Url

Scores: TypeAlias = npt.NDArray[np.floating[Any]]
Counts: TypeAlias = npt.NDArray[np.int64]

SEED = 7
PART = 0.2
"""The share of the labelled rows that chooses the sequence; the rest tests it."""
STEPS = 60
"""Thresholds in a sequence, at most."""
BINS = 100
"""Of the histogram of scores from 0 to 1, which later scores are compared with."""
THRESHOLD = "accept's threshold"
"""Its key in a job's identity."""


@dataclass(frozen=True)
class Certificate:
    """What labelled rows support.

    digest: of their files. threshold: the least score that is accepted; None where no threshold keeps the error rate.
    rows: those with a label and an answer. left_out: those without. tested: rows that tested the threshold; accepted, wrong:
    of these. scores: histogram of all rows' scores.
    """

    digest: str
    threshold: float | None
    rows: int
    left_out: int
    tested: int
    accepted: int
    wrong: int
    scores: tuple[int, ...]


class Accept(BaseModel):
    """Which labels are accepted: those from a score on that keeps an error rate on labelled rows."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    error_rate: float = Field(gt=0, lt=1)
    """The share of wrong labels among those accepted, at most."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """How sure that is, over the choice of the labelled rows."""
    calibration: Url
    """Labelled rows that are like the job's and that the model was not trained on: file, folder or glob at any URL, with the
    columns that the task reads."""
    label: str = Field(default="label", min_length=1)
    """Their column with the true label."""

    _digest: str = PrivateAttr(default="")
    _certificate: Certificate | None = PrivateAttr(default=None)

    @property
    def digest(self) -> str:
        """Of the labelled rows' files; empty until they were read."""
        return self._digest

    @property
    def certificate(self) -> Certificate | None:
        """What the labelled rows support; None until they were answered."""
        return self._certificate

    def with_state(self, *, digest: str, certificate: Certificate | None) -> "Accept":
        """The same wish, with what its labelled rows are and support."""
        changed = self.model_copy()
        changed._digest, changed._certificate = digest, certificate
        return changed

    def accepted(self, score_N: Scores) -> pa.BooleanArray:
        """Which labels are accepted, by their scores."""
        assert self._certificate is not None, "a run certifies its threshold before the first row"
        least = self._certificate.threshold
        return pa.array(np.zeros(len(score_N), bool) if least is None else score_N >= np.float32(least))

    def identity(self) -> Mapping[str, Any]:
        """What a later command must agree with: where the labelled rows are does not matter, what they are does."""
        return {
            "accept.error_rate": self.error_rate,
            "accept.confidence": self.confidence,
            "accept.label": self.label,
            "accept.calibration's digest": self._digest,
            THRESHOLD: None if self._certificate is None else self._certificate.threshold,
        }

    def note(self) -> str:
        """What a run says of its threshold."""
        found = self._certificate
        if found is None:
            return f"the score from which labels are accepted is found on {self.calibration} before the first row"
        promise = f"at most {self.error_rate:.3g} of accepted labels wrong with confidence {self.confidence:.3g}"
        if found.threshold is None:
            least = least_rows(error_rate=self.error_rate, confidence=self.confidence)
            tested = f"{found.tested:,} that test it" + (
                f", which takes {least:,} at least" if found.tested < least else ""
            )
            return (
                f"no label is accepted: no score keeps {promise} on the labelled rows ({tested}); give more or other labelled "
                "rows, or allow a higher accept.error_rate"
            )
        return (
            f"labels with a score of at least {found.threshold:.4g} are accepted: {promise} (on the labelled rows "
            f"{found.wrong:,} of {found.accepted:,} were wrong, and {found.accepted / found.tested:.1%} of rows accepted)"
        )


def certify(
    *, score_N: Scores, right_N: npt.NDArray[np.bool_], accept: Accept, digest: str, left_out: int
) -> Certificate:
    """The lowest threshold that the labelled rows certify. right_N: whether each row's label is the true one."""
    order = np.random.default_rng(SEED).permutation(len(score_N))
    cut = math.ceil(PART * len(order))
    choosing, testing = order[:cut], order[cut:]
    threshold, accepted, wrong = None, 0, 0
    for candidate in sequence(score_N=score_N[choosing], wrong_N=~right_N[choosing], accept=accept, tests=len(testing)):
        above = score_N[testing] >= candidate
        rows, errors = int(above.sum()), int((above & ~right_N[testing]).sum())
        if p_value(wrong=errors, rows=rows, error_rate=accept.error_rate) > 1 - accept.confidence:
            break
        threshold, accepted, wrong = candidate, rows, errors
    return Certificate(
        digest=digest,
        threshold=threshold,
        rows=len(score_N),
        left_out=left_out,
        tested=len(testing),
        accepted=accepted,
        wrong=wrong,
        scores=tuple(histogram(score_N).tolist()),
    )


def sequence(*, score_N: Scores, wrong_N: npt.NDArray[np.bool_], accept: Accept, tests: int) -> list[float]:
    """Thresholds to test, from a strict one down to the lowest score of these rows, at equal steps of the rows they accept.

    It begins where these rows themselves speak most clearly for the error rate: a stricter one would be tested on so few rows
    that one wrong label ends it all. None if `tests` rows can't certify anything.
    """
    least = least_rows(error_rate=accept.error_rate, confidence=accept.confidence)
    if not len(score_N) or tests < least:
        return []
    order = np.argsort(-score_N, kind="stable")
    shares = np.linspace(least / tests, 1.0, STEPS)
    scores = list(dict.fromkeys(score_N[order][np.ceil(shares * len(order)).astype(int) - 1].tolist()))
    clarity = [
        p_value(wrong=int(wrong_N[above].sum()), rows=int(above.sum()), error_rate=accept.error_rate)
        for above in (score_N >= score for score in scores)
    ]
    return [float(score) for score in scores[int(np.argmin(clarity)) :]]


def least_rows(*, error_rate: float, confidence: float) -> int:
    """Rows that certify an error rate if all their labels are right; fewer never can."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - error_rate))


def p_value(*, wrong: int, rows: int, error_rate: float) -> float:
    """P(at most `wrong` of `rows` labels are wrong) if each is with the probability error_rate; 1 without rows."""
    if wrong >= rows:
        return 1.0
    count_K = np.arange(wrong)
    steps_K = np.log(rows - count_K) - np.log(count_K + 1) + math.log(error_rate) - math.log1p(-error_rate)
    logs_K = rows * math.log1p(-error_rate) + np.concatenate([[0.0], np.cumsum(steps_K)])
    largest = float(logs_K.max())
    return min(1.0, math.exp(largest) * float(np.exp(logs_K - largest).sum()))


def histogram(score_N: Scores) -> Counts:
    """Counts of scores from 0 to 1 in BINS equal bins."""
    return np.bincount(np.clip((score_N * BINS).astype(np.int64), 0, BINS - 1), minlength=BINS)
