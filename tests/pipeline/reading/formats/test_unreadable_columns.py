"""A column whose type Arrow can't read is named, in every file that has one."""

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from pipeline.errors import SourceError
from pipeline.reading.formats import arrow_ipc, parquet
from pipeline.reading.formats.unreadable_columns import unreadable_columns

LARGE = {
    "id": pl.Series([2**100, None], dtype=pl.Int128),
    "ids": pl.Series([[2**100], None], dtype=pl.List(pl.Int128)),
    "a 'part'": pl.Series([{"x": 2**100}, None], dtype=pl.Struct({"x": pl.Int128})),
}
WRITERS: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    "a.parquet": lambda frame, path: frame.write_parquet(path),
    "a.arrow": lambda frame, path: frame.write_ipc(path),
    "stream.arrow": lambda frame, path: frame.write_ipc_stream(path),
}


def written(path: Path, columns: dict[str, pl.Series]) -> Path:
    WRITERS[path.name](pl.DataFrame({"text": ["a", "b"], **columns, "n": [1, 2]}), path)
    return path


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("column", LARGE)
def test_the_message_names_the_column(tmp_path: Path, name: str, column: str) -> None:
    path = written(tmp_path / name, {column: LARGE[column]})
    describe = parquet.describe if path.suffix == ".parquet" else arrow_ipc.describe
    with pytest.raises(SourceError) as refused:
        describe(str(path))
    assert f"the type of column {column!r}; write the file again with it cast" in str(refused.value)


@pytest.mark.parametrize("name", WRITERS)
def test_all_of_them_are_found_and_no_other(tmp_path: Path, name: str) -> None:
    with written(tmp_path / name, LARGE).open("rb") as handle:
        assert unreadable_columns(handle) == list(LARGE)
    with written(tmp_path / name, {}).open("rb") as handle:
        assert unreadable_columns(handle) == []


def test_of_thousands_the_first_are_named(tmp_path: Path) -> None:
    columns = {f"c{number}": pl.Series([1, 2], dtype=pl.Int128) for number in range(3_000)}
    with written(tmp_path / "a.arrow", columns).open("rb") as handle:
        assert unreadable_columns(handle) == ["c0", "c1", "c2", "c3", "c4"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_names_at_most_some(tmp_path: Path, name: str) -> None:
    content = written(tmp_path / name, LARGE).read_bytes()
    chance = random.Random(7)
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(4):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        unreadable_columns(io.BytesIO(damaged[: chance.randrange(len(damaged))]))
        assert len(unreadable_columns(io.BytesIO(damaged))) <= len(LARGE) + 2


def test_a_type_of_arrow_is_no_reason(tmp_path: Path) -> None:
    table = pa.table({"view": pa.array(["a"], pa.string_view()), "half": pa.array([None], pa.float16())})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    with (tmp_path / "a.arrow").open("rb") as handle:
        assert unreadable_columns(handle) == []


def test_a_length_of_megabytes_in_a_footer_is_not_a_length() -> None:
    footer = b"ARROW:schema\x18" + b"\xff" * 4_000_000 + b"\x01"
    file = io.BytesIO(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")
    assert unreadable_columns(file) == []
