"""When a run stops, what it keeps and deletes, and when it reports "done"."""

import gzip
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import run
from pipeline.bundle import ShardTables
from pipeline.errors import ResourceError, RunFailed, SpecError, StorageError
from pipeline.output.folder import OutputFolder, new_run_id
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan, make_plan
from pipeline.output.records import totals
from pipeline.output.report import Ended, Report, record_of
from pipeline.output.settle import close, settle
from pipeline.output.sink import Receipt, write_shard
from pipeline.output.status import read_status
from pipeline.output.tally import Tally
from pipeline.rows import error_array
from pipeline.run import consume
from pipeline.shards import CutRule, Shard, shard_key
from pipeline.store.storage import canonical
from tests.pipeline.small import FINGERPRINT, OfflineCluster, file_at, frozen_job, spec


class Nobody:
    """A watcher that looks away."""

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """The plan stands."""

    def committed(self, receipt: Receipt) -> None:
        """A shard is done."""


@pytest.fixture
def job(tmp_path: Path) -> FrozenJob:
    output = canonical(str(tmp_path / "out"))
    limits = {"error_rows": 4, "error_share": 0.5}
    given = frozen_job(
        job=spec(source=str(tmp_path / "in"), output=output, limits=limits), cut=CutRule(rows=4, bytes=10_000)
    )
    return OutputFolder(output).freeze(given)


def parquet(folder: Path, name: str = "a.parquet", *, rows: int = 10) -> Path:
    path = folder / "in" / name
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"n": pa.array([0] * rows, pa.int8())}), path)
    later = time.time() + rows  # a version of its own
    os.utime(path, (later, later))
    return path


def planned(job: FrozenJob) -> Plan:
    folder = OutputFolder(job.output)
    plan = make_plan(folder=folder, job=job)
    if plan.changes:
        folder.write_plan(run=new_run_id(), files=plan.changes)
        return make_plan(folder=folder, job=job)
    return plan


def write(job: FrozenJob, shard: Shard, *, bad: int = 0, empty: int = 0) -> Receipt:
    rows = shard.stop - shard.first
    errors = error_array([("nan", "why")] * bad + [("empty", "why")] * empty + [None] * (rows - bad - empty))
    table = pa.table({"truncated": [False] * rows, "error": errors})
    return write_shard(ShardTables(shard=shard), table, data=OutputFolder(job.output).data, prefix="", footer={})


def shards_of(plan: Plan) -> list[Shard]:
    return [item for item in plan.work if isinstance(item, Shard)]


def receipt(shard: Shard, *, rows: int = 4, **errors: int) -> Receipt:
    return Receipt(shard=shard, state="done", rows=rows, errors=errors, facts={"tokens": 7.0, "encode_s": 0.5})


def done(job: FrozenJob, plan: Plan, *receipts: Receipt) -> str:
    """The state that a run ends in."""
    tally = Tally()
    for each in receipts:
        tally.add(each)
    settled = settle(folder=OutputFolder(job.output), tally=tally, run=new_run_id(), fingerprint=job.fingerprint)
    return close(folder=OutputFolder(job.output), settled=settled, before=None, accept_failed=False)


def objects(job: FrozenJob) -> set[str]:
    return set(OutputFolder(job.output).data.names())


def test_a_run_stops_when_bad_rows_pass_both_limits(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path, rows=40)
    plan = planned(job)
    seen: list[int] = []

    def receipts() -> Iterator[Receipt]:
        for number, shard in enumerate(shards_of(plan)):
            seen.append(number)
            yield receipt(shard, nan=2)

    tally = Tally()
    assert consume(receipts(), tally=tally, plan=plan, job=job, watcher=Nobody())
    assert len(seen) == 10, "half of the rows may be bad, and half of them are"
    seen.clear()
    bad = (receipt(shard, nan=3) for shard in shards_of(plan) if not seen.append(0))  # type: ignore[func-returns-value]
    assert not consume(bad, tally=Tally(), plan=plan, job=job, watcher=Nobody())
    assert len(seen) == 2, "four bad rows are always tolerated, the sixth of eight is too many"


def test_empty_texts_never_stop_a_run(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path, rows=40)
    plan = planned(job)
    receipts = iter([receipt(shard, empty=4) for shard in shards_of(plan)])
    assert consume(receipts, tally=Tally(), plan=plan, job=job, watcher=Nobody())


def test_bad_rows_of_earlier_runs_count(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path, rows=40)
    first = planned(job)
    done(job, first, *[write(job, shard, bad=2) for shard in shards_of(first)[:2]])
    plan = planned(job)
    rest = iter([receipt(shards_of(plan)[0], nan=1)])
    assert consume(rest, tally=Tally(), plan=plan, job=job, watcher=Nobody())
    rest = iter([receipt(shards_of(plan)[0], nan=3)])
    assert not consume(rest, tally=Tally(), plan=plan, job=job, watcher=Nobody())


def gzipped(folder: Path) -> list[Shard]:
    """A compressed file of ten lines, and its three shards."""
    path = folder / "in" / "a.txt.gz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(b"line\n" * 10))
    file = file_at(path)
    cuts = [(0, 20), (20, 40), (40, 50)]
    keys = [shard_key(file=file, first=first, stop=stop, fingerprint=FINGERPRINT) for first, stop in cuts]
    return [Shard(file, *cut, key, 20, last=cut[1] == 50) for cut, key in zip(cuts, keys, strict=True)]


def test_a_shard_that_is_run_again_counts_once_whatever_its_file_is_read_as(tmp_path: Path, job: FrozenJob) -> None:
    shards = gzipped(tmp_path)
    for shard in shards:
        write(job, shard, bad=10 if shard.first == 0 else 0)
    planned(job)
    for name in ("b.parquet", "c.parquet"):
        parquet(tmp_path, name, rows=4)
        plan = planned(job)
        write(job, shards_of(plan)[0], bad=3 if name.startswith("b") else 0)
    plan = make_plan(folder=OutputFolder(job.output), job=job, retry_errors=True)
    tally = Tally()
    consume(iter([]), tally=tally, plan=plan, job=job, watcher=Nobody())
    again = {shards[0].key} | {shard.key for shard in shards_of(plan)}
    assert len(again) == 2
    assert tally.earlier_bad_rows == 0, "what is run again brings its errors itself"
    assert tally.earlier_rows == sum(entry.rows for key, entry in plan.entries.items() if key not in again)


def test_a_file_that_was_mended_is_not_held_to_the_errors_it_had(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path, rows=40)
    first = planned(job)
    done(job, first, *[write(job, shard, bad=4) for shard in shards_of(first)[:2]])
    parquet(tmp_path, rows=39)
    plan = planned(job)
    rest = iter([receipt(shard) for shard in shards_of(plan)])
    assert consume(rest, tally=Tally(), plan=plan, job=job, watcher=Nobody())


def test_a_run_is_done_when_all_that_was_planned_is_there(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path)
    plan = planned(job)
    first, *rest = shards_of(plan)
    assert done(job, plan, write(job, first, bad=1)) == "failed-shards"
    assert OutputFolder(job.output).read_success() is None
    assert done(job, planned(job), *[write(job, shard, empty=1) for shard in rest]) == "done"
    success = OutputFolder(job.output).read_success()
    assert success is not None
    assert (success.files, success.shards, success.rows, success.error_rows) == (1, 3, 10, 1)
    assert success.plan == plan.name
    assert read_status(job.output).complete


def test_a_run_that_finds_nothing_to_do_touches_nothing(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path)
    plan = planned(job)
    done(job, plan, *[write(job, shard) for shard in shards_of(plan)])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert done(job, planned(job)) == "done"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_changed_file_keeps_its_old_rows_until_all_new_ones_are_there(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path)
    plan = planned(job)
    old = {shard.key for shard in shards_of(plan)}
    done(job, plan, *[write(job, shard) for shard in shards_of(plan)])
    parquet(tmp_path, rows=7)
    plan = planned(job)
    first, second = shards_of(plan)
    assert OutputFolder(job.output).read_success() is None, "_SUCCESS covers the newest plan, or there is none"
    assert done(job, plan, write(job, first)) == "failed-shards"
    assert objects(job) == old | {first.key}
    assert done(job, planned(job), write(job, second)) == "done"
    assert objects(job) == {first.key, second.key}
    assert set(OutputFolder(job.output).read_manifest()[1]) == {first.key, second.key}


def test_a_file_that_was_deleted_keeps_its_rows(tmp_path: Path, job: FrozenJob) -> None:
    path = parquet(tmp_path)
    parquet(tmp_path, "b.parquet", rows=4)
    plan = planned(job)
    done(job, plan, *[write(job, shard) for shard in shards_of(plan)])
    before = objects(job)
    path.unlink()
    assert done(job, planned(job)) == "done"
    assert objects(job) == before


def test_objects_of_somebody_else_are_neither_counted_nor_deleted(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path)
    plan = planned(job)
    receipts = [write(job, shard) for shard in shards_of(plan)]
    pq.write_table(pa.table({"a": [1]}), tmp_path / "out" / "data" / "foreign.parquet")
    assert done(job, plan, *receipts) == "done"
    assert "foreign.parquet" in objects(job)
    success = OutputFolder(job.output).read_success()
    assert success is not None
    assert success.shards == 3


def test_a_failed_file_is_named_and_the_user_may_accept_it(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path)
    plan = planned(job)
    first, *_ = shards_of(plan)
    tally = Tally()
    tally.add(Receipt(shard=first, state="failed", reason="gone", message=f"{first.file.uri}: the file is gone"))
    settled = settle(folder=OutputFolder(job.output), tally=tally, run=new_run_id(), fingerprint=job.fingerprint)
    assert settled.failures == [f"{first.file.uri}: the file is gone"]
    assert close(folder=OutputFolder(job.output), settled=settled, before=None, accept_failed=False) == "failed-shards"
    assert close(folder=OutputFolder(job.output), settled=settled, before=None, accept_failed=True) == "done"
    success = OutputFolder(job.output).read_success()
    assert success is not None
    assert success.accepted_failures == (f"{first.file.uri}: the file is gone",)


def test_what_an_interrupted_run_left_without_a_manifest_is_counted_by_the_next(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path)
    plan = planned(job)
    first, *rest = shards_of(plan)
    write(job, first, bad=2)  # and then the driver was killed
    plan = planned(job)
    assert shards_of(plan) == rest
    assert done(job, plan, *[write(job, shard) for shard in rest]) == "done"
    rows, bad, _ = totals(OutputFolder(job.output).read_manifest()[1].values())
    assert (rows, bad) == (10, 2)


def test_the_record_of_a_run_says_what_it_did(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path)
    plan = planned(job)
    tally = Tally()
    for shard in shards_of(plan):
        write(job, shard)
        tally.add(receipt(shard, nan=1, empty=1))
    settled = settle(folder=OutputFolder(job.output), tally=tally, run="r", fingerprint=job.fingerprint)
    ended = Ended(
        folder=OutputFolder(job.output),
        job=job,
        plan=plan,
        tally=tally,
        run="r",
        began=time.monotonic() - 2.0,
        cpu_began=time.process_time(),
    )
    record = record_of(ended.record(state="done", settled=settled))
    assert (record["state"], record["rows"], record["shards"]) == ("done", 12, 3)
    assert record["errors"] == {"empty": 3, "nan": 3}
    assert record["tokens"] == 21
    assert 5.0 < record["rows_per_second"] <= 6.0
    assert record["stage_seconds"] == {"encode_s": 1.5}
    assert {"preln", "python", "pyarrow"} <= set(record["versions"])


def broken_off(job: FrozenJob, error: BaseException, *receipts: Receipt) -> Report:
    """`run.annotate` of a job whose Dataset yields these receipts and then this error."""

    def shards(**_: object) -> Iterator[Receipt]:
        yield from receipts
        raise error

    with (
        patch.object(run, "open_job", lambda *, spec, cluster: (job, [])),
        patch.object(run, "annotate_shards", shards),
    ):
        return run.annotate(spec=job.spec, cluster=OfflineCluster(), watcher=Nobody())


def test_what_can_never_run_is_wrong_use_while_nothing_has_run(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path)
    shards = shards_of(planned(job))
    with pytest.raises(SpecError, match=r"^no node type$"):
        broken_off(job, SpecError("no node type"))
    found = read_status(job.output)
    assert (found.last_state, found.last_reason) == ("crashed", "SpecError: no node type")
    with pytest.raises(RunFailed, match=r"^no node type\. Committed shards stay"):
        broken_off(job, SpecError("no node type"), write(job, shards[0]))
    with pytest.raises(RunFailed, match="no node came"):
        broken_off(job, ResourceError("no node came"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StorageError("the store is away")])
def test_a_run_that_is_broken_off_still_tells_which_files_failed(
    tmp_path: Path, job: FrozenJob, error: BaseException
) -> None:
    parquet(tmp_path)
    (tmp_path / "in" / "bad.parquet").write_bytes(b"no Parquet")
    first, second, _ = shards_of(planned(job))
    failed = [
        Receipt(shard=shard, state="failed", reason="gone", message="a: the file is gone") for shard in (first, second)
    ]
    with nullcontext() if isinstance(error, KeyboardInterrupt) else pytest.raises(RunFailed):
        broken_off(job, error, *failed)
    gone, unreadable = read_status(job.output).failed
    assert gone == "a: the file is gone"
    assert "bad.parquet" in unreadable


def test_done_counts_what_files_have_now_and_nothing_else(tmp_path: Path, job: FrozenJob) -> None:
    streamed = gzipped(tmp_path)
    parquet(tmp_path)
    plan = planned(job)
    old = shards_of(plan)
    done(job, plan, *[write(job, shard) for shard in [*old, streamed[0]]])
    write(job, streamed[1])  # of a run that is not finished
    pq.write_table(pa.table({"a": [1]}), tmp_path / "out" / "data" / "foreign.parquet")
    assert read_status(job.output).done == len(old) + 2
    parquet(tmp_path, rows=7)
    plan = planned(job)
    assert read_status(job.output).done == 2, "the shards of the file's old version are not done any more"
    write(job, shards_of(plan)[0])
    assert read_status(job.output).done == 3


def test_the_status_of_a_folder_counts_what_is_done_missing_and_failed(tmp_path: Path, job: FrozenJob) -> None:
    parquet(tmp_path)
    (tmp_path / "in" / "bad.parquet").write_bytes(b"no Parquet")
    plan = planned(job)
    done(job, plan, write(job, shards_of(plan)[0], bad=1))
    found = read_status(job.output)
    assert (found.files, found.done, found.missing, found.open_files) == (2, 1, 2, 0)
    assert (found.rows, dict(found.errors)) == (4, {"nan": 1})
    assert len(found.failed) == 1
    assert "bad.parquet" in found.failed[0]
    assert not found.complete
