"""Lengths of token rows in, windows out that overlap and cover every token.

Legend: N items, W windows, T tokens of all items end to end.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.ragged import Integers


@dataclass(frozen=True, eq=False)
class Cuts:
    """Windows as token ranges of their items.

    item_W: ascending. first_W, stop_W: tokens within the item, specials not counted.
    kept_first_W, kept_stop_W: of those, the tokens that this window decides: each token of an item belongs to one
        window, the one in which it has the most text on both sides.
    """

    item_W: npt.NDArray[np.int64]
    first_W: npt.NDArray[np.int64]
    stop_W: npt.NDArray[np.int64]
    kept_first_W: npt.NDArray[np.int64]
    kept_stop_W: npt.NDArray[np.int64]


def cut_windows(*, lengths_N: Integers, room_N: Integers, overlap_N: Integers) -> Cuts:
    """Windows of at most `room` tokens, each sharing `overlap` tokens with the one before; an empty item has one, empty.

    The last window is the first one that reaches the end, as in the reference. `overlap` is less than `room`.
    """
    step_N = room_N - overlap_N
    count_N = 1 + np.maximum(-(-(lengths_N - room_N) // step_N), 0)
    item_W = np.repeat(np.arange(len(lengths_N)), count_N)
    number_W = np.arange(len(item_W)) - np.repeat(np.cumsum(count_N) - count_N, count_N)
    first_W = number_W * step_N[item_W]
    stop_W = np.minimum(first_W + room_N[item_W], lengths_N[item_W])
    kept_first_W, kept_stop_W = first_W.copy(), stop_W.copy()
    follows = np.flatnonzero(number_W > 0)
    middle = (first_W[follows] + stop_W[follows - 1]) // 2
    kept_first_W[follows] = middle
    kept_stop_W[follows - 1] = middle
    return Cuts(item_W=item_W, first_W=first_W, stop_W=stop_W, kept_first_W=kept_first_W, kept_stop_W=kept_stop_W)


def cut_first(*, lengths_N: Integers, room: int) -> Cuts:
    """One window an item: its first `room` tokens."""
    first_W = np.zeros(len(lengths_N), np.int64)
    stop_W = np.minimum(lengths_N, room)
    return Cuts(np.arange(len(lengths_N)), first_W, stop_W, first_W, stop_W)
