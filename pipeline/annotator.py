"""A table in memory in, the same rows with a job's answer columns out: the stages of the flow without files or Ray."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from models.checkpoint_copy import is_local
from pipeline.bundle import ShardTables
from pipeline.decode import annotated
from pipeline.encode import encode_tasks
from pipeline.inference.answers import answer_shards
from pipeline.inference.batching import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, TokenBudget, budget_between
from pipeline.inference.checkpoint_state import checkpoint_state
from pipeline.inference.in_process import InProcess
from pipeline.inference.node_cache import checkpoint_here, compiler_settings
from pipeline.inference.questions import MODEL_LOADER, asks_of, load_order
from pipeline.inference.supervisor import Supervisor
from pipeline.output.columns import output_schema
from pipeline.output.job import CPU_CUT
from pipeline.prepare import absolute, check_columns, checked_tasks
from pipeline.reading.formats.arrow_types import plain_schema
from pipeline.reading.formats.conform import conform
from pipeline.rows import ROW, SOURCE
from pipeline.shards import Shard, SourceFile
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
        except BaseException:
            self.close()
            raise
        wanted = self.spec.resources.batch_tokens
        default = GPU_BATCH_TOKENS if gpu else CPU_BATCH_TOKENS[self.spec.model.framework]
        self._budget = budget_between(default, self._supervisor.facts) if wanted is None else TokenBudget(tokens=wanted)

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

    def annotate_shard(self, read: ShardTables, *, schema: pa.Schema) -> pa.Table:
        """The rows of a shard as a job's reading gives them, with the job's answers; schema: of the job's input."""
        assert read.rows is not None
        encoded = read.with_(tasks=encode_tasks(read.rows, spec=self.spec, facts=self._facts))
        return annotated(self._answered(encoded), schema=schema, spec=self.spec, facts=self._facts)

    def _answered(self, encoded: ShardTables) -> ShardTables:
        with self._lock:
            try:
                (answered,) = answer_shards(
                    shards=[encoded], asks=self._asks, budget=self._budget, supervisor=self._supervisor
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
