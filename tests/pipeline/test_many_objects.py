"""Planning and resuming very many small files or shards takes less than a minute."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from pipeline import run
from pipeline.output.folder import OutputFolder, new_run_id
from pipeline.output.plan import make_plan
from pipeline.output.records import Entry
from pipeline.prepare import open_job
from pipeline.spec.job_spec import JobSpec
from tests.chaos.servers import KEYS, seaweedfs
from tests.pipeline.bad_run import Kept
from tests.pipeline.small import OfflineCluster, spec

pytestmark = [pytest.mark.slow, pytest.mark.storage]

A_MINUTE = 60.0
SMALL_FILES = 20_000
SHARDS = 100_000
PUTS_AT_ONCE = 2_000


@pytest.mark.timeout(600)
def test_twenty_thousand_small_files_are_planned_in_a_minute(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["One text.", "Another."]}), tmp_path / "in/first.parquet")
    content = (tmp_path / "in/first.parquet").read_bytes()
    for number in range(SMALL_FILES - 1):
        (tmp_path / f"in/{number:05d}.parquet").write_bytes(content)
    job = spec(source=str(tmp_path / "in"), output=str(tmp_path / "out"))
    began = time.monotonic()
    frozen, described = open_job(spec=job, cluster=OfflineCluster())
    plan = make_plan(folder=OutputFolder(frozen.output), job=frozen, described=described)
    seconds = time.monotonic() - began
    print(f"{SMALL_FILES} files planned in {seconds:.1f} s")
    assert len(plan.work) == SMALL_FILES
    assert seconds < A_MINUTE


@contextmanager
def s3(folder: Path) -> Iterator[str]:
    """A bucket on SeaweedFS."""
    with seaweedfs(folder) as address, pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(name, value)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("s3://many")
        yield "s3://many/out"
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.timeout(1_500)
def test_a_finished_plan_of_a_hundred_thousand_shards_is_resumed_in_a_minute(tmp_path: Path) -> None:
    source = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [f"Text {row}." for row in range(SHARDS)]}), source)
    with s3(tmp_path) as output:
        job = spec(source=str(source), output=output, shards={"rows": 1})
        finish(job)
        began = time.monotonic()
        report = run.annotate(spec=job, cluster=OfflineCluster(), watcher=Kept())
        seconds = time.monotonic() - began
        print(f"{SHARDS} shards resumed in {seconds:.1f} s")
        assert (report.state, report.shards, report.total_rows) == ("done", SHARDS, SHARDS)
        assert report.tally.receipts == []
        assert seconds < A_MINUTE


def finish(job: JobSpec) -> None:
    """The folder as a run that went through has left it, but for what is in the objects."""
    opened, described = open_job(spec=job, cluster=OfflineCluster())
    output = OutputFolder(opened.output)
    frozen = output.freeze(opened)
    plan = make_plan(folder=output, job=frozen, described=described)
    output.write_plan(run=new_run_id(), files=plan.changes)
    (planned,) = plan.changes
    assert planned.shards is not None
    entries = [
        Entry(key, planned.file.uri, planned.file.version, first, stop, last=False, rows=stop - first, errors={})
        for first, stop, key in planned.shards
    ]
    assert len(entries) == SHARDS
    fs, folder = fsspec.core.url_to_fs(output.data.url)
    for first in range(0, SHARDS, PUTS_AT_ONCE):
        fs.pipe({f"{folder}/{entry.key}": b"x" for entry in entries[first : first + PUTS_AT_ONCE]})
    objects = output.objects()
    output.write_manifest(run=new_run_id(), entries=[replace(entry, object=objects[entry.key]) for entry in entries])
