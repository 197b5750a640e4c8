"""Runs a job in this process, without Ray or a child: the real reading, stages and records of a run."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pipeline import run
from pipeline.annotator import Annotator
from pipeline.flow import Stages, finish_shard, reading_of
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
