"""Arrow list columns as flat values with offsets, and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.ragged import Int32s, Int64s, Integers, joined, offsets_of


def list_array(values: Integers, lengths: Integers) -> pa.ListArray:
    """Flat values and the length of each list, as list<int32>; int32 values are not copied."""
    offsets = offsets_of(lengths).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.astype(np.int32, copy=False)))


def flat_list(table: pa.Table, name: str) -> Int32s:
    """The values of a list<int32> column end to end."""
    return np.asarray(table[name].combine_chunks().flatten().to_numpy())


def list_lengths(table: pa.Table, name: str) -> Int64s:
    """The length of each list of a column."""
    return np.asarray(table[name].combine_chunks().value_lengths().to_numpy(), np.int64)


def flat_column(table: pa.Table, name: str) -> tuple[Int32s, Int64s]:
    """A list<int32> column as flat values and offsets [W + 1] from 0, without a copy where it is one chunk."""
    column = table[name]
    array: Any = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    offsets = array.offsets.to_numpy().astype(np.int64)
    return array.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0]


def flat_columns(tables: Sequence[pa.Table], name: str) -> tuple[Int32s, Int64s]:
    """The same column of several tables, one table after the other, as flat values and offsets."""
    parts = [flat_column(table, name) for table in tables]
    if len(parts) == 1:
        return parts[0]
    lengths = joined([np.diff(offsets) for _, offsets in parts])
    return joined([values for values, _ in parts]), offsets_of(lengths)
