"""Lengths of token windows in, packs of window numbers out: near-equal lengths, under a token budget, longest first."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def packs(*, lengths_W: npt.NDArray[np.integer], budget: int) -> Iterator[npt.NDArray[np.int64]]:
    """Window numbers of one pass through the model each: at most `budget` tokens, or one window that alone is longer.

    Longest first: a pack that does not fit the device fails in the first minute, not in the sixth hour.
    """
    order = np.argsort(-lengths_W.astype(np.int64), kind="stable")
    reached = np.cumsum(lengths_W[order].astype(np.int64))
    first, spent = 0, 0
    while first < len(order):
        last = max(int(np.searchsorted(reached, spent + budget, side="right")), first + 1)
        yield order[first:last]
        first, spent = last, int(reached[last - 1])
