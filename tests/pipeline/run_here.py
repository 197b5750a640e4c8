"""Runs a job in this process, without Ray or a child: the real reading, stages and records of a run."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from jobs import connect
from pipeline import run
from pipeline.annotator import Annotator
from pipeline.flow import reading_of
from pipeline.output.folder import OutputFolder
from pipeline.output.job import FrozenJob
from pipeline.output.report import Report
from pipeline.output.sink import Receipt, job_footer, write_shard
from pipeline.reading.source import read_bundles, read_tasks
from pipeline.shards import Work
from pipeline.spec.job_spec import JobSpec
from tests.pipeline.small import OfflineCluster


def run_here(**spec: Any) -> Report:
    """Bring a job's output folder up to date."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "annotate_shards", _annotate_shards)
        return run.annotate(spec=JobSpec.parse(spec), cluster=OfflineCluster(), watcher=run.Unwatched())


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process's `preln` commands run their jobs here."""
    monkeypatch.setattr(run, "annotate_shards", _annotate_shards)
    monkeypatch.setattr(connect, "this_cluster", OfflineCluster)


def _annotate_shards(*, job: FrozenJob, work: Sequence[Work], **_: Any) -> Iterator[Receipt]:
    data = OutputFolder(job.output).data
    with Annotator(job.spec, dtype=job.dtype, threads=2, isolate=False) as annotator:
        for task in read_tasks(work=work, rule=job.cut):
            for bundle in read_bundles(task=task, reading=reading_of(job)):
                for read in bundle:
                    table = annotator.annotate_shard(read, schema=job.schema)
                    yield write_shard(read, table, data=data, prefix=job.spec.output.prefix, footer=job_footer(job))
