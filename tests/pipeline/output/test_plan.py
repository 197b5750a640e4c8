"""A plan contains exactly what is new, changed or missing."""

import gzip
import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bundle import ShardTables
from pipeline.output.folder import OutputFolder, new_run_id
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan, is_whole, known_shards, make_plan, missing_work
from pipeline.output.records import Entry, PlannedFile
from pipeline.output.sink import write_shard
from pipeline.rows import no_errors
from pipeline.shards import CutRule, Shard, Stream, shard_key
from pipeline.store.storage import canonical
from tests.pipeline.small import FINGERPRINT, file_at, frozen_job, source_file, spec

ROWS = 10


@pytest.fixture
def job(tmp_path: Path) -> FrozenJob:
    output = canonical(str(tmp_path / "out"))
    return frozen_job(job=spec(source=str(tmp_path / "in"), output=output), cut=CutRule(rows=4, bytes=1_000))


def parquet(folder: Path, name: str, *, rows: int = ROWS) -> Path:
    path = folder / "in" / name
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"n": pa.array([0] * rows, pa.int8())}), path)
    return path


def lines(folder: Path, name: str, content: bytes = b"one\ntwo\nthree\nfour\nfive\nsix\n") -> Path:
    path = folder / "in" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def planned_now(job: FrozenJob) -> Plan:
    """The plan, stored as a run stores it."""
    plan = make_plan(folder=OutputFolder(job.output), job=job)
    if plan.changes:
        OutputFolder(job.output).write_plan(run=new_run_id(), files=plan.changes)
    return plan


def write(job: FrozenJob, shard: Shard) -> None:
    rows = shard.stop - shard.first if shard.file.format == "parquet" else 1
    table = pa.table({"truncated": [False] * rows, "error": no_errors(rows)})
    write_shard(ShardTables(shard=shard), table, data=OutputFolder(job.output).data, prefix="", footer={})


def stream_shard(job: FrozenJob, path: Path, first: int, stop: int, *, last: bool = False) -> Shard:
    file = file_at(path)
    key = shard_key(file=file, first=first, stop=stop, fingerprint=job.fingerprint)
    return Shard(file, first, stop, key, stop - first, last=last)


def names(plan: Plan) -> list[str]:
    return [planned.file.uri.rpartition("/")[2] for planned in plan.changes]


def test_a_new_folder_has_everything_to_do(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path, "a.parquet")
    lines(tmp_path, "b.txt")
    lines(tmp_path, "c.txt.gz")
    plan = planned_now(job)
    assert names(plan) == ["a.parquet", "b.txt", "c.txt.gz"]
    shards = [item for item in plan.work if isinstance(item, Shard)]
    assert [(shard.first, shard.stop) for shard in shards] == [(0, 4), (4, 8), (8, 10), (0, 28)]
    assert [item.file.uri for item in plan.work if isinstance(item, Stream)] == [plan.changes[2].file.uri]
    assert plan.missing_rows is None
    assert plan.missing_bytes > 0


def test_the_rows_to_do_are_known_where_all_files_are_parquet(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path, "a.parquet")
    parquet(tmp_path, "b.parquet", rows=3)
    plan = planned_now(job)
    assert plan.missing_rows == ROWS + 3
    write(job, next(item for item in plan.work if isinstance(item, Shard)))
    assert planned_now(job).missing_rows == ROWS + 3 - 4


def test_a_second_plan_finds_nothing_new_and_only_what_is_not_written(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path, "a.parquet")
    first = planned_now(job)
    for item in first.work[::2]:
        assert isinstance(item, Shard)
        write(job, item)
    second = planned_now(job)
    assert second.changes == []
    assert [item.key for item in second.work if isinstance(item, Shard)] == [first.work[1].key]  # type: ignore[union-attr]
    write(job, second.work[0])  # type: ignore[arg-type]
    assert planned_now(job).work == []


def test_a_file_that_was_added_is_the_only_change(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path, "a.parquet")
    planned_now(job)
    parquet(tmp_path, "b.parquet")
    plan = planned_now(job)
    assert names(plan) == ["b.parquet"]
    assert len(plan.current) == 2
    assert len(plan.work) == 6, "what was never written of a.parquet is still to be done"


def test_a_file_that_changed_in_place_gets_new_shards(tmp_path: Path, job: FrozenJob) -> None:
    path = parquet(tmp_path, "a.parquet")
    before = planned_now(job)
    for item in before.work:
        write(job, item)  # type: ignore[arg-type]
    parquet(tmp_path, "a.parquet", rows=5)
    later = time.time() + 5
    os.utime(path, (later, later))
    after = planned_now(job)
    assert names(after) == ["a.parquet"]
    shards = [item for item in after.work if isinstance(item, Shard)]
    assert [(shard.first, shard.stop) for shard in shards] == [(0, 4), (4, 5)]
    assert not {shard.key for shard in shards} & {item.key for item in before.work if isinstance(item, Shard)}
    assert len(after.current) == 1


def test_a_file_that_was_deleted_keeps_its_place_in_the_dataset(tmp_path: Path, job: FrozenJob) -> None:
    path = parquet(tmp_path, "a.parquet")
    parquet(tmp_path, "b.parquet")
    for item in planned_now(job).work:
        write(job, item)  # type: ignore[arg-type]
    path.unlink()
    plan = planned_now(job)
    assert (len(plan.current), plan.changes, plan.work) == (2, [], [])


def test_a_file_that_can_not_be_read_is_in_the_plan_with_its_reason_and_tried_again(
    tmp_path: Path, job: FrozenJob
) -> None:
    parquet(tmp_path, "a.parquet")
    bad = tmp_path / "in" / "bad.parquet"
    bad.write_bytes(b"no Parquet")
    plan = planned_now(job)
    assert [planned.file.uri for planned in plan.unreadable] == [canonical(str(bad))]
    assert "bad.parquet" in str(plan.unreadable[0].failure)
    assert all("bad.parquet" not in item.file.uri for item in plan.work)
    assert planned_now(job).changes == [], "the same failure is not planned twice"
    parquet(tmp_path, "bad.parquet")
    repaired = planned_now(job)
    assert repaired.unreadable == []
    assert names(repaired) == ["bad.parquet"]


def test_an_empty_file_is_planned_once_and_needs_nothing(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path, "a.parquet", rows=0)
    lines(tmp_path, "b.txt", b"")
    plan = planned_now(job)
    assert len(plan.changes) == 2
    assert plan.work == []
    assert all(is_whole(planned, []) for planned in plan.current.values())
    assert planned_now(job).changes == []


def test_files_of_one_name_in_two_folders_do_not_share_shards(tmp_path: Path, job: FrozenJob) -> None:
    (tmp_path / "in" / "x").mkdir(parents=True)
    (tmp_path / "in" / "y").mkdir()
    parquet(tmp_path, "x/a.parquet")
    parquet(tmp_path, "y/a.parquet")
    keys = [item.key for item in planned_now(job).work if isinstance(item, Shard)]
    assert len(set(keys)) == len(keys) == 6


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([(0, 8, False), (8, 14, False), (14, 28, True)], True),
        ([(0, 8, False), (8, 14, False)], False),
        ([(0, 8, False), (14, 28, True)], False),
        ([(8, 14, False), (14, 28, True)], False),
        ([(0, 28, True)], True),
        ([], False),
    ],
)
def test_a_stream_is_done_by_an_unbroken_chain_to_its_last_record(
    tmp_path: Path, job: FrozenJob, pieces: list[tuple[int, int, bool]], whole: bool
) -> None:
    path = lines(tmp_path, "c.txt.gz")
    planned_now(job)
    shards = [stream_shard(job, path, first, stop, last=last) for first, stop, last in pieces]
    for shard in shards:
        write(job, shard)
    plan = planned_now(job)
    if whole:
        assert plan.work == []
    else:
        (stream,) = plan.work
        assert isinstance(stream, Stream)
        assert {shard.key for shard in shards} <= stream.done, "what is written is not written again"


def test_a_stream_whose_object_was_deleted_is_read_again(tmp_path: Path, job: FrozenJob) -> None:
    path = lines(tmp_path, "c.txt.gz")
    planned_now(job)
    shards = [stream_shard(job, path, 0, 8), stream_shard(job, path, 8, 28, last=True)]
    for shard in shards:
        write(job, shard)
    plan = planned_now(job)
    assert plan.work == []
    OutputFolder(job.output).write_manifest(run=new_run_id(), entries=plan.entries.values())
    (tmp_path / "out" / "data" / shards[0].key).unlink()
    assert [type(item) for item in planned_now(job).work] == [Stream]


def test_chains_of_another_version_of_a_stream_do_not_count(tmp_path: Path, job: FrozenJob) -> None:
    path = lines(tmp_path, "c.txt.gz")
    planned_now(job)
    write(job, stream_shard(job, path, 0, 28, last=True))
    assert planned_now(job).work == []
    lines(tmp_path, "c.txt.gz", b"other\n")
    later = time.time() + 5
    os.utime(path, (later, later))
    assert [type(item) for item in planned_now(job).work] == [Stream]


CUTS = st.sets(st.integers(1, 99), max_size=8)


@given(cuts=CUTS, dropped=st.sets(st.integers(0, 8), max_size=3))
def test_a_chain_with_a_piece_missing_is_never_whole(cuts: set[int], dropped: set[int]) -> None:
    borders = [0, *sorted(cuts), 100]
    pieces = list(itertools.pairwise(borders))
    entries = [
        Entry(f"k-{first}", "u", "v", first, stop, stop == 100, 1, {})
        for number, (first, stop) in enumerate(pieces)
        if number not in dropped
    ]
    planned = PlannedFile(file=source_file(compression="gzip"), rows=None, shards=None)
    assert is_whole(planned, entries) == (len(entries) == len(pieces))


@given(rows=st.integers(0, 60), gone=st.sets(st.integers(0, 20)))
def test_missing_shards_are_the_planned_ones_that_are_not_written(rows: int, gone: set[int]) -> None:
    shards = tuple((first, min(first + 3, rows), f"k-{first}") for first in range(0, rows, 3))
    planned = PlannedFile(file=source_file(size=1_000), rows=rows, shards=shards)
    written = frozenset(key for number, (_, _, key) in enumerate(shards) if number not in gone)
    work = list(missing_work(current=[planned], written=written, entries={}))
    assert [item.key for item in work if isinstance(item, Shard)] == [key for _, _, key in shards if key not in written]


def test_the_shards_of_a_plan_are_those_that_were_cut(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path, "a.parquet")
    plan = planned_now(job)
    (planned,) = plan.changes
    stored: Mapping[str, PlannedFile] = {
        p.file.uri: p for plan in OutputFolder(job.output).read_plans()[1] for p in plan
    }
    assert known_shards(stored[planned.file.uri]) == known_shards(planned)
    assert [shard.key for shard in known_shards(planned)] == [
        shard_key(file=planned.file, first=first, stop=stop, fingerprint=FINGERPRINT)
        for first, stop in [(0, 4), (4, 8), (8, 10)]
    ]
