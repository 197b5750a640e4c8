"""What rows take is counted as if every value stood by itself, and rows that take too much say where to cut them."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.reading.formats.decoded_size import Gathered, decoded_bytes

ROWS = 100
LONG = 5_000
VALUE = pa.array(["x" * LONG])
PLACES = pa.array(np.zeros(ROWS, np.int32))
REPEATED: dict[str, Any] = {
    "dictionary": pa.DictionaryArray.from_arrays(PLACES, VALUE),
    "dictionary of bytes": pa.DictionaryArray.from_arrays(PLACES, VALUE.cast(pa.binary())),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([ROWS], pa.int32()), VALUE),
    "views": pa.array(["x" * LONG] * ROWS, pa.string_view()),
    "list views": pa.ListViewArray.from_arrays(PLACES, pa.array(np.ones(ROWS, np.int32)), VALUE),
    "lists of a dictionary": pa.ListArray.from_arrays(
        pa.array(np.arange(ROWS + 1, dtype=np.int32)), pa.DictionaryArray.from_arrays(PLACES, VALUE)
    ),
    "structs of a dictionary": pa.StructArray.from_arrays([pa.DictionaryArray.from_arrays(PLACES, VALUE)], ["inner"]),
}


@pytest.mark.parametrize("layout", REPEATED)
def test_a_value_that_is_stored_once_counts_in_every_row(layout: str) -> None:
    array = REPEATED[layout]
    whole = decoded_bytes(pa.table({"column": array}))
    assert ROWS * LONG <= whole < ROWS * (LONG + 100)
    tenth = decoded_bytes(pa.table({"column": array.slice(20, ROWS // 10)}))
    assert whole // 10 - 200 <= tenth <= whole // 10 + 200


@given(
    st.lists(st.lists(st.integers(1, 400), min_size=1, max_size=20), min_size=1, max_size=12), st.integers(50, 2_000)
)
def test_parts_cover_the_rows_and_each_takes_at_most_what_one_may_or_is_one_row(
    pieces: list[list[int]], most: int
) -> None:
    gathered, first = Gathered(most), 7
    for lengths in pieces:
        gathered.add(pa.table({"text": ["x" * length for length in lengths]}), first=first)
        first += len(lengths)
    found = gathered.too_large
    rows = pa.concat_tables([pa.table({"text": ["x" * length for length in lengths]}) for lengths in pieces])
    if found is None:
        assert pa.concat_tables(gathered.pieces).equals(rows)
        return
    assert gathered.pieces == []
    edges = [7, *found.cuts, first]
    assert all(one < other for one, other in pairwise(edges))
    assert len(edges) > 2


def test_rows_within_the_limit_and_a_single_row_are_not_cut() -> None:
    within, single = Gathered(1_000), Gathered(10)
    within.add(pa.table({"text": ["x" * 100] * 5}), first=0)
    single.add(pa.table({"text": ["x" * 100]}), first=0)
    unlimited = Gathered(None)
    unlimited.add(pa.table({"text": ["x" * 100] * 500}), first=0)
    assert [one.too_large for one in (within, single, unlimited)] == [None] * 3
    assert all(one.pieces for one in (within, single, unlimited))
