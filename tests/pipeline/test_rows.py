"""Row errors are merged in order and counted by reason."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RowError
from pipeline.rows import (
    ERROR_TYPE,
    MESSAGE_CHARACTERS,
    count_reasons,
    error_array,
    first_error,
    no_errors,
    spread_error,
)
from tests.pipeline.small import reasons

MAYBE = st.none() | st.tuples(st.sampled_from(["empty", "nan", "too-long"]), st.text(max_size=5))


@given(st.lists(st.tuples(MAYBE, MAYBE, MAYBE), max_size=20))
def test_the_first_error_of_each_row_is_the_one_it_gets(errors: list[tuple[RowError | None, ...]]) -> None:
    columns = [error_array([row[number] for row in errors]) for number in range(3)]
    expected = [next((error[0] for error in row if error is not None), None) for row in errors]
    found = first_error(columns)
    assert found.type == ERROR_TYPE
    assert reasons(found) == expected


@given(st.lists(MAYBE, max_size=30))
def test_reasons_are_counted_in_one_piece_and_in_many(errors: list[RowError | None]) -> None:
    array = error_array(errors)
    given_reasons = [error[0] for error in errors if error is not None]
    expected = {reason: given_reasons.count(reason) for reason in given_reasons}
    assert count_reasons(array) == expected
    assert count_reasons(pa.chunked_array([array.slice(0, 3), array.slice(3)], ERROR_TYPE)) == expected


def test_an_error_is_spread_over_the_rows_of_a_mask() -> None:
    found = spread_error(error=("empty", "why"), where=np.array([True, False, True]))
    assert found.to_pylist() == [{"reason": "empty", "message": "why"}, None, {"reason": "empty", "message": "why"}]
    assert spread_error(error=("empty", "why"), where=np.zeros(3, bool)).equals(no_errors(3))
    assert len(spread_error(error=("empty", "why"), where=np.zeros(0, bool))) == 0


def test_a_message_that_quotes_a_hostile_row_is_cut() -> None:
    long = ("malformed-json", "x" * 10_000)
    assert len(error_array([long])[0].as_py()["message"]) == MESSAGE_CHARACTERS
    assert len(spread_error(error=long, where=np.ones(1, bool))[0].as_py()["message"]) == MESSAGE_CHARACTERS
