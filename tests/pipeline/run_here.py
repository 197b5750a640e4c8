"""Runs a job in this process without Ray, and without a child unless asked for one: the real reading, stages and records."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from jobs import connect
from pipeline import run
from pipeline.annotator import Annotator
from pipeline.flow import Stages, finish_shard, reading_of
from pipeline.output.job import FrozenJob
from pipeline.output.report import Report
from pipeline.output.sink import Receipt, job_footer, write_shard
from pipeline.reading.source import read_bundles, read_tasks
from pipeline.shards import Work
from pipeline.spec.job_spec import JobSpec
from tests.pipeline.bad_run import through_a_replica
from tests.pipeline.small import OfflineCluster


def run_here(**spec: Any) -> Report:
    """Bring a job's output folder up to date."""
    with pytest.MonkeyPatch.context() as patch:
        commands_run_here(patch)
        return run.annotate(spec=JobSpec.parse(spec), cluster=OfflineCluster(), watcher=run.Unwatched())


def commands_run_here(patch: pytest.MonkeyPatch, *, replica: bool = False) -> None:
    """The verbs that run a job do so in this process, too: for facts about files, not about Ray.

    replica: whether the model has its child, as a real replica's has; only then are files that can't be read a failure of theirs.
    """
    patch.setattr(connect, "this_cluster", OfflineCluster)
    patch.setattr(run, "annotate_shards", through_a_replica if replica else _annotate_shards)


def _annotate_shards(*, job: FrozenJob, work: Sequence[Work], **_: Any) -> Iterator[Receipt]:
    stages = Stages(spec=job.spec, schema=job.schema, footer=job_footer(job))
    with Annotator(job.spec, dtype=job.dtype, threads=2, isolate=False) as annotator:
        for task in read_tasks(work=work, rule=job.cut):
            for bundle in read_bundles(task=task, reading=reading_of(job)):
                for read in bundle:
                    if read.failure is not None:
                        yield finish_shard(read, stages=stages)
                        continue
                    table = annotator.annotate_shard(read, schema=job.schema)
                    data, prefix = stages.output.data, job.spec.output.prefix
                    yield write_shard(read, table, data=data, prefix=prefix, footer=stages.footer)
