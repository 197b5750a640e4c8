"""Tables are cast to the frozen columns; what does not fit is reported."""

from decimal import Decimal

import pyarrow as pa
import pytest

from pipeline.reading.formats.conform import absent_column, conform, decode_utf8, is_blank
from pipeline.rows import error_array
from tests.pipeline.small import reasons

ROWS = pa.array([0, 1, 2], pa.int64())


def conformed(column: pa.Array, kind: pa.DataType) -> pa.Table:
    return conform(pa.table({"v": column}), schema=pa.schema([("v", kind)]), row=ROWS)


def test_columns_come_in_the_order_of_the_schema_and_absent_ones_are_null() -> None:
    table = pa.table({"b": ["x", "y", "z"], "more": [1, 2, 3], "a": [1, 2, 3]})
    schema = pa.schema([("a", pa.int64()), ("absent", pa.list_(pa.string())), ("b", pa.string())])
    found = conform(table, schema=schema, row=ROWS)
    assert found.column_names == ["a", "absent", "b", "__row__", "__error__"]
    assert found["absent"].null_count == 3
    assert found["__row__"].to_pylist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("values", "narrow", "wide"),
    [
        ([1, None, 3], pa.int32(), pa.int64()),
        ([1, 2, 3], pa.int64(), pa.float64()),
        (["a", None, "c"], pa.string(), pa.large_string()),
        (["a", "b", "a"], pa.dictionary(pa.int8(), pa.string()), pa.string()),
        ([None, None, None], pa.null(), pa.string()),
        ([Decimal("1.50"), None, None], pa.decimal128(5, 2), pa.decimal128(10, 2)),
    ],
)
def test_a_narrower_column_is_widened_without_an_error(
    values: list[object], narrow: pa.DataType, wide: pa.DataType
) -> None:
    found = conformed(pa.array(values, narrow), wide)
    assert found["v"].type == wide
    assert found["v"].to_pylist() == values
    assert found["__error__"].null_count == 3


@pytest.mark.parametrize(
    ("column", "kind", "kept"),
    [
        (pa.array([1.0, 1.5, None]), pa.int64(), [1, None, None]),
        (pa.array([1, 300, 3]), pa.int8(), [1, None, 3]),
        (pa.array([Decimal("1.0"), Decimal("1.5"), None]), pa.int64(), [1, None, None]),
        (pa.array([True, False, None]), pa.list_(pa.string()), [None, None, None]),
    ],
)
def test_a_value_that_does_not_fit_is_null_with_an_error_and_the_others_stay(
    column: pa.Array, kind: pa.DataType, kept: list[object]
) -> None:
    found = conformed(column, kind)
    assert found["v"].to_pylist() == kept
    lost = [old is not None and new is None for old, new in zip(column.to_pylist(), kept, strict=True)]
    assert [reason == "wrong-type" for reason in reasons(found["__error__"])] == lost


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_text_that_is_not_utf8_is_null_with_an_error_although_its_type_is_right(kind: pa.DataType) -> None:
    binary = pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()
    raw = pa.array([b"good", b"ab\xc3", None], binary)
    column = pa.Array.from_buffers(kind, 3, raw.buffers())
    found = conformed(column, kind)
    assert found["v"].to_pylist() == ["good", None, None]
    assert reasons(found["__error__"]) == [None, "invalid-utf8", None]
    assert "column 'v': byte 2" in found["__error__"][1].as_py()["message"]
    found.validate(full=True)


def test_an_error_that_a_row_has_already_is_kept() -> None:
    errors = error_array([("malformed-json", "why"), None, None])
    found = conform(pa.table({"v": [1.5, 1.5, 1.0]}), schema=pa.schema([("v", pa.int64())]), row=ROWS, errors=errors)
    assert reasons(found["__error__"]) == ["malformed-json", "wrong-type", None]


def test_nested_dictionary_and_binary_columns_pass_as_they_are() -> None:
    columns = {
        "deep": pa.array([{"a": [1, None]}, None, {"a": []}]),
        "dictionary": pa.array(["x", None, "x"]).dictionary_encode(),
        "bytes": pa.array([b"\xff", b"", None]),
    }
    table = pa.table(columns)
    assert conform(table, schema=table.schema, row=ROWS).select(list(columns)).equals(table)


def test_bytes_are_decoded_together_where_all_are_utf8_and_one_by_one_where_not() -> None:
    good, none = decode_utf8(pa.array([b"a", None]), name="v", kind=pa.string())
    assert (good.to_pylist(), none) == (["a", None], None)
    some, errors = decode_utf8(pa.array([b"a", b"\xff", None]), name="v", kind=pa.string())
    assert some.to_pylist() == ["a", None, None]
    assert errors is not None
    assert reasons(errors) == [None, "invalid-utf8", None]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1.5]), pa.int64()),
        (pa.array([float("nan")]), pa.int64()),
        (pa.array(["one"]), pa.int64()),
        (pa.array(["letters"]), pa.list_(pa.string())),
        (pa.array([[1.5]]), pa.list_(pa.int64())),
        (pa.array([1 << 40]), pa.int32()),
    ],
)
def test_a_value_is_never_bent_to_fit(column: pa.Array, kind: pa.DataType) -> None:
    table = pa.table({"v": pa.concat_arrays([column, pa.nulls(1, column.type)])})
    found = conform(table, schema=pa.schema([("v", kind)]), row=pa.array([0, 1]))
    assert found["v"].to_pylist() == [None, None]
    assert reasons(found["__error__"]) == ["wrong-type", None]
    assert f"is no {kind}" in found["__error__"][0].as_py()["message"]


def test_an_error_quotes_only_the_beginning_of_a_long_value() -> None:
    found = conform(pa.table({"v": ["x" * 10_000]}), schema=pa.schema([("v", pa.int64())]), row=pa.array([0]))
    assert len(found["__error__"][0].as_py()["message"]) < 120


def test_null_and_white_space_of_any_kind_are_blank() -> None:
    texts = pa.array([None, "", " \t\r\n", "\u00a0\u2003", "\u3000", "a", " . "], pa.large_string())
    assert is_blank(texts).tolist() == [True, True, True, True, True, False, False]


def test_an_absent_column_is_named_in_every_row() -> None:
    errors = absent_column(name="question", count=2)
    assert reasons(errors) == ["missing-column"] * 2
    assert "'question'" in errors[0].as_py()["message"]
