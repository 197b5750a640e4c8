"""Arrow IPC files and streams: counts, ranges over batches, compression inside, and what is no Arrow file."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import SourceError
from pipeline.reading.formats.arrow_ipc import describe, read_ranges

TABLE = pa.table({"id": range(1_000), "text": [f"text {index}" for index in range(1_000)]})


@pytest.fixture(params=["file", "stream", "zstd file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    target = tmp_path / "a.arrow"
    options = pa.ipc.IpcWriteOptions(compression="zstd" if "zstd" in request.param else None)
    make = pa.ipc.new_stream if request.param == "stream" else pa.ipc.new_file
    with make(str(target), TABLE.schema, options=options) as writer:
        for first in range(0, 1_000, 130):
            writer.write_table(TABLE.slice(first, 130))
    return target


def test_a_file_tells_its_rows_and_schema(path: Path) -> None:
    footer = describe(str(path))
    assert (footer.rows, footer.schema) == (1_000, TABLE.schema)
    assert footer.bytes > 0


def test_ranges_hold_exactly_their_rows(path: Path) -> None:
    ranges = [(0, 129), (129, 131), (400, 900), (999, 1_000)]
    found = list(read_ranges(uri=str(path), ranges=ranges, schema=TABLE.schema))
    assert [part["id"].to_pylist() for part in found] == [list(range(first, stop)) for first, stop in ranges]
    assert [part["__row__"].to_pylist() for part in found] == [list(range(first, stop)) for first, stop in ranges]


def test_a_cut_off_file_is_corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2_000])
    with pytest.raises(SourceError) as caught:
        list(read_ranges(uri=str(path), ranges=[(0, 1_000)], schema=TABLE.schema))
    assert caught.value.reason == "corrupt"


def test_a_file_that_ends_too_early_says_so_once_after_the_ranges_that_are_whole(path: Path) -> None:
    found = read_ranges(uri=str(path), ranges=[(0, 400), (400, 1_200)], schema=TABLE.schema)
    assert next(found).num_rows == 400
    with pytest.raises(SourceError) as caught:
        next(found)
    assert caught.value.reason == "corrupt"
    assert str(caught.value).count(str(path)) == 1
    assert "ends at row 1000 and should have 1200" in str(caught.value)
