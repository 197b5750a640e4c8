"""Runs a job in this process, without Ray or a child: the stages of a run's flow, many bundles at once in threads.

A run that waits for a store uses no processor, so dozens of store faults a second cost little.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline import run
from pipeline.cluster.placement import Placement
from pipeline.errors import PrelnError
from pipeline.flow import Stages, encode_shard, finish_shard, reading_of, replica_order
from pipeline.inference.answers import answer_shards
from pipeline.inference.in_process import InProcess
from pipeline.output.job import FrozenJob
from pipeline.output.sink import Receipt, job_footer
from pipeline.reading.source import read_bundles, read_tasks
from pipeline.shards import Work
from pipeline.spec.job_spec import JobSpec
from tests.chaos.fickle_model import LOADER
from tests.pipeline.small import OfflineCluster

THREADS = 8


@contextmanager
def runs_here() -> Iterator[None]:
    """Inside, `pipeline.run` computes in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "annotate_shards", _annotate_shards)
        yield


def annotate_here(job: JobSpec) -> str:
    """Bring a job's output folder up to date, and return how the run ended: its state, or its error."""
    try:
        return run.annotate(spec=job, cluster=OfflineCluster(), watcher=run.Unwatched(), loader=LOADER).state
    except PrelnError as error:
        return f"{type(error).__name__}: {error}"


def _annotate_shards(
    *, job: FrozenJob, work: Sequence[Work], placement: Placement, loader: str, run: str, **_: Any
) -> Iterator[Receipt]:
    order = replica_order(job=job, placement=placement, loader=loader, run=run)
    stages = Stages(spec=job.spec, schema=job.schema, footer=job_footer(job), run=run)
    model = InProcess(order=order.load, threads=1, stall=order.stall)
    model.start()
    budget, one_at_a_time = order.budget(model.facts), threading.Lock()

    def receipts_of(task: Sequence[Work]) -> list[Receipt]:
        receipts = []
        for bundle in read_bundles(task=task, reading=reading_of(job)):
            encoded = [encode_shard(shard, spec=job.spec) for shard in bundle]
            with one_at_a_time:
                answered = answer_shards(shards=encoded, asks=order.asks, budget=budget, supervisor=model)
            receipts += [finish_shard(shard, stages=stages) for shard in answered]
        return receipts

    with ThreadPoolExecutor(THREADS) as threads:
        tasks = [threads.submit(receipts_of, task) for task in read_tasks(work=work, rule=job.cut)]
        for task in as_completed(tasks):
            yield from task.result()
