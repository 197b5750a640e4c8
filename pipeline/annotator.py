"""A table in memory in, the same rows with a job's answer columns out: the stages of the flow without files or Ray."""

import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from models.boundary import HeadAsk
from models.checkpoint_copy import is_local
from pipeline.bundle import ShardTables
from pipeline.certification import (
    about_labelled_rows,
    calibration_spec,
    check_columns_alike,
    uncertified,
    with_certificate,
    with_digests,
)
from pipeline.cluster.placement import Cluster
from pipeline.decode import annotated
from pipeline.encode import encode_tasks
from pipeline.errors import SpecError
from pipeline.inference.answers import answer_shards
from pipeline.inference.batching import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, TokenBudget, budget_between
from pipeline.inference.checkpoint_state import checkpoint_state
from pipeline.inference.in_process import InProcess
from pipeline.inference.node_cache import checkpoint_here, compiler_settings
from pipeline.inference.questions import MODEL_LOADER, asks_of, load_order
from pipeline.inference.supervisor import Supervisor
from pipeline.output.columns import output_schema
from pipeline.output.folder import OutputFolder
from pipeline.output.job import CPU_CUT, FrozenJob
from pipeline.output.plan import Plan, make_plan
from pipeline.prepare import absolute, check_columns, checked_tasks, open_job
from pipeline.reading.formats.arrow_types import plain_schema
from pipeline.reading.formats.conform import conform
from pipeline.rows import ROW, SOURCE
from pipeline.shards import Shard, SourceFile
from pipeline.spec.accepts import with_accepts
from pipeline.spec.job_spec import JobSpec

Progress = Callable[[int], None]

MEMORY = "memory:"
"""Placeholders for the input and the output of a job that has neither."""


class Annotator:
    """A job's model, loaded once for many tables; `close` it, or use it as a context manager.

    spec: its input and output are ignored. dtype: of the arithmetic. gpu: use the token budget of a GPU. isolate: run the model
    in a supervised process of its own, which is replaced if a text kills or hangs it. Calls from several threads take
    turns. Raises SpecError, CheckpointError, ResourceError.
    """

    def __init__(
        self,
        spec: JobSpec,
        *,
        dtype: str,
        threads: int,
        gpu: bool = False,
        isolate: bool = True,
        environment: dict[str, str] | None = None,
        loader: str = MODEL_LOADER,
    ) -> None:
        self.spec = absolute(spec)
        self._facts = checked_tasks(self.spec)
        self.spec = with_digests(self.spec)
        self._labelled_names: dict[str, list[str]] = {}
        self._asks = asks_of(self.spec, self._facts)
        order = load_order(self.spec, dtype=dtype, device="cuda" if gpu else "cpu", loader=loader)
        if not is_local(order.checkpoint):
            names = list(self.spec.tasks) or None
            state = checkpoint_state(order.checkpoint, known=None, names=names)
            order = replace(order, checkpoint=checkpoint_here(url=order.checkpoint, state=state, names=names))
        weight = sum(task.task.rows_weight(self._facts[name]) for name, task in self.spec.named_tasks.items())
        self.rows_each = self.spec.shards.rows or max(1, CPU_CUT.rows // weight)
        # The child dies with the thread that starts it, and a server's threads end; this one does not.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="preln")
        self._lock = threading.Lock()
        kind: type[Supervisor] = Supervisor if isolate else InProcess
        self._supervisor = kind(
            order=order,
            threads=threads,
            stall=self.spec.limits.stall,
            environment={**compiler_settings(), **(environment or {})},
            launch=self._launch,
        )
        try:
            self._supervisor.start()
            self._budget = self._first_budget(gpu=gpu)
            self.spec = self._certified(dtype=dtype, gpu=gpu)
        except BaseException:
            self.close()
            raise

    def _first_budget(self, *, gpu: bool) -> TokenBudget:
        wanted = self.spec.resources.batch_tokens
        if wanted is not None:
            return TokenBudget(tokens=wanted)
        default = GPU_BATCH_TOKENS if gpu else CPU_BATCH_TOKENS[self.spec.model.framework]
        return budget_between(default, self._supervisor.facts)

    def _certified(self, *, dtype: str, gpu: bool) -> JobSpec:
        """The spec with the thresholds of tasks that accept labels, found on their labelled rows."""
        accepts = {}
        for name in uncertified(self.spec):
            with tempfile.TemporaryDirectory(prefix="preln-") as nowhere:
                labelled = calibration_spec(self.spec, name, output=nowhere, dtype=dtype)
                here = {"gpus": 1.0 if gpu else 0.0, "replicas": 1}
                resources = labelled.resources.model_copy(update=here)
                labelled = labelled.model_copy(update={"resources": resources})
                try:
                    job, described = open_job(spec=labelled, cluster=Cluster(lambda: None))
                    plan = make_plan(folder=OutputFolder(job.output), job=job, described=described)
                    answers = pa.concat_tables(self.answered_shards(job, plan))
                except SpecError as error:
                    raise about_labelled_rows(error, self.spec.named_tasks[name].key) from None
                accepts[name] = with_certificate(self.spec, name, answers)
                self._labelled_names[name] = job.schema.names
        return with_accepts(self.spec, accepts)

    def answered_shards(self, job: FrozenJob, plan: Plan) -> Iterator[pa.Table]:
        """The rows of a job's files with its answers, shard by shard. Raises SpecError for a file that can't be read."""
        from pipeline.flow import reading_of  # with Ray, which rows in memory do without
        from pipeline.reading.source import read_bundles, read_tasks

        for task in read_tasks(work=plan.work, rule=job.cut):
            for bundle in read_bundles(task=task, reading=reading_of(job, large="parts")):
                for read in bundle:
                    if read.failure is not None or read.rows is None:
                        _, message = read.failure or ("", "it can't be read")
                        raise SpecError(f"{read.shard.file.uri}: {message}")
                    yield self.annotate_shard(read, schema=job.schema, spec=job.spec)

    def _launch(self, *arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        started: Future[subprocess.Popen[bytes]] = self._starter.submit(subprocess.Popen, *arguments, **options)
        return started.result()

    def annotate(
        self, table: pa.Table, *, errors: pa.StructArray | None = None, progress: Progress | None = None
    ) -> pa.Table:
        """The table's rows in their order, with the job's answers, `truncated` and `error`.

        errors: of rows that could not be read. progress: called with the number of rows done, step by step. Raises SpecError
        where a column is missing or of another type. An interrupt ends the model's process; the next call starts another.
        """
        schema = plain_schema(table.schema)
        check_columns(schema=schema, spec=self.spec, facts=self._facts)
        for name, labelled in self._labelled_names.items():
            check_columns_alike(self.spec, name, input_names=schema.names, labelled_names=labelled)
        dropped = [self.spec.output.prefix + field.name for field in (SOURCE, ROW)]
        empty = output_schema(schema=schema, spec=self.spec, facts=self._facts).empty_table()
        parts = [empty]
        for part in self._parts(table, schema, errors):
            parts.append(part)
            if progress is not None:
                progress(part.num_rows)
        return pa.concat_tables(parts).drop_columns(dropped)

    def _parts(self, table: pa.Table, schema: pa.Schema, errors: pa.StructArray | None) -> Iterator[pa.Table]:
        file = SourceFile(uri=MEMORY, size=table.nbytes, version="", format="arrow")
        for first in range(0, table.num_rows, self.rows_each):
            part = table.slice(first, self.rows_each)
            stop = first + part.num_rows
            rows = conform(
                part,
                schema=schema,
                row=pa.array(range(first, stop), pa.int64()),
                errors=None if errors is None else errors.slice(first, part.num_rows),
            )
            shard = Shard(file=file, first=first, stop=stop, key="", size=part.nbytes)
            yield self.annotate_shard(ShardTables(shard=shard, rows=rows), schema=schema)

    def annotate_shard(self, read: ShardTables, *, schema: pa.Schema, spec: JobSpec | None = None) -> pa.Table:
        """The rows of a shard as a job's reading gives them, with the job's answers. schema: of the job's input. spec: of the
        job, if it is another one with some of this one's tasks."""
        assert read.rows is not None
        spec = spec or self.spec
        encoded = read.with_(tasks=encode_tasks(read.rows, spec=spec, facts=self._facts))
        asks = {name: self._asks[name] for name in spec.named_tasks}
        return annotated(self._answered(encoded, asks), schema=schema, spec=spec, facts=self._facts)

    def _answered(self, encoded: ShardTables, asks: Mapping[str, HeadAsk]) -> ShardTables:
        with self._lock:
            try:
                (answered,) = answer_shards(
                    shards=[encoded], asks=asks, budget=self._budget, supervisor=self._supervisor
                )
            except BaseException:
                self._supervisor.close()  # it may be about to answer what nobody waits for any more
                raise
        return answered

    def close(self) -> None:
        """End the model's process."""
        self._supervisor.close()
        self._starter.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
