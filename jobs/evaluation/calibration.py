"""Logits and true labels in, a checkpoint's calibration out: temperatures by the likelihood, thresholds by F1.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017.

Legend: N rows, L labels.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.evaluation.confidence import Bin, Floats, Marks, brier, calibration_error, reliability
from models.calibration_file import Calibration, ScoreFunction
from pipeline.errors import SpecError
from pipeline.tasks.scores import scored

WARMEST, COLDEST = 20.0, 0.05
"""Where temperatures are looked for; at either end the data does not tell them."""
STEPS = 60
LEAST_ROWS = 10
"""Rows with a label, and without, from which something is fitted for it alone."""
SEED = 7


@dataclass(frozen=True, eq=False)
class Fit:
    """calibration: what was fitted on all rows. before, after: numbers of the scores without it, and with one fitted on the
    other half of the rows. bins: of the diagram, before and after. notes: what could not be fitted."""

    calibration: Calibration
    before: Mapping[str, float]
    after: Mapping[str, float]
    bins: tuple[list[Bin], list[Bin]]
    notes: tuple[str, ...]


def fit(
    *, logits_NL: Floats, truth_NL: Marks, labels: tuple[str, ...], function: ScoreFunction, thresholds: bool
) -> Fit:
    """The calibration of a classifier. thresholds: also each label's score of the best F1. Raises SpecError for too few rows."""
    if len(logits_NL) < 2 * LEAST_ROWS:
        raise SpecError(
            f"{len(logits_NL)} rows with an answer and a known label are too few; give {2 * LEAST_ROWS} at least"
        )
    temperatures, notes = _temperatures(logits_NL, truth_NL, labels, function)
    order = np.random.default_rng(SEED).permutation(len(logits_NL))
    halves = (order[::2], order[1::2])
    held_out_NL = np.empty(logits_NL.shape, np.float32)
    for mine, others in (halves, halves[::-1]):
        found, _ = _temperatures(logits_NL[others], truth_NL[others], labels, function)
        held_out_NL[mine] = scored(logits_NL[mine] / np.array(found, np.float32), function=function)
    plain_NL = scored(logits_NL, function=function)
    final_NL = scored(logits_NL / np.array(temperatures, np.float32), function=function)
    chosen: dict[str, float] = {}
    for place, label in enumerate(labels if thresholds else ()):
        if _enough(truth_NL[:, place]):
            chosen[label] = best_threshold(score_N=final_NL[:, place], truth_N=truth_NL[:, place])
    before, after = (_numbers(scores_NL, truth_NL, function) for scores_NL in (plain_NL, held_out_NL))
    fitted: dict[str, Any] = {"rows": len(logits_NL), "before": before, "after": after, "notes": notes}
    return Fit(
        calibration=Calibration(
            labels=labels, function=function, temperatures=tuple(temperatures), thresholds=chosen, fitted=fitted
        ),
        before=before,
        after=after,
        bins=(_bins(plain_NL, truth_NL, function), _bins(held_out_NL, truth_NL, function)),
        notes=tuple(notes),
    )


def _temperatures(
    logits_NL: Floats, truth_NL: Marks, labels: tuple[str, ...], function: ScoreFunction
) -> tuple[list[float], list[str]]:
    """One temperature for softmax, one a label for sigmoid; and what could not be fitted, which keeps 1."""
    if function == "softmax":
        found = temperature(lambda t: _softmax_loss(logits_NL / t, truth_NL))
        return (
            ([1.0], [f"the rows do not tell a temperature ({found:.3g}): 1 is kept"])
            if _at_end(found)
            else ([found], [])
        )
    temperatures, few, unclear = [], [], []
    for place, label in enumerate(labels):
        found = 1.0
        if not _enough(truth_NL[:, place]):
            few.append(label)
        elif _at_end(found := temperature(_sigmoid_losses(logits_NL[:, place], truth_NL[:, place]))):
            unclear.append(label)
            found = 1.0
        temperatures.append(found)
    notes = (
        [f"fewer than {LEAST_ROWS} rows with or without the label, so nothing is fitted: {', '.join(few)}"]
        if few
        else []
    )
    notes += [f"the rows do not tell a temperature, so 1 is kept: {', '.join(unclear)}"] if unclear else []
    return temperatures, notes


def temperature(loss: Callable[[float], float]) -> float:
    """The temperature of the least loss: golden section search, since the loss has one valley in the logarithm."""
    low, high = math.log(COLDEST), math.log(WARMEST)
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(math.exp(left)), loss(math.exp(right))
    for _ in range(STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = loss(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = loss(math.exp(right))
    return math.exp((low + high) / 2)


def _at_end(found: float) -> bool:
    return not COLDEST * 1.01 < found < WARMEST / 1.01


def _enough(truth_N: Marks) -> bool:
    positive = int(truth_N.sum())
    return LEAST_ROWS <= positive <= len(truth_N) - LEAST_ROWS


def _softmax_loss(logits_NL: Floats, truth_NL: Marks) -> float:
    """Mean negative log likelihood of the one true label."""
    logits_NL = logits_NL.astype(np.float64)
    largest_N = logits_NL.max(axis=1)
    total_N = largest_N + np.log(np.exp(logits_NL - largest_N[:, None]).sum(axis=1))
    return float((total_N - logits_NL[truth_NL]).mean())


def _sigmoid_losses(logit_N: Floats, truth_N: Marks) -> Callable[[float], float]:
    signed_N = np.where(truth_N, logit_N, -logit_N).astype(np.float64)
    return lambda t: float(np.logaddexp(0.0, -signed_N / t).mean())


def best_threshold(*, score_N: Floats, truth_N: Marks) -> float:
    """The score from which listing a label has the best F1: halfway between two scores; of equal ones, the nearest to 0.5."""
    order = np.argsort(-score_N, kind="stable")
    score_N, right_N = score_N[order].astype(np.float64), np.cumsum(truth_N[order])
    last_N = np.append(score_N[:-1] != score_N[1:], True)
    f1_N = np.where(last_N, 2 * right_N / (np.arange(len(right_N)) + 1 + right_N[-1]), -1.0)
    below_N = np.append(score_N[1:], 0.0)
    places = np.flatnonzero(np.isclose(f1_N, f1_N.max()))
    middles = (score_N[places] + below_N[places]) / 2
    return float(middles[np.argmin(np.abs(middles - 0.5))])


def _numbers(scores_NL: Floats, truth_NL: Marks, function: ScoreFunction) -> dict[str, float]:
    score_N, right_N = _claims(scores_NL, truth_NL, function)
    chosen_NL = np.clip(scores_NL, 1e-12, 1 - 1e-7).astype(np.float64)
    likely = chosen_NL[truth_NL] if function == "softmax" else np.where(truth_NL, chosen_NL, 1 - chosen_NL)
    loss = -np.log(likely).mean()
    return {
        "ece": calibration_error(score_N=score_N, right_N=right_N),
        "brier": brier(scores_NL=scores_NL, truth_NL=truth_NL),
        "negative_log_likelihood": float(loss),
    }


def _bins(scores_NL: Floats, truth_NL: Marks, function: ScoreFunction) -> list[Bin]:
    score_N, right_N = _claims(scores_NL, truth_NL, function)
    return reliability(score_N=score_N, right_N=right_N)


def _claims(scores_NL: Floats, truth_NL: Marks, function: ScoreFunction) -> tuple[Floats, Marks]:
    """Scores that say how sure the model is, and whether it is right: of the best label, or of each label by itself."""
    if function == "sigmoid":
        return scores_NL.ravel(), truth_NL.ravel()
    rows, best_N = np.arange(len(scores_NL)), scores_NL.argmax(axis=1)
    return scores_NL[rows, best_N], truth_NL[rows, best_N]
