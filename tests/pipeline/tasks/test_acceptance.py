"""The score from which labels are accepted keeps the error rate that was asked for, with the confidence asked for."""

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import preln
from jobs.embedded import DEMO
from pipeline.tasks.acceptance import Accept, certify, histogram, least_rows, p_value

CONFIDENCE = 0.95
SPLITS = 200
NOISE = 1.645 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / SPLITS)
"""What 200 draws of a share of 95 % may lack of it by chance, 19 times in 20."""


def accept(error_rate: float) -> Accept:
    return Accept(error_rate=error_rate, confidence=CONFIDENCE, calibration="labelled.parquet")


@pytest.mark.parametrize(("wrong", "rows", "rate"), [(0, 59, 0.05), (3, 100, 0.05), (40, 500, 0.1), (7, 8, 0.9)])
def test_the_p_value_is_that_of_the_binomial_distribution(wrong: int, rows: int, rate: float) -> None:
    exact = sum(math.comb(rows, k) * rate**k * (1 - rate) ** (rows - k) for k in range(wrong + 1))
    assert p_value(wrong=wrong, rows=rows, error_rate=rate) == pytest.approx(exact, rel=1e-9)


def test_a_million_rows_have_a_p_value_and_none_have_none() -> None:
    assert p_value(wrong=50_000, rows=1_000_000, error_rate=0.05) == pytest.approx(0.5, abs=0.01)
    assert p_value(wrong=0, rows=1_000_000, error_rate=0.05) == 0.0
    assert p_value(wrong=0, rows=0, error_rate=0.05) == p_value(wrong=5, rows=5, error_rate=0.05) == 1.0


def test_fewer_rows_than_could_ever_show_it_certify_nothing() -> None:
    least = least_rows(error_rate=0.05, confidence=CONFIDENCE)
    assert p_value(wrong=0, rows=least, error_rate=0.05) <= 1 - CONFIDENCE
    assert p_value(wrong=0, rows=least - 1, error_rate=0.05) > 1 - CONFIDENCE
    for rows in (0, 1, least):  # a fifth of them chooses the sequence
        found = certify(score_N=np.ones(rows), right_N=np.ones(rows, bool), accept=accept(0.05), digest="", left_out=0)
        assert found.threshold is None
    assert "no label is accepted" in accept(0.05).with_state(digest="", certificate=found).note()


def test_rows_that_are_all_right_are_all_accepted() -> None:
    score_N = np.random.default_rng(1).random(400).astype(np.float32)
    found = certify(score_N=score_N, right_N=np.ones(400, bool), accept=accept(0.05), digest="d", left_out=3)
    assert found.threshold is not None
    assert (found.wrong, found.rows, found.left_out, found.digest) == (0, 400, 3, "d")
    assert found.accepted / found.tested > 0.95
    assert sum(found.scores) == 400


def test_the_histogram_has_every_score_once() -> None:
    assert histogram(np.array([0.0, 0.005, 0.995, 1.0], np.float32)).tolist() == [2, *[0] * 98, 2]


def test_a_known_error_rate_is_kept_in_95_of_100_draws() -> None:
    """Rows are right with the probability of their score, so that the error rate above a score is known exactly."""
    kept, coverage = 0, []
    for seed in range(SPLITS):
        random = np.random.default_rng(seed)
        score_N = random.random(1_000)
        found = certify(
            score_N=score_N, right_N=random.random(1_000) < score_N, accept=accept(0.2), digest="", left_out=0
        )
        least = 1.0 if found.threshold is None else found.threshold
        kept += found.threshold is None or (1 - least) / 2 <= 0.2
        coverage.append(1 - least)
    assert kept / SPLITS >= CONFIDENCE - NOISE
    assert 0.2 < np.mean(coverage) <= 0.4, "0.4 is what a known distribution would allow"


Scored = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def scored_intents(shared: Path, parts: dict[str, int]) -> Scored:
    """Scores of the demo's intents on CLINC150's held-out texts, and which of them are right; a text out of scope never is."""
    data = json.loads((shared / "data/clinc150/data_full.json").read_text(encoding="utf-8"))
    pairs = [pair for part, step in parts.items() for pair in data[part][::step]]
    answers = preln.annotate(
        [text for text, _ in pairs],
        model=str(DEMO / "intents"),
        task="text-classification",
        dtype="float32",
        isolate=False,
    )
    right = [true == label for (_, true), label in zip(pairs, answers["label"].to_pylist(), strict=True)]
    return answers["score"].to_numpy(), np.array(right)


def splits_kept(scored: Scored, *, labelled: int, error_rate: float) -> tuple[float, float]:
    """(share of random splits whose accepted rows keep the error rate, mean share of rows accepted)."""
    score_N, right_N = scored
    kept, coverage = 0, []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(score_N))
        mine, others = order[:labelled], order[labelled:]
        found = certify(score_N=score_N[mine], right_N=right_N[mine], accept=accept(error_rate), digest="", left_out=0)
        taken = np.zeros(len(others), bool)
        if found.threshold is not None:
            taken = score_N[others] >= np.float32(found.threshold)
        kept += not taken.any() or (~right_N[others][taken]).mean() <= error_rate
        coverage.append(taken.mean())
    return kept / SPLITS, float(np.mean(coverage))


@pytest.mark.torch
def test_a_sample_of_clinc150_keeps_fifteen_per_cent(shared: Path) -> None:
    scored = scored_intents(shared, {"test": 10, "oos_test": 20})
    kept, coverage = splits_kept(scored, labelled=200, error_rate=0.15)
    assert kept >= CONFIDENCE - NOISE
    assert coverage > 0.7


@pytest.mark.slow
@pytest.mark.torch
def test_clinc150_keeps_its_error_rates_in_200_splits(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand labelled rows of those held out; the rest, which is larger, measures what was promised."""
    everything, in_scope = (scored_intents(shared, parts) for parts in ({"test": 1, "oos_test": 1}, {"test": 1}))
    for name, scored, rates in (
        ("in scope", in_scope, (0.05, 0.1)),
        ("with 1,000 out of scope", everything, (0.05, 0.1)),
    ):
        for rate in rates:
            kept, coverage = splits_kept(scored, labelled=1_000, error_rate=rate)
            with capsys.disabled():
                print(
                    f"CLINC150 {name}, error rate {rate}: kept in {kept:.1%} of {SPLITS} splits, coverage {coverage:.1%}"
                )
            assert kept >= CONFIDENCE - NOISE
            assert coverage > 0.4
