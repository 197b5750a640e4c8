"""Numbers in, in batches, a histogram out: its bins double as larger and smaller numbers come, so that one pass is enough."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 40
FINEST = 10
"""Bins are no narrower than the largest number's power of two divided by 2**FINEST."""


@dataclass
class Histogram:
    """Counts of up to BINS bins, each 2**power wide; numbers that are not finite are counted apart.

    Bin i begins at i * 2**power, whatever came first: the same numbers give the same histogram in any order, and two of them add
    up. whole: numbers are integers, and a bin has its beginning in it; else it has its end in it, so that no bin of
    probabilities reaches beyond 1. bins: index -> count.
    """

    whole: bool = False
    power: int = -1000
    bins: Counter[int] = field(default_factory=Counter)
    not_finite: int = 0
    total: float = 0.0
    least: float = np.inf
    most: float = -np.inf

    def add(self, values: npt.ArrayLike) -> None:
        """Count some numbers."""
        numbers = np.asarray(values, np.float64)
        finite = numbers[np.isfinite(numbers)]
        self.not_finite += len(numbers) - len(finite)
        if not len(finite):
            return
        self.total += float(finite.sum())
        self._reach(float(finite.min()), float(finite.max()))
        places, counts = np.unique(self._place(finite), return_counts=True)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            self.bins[place] += count

    def _place(self, numbers: Any) -> Any:
        scaled = numbers / 2.0**self.power
        return (np.floor(scaled) if self.whole else np.ceil(scaled) - 1).astype(np.int64)

    def _reach(self, least: float, most: float) -> None:
        """Double the bins' width until BINS of them reach from the least to the largest number."""
        self.least, self.most = min(self.least, least), max(self.most, most)
        ends = np.array([self.least, self.most])
        before, finest = self.power, math.frexp(float(np.abs(ends).max()))[1] - FINEST
        self.power = max(before, 0 if self.whole else max(finest, -1000))
        while np.ptp(self._place(ends)) >= BINS:
            self.power += 1
        self._widen(self.power - before)

    def _widen(self, doublings: int) -> None:
        if doublings and self.bins:
            wider: Counter[int] = Counter()
            for place, count in self.bins.items():
                wider[place >> doublings] += count
            self.bins = wider

    @property
    def count(self) -> int:
        """How many finite numbers there are."""
        return self.bins.total()

    @property
    def mean(self) -> float:
        """Their mean; NaN where there are none."""
        return self.total / self.count if self.count else float("nan")

    def shown(self) -> tuple[list[int], list[float]]:
        """(counts, edges) from the first bin with a number to the last; a bin of one integer has it in its middle."""
        if not self.bins:
            return [], [0.0]
        first, last = min(self.bins), max(self.bins)
        shift = 0.5 if self.whole else 0.0
        edges = [place * 2.0**self.power - shift for place in range(first, last + 2)]
        return [self.bins[place] for place in range(first, last + 1)], edges
