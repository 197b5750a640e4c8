"""Missing shards and streams are read as whole shards; a broken file affects only itself."""

import gzip
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.bundle import ShardTables, unpack
from pipeline.reading.shard_source import ShardSource
from pipeline.reading.source import Reading, read_bundles, read_tasks
from pipeline.shards import CutRule, Shard, SourceFile, Stream, Work, cut_bytes, cut_rows, shard_key
from tests.pipeline.small import FINGERPRINT, file_at, reasons

RULE = CutRule(rows=10, bytes=1_000_000)
SCHEMA = pa.schema([("text", pa.string())])
READING = Reading(schema=SCHEMA, required=("text",), rule=RULE, fingerprint=FINGERPRINT, line_bytes=1_000)
ROWS = 35


def rows_of(found: ShardTables) -> pa.Table:
    assert found.rows is not None
    return found.rows


def texts(first: int = 0, stop: int = ROWS) -> list[str]:
    return [f"text {row}" for row in range(first, stop)]


def parquet(folder: Path, name: str = "a.parquet") -> list[Shard]:
    path = folder / name
    pq.write_table(pa.table({"text": texts(), "id": range(ROWS)}), path, row_group_size=12)
    return cut_rows(file=file_at(path), rows=ROWS, size=100, rule=RULE, fingerprint=FINGERPRINT)


def gzipped(folder: Path, name: str = "a.txt.gz") -> SourceFile:
    path = folder / name
    path.write_bytes(gzip.compress("".join(f"{text}\n" for text in texts()).encode()))
    return file_at(path)


def read(work: Sequence[Work], reading: Reading = READING) -> Iterator[ShardTables]:
    for task in read_tasks(work=work, rule=reading.rule):
        for bundle in read_bundles(task=task, reading=reading):
            yield from bundle


def texts_in(found: ShardTables) -> list[str]:
    return list(rows_of(found)["text"].to_pylist())


def test_the_shards_of_files_of_every_kind_hold_all_rows_in_order(tmp_path: Path) -> None:
    shards = parquet(tmp_path)
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts()))
    lines = cut_bytes(file=file_at(tmp_path / "b.jsonl"), rule=CutRule(rows=1, bytes=200), fingerprint=FINGERPRINT)
    stream = Stream(file=gzipped(tmp_path), done=frozenset())
    found = list(read([*shards, *lines, stream]))
    by_file: dict[str, list[str]] = {}
    for part in found:
        by_file.setdefault(part.shard.file.format + part.shard.file.compression, []).extend(texts_in(part))
    assert by_file == {"parquetnone": texts(), "jsonlnone": texts(), "textgzip": texts()}
    assert [part.shard for part in found[: len(shards) + len(lines)]] == [*shards, *lines]


def test_only_the_shards_asked_for_are_read(tmp_path: Path) -> None:
    shards = parquet(tmp_path)
    (found,) = read([shards[2]])
    assert texts_in(found) == texts(20, 30)
    assert rows_of(found)["__row__"].to_pylist() == list(range(20, 30))


def test_a_stream_leaves_out_what_is_written_and_knows_its_end(tmp_path: Path) -> None:
    file = gzipped(tmp_path)
    whole = list(read([Stream(file=file, done=frozenset())]))
    assert [part.shard.last for part in whole] == [False, False, False, True]
    assert [part.shard.first for part in whole[1:]] == [part.shard.stop for part in whole[:-1]]
    assert [len(texts_in(part)) for part in whole] == [10, 10, 10, 5]
    first = whole[0].shard
    key = shard_key(file=file, first=first.first, stop=first.stop, fingerprint=FINGERPRINT)
    assert first.key == key
    rest = list(read([Stream(file=file, done=frozenset({whole[0].shard.key, whole[3].shard.key}))]))
    assert [part.shard for part in rest] == [whole[1].shard, whole[2].shard]


def test_an_empty_stream_is_one_shard_without_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b""))
    (found,) = read([Stream(file=file_at(tmp_path / "a.jsonl.gz"), done=frozenset())])
    assert found.shard.last
    assert rows_of(found).num_rows == 0


def test_the_same_stream_is_cut_alike_at_every_reading(tmp_path: Path) -> None:
    stream = Stream(file=gzipped(tmp_path), done=frozenset())
    assert [part.shard for part in read([stream])] == [part.shard for part in read([stream])]


def test_a_file_that_is_gone_fails_its_shards_and_no_others(tmp_path: Path) -> None:
    gone, good = parquet(tmp_path, "gone.parquet"), parquet(tmp_path, "good.parquet")
    os.unlink(tmp_path / "gone.parquet")
    found = list(read([*gone, *good, Stream(file=file_at(gzipped_path(tmp_path)), done=frozenset())]))
    failures = {part.shard.key: part.failure for part in found}
    assert [failures[shard.key] and failures[shard.key][0] for shard in gone] == ["gone"] * len(gone)  # type: ignore[index]
    assert all(failures[shard.key] is None for shard in good)
    assert all("gone.parquet" in str(failures[shard.key]) for shard in gone)


def gzipped_path(folder: Path) -> Path:
    gzipped(folder)
    return folder / "a.txt.gz"


@pytest.mark.parametrize("kind", ["parquet", "lines", "stream"])
def test_a_file_that_changed_since_the_plan_fails_its_shards(tmp_path: Path, kind: str) -> None:
    work: list[Work]
    if kind == "parquet":
        work = list(parquet(tmp_path))
        path = tmp_path / "a.parquet"
    elif kind == "lines":
        path = tmp_path / "a.txt"
        path.write_text("one\ntwo\n")
        work = list(cut_bytes(file=file_at(path), rule=RULE, fingerprint=FINGERPRINT))
    else:
        work = [Stream(file=gzipped(tmp_path), done=frozenset())]
        path = tmp_path / "a.txt.gz"
    later = time.time() + 10
    os.utime(path, (later, later))
    found = list(read(work))
    assert found
    assert {part.failure and part.failure[0] for part in found} == {"changed"}
    assert all("run again" in str(part.failure) for part in found)


def test_a_shard_whose_pages_are_damaged_fails_alone(tmp_path: Path) -> None:
    shards = parquet(tmp_path)
    path = tmp_path / "a.parquet"
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(1).column(0)
        start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    file_now = file_at(path)
    now = [Shard(file_now, shard.first, shard.stop, shard.key, shard.size) for shard in shards]
    found = list(read(now))
    # Rows 12 to 24 are damaged, which the shards of rows 10 to 20 and 20 to 30 need.
    assert [part.failure and part.failure[0] for part in found] == [None, "corrupt", "corrupt", None]
    assert texts_in(found[3]) == texts(30, 35)


def test_a_stream_that_breaks_keeps_what_was_whole_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    content = "".join(f"line {number}\n" for number in range(400_000)).encode()
    path.write_bytes(gzip.compress(content, compresslevel=1)[:-20_000])
    reading = Reading(
        schema=SCHEMA, required=(), rule=CutRule(rows=20_000, bytes=100_000), fingerprint="f", line_bytes=1_000
    )
    *whole, broken = read([Stream(file=file_at(path), done=frozenset())], reading)
    assert whole
    assert all(part.failure is None for part in whole)
    assert broken.failure is not None
    assert broken.failure[0] == "corrupt"
    assert "a.txt.gz" in broken.failure[1]
    assert broken.shard.first == whole[-1].shard.stop


def test_a_file_that_lacks_the_text_has_that_error_in_every_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "a.parquet")
    shards = cut_rows(file=file_at(tmp_path / "a.parquet"), rows=2, size=10, rule=RULE, fingerprint=FINGERPRINT)
    (found,) = read(shards)
    assert reasons(rows_of(found)["__error__"]) == ["missing-column"] * 2


def test_a_folder_that_does_not_fit_the_frozen_schema_costs_only_its_own_files(tmp_path: Path) -> None:
    reading = Reading(
        schema=pa.schema([*SCHEMA, ("v", pa.int64())]), required=("text",), rule=RULE, fingerprint="f", line_bytes=1_000
    )
    work: list[Work] = []
    for name in ("v=1", "v=beta"):
        (tmp_path / name).mkdir()
        work += [*parquet(tmp_path / name), Stream(file=gzipped(tmp_path / name), done=frozenset())]
    found = list(read(work, reading))
    failed = [part for part in found if part.failure is not None]
    assert {part.failure and part.failure[0] for part in failed} == {"unreadable"}
    assert all("v=beta" in str(part.failure) and "v=beta" in part.shard.file.uri for part in failed)
    assert {part.shard.file.compression for part in failed} == {"none", "gzip"}
    good = [part for part in found if part.failure is None]
    assert [text for part in good for text in texts_in(part)] == texts() * 2
    assert {value for part in good for value in rows_of(part)["v"].to_pylist()} == {1}


def test_small_files_share_a_bundle_and_each_keeps_its_shard(tmp_path: Path) -> None:
    shards = [shard for name in "abcdef" for shard in parquet_of_one(tmp_path, f"{name}.parquet")]
    bundles = [
        bundle for task in read_tasks(work=shards, rule=RULE) for bundle in read_bundles(task=task, reading=READING)
    ]
    assert [part.shard for bundle in bundles for part in bundle] == shards
    lines = []
    for name in "abcdef":
        (tmp_path / f"{name}.txt").write_text("one\n")
        lines += cut_bytes(file=file_at(tmp_path / f"{name}.txt"), rule=RULE, fingerprint=FINGERPRINT)
    (task,) = read_tasks(work=lines, rule=CutRule(rows=10, bytes=10_000_000))
    (bundle,) = read_bundles(task=task, reading=Reading(SCHEMA, (), CutRule(10, 10_000_000), FINGERPRINT, 100))
    assert [texts_in(part) for part in bundle] == [["one"]] * 6


def parquet_of_one(folder: Path, name: str) -> list[Shard]:
    pq.write_table(pa.table({"text": ["one"]}), folder / name)
    return cut_rows(file=file_at(folder / name), rows=1, size=3, rule=RULE, fingerprint=FINGERPRINT)


def test_the_datasource_gives_one_block_of_one_row_a_bundle(tmp_path: Path) -> None:
    shards = parquet(tmp_path)
    source = ShardSource(work=[*shards, Stream(file=gzipped(tmp_path), done=frozenset())], reading=READING)
    blocks = [block for task in source.get_read_tasks(parallelism=1) for block in task()]
    assert all(block.num_rows == 1 for block in blocks)
    found = [part for block in blocks for part in unpack(block)]
    assert [text for part in found for text in texts_in(part)] == texts() * 2
    assert (
        source.estimate_inmemory_data_size()
        == sum(shard.size for shard in shards) + file_at(tmp_path / "a.txt.gz").size
    )
