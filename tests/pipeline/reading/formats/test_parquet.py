"""Row ranges of Parquet files of every layout are exact; broken files are named."""

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.reading.formats.parquet import BATCH_ROWS, describe, read_ranges
from pipeline.store.storage import put
from tests.pipeline.small import reasons

ROWS = 1_000
GROUPS = (130, 1, 469, 400)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pa.table({"id": pa.array(range(ROWS), pa.int32()), "text": [f"text {row}" for row in range(ROWS)]})


@pytest.fixture(scope="module")
def path(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    with pq.ParquetWriter(path, table.schema) as writer:
        first = 0
        for rows in GROUPS:
            writer.write_table(table.slice(first, rows), row_group_size=rows)
            first += rows
    return path


def ids(found: pa.Table) -> list[int]:
    assert found["__row__"].to_pylist() == found["id"].to_pylist()
    return list(found["id"].to_pylist())


def test_a_footer_tells_rows_bytes_and_schema(path: Path, table: pa.Table) -> None:
    footer = describe(str(path))
    assert (footer.rows, footer.schema) == (ROWS, table.schema)
    assert footer.bytes > table["id"].nbytes


@given(cuts=st.sets(st.integers(0, ROWS), min_size=2, max_size=9), skipped=st.sets(st.integers(0, 8)))
def test_ranges_inside_and_across_row_groups_hold_exactly_their_rows(
    path: Path, table: pa.Table, cuts: set[int], skipped: set[int]
) -> None:
    borders = sorted(cuts)
    pairs = list(itertools.pairwise(borders))
    ranges = [pair for number, pair in enumerate(pairs) if number not in skipped]
    found = list(read_ranges(uri=str(path), ranges=ranges, schema=table.schema))
    assert [ids(part) for part in found] == [list(range(first, stop)) for first, stop in ranges]


def test_one_large_row_group_is_cut_into_many_ranges(tmp_path: Path) -> None:
    rows = 3 * BATCH_ROWS + 5
    large = pa.table({"id": pa.array(range(rows), pa.int64())})
    pq.write_table(large, tmp_path / "a.parquet", row_group_size=rows)
    ranges = [(first, min(first + 5_000, rows)) for first in range(0, rows, 5_000)]
    found = read_ranges(uri=str(tmp_path / "a.parquet"), ranges=ranges, schema=large.schema)
    assert [ids(part) for part in found] == [list(range(first, stop)) for first, stop in ranges]


def test_a_file_that_lacks_columns_gives_nulls_for_them(path: Path) -> None:
    schema = pa.schema([("absent", pa.float64()), ("id", pa.int32())])
    (found,) = read_ranges(uri=str(path), ranges=[(100, 140)], schema=schema)
    assert found["absent"].null_count == 40
    assert ids(found) == list(range(100, 140))


def test_a_file_with_none_of_the_columns_still_has_all_its_rows(path: Path) -> None:
    ranges = [(0, 200), (200, ROWS)]
    found = list(read_ranges(uri=str(path), ranges=ranges, schema=pa.schema([("absent", pa.string())])))
    assert [part["__row__"].to_pylist() for part in found] == [list(range(first, stop)) for first, stop in ranges]
    assert all(part["absent"].null_count == part.num_rows for part in found)


def test_a_column_of_another_type_is_fitted_value_by_value(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1.0, 1.5, None]}), tmp_path / "a.parquet")
    (found,) = read_ranges(uri=str(tmp_path / "a.parquet"), ranges=[(0, 3)], schema=pa.schema([("id", pa.int64())]))
    assert found["id"].to_pylist() == [1, None, None]
    assert reasons(found["__error__"]) == [None, "wrong-type", None]


def test_a_string_column_that_holds_invalid_utf8_costs_only_the_rows_that_do(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"\xff\xfe", None, b"also good"])
    text = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    (found,) = read_ranges(uri=str(tmp_path / "a.parquet"), ranges=[(0, 4)], schema=pa.schema([("text", pa.string())]))
    assert found["text"].to_pylist() == ["good", None, None, "also good"]
    assert reasons(found["__error__"]) == [None, "invalid-utf8", None, None]


def test_columns_of_every_kind_are_carried_unchanged(tmp_path: Path) -> None:
    table = pa.table(
        {
            "dictionary": pa.array(["a", None, "b", "a"]).dictionary_encode(),
            "nested": pa.array([{"x": [1, 2], "y": None}, None, {"x": [], "y": "z"}, {"x": None, "y": "w"}]),
            "bytes": pa.array([b"\xff\x00", b"", None, b"z"]),
            "moment": pa.array([0, 1, None, 2], pa.timestamp("us", tz="Europe/Berlin")),
            "map": pa.array([[("k", 1)], [], None, [("k", None)]], pa.map_(pa.string(), pa.int64())),
            "embedding": pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float32(), 2)),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    schema = describe(str(tmp_path / "a.parquet")).schema
    parts = list(read_ranges(uri=str(tmp_path / "a.parquet"), ranges=[(0, 1), (1, 4)], schema=schema))
    for name in table.column_names:
        values = [value for part in parts for value in part[name].to_pylist()]
        assert values == table[name].to_pylist()
        assert parts[0][name].type == table[name].type
    assert all(part["__error__"].null_count == part.num_rows for part in parts)


def test_an_empty_file_has_a_schema_and_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert describe(str(tmp_path / "a.parquet")).rows == 0


@pytest.mark.parametrize("damage", ["no footer", "no parquet", "empty"])
def test_a_file_whose_footer_can_not_be_read_is_corrupt(path: Path, tmp_path: Path, damage: str) -> None:
    content = path.read_bytes()
    bad = tmp_path / "bad.parquet"
    bad.write_bytes({"no footer": content[:-100], "no parquet": b"text, not Parquet", "empty": b""}[damage])
    with pytest.raises(SourceError) as caught:
        describe(str(bad))
    assert caught.value.reason == "corrupt"
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_pages_fail_at_the_range_that_reads_them(path: Path, table: pa.Table, tmp_path: Path) -> None:
    content = bytearray(path.read_bytes())
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(2).column(1)
        start = column.dictionary_page_offset or column.data_page_offset
        stop = start + column.total_compressed_size
    content[start:stop] = b"\xff" * (stop - start)
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(content)
    parts = read_ranges(uri=str(bad), ranges=[(0, 130), (131, 200)], schema=table.schema)
    assert ids(next(parts)) == list(range(130))
    with pytest.raises(SourceError) as caught:
        next(parts)
    assert caught.value.reason == "corrupt"


def test_ranges_beyond_the_end_say_that_the_file_is_not_the_one_planned(path: Path, table: pa.Table) -> None:
    with pytest.raises(SourceError, match="ends at row 1000 and should have 1200") as caught:
        list(read_ranges(uri=str(path), ranges=[(990, 1_200)], schema=table.schema))
    assert caught.value.reason == "corrupt"


def test_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        describe(str(tmp_path / "no.parquet"))
    assert caught.value.reason == "gone"


@pytest.mark.storage
def test_an_object_of_a_store_reads_as_a_local_file_does(path: Path, table: pa.Table, s3_bucket: str) -> None:
    put(f"{s3_bucket}/a.parquet", path.read_bytes())
    assert describe(f"{s3_bucket}/a.parquet") == describe(str(path))
    ranges = [(100, 135), (135, 900)]
    found = read_ranges(uri=f"{s3_bucket}/a.parquet", ranges=ranges, schema=table.schema)
    assert [ids(part) for part in found] == [list(range(first, stop)) for first, stop in ranges]
