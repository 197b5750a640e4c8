"""How far apart two sets of rows are: the statistics are the textbook's, and what chance explains is called so."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import ks_2samp

from pipeline.analysis.distributions import labels_gap, numbers_gap, share_gap


def test_the_statistic_of_numbers_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    a, b = np.round(random.normal(0, 1, 700), 1), np.round(random.normal(0.5, 1, 400), 1)
    found = numbers_gap(a, b, of="score")
    assert found is not None
    assert found.value == pytest.approx(ks_2samp(a, b).statistic)
    assert "more than chance" in found.meaning
    assert (found.n_a, found.n_b) == (700, 400)


def test_the_distance_of_labels_is_the_share_that_would_have_to_change() -> None:
    found = labels_gap(Counter(x=900, y=100), Counter(x=750, y=100, z=150), of="labels")
    assert found is not None
    assert found.value == pytest.approx(0.15)
    assert "15.0% of one side would need another label" in found.meaning
    assert "large difference" in found.meaning
    shares = share_gap((1, 1000), (3, 1000), of="errors")
    assert shares is not None
    assert "0.10% in A, 0.30% in B" in shares.meaning
    assert "by chance" in shares.meaning


@pytest.mark.parametrize("labels", [2, 30])
def test_samples_of_one_source_are_within_chance(labels: int) -> None:
    """At one in a thousand for each statistic, one of 50 pairs passes the bound once in 20 times, and three hardly ever."""
    random = np.random.default_rng(labels)
    beyond = Counter[str]()
    share = random.dirichlet(np.ones(labels))
    for _ in range(50):
        drawn = [Counter(map(str, random.choice(labels, size=size, p=share))) for size in (400, 900)]
        gap = labels_gap(*drawn, of="labels")
        numbers = numbers_gap(random.normal(size=400), random.normal(size=900), of="score")
        assert gap is not None
        assert numbers is not None
        beyond["labels"] += gap.value > gap.by_chance
        beyond["numbers"] += numbers.value > numbers.by_chance
    assert max(beyond.values()) <= 2


def test_nothing_is_said_of_an_empty_side() -> None:
    assert numbers_gap(np.empty(0), np.ones(3), of="score") is None
    assert labels_gap(Counter(), Counter(a=1), of="labels") is None
