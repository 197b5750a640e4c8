"""The status of an output folder comes from its records alone."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import OutputError
from pipeline.output import status
from pipeline.output.folder import OutputFolder, new_run_id
from pipeline.output.records import PlannedFile, Success
from pipeline.output.sink import shard_footer, to_parquet
from pipeline.output.status import read_status
from pipeline.store.storage import canonical
from tests.pipeline.small import frozen_job, shard, source_file, spec

STREAM = PlannedFile(file=source_file("s3://b/b.txt.gz", format="text", compression="gzip"), rows=None, shards=None)
KNOWN = PlannedFile(
    file=source_file("s3://b/a.parquet"), rows=20, shards=((0, 10, "a-0.parquet"), (10, 20, "a-1.parquet"))
)


@pytest.fixture
def output(tmp_path: Path) -> str:
    url = canonical(str(tmp_path / "out"))
    OutputFolder(url).freeze(frozen_job(job=spec(output=url)))
    return url


def test_a_folder_without_a_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no _job\.json; nothing was annotated into this folder"):
        read_status(str(tmp_path))


def test_a_folder_that_was_only_begun_is_not_complete(output: str) -> None:
    found = read_status(output)
    assert (found.files, found.done, found.missing, found.rows) == (0, 0, 0, 0)
    assert not found.complete
    assert found.last_state is None


def test_streams_are_counted_as_files_whose_shards_nobody_knows(output: str) -> None:
    OutputFolder(output).write_plan(run=new_run_id(), files=[STREAM, KNOWN])
    found = read_status(output)
    assert (found.files, found.missing, found.open_files) == (2, 2, 1)


def test_success_of_an_older_plan_is_not_success(output: str) -> None:
    empty = PlannedFile(file=source_file("s3://b/e.parquet"), rows=0, shards=())
    folder = OutputFolder(output)
    plan = folder.write_plan(run="20260101T000000.000000Z-a", files=[empty])
    folder.write_success(Success(plan, "", 1, 0, 0, 0))
    assert read_status(output).complete
    folder.write_plan(run="20260102T000000.000000Z-a", files=[empty])
    folder.write_success(Success(plan, "", 1, 0, 0, 0))  # by a slower driver, which has not seen the newer plan
    assert not read_status(output).complete


def test_the_last_run_tells_how_it_ended_and_what_failed(output: str) -> None:
    OutputFolder(output).write_run(
        run="r", record={"state": "failed-shards", "finished": "2026-01-01", "failed": ["a: gone"]}
    )
    found = read_status(output)
    assert (found.last_state, found.last_finished, found.failed) == ("failed-shards", "2026-01-01", ["a: gone"])


def test_what_a_killed_run_has_written_is_counted_by_the_objects_own_footers(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = OutputFolder(output)
    folder.write_plan(run=new_run_id(), files=[KNOWN])
    for key, first in (("a-0.parquet", 0), ("a-1.parquet", 10), ("not-ours.parquet", 0)):
        footer = {**shard_footer(shard(first, first + 10, file=KNOWN.file), rows=10, errors={"empty": 1})}
        folder.data.put(key, to_parquet(pa.table({"row": list(range(10))}), footer=footer))
    found = read_status(output)
    assert (found.done, found.missing, found.rows, found.errors) == (2, 0, 20, {"empty": 2})
    assert (found.unfinished, found.unfinished_rows, found.uncounted) == (2, 20, 0)
    monkeypatch.setattr(status, "READ_AT_MOST", 1)
    found = read_status(output)
    assert (found.unfinished, found.unfinished_rows, found.uncounted) == (2, 10, 1)
