"""Lengths of token windows in, packs of window numbers out: near-equal lengths, under a token budget, longest first.

Legend: W windows.
"""

import statistics
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from models.boundary import DeviceFacts, Framework

CPU_BATCH_TOKENS: Mapping[Framework, tuple[int, int]] = {
    "torch": (2_048, 2_048),
    "tensorflow": (1_536, 1_536),
    "flax": (4_096, 4_096),
}
"""Token budget of a pass on a CPU: a few hundred tokens are compute-bound already, and more only cost cache. Flax has a larger
one, since more tokens fill its rows of one width better."""
GPU_BATCH_TOKENS = (32_768, 65_536)
"""The first and the largest token budget of a pass on a GPU. With fewer tokens, launching kernels takes longer than running them;
at 64k a model of base size takes 2.5 GB."""
GAIN = 1.03
"""A larger budget must be so much faster to be kept."""
FULL = 0.75
"""The part of its budget that a pass must fill to count in the budget's rate."""
BEST_TOKENS = "best_tokens"
"""What a model may report with its device's facts: the largest budget that pays there."""
PASSES = 3
"""Passes whose median rate is a budget's rate, so that one pass that something else slowed down does not decide."""


class TokenBudget:
    """Tokens that one pass through the model may have: grown while passes get faster, halved when memory runs out.

    It is found in real work: no pass is run just to find it, and no answer depends on it.
    """

    def __init__(self, *, tokens: int, most: int | None = None) -> None:
        self.tokens = tokens
        self._most = most or tokens
        self._best = 0.0
        self._rates: list[float] = []

    def took(self, *, tokens: int, seconds: float) -> None:
        """Record a pass of `tokens` that took `seconds`; the budget may grow."""
        if self.tokens >= self._most and not self._best:
            return
        if not FULL * self.tokens <= tokens <= self.tokens or seconds <= 0:
            return
        self._rates.append(tokens / seconds)
        if len(self._rates) < PASSES:
            return
        rate = statistics.median(self._rates)
        self._rates = []
        if rate < GAIN * self._best:
            self.tokens = max(self.tokens // 2, 1)
            self._most = self.tokens
            self._best = 0.0
        elif self.tokens >= self._most:
            self._best = 0.0  # the largest, and it is the fastest
        else:
            self._best = rate
            self.tokens = min(2 * self.tokens, self._most)

    def refused(self, *, tokens: int) -> None:
        """Record a pass of `tokens` that ran out of the device's memory: the budget becomes half of it and grows no more."""
        self.tokens = min(self.tokens, max(tokens // 2, self.tokens // 2, 1))
        self._most = self.tokens
        self._best = 0.0
        self._rates = []


def budget_between(first_most: tuple[int, int], facts: DeviceFacts) -> TokenBudget:
    """From the first budget up to the largest, or to what the model's device is said to be best at."""
    first, most = first_most
    most = min(most, int(facts.get(BEST_TOKENS, most)))
    return TokenBudget(tokens=min(first, most), most=most)


def packs(
    *, lengths_W: npt.NDArray[np.integer], budget: TokenBudget, in_order: bool = False
) -> Iterator[npt.NDArray[np.int64]]:
    """The window numbers of each pass: at most the budget's tokens, or a single window that is longer.

    Longest first: a pack that does not fit the device fails in the first minute, not in the sixth hour. in_order: as they
    come, for models that lay sequences into rows of one width, which mixed lengths fill best.
    """
    order = np.arange(len(lengths_W)) if in_order else np.argsort(-lengths_W.astype(np.int64), kind="stable")
    reached = np.cumsum(lengths_W[order].astype(np.int64))
    first, spent = 0, 0
    while first < len(order):
        last = max(int(np.searchsorted(reached, spent + budget.tokens, side="right")), first + 1)
        yield order[first:last]
        first, spent = last, int(reached[last - 1])
