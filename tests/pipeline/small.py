"""Small specs, jobs, files and shards, from which tests of single stages are built, without Ray."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.boundary import Tokens
from pipeline.bundle import ShardTables
from pipeline.cluster.capacity_wait import Notify
from pipeline.cluster.nodes import NodeKind, Nodes
from pipeline.cluster.placement import Cluster
from pipeline.inference.checkpoint_state import CheckpointState
from pipeline.inference.questions import facts_of
from pipeline.output.job import FrozenJob
from pipeline.reading.inputs import recognised
from pipeline.shards import CutRule, Shard, SourceFile
from pipeline.spec.job_spec import JobSpec
from pipeline.spec.named_tasks import NamedTask
from pipeline.store.storage import info
from pipeline.tasks.task import ModelFacts

CHECKPOINT = str(Path(__file__).resolve().parents[2] / "jobs" / "checkpoints" / "random-tiny")
FINGERPRINT = "f" * 32
TASK = "text-classification"
"""The name of the one task of most jobs here."""


def spec(
    *, task: object = "text-classification", source: object = "in.jsonl", output: object = "out", **keys: Any
) -> JobSpec:
    """A spec on the embedded checkpoint, in float32 on CPUs; keys are further sections of it."""
    values = {
        "input": source,
        "model": {"checkpoint": CHECKPOINT, "dtype": "float32"},
        "task": task,
        "output": output,
        "resources": {"gpus": 0},
    }
    return JobSpec.parse({**values, **keys})


def only_task(job: JobSpec) -> NamedTask:
    """The task of a job that has one."""
    (task,) = job.named_tasks.values()
    return task


def only_facts(job: JobSpec) -> ModelFacts:
    """What the task of a job that has one may know of its checkpoint."""
    (facts,) = facts_of(job).values()
    return facts


def only_tables(found: ShardTables) -> Mapping[str, pa.Table]:
    """The tables of a shard's one task."""
    (tables,) = found.tasks.values()
    return tables


class FixedCluster(Cluster):
    """A cluster whose nodes are told rather than asked for."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(lambda: None)
        self._nodes = nodes

    @cached_property
    def nodes(self) -> Nodes:
        """The nodes it was made with."""
        return self._nodes


class OfflineCluster(Cluster):
    """Two CPUs and no Ray."""

    def __init__(self, *, say: Notify = lambda _: None, phase: Notify = lambda _: None) -> None:
        phase("planning")
        super().__init__(self._refuse, say=say)

    @staticmethod
    def _refuse() -> None:
        raise AssertionError("this test starts no Ray")

    @cached_property
    def nodes(self) -> Nodes:
        """Both CPUs on one node."""
        return Nodes(up=[NodeKind(name="node", resources={"CPU": 2.0}, labels={}, count=1)])


def source_file(uri: str = "file:///in/a.parquet", **fields: Any) -> SourceFile:
    """A file that need not exist."""
    return SourceFile(**{"uri": uri, "size": 1_000, "version": "v1", "format": "parquet", **fields})


def file_at(path: Path | str) -> SourceFile:
    """A file that exists, as a listing finds it."""
    file = recognised(info(str(path)), wanted="auto")
    assert file is not None
    return file


def shard(first: int = 0, stop: int = 10, *, file: SourceFile | None = None, last: bool = False) -> Shard:
    """A shard that need not exist."""
    return Shard(file or source_file(), first, stop, key=f"a-{first:012d}-{stop}.parquet", size=stop - first, last=last)


def frozen_job(
    *, job: JobSpec, schema: pa.Schema | None = None, cut: CutRule | None = None, fingerprint: str = FINGERPRINT
) -> FrozenJob:
    """A frozen job around a spec, its identity and digests made up."""
    return FrozenJob(
        spec=job,
        identity={"task.name": job.task_name},
        fingerprint=fingerprint,
        dtype="float32",
        checkpoint=CheckpointState(digest="d", stamp="s"),
        cut=cut or CutRule(rows=4, bytes=1_000_000),
        schema=schema or pa.schema([("text", pa.string())]),
    )


def rows_table(columns: Mapping[str, pa.Array | Sequence[object]], *, first: int = 0) -> pa.Table:
    """Columns as a shard's `rows`: with row numbers, and no errors yet."""
    table = pa.table(
        {name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()}
    )
    numbers = pa.array(range(first, first + table.num_rows), pa.int64())
    errors = pa.nulls(table.num_rows, pa.struct([("reason", pa.string()), ("message", pa.string())]))
    return table.append_column("__row__", numbers).append_column("__error__", errors)


def windows_shard(
    windows: Sequence[Sequence[int]], *, first: int = 0, positions: Sequence[Sequence[int]] | None = None
) -> ShardTables:
    """A shard that is encoded already: token ids of its windows, asked at their first token unless told."""
    asked = [[0]] * len(windows) if positions is None else positions
    ids_type = pa.list_(pa.int32())
    table = pa.table(
        {
            "item": pa.array(range(len(windows)), pa.int32()),
            "input_ids": pa.array([list(ids) for ids in windows], ids_type),
            "positions": pa.array([list(places) for places in asked], ids_type),
        }
    )
    return ShardTables(shard=shard(first, first + len(windows)), tasks={TASK: {"windows": table}})


def reasons(errors: pa.Array | pa.ChunkedArray) -> list[str | None]:
    """The reason of each row's error, None where it has none."""
    return [error and error["reason"] for error in errors.to_pylist()]


def tokens_of(windows: Sequence[Sequence[int]]) -> Tokens:
    """Windows as flat tokens."""
    import numpy as np

    flat = np.array([token for window in windows for token in window], np.int32)
    ends = np.cumsum([0, *map(len, windows)]).astype(np.int32)
    return Tokens(input_ids_T=flat, cu_seqlens=ends)
