"""Stores that fail transiently, stay away, or change while being read never cause wrong output."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RunFailed, SourceError, StorageError
from pipeline.output.status import read_status
from pipeline.reading.formats import parquet
from pipeline.reading.inputs import recognised
from pipeline.reading.source import Reading, read_shards
from pipeline.shards import CutRule, cut_bytes, cut_rows
from pipeline.store import storage
from pipeline.store.storage import find, info, opened, put
from tests.pipeline.drill_promise import assert_done, assert_manifest_is_exact, assert_objects_are_whole
from tests.pipeline.drill_run import Drill
from tests.pipeline.drill_store import SCHEME, STORE, away_from, stumble_at

ROOT = f"{SCHEME}://bucket/job"


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store is given up after a moment."""
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.05)
    STORE.reset()
    yield
    STORE.reset()


@pytest.fixture
def drill() -> Drill:
    made = Drill(ROOT)
    made.put_file("a.parquet", ["one", "two", "three", "four", "five"])
    made.put_file("b.txt.gz", ["six", "seven", "eight", "nine"])
    return made


def test_an_outage_longer_than_the_retries_ends_the_run_and_leaves_what_is_written(drill: Drill) -> None:
    with STORE.troubled(lambda _number, _name, _when: None):
        drill.annotate()
        steps = list(STORE.steps)
    first_row = next(number for number, step in enumerate(steps) if step.startswith("put bucket/job/out/data/"))
    success = steps.index("put bucket/job/out/_SUCCESS")
    objects = {key: content for key, content in STORE.objects.items() if "/in/" in key}
    for number in range(first_row, len(steps), 3):
        STORE.objects = dict(objects)
        with (
            STORE.troubled(away_from(number)),
            pytest.raises(RunFailed, match="run the same command to resume") as told,
        ):
            drill.annotate()
        assert "the connection was cut" in str(told.value)
        assert_objects_are_whole(drill)
        assert_manifest_is_exact(drill)
        assert read_status(drill.output).complete == (number > success)
        assert_done(drill, drill.annotate())


def test_an_outage_before_anything_is_planned_is_said_as_such(drill: Drill) -> None:
    for number in range(4):
        with STORE.troubled(away_from(number)), pytest.raises(StorageError, match="the connection was cut"):
            drill.annotate()


def test_a_file_that_can_not_be_reached_is_not_taken_for_corrupt(drill: Drill) -> None:
    with STORE.troubled(away_from(0, "get bucket/job/in/a.parquet")), pytest.raises(StorageError) as told:
        parquet.describe(f"{ROOT}/in/a.parquet")
    assert not told.value.refused
    with STORE.troubled(stumble_at({0, 2}, "before")):
        assert parquet.describe(f"{ROOT}/in/a.parquet").rows == 5


def test_a_folder_that_can_not_be_listed_is_not_taken_for_empty(drill: Drill) -> None:
    put(f"{ROOT}/in/deeper/c.txt", b"ten\n")
    everything = [file.uri for file in find(f"{ROOT}/in")]
    assert len(everything) == 3
    for pattern in (f"{ROOT}/in", f"{ROOT}/in/**", f"{ROOT}/*/deeper"):
        whole = find(pattern)
        with STORE.troubled(stumble_at({1}, "before")):
            assert find(pattern) == whole
        with STORE.troubled(away_from(0, "list bucket/job/in/deeper")):
            if "**" in pattern or pattern.endswith("in"):
                with pytest.raises(StorageError):
                    find(pattern)


def test_a_local_folder_that_may_not_be_read_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root everything may be read, so the refusal is made up."""
    put(str(tmp_path / "in" / "a.txt"), b"one\n")
    put(str(tmp_path / "in" / "locked" / "b.txt"), b"two\n")
    fs, _ = storage.filesystem(str(tmp_path))
    listing = type(fs).ls

    def refusing(self: object, path: str, *arguments: object, **keywords: object) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return listing(self, path, *arguments, **keywords)

    monkeypatch.setattr(type(fs), "ls", refusing)
    with pytest.raises(StorageError, match="Permission denied") as told:
        find(str(tmp_path / "in"))
    assert told.value.refused


def test_a_read_that_fails_is_read_again_from_its_place(tmp_path: Path) -> None:
    STORE.objects["bucket/x"] = b"0123456789"

    class Stumbling(io.BytesIO):
        times = 0

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            Stumbling.times += 1
            if Stumbling.times % 2:
                raise ConnectionResetError("cut in the middle")
            return content

    file = storage.RetriedFile(Stumbling(b"0123456789"), url="x")
    assert [file.read(4), file.read(4), file.read()] == [b"0123", b"4567", b"89"]


@pytest.mark.storage
def test_a_file_that_changes_while_it_is_read_fails_as_changed_and_stops_no_run(s3_bucket: str) -> None:
    """S3 refuses the rest of a file that was replaced after it was opened."""
    url = f"{s3_bucket}/in/a.parquet"

    def content(seed: int) -> bytes:
        sink = pa.BufferOutputStream()
        texts = [f"{seed} {row} " + "x" * 400 for row in range(40_000)]
        pq.write_table(pa.table({"text": texts}), sink, row_group_size=5_000, compression="none", use_dictionary=False)
        return bytes(sink.getvalue().to_pybytes())

    put(url, content(1))
    file = recognised(info(url), wanted="auto")
    assert file is not None
    rule = CutRule(rows=5_000, bytes=10_000_000)
    shards = cut_rows(file=file, rows=40_000, size=file.size, rule=rule, fingerprint="f")
    schema = pa.schema([("text", pa.string())])
    reading = Reading(schema=schema, required=("text",), rule=rule, fingerprint="f", line_bytes=1_000)
    tables = read_shards(shards=shards, reading=reading)
    assert next(tables).failure is None
    put(url, content(2))
    rest = list(tables)
    assert len(rest) == len(shards) - 1
    assert {table.failure and table.failure[0] for table in rest} == {"changed"}


def test_what_was_read_of_a_file_after_it_changed_never_passes_for_what_was_planned(tmp_path: Path) -> None:
    """Each shard is read, then the file is looked at: one that is new by then fails them all, also those in the middle."""
    lines = [f"line {row:03d} of the first version\n" for row in range(60)]
    path = tmp_path / "a.txt"
    path.write_text("".join(lines))
    file = recognised(info(str(path)), wanted="auto")
    assert file is not None
    rule = CutRule(rows=1_000, bytes=300)
    shards = cut_bytes(file=file, rule=rule, fingerprint="f")
    assert len(shards) > 4
    reading = Reading(
        schema=pa.schema([("text", pa.string())]), required=("text",), rule=rule, fingerprint="f", line_bytes=1_000
    )
    tables = read_shards(shards=shards, reading=reading)
    next(tables)
    next(tables)
    path.write_text("".join(line.replace("first", "other") for line in lines) + "longer\n")
    assert {table.failure and table.failure[0] for table in tables} == {"changed"}


def test_a_source_error_that_came_through_a_reader_keeps_its_reason(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="gone"), parquet.opened(str(tmp_path / "absent.parquet")):
        pass
    with pytest.raises(FileNotFoundError), opened(str(tmp_path / "absent")):
        pass
