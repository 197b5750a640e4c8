"""`preln annotate --limit`: a job in, its first rows with their answers out; without Ray, and never in the job's output."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.errors import SpecError

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.spec.job_spec import JobSpec

FILE = "rows.parquet"


def first_answers(spec: JobSpec, *, rows: int) -> pa.Table:
    """The first rows of the input as the job would write them, on this machine: a GPU if it has one and the job wants none
    else. Raises SpecError where they can't be read, CheckpointError."""
    import pyarrow as pa

    from jobs.connect import connect
    from jobs.in_python import has_gpu
    from pipeline.annotator import Annotator
    from pipeline.cluster.placement import Cluster, best_dtype
    from pipeline.flow import reading_of
    from pipeline.output.folder import OutputFolder
    from pipeline.output.plan import make_plan
    from pipeline.prepare import open_job
    from pipeline.reading.source import read_bundles, read_tasks

    gpu = has_gpu() and spec.resources.gpus != 0
    dtype = best_dtype(spec.model.framework, gpu)[0] if spec.model.dtype == "auto" else spec.model.dtype
    with tempfile.TemporaryDirectory(prefix="preln-") as nowhere:
        # What only a cluster could say is said here; the output's columns are those of an empty folder.
        changes = {
            "model": spec.model.model_copy(update={"dtype": dtype}),
            "output": spec.output.model_copy(update={"url": nowhere}),
            "resources": spec.resources.model_copy(update={"gpus": 1.0 if gpu else 0.0, "replicas": 1}),
        }
        job, described = open_job(spec=spec.model_copy(update=changes), cluster=Cluster(connect))
        plan = make_plan(folder=OutputFolder(job.output), job=job, described=described)
        answers: list[pa.Table] = []
        with Annotator(job.spec, dtype=job.dtype, threads=len(os.sched_getaffinity(0)), gpu=gpu) as annotator:
            for task in read_tasks(work=plan.work, rule=job.cut):
                for bundle in read_bundles(task=task, reading=reading_of(job, large="parts")):
                    for read in bundle:
                        left = rows - sum(table.num_rows for table in answers)
                        if read.failure is not None or read.rows is None:
                            _, message = read.failure or ("", "it can't be read")
                            raise SpecError(f"{read.shard.file.uri}: {message}")
                        some = replace(read, rows=read.rows.slice(0, left))
                        answers.append(annotator.annotate_shard(some, schema=job.schema))
                        if left <= read.rows.num_rows:
                            return pa.concat_tables(answers)
    if not answers:
        raise SpecError("input.urls: no row is there to look at")
    return pa.concat_tables(answers)


def write_rows(found: pa.Table, *, folder: str, spec: JobSpec) -> str:
    """Write the rows to a folder of their own; returns the file. Raises SpecError for the job's output, or below it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.store.storage import canonical, join, put, readable

    own, output = canonical(folder), canonical(spec.output.url)
    if own == output or own.startswith(output.rstrip("/") + "/"):
        raise SpecError(
            f"--into {folder}: that is the job's output, which a look at a few rows never touches; name another folder"
        )
    stream = pa.BufferOutputStream()
    pq.write_table(found, stream)
    put(join(own, FILE), stream.getvalue().to_pybytes())
    return readable(join(own, FILE))
