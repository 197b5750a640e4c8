"""Numbers in, in batches, a histogram out: bins that widen as larger and smaller numbers come, so that one pass is enough."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

BINS = 40


@dataclass
class Histogram:
    """Counts of BINS bins of one width from `start` on; numbers that are not finite are counted apart."""

    start: float = 0.0
    width: float = 0.0
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
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
        self.least, self.most = min(self.least, float(finite.min())), max(self.most, float(finite.max()))
        self.total += float(finite.sum())
        self._reach()
        bins = np.minimum(((finite - self.start) / self.width).astype(np.int64), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)

    def _reach(self) -> None:
        """Double the bins' width until the least and the largest number have a bin."""
        if self.width == 0.0:
            self.start, self.width = self.least, max((self.most - self.least) / BINS, _least_width(self.least))
        while self.most > self.stop:
            self.counts = np.concatenate([self._pairs(), np.zeros(BINS // 2, np.int64)])
            self.width *= 2
        while self.least < self.start:
            self.counts = np.concatenate([np.zeros(BINS // 2, np.int64), self._pairs()])
            self.start -= BINS * self.width
            self.width *= 2

    def _pairs(self) -> npt.NDArray[np.int64]:
        return self.counts.reshape(-1, 2).sum(axis=1)

    @property
    def stop(self) -> float:
        """The end of the last bin."""
        return self.start + BINS * self.width

    @property
    def count(self) -> int:
        """How many finite numbers there are."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Their mean; NaN where there are none."""
        return self.total / self.count if self.count else float("nan")

    @property
    def edges(self) -> list[float]:
        """The bins' borders, one more than there are bins."""
        return [self.start + index * self.width for index in range(BINS + 1)]

    def shown(self) -> tuple[list[int], list[float]]:
        """(counts, edges) from the first bin with a number to the last."""
        filled = np.flatnonzero(self.counts)
        first, last = (int(filled[0]), int(filled[-1])) if len(filled) else (0, BINS - 1)
        return self.counts[first : last + 1].tolist(), self.edges[first : last + 2]


def _least_width(value: float) -> float:
    """A width that a float64 of this size still resolves, where all numbers are equal so far."""
    return max(abs(value), 1.0) * 1e-6
