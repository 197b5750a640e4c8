"""Lists of different lengths, laid end to end with offsets: where each begins, and how to take some of them.

Offsets have one entry more than there are lists: list i is flat[offsets[i] : offsets[i + 1]]. NumPy only.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Int32s: TypeAlias = npt.NDArray[np.int32]
Int64s: TypeAlias = npt.NDArray[np.int64]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]


def offsets_of(lengths: Integers) -> Int64s:
    """[N + 1] offsets of lists with these lengths, laid end to end."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ranges(first: Integers, count: Integers) -> Int64s:
    """first, first + 1, … of each pair, `count` of them, end to end."""
    offsets = offsets_of(count)
    shifts: Int64s = np.repeat(first - offsets[:-1], count)
    return np.arange(int(offsets[-1])) + shifts


def members(offsets: Int64s, chosen: Int64s) -> Int64s:
    """Flat indices of the chosen lists, one list after the other."""
    return ranges(offsets[chosen], offsets[chosen + 1] - offsets[chosen])


def owners(offsets: Int64s) -> Int64s:
    """The number of the list that each flat entry belongs to."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def run_starts(*keys: Integers) -> npt.NDArray[np.bool_]:
    """Where any of the keys differs from the entry before; the first entry too."""
    starts = np.ones(len(keys[0]), bool)
    starts[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return starts


def joined(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Arrays end to end; none is an empty int32 array."""
    return np.concatenate(arrays) if arrays else np.empty(0, np.int32)
