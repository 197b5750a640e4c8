"""Which rows a task refuses before encoding, and why."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from pipeline.encode import distinct
from pipeline.reading.text_columns import checked_parts
from tests.pipeline.small import only_task, reasons, rows_table, spec

CHOICES = {"name": "multiple-choice"}


def faults(column: pa.Array | Sequence[object], **sections: Any) -> list[str | None]:
    """The reason of each value of a column of texts."""
    job = spec(**sections)
    _, errors = checked_parts(rows_table({"text": column}), task=only_task(job), spec=job)
    return reasons(errors)


def list_faults(column: pa.Array, **sections: Any) -> list[str | None]:
    """The reason of each value of a column of lists."""
    rows = rows_table({"prompt": ["p"] * len(column), "choices": column})
    job = spec(task=CHOICES, **sections)
    _, errors = checked_parts(rows, task=only_task(job), spec=job)
    return reasons(errors)


def test_a_text_with_control_characters_is_an_error_of_its_row() -> None:
    assert (
        faults(["a\x00b", "tab\tline\r\nfeed\x0c", "\x1b[0m", "\x7f"])
        == ["control-characters", None] + ["control-characters"] * 2
    )


def test_control_characters_are_read_where_the_job_says_so() -> None:
    assert faults(["a\x00b"], input={"urls": "in.parquet", "control_characters": "keep"}) == [None]


def test_null_and_blank_texts_are_empty() -> None:
    assert faults([None, "", " \n", "x"]) == ["empty", "empty", "empty", None]


def test_a_text_over_the_limit_of_bytes_is_too_large() -> None:
    assert faults(["é" * 5, "é" * 6], limits={"text_bytes": 10}) == [None, "too-large"]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_(pa.binary())])
def test_lists_are_looked_at_value_by_value(kind: pa.DataType) -> None:
    lists = [["a", "b"], None, [], ["x", "a\x00"], [None, "y"], ["z" * 11]]
    wanted = [None, "missing-choices", None, "control-characters", None, "too-large"]
    encoded = [None if row is None else [v if v is None else v.encode() for v in row] for row in lists]
    column = pa.array(encoded, pa.list_(pa.binary())).cast(kind)
    assert list_faults(column, limits={"text_bytes": 10}) == wanted


def test_lists_of_fixed_size_are_lists() -> None:
    assert list_faults(pa.array([["a", "b"], None], pa.list_(pa.string(), 2))) == [None, "missing-choices"]


def test_a_list_with_bytes_that_are_no_utf8_is_an_error_of_its_row() -> None:
    texts = pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb"))
    column = pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), texts)
    assert list_faults(column) == ["invalid-utf8", None]


def test_equal_lists_are_one_item_and_others_are_not() -> None:
    lists = pa.array(
        [["a", "b"], ["ab"], ["a", "b"], [], ["a", None], None, ["b", "a"]], pa.large_list(pa.large_string())
    )
    items, item_of_row = distinct({"words": lists})
    assert item_of_row.tolist() == [0, 1, 0, 2, 3, 4, 5]
    assert items["words"].to_pylist() == [["a", "b"], ["ab"], [], ["a", None], None, ["b", "a"]]


def test_a_pair_is_distinct_from_the_pair_turned_round() -> None:
    left, right = pa.array(["a", "b", "a"], pa.large_string()), pa.array(["b", "a", "b"], pa.large_string())
    _, item_of_row = distinct({"text": left, "text_pair": right})
    assert item_of_row.tolist() == [0, 1, 0]
