"""Error rates from reviewed samples agree with the textbook, and their intervals hold what they promise."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.analysis.error_rate import Design, Judgement, error_rate, wilson
from pipeline.analysis.lottery import uniform
from pipeline.errors import SpecError

POPULATION = 5_000
SIZES = {"common": 4_000, "seldom": 900, "rare": 100}


@pytest.mark.parametrize(("wrong", "rows"), [(0, 50), (3, 50), (25, 50), (50, 50), (7, 1000)])
def test_wilsons_interval_is_that_of_scipy(wrong: int, rows: int) -> None:
    expected = binomtest(wrong, rows).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson(wrong / rows, rows, confidence=0.95) == pytest.approx((expected.low, expected.high), abs=1e-9)


def random_sample(wrong: np.ndarray, count: int, seed: int) -> list[Judgement]:
    chosen = np.argsort(uniform(seed=seed, source="", rows_R=np.arange(len(wrong))))[:count]
    return [Judgement(bool(wrong[row]), "all", len(wrong), len(wrong) / count) for row in chosen]


def test_a_small_sample_of_many_rows_has_wilsons_interval_and_a_census_a_point() -> None:
    wrong = np.arange(POPULATION) % 10 == 0
    found = error_rate(random_sample(wrong, 200, 0), design="random", strata={"all": POPULATION}, population=POPULATION)
    plain = binomtest(found.wrong, 200).proportion_ci(method="wilson")
    assert found.low == pytest.approx(plain.low, abs=0.002)
    assert found.low >= plain.low  # 200 of 5000 rows are known for certain
    every = error_rate(
        random_sample(wrong, POPULATION, 0), design="random", strata={"all": POPULATION}, population=POPULATION
    )
    assert (every.rate, every.low, every.high) == (0.1, 0.1, 0.1)


def sample(design: Design, seed: int, *, rates: dict[str, float]) -> tuple[float, list[Judgement]]:
    """(the true error rate, a reviewed sample) of a made-up population whose unsure rows are more often wrong."""
    random = np.random.default_rng(seed)
    groups = np.repeat(list(SIZES), list(SIZES.values()))
    unsure = random.beta(1, 4, POPULATION)
    wrong = random.random(POPULATION) < np.array([rates[group] for group in groups]) * (0.3 + 3.5 * unsure)
    drawn = uniform(seed=seed, source="x", rows_R=np.arange(POPULATION))
    if design == "random":
        return wrong.mean(), random_sample(wrong, 200, seed)
    if design == "stratified":
        found = []
        for group, rows in SIZES.items():
            members = np.flatnonzero(groups == group)
            chosen = members[np.argsort(drawn[members])[:66]]
            found += [Judgement(bool(wrong[row]), group, rows, rows / 66) for row in chosen]
        return wrong.mean(), found
    size = np.maximum(unsure, 0.1)
    order = np.argsort(drawn / size)
    threshold = (drawn / size)[order[200]]
    return wrong.mean(), [
        Judgement(bool(wrong[row]), "all", POPULATION, 1 / min(1.0, size[row] * threshold)) for row in order[:200]
    ]


@pytest.mark.parametrize("design", ["random", "stratified", "uncertain"])
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.4])
def test_the_interval_holds_the_truth_as_often_as_it_says(design: Design, rate: float) -> None:
    """95 % of 200 samples is 190; a rate that held in 95 % would fall below 181 once in 500 such tests."""
    rates = {"common": rate / 2, "seldom": rate, "rare": min(0.7, 3 * rate)}
    held, errors = 0, []
    for seed in range(200):
        truth, judged = sample(design, seed, rates=rates)
        strata = Counter({one.stratum: one.stratum_rows for one in judged})
        found = error_rate(judged, design=design, strata=strata, population=POPULATION)
        held += found.low <= truth <= found.high
        errors.append(found.rate - truth)
    assert held >= 181
    assert abs(np.mean(errors)) < 4 * np.std(errors) / 200**0.5  # unbiased, within four standard errors


def test_strata_without_a_judged_row_are_not_covered() -> None:
    judged = [Judgement(False, "a", 10, 5.0), Judgement(True, "a", 10, 5.0)]
    found = error_rate(judged, design="stratified", strata={"a": 10, "b": 90}, population=120)
    assert (found.rate, found.not_covered) == (0.5, 110)
    assert found.strata["b"].reviewed == 0
    with pytest.raises(SpecError, match="no row was reviewed"):
        error_rate([], design="random", strata={}, population=0)
