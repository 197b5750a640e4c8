"""Every Arrow type: carried, read as text, read as a list of words, or refused by name; never changed without a word."""

import datetime
import decimal
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.reading.formats import arrow_ipc, parquet
from pipeline.reading.formats.arrow_types import JSON_TEXT, carried_type, plain_schema
from pipeline.reading.text_columns import is_text, is_texts, plain_text

WORDS = ["one", None, "three"]
LISTS = [["one", "two"], None, ["three", "four"]]


def run_ends(values: pa.Array) -> pa.Array:
    return pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3], pa.int32()), values)


TEXTS = {
    "string": pa.array(WORDS),
    "large_string": pa.array(WORDS, pa.large_string()),
    "string_view": pa.array(WORDS, pa.string_view()),
    "binary": pa.array(WORDS, pa.binary()),
    "large_binary": pa.array(WORDS, pa.large_binary()),
    "binary_view": pa.array([b"one", None, b"three"], pa.binary_view()),
    "dictionary": pa.array(WORDS).dictionary_encode(),
    "run-end encoded": run_ends(pa.array(WORDS)),
    "run-end encoded view": run_ends(pa.array(WORDS, pa.string_view())),
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(WORDS)),
}
WORD_LISTS = {
    "list": pa.array(LISTS),
    "large_list": pa.array(LISTS, pa.large_list(pa.string())),
    "list_view": pa.array(LISTS, pa.list_view(pa.string())),
    "large_list_view": pa.array(LISTS, pa.large_list_view(pa.string_view())),
    "fixed_size_list": pa.array(LISTS, pa.list_(pa.string(), 2)),
    "list of views": pa.array(LISTS, pa.list_(pa.string_view())),
    "list of dictionary": pa.ListArray.from_arrays(
        pa.array([0, None, 2, 4], pa.int32()), pa.array(["one", "two", "three", "four"]).dictionary_encode()
    ),
}
DEEP = pa.int8()
for _ in range(60):
    DEEP = pa.list_(DEEP)
DAY = datetime.date(2024, 2, 29)
OTHERS = {
    "null": pa.nulls(2),
    "bool": pa.array([True, None]),
    **{str(kind): pa.array([1, None], kind) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())},
    **{str(kind): pa.array([1, None], kind) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())},
    **{str(kind): pa.array([1.5, None], kind) for kind in (pa.float16(), pa.float32(), pa.float64())},
    "date32": pa.array([DAY, None], pa.date32()),
    "date64": pa.array([DAY, None], pa.date64()),
    **{f"time {unit}": pa.array([1, None], pa.time32(unit)) for unit in ("s", "ms")},
    **{f"time {unit}": pa.array([1, None], pa.time64(unit)) for unit in ("us", "ns")},
    **{f"timestamp {unit}": pa.array([1, None], pa.timestamp(unit, "UTC")) for unit in ("s", "ms", "us", "ns")},
    **{f"duration {unit}": pa.array([1, None], pa.duration(unit)) for unit in ("s", "ms", "us", "ns")},
    **{
        str(kind): pa.array([decimal.Decimal("1.5"), None], kind)
        for kind in (pa.decimal32(5, 2), pa.decimal64(15, 2), pa.decimal128(38, 2), pa.decimal256(60, 2))
    },
    "fixed_size_binary": pa.array([b"ab", None], pa.binary(2)),
    "interval": pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
    "struct": pa.array([{"a": 1}, None]),
    "struct of views": pa.array([{"a": "x"}, None], pa.struct([("a", pa.string_view())])),
    "empty struct": pa.array([{}, None], pa.struct([])),
    "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
    "dense union": pa.UnionArray.from_dense(
        pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([1]), pa.array(["x"])]
    ),
    "sparse union": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["x", "y"])]),
    "uuid": pa.array([b"0" * 16, None], pa.uuid()),
    "deep": pa.array([None, []], DEEP),
    "struct of run ends": pa.StructArray.from_arrays([run_ends(pa.array(WORDS))], ["a"]),
}
EVERY = {**TEXTS, **WORD_LISTS, **OTHERS}


def through(column: pa.Array, folder: Path, *, format_: str) -> pa.Table:
    """A column through a file and the reader, in two ranges, as it would be carried."""
    table = pa.table({"column": column})
    path = folder / f"a.{format_}"
    if format_ == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    reader = parquet if format_ == "parquet" else arrow_ipc
    schema = plain_schema(reader.describe(str(path)).schema)
    return pa.concat_tables(list(reader.read_ranges(uri=str(path), ranges=[(0, 1), (1, len(column))], schema=schema)))


@pytest.mark.parametrize("name", EVERY)
def test_every_type_is_carried_into_parquet_and_read_back(name: str, tmp_path: Path) -> None:
    column = EVERY[name]
    found = through(column, tmp_path, format_="arrow")
    assert found["__error__"].null_count == len(column)
    carried = found["column"]
    if carried.type == JSON_TEXT and name != "json":
        assert [value is None for value in carried.to_pylist()] == [value is None for value in column.to_pylist()]
        assert all(value is None or json.loads(value) is not None for value in carried.to_pylist())
    elif pa.types.is_binary(carried.type) or not pa.types.is_nested(carried.type):
        assert [str(value) for value in carried.to_pylist()] == [str(value) for value in column.to_pylist()]
    else:
        assert carried.to_pylist() == column.to_pylist()
    sink = io.BytesIO()
    pq.write_table(found.select(["column"]), sink)
    assert pq.read_table(sink).num_rows == len(column)


@pytest.mark.parametrize("format_", ["arrow", "parquet"])
@pytest.mark.parametrize("name", TEXTS)
def test_every_type_of_text_is_read_as_text(name: str, format_: str, tmp_path: Path) -> None:
    if format_ == "parquet" and name.startswith("run-end"):
        pytest.skip("Parquet holds no run-end encoded columns")
    column = through(TEXTS[name], tmp_path, format_=format_)["column"]
    assert is_text(TEXTS[name].type)
    text, _ = plain_text(column.combine_chunks(), "column")
    assert text.to_pylist() == WORDS


@pytest.mark.parametrize("name", WORD_LISTS)
def test_every_type_of_list_is_read_as_words(name: str, tmp_path: Path) -> None:
    column = through(WORD_LISTS[name], tmp_path, format_="arrow")["column"]
    assert is_texts(WORD_LISTS[name].type)
    words, _ = plain_text(column.combine_chunks(), "column")
    assert words.to_pylist() == LISTS


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_type_is_taken_for_text(name: str) -> None:
    kind = OTHERS[name].type
    assert is_text(kind) == (name in {"null", "fixed_size_binary"})


@given(
    values=st.lists(st.none() | st.text(max_size=5), min_size=1, max_size=8), first=st.integers(0, 7), data=st.data()
)
def test_any_layout_of_the_same_values_is_the_same_column(
    values: list[str | None], first: int, data: st.DataObject
) -> None:
    layout = data.draw(st.sampled_from(["view", "dictionary", "run ends"]))
    plain = pa.array(values, pa.string())
    if layout == "view":
        laid_out = plain.cast(pa.string_view())
    elif layout == "dictionary":
        laid_out = plain.dictionary_encode()
    else:
        laid_out = pa.RunEndEncodedArray.from_arrays(pa.array(np.arange(1, len(values) + 1), pa.int32()), plain)
    text, _ = plain_text(laid_out.slice(first), "column")
    assert text.to_pylist() == values[first:]
    assert carried_type(pa.run_end_encoded(pa.int32(), pa.string_view())) == pa.string()
