"""Two sets of rows in, how far apart their labels and numbers are, with a statistic and what it means, out.

Labels: the total variation distance. Numbers: the two-sample Kolmogorov-Smirnov statistic, on a random sample of each side.
"""

from collections import Counter
from dataclasses import dataclass, replace
from math import log, sqrt
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

SAMPLE = 20_000
"""Numbers that are kept of each side: enough to see a gap of 0.02."""
LIKELY = 0.001
"""A gap that chance alone makes less often than this is no chance."""
DRAWS = 1_000
"""Pairs of samples that say what chance does."""
SMALL, LARGE = 0.02, 0.1
"""Gaps below the first are called small, those from the second on large, whatever the number of rows."""

Statistic: TypeAlias = Literal["total variation distance", "Kolmogorov-Smirnov statistic"]


@dataclass(frozen=True)
class Gap:
    """How far apart two distributions are: from 0, the same, to 1, nothing in common. n_a, n_b: values of each side.
    by_chance: the gap that two samples of these sizes from one distribution reach in 1 of 1000 cases, about."""

    of: str
    statistic: Statistic
    value: float
    n_a: int
    n_b: int
    by_chance: float
    meaning: str


def labels_gap(a: Counter[str], b: Counter[str], *, of: str) -> Gap | None:
    """The gap between two sets of labels; None if one is empty."""
    n_a, n_b = a.total(), b.total()
    if not n_a or not n_b:
        return None
    names = sorted({*a, *b})
    share_a, share_b = (np.array([side[name] for name in names]) / side.total() for side in (a, b))
    value = float(np.abs(share_a - share_b).sum() / 2)
    pooled = np.array([a[name] + b[name] for name in names]) / (n_a + n_b)
    # What samples of these sizes from one distribution come to (a parametric bootstrap, always with the same draws).
    random = np.random.default_rng(0)
    drawn = (random.multinomial(size, pooled, size=DRAWS) / size for size in (n_a, n_b))
    chance = float(np.quantile(np.abs(np.subtract(*drawn)).sum(axis=1) / 2, 1 - LIKELY))
    what = f"to make both alike, {value:.1%} of one side would need another label"
    return Gap(of, "total variation distance", value, n_a, n_b, min(1.0, chance), _meaning(what, value, chance))


def numbers_gap(a: Floats, b: Floats, *, of: str) -> Gap | None:
    """The gap between two samples of numbers; None if one is empty."""
    if not len(a) or not len(b):
        return None
    a, b = np.sort(a), np.sort(b)
    places = np.concatenate([a, b])
    below_a, below_b = (np.searchsorted(side, places, side="right") / len(side) for side in (a, b))
    differences = below_a - below_b
    at = int(np.abs(differences).argmax())
    value = float(abs(differences[at]))
    chance = sqrt(-log(LIKELY / 2) / 2 * (1 / len(a) + 1 / len(b)))  # Smirnov's limit, one term
    low, high = ("A", "B") if differences[at] > 0 else ("B", "A")
    shares = max(below_a[at], below_b[at]), min(below_a[at], below_b[at])
    what = f"{shares[0]:.1%} of {low} is at most {places[at]:.4g}, of {high} {shares[1]:.1%}"
    return Gap(
        of, "Kolmogorov-Smirnov statistic", value, len(a), len(b), min(1.0, chance), _meaning(what, value, chance)
    )


def share_gap(a: tuple[int, int], b: tuple[int, int], *, of: str) -> Gap | None:
    """The gap between two shares, each (such rows, all rows)."""
    gap = labels_gap(*(Counter({"yes": some, "no": rows - some}) for some, rows in (a, b)), of=of)
    if gap is None:
        return None
    what = f"{a[0] / a[1]:.2%} in A, {b[0] / b[1]:.2%} in B"
    return replace(gap, meaning=_meaning(what, gap.value, gap.by_chance))


def _meaning(what: str, value: float, chance: float) -> str:
    if value <= chance:
        return f"{what}. Samples of these sizes differ as much by chance"
    size = "small" if value < SMALL else "large" if value >= LARGE else "moderate"
    return f"{what}. A {size} difference, more than chance explains"
