"""Rows in, a reproducible random draw of them out: a keyed hash of (seed, source, row) decides, so that neither the order nor the
cut of the shards matters, and memory is bounded by what is kept.

Legend: R rows.
"""

import hashlib
from collections import Counter
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats: TypeAlias = npt.NDArray[np.float64]

ORDER = [("group", "ascending"), ("rank", "ascending"), ("source", "ascending"), ("row", "ascending")]


def uniform(*, seed: int, source: str, rows_R: npt.NDArray[np.int64], stream: str = "draw") -> Floats:
    """[R], one number in (0, 1) for each row of a source: SplitMix64 of the row, keyed by BLAKE2 of the rest.

    stream: numbers of two streams are independent of each other.
    """
    key = hashlib.blake2b(f"{seed}\0{stream}\0{source}".encode(), digest_size=8).digest()
    bits_R = rows_R.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.frombuffer(key, np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits_R = (bits_R ^ (bits_R >> np.uint64(shift))) * np.uint64(factor)
    bits_R ^= bits_R >> np.uint64(31)
    return ((bits_R >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


class Lowest:
    """The `most` rows of each group with the lowest ranks. counts: rows seen by group."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: pa.Table | None = None
        self.counts: Counter[str] = Counter()

    def add(self, rows: pa.Table) -> None:
        """Rows with the columns group, rank, source, row, and any others."""
        for item in pc.value_counts(rows["group"].combine_chunks()):
            self.counts[item["values"].as_py()] += item["counts"].as_py()
        self._kept = lowest_of_groups(
            rows if self._kept is None else pa.concat_tables([self._kept, rows]), most=self._most
        )

    def rows(self) -> pa.Table | None:
        """What is kept, by group and rank; None if no row was seen."""
        return self._kept


def lowest_of_groups(rows: pa.Table, *, most: int) -> pa.Table:
    """The first `most` rows of each group by rank, then source and row."""
    rows = rows.take(pc.sort_indices(rows, sort_keys=ORDER))
    group_R = rows["group"].combine_chunks().dictionary_encode().indices.to_numpy()
    starts = np.flatnonzero(np.diff(group_R, prepend=-1))
    place_R = np.arange(len(group_R)) - np.repeat(starts, np.diff(np.append(starts, len(group_R))))
    return rows.filter(pa.array(place_R < most))
