"""One row of the Ray Dataset: a bundle of whole shards, each a few Arrow tables, packed into IPC buffers and unpacked again.

Ray Data splits and merges blocks between rows but never splits a row, so no shard is torn or mixed with another. The tables
of a shard, by the stage that adds them:

rows       source    the input's columns, `row`, and `error` where a record could not be read
marks      encode    a row's `item` (the distinct input it shares, null where it has an error), `truncated`, `error`
windows    encode    what the model reads: `item`, `input_ids`, `positions`, and the task's own columns for decoding
answers    infer     what the model answered, one entry a position (or a window)
failures   infer     a window's `error`, null where it was answered

Each task has its own, except for the rows. A stage's tables are a column of their own beside those of the stages before, which
stay as they are.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import pyarrow as pa

from pipeline.shards import Shard

TaskTables: TypeAlias = Mapping[str, Mapping[str, pa.Table]]
"""Task name -> table name -> table."""
Place: TypeAlias = tuple[str, str] | None
"""Where a table belongs: None for the rows, (task, table) for the rest."""


@dataclass(frozen=True, eq=False)
class ShardTables:
    """A shard on its way through the flow.

    rows: None before it is read, or if the shard failed. tasks: the tables of each task.
    failure: why the whole shard failed (reason, message). cuts: the rows at which its parts begin, where it failed because it is
    too large. facts: counts and seconds for the receipt.
    runs_on: what the replica's model runs on, once per bundle. stored: the tables that it was unpacked from, column by column.
    """

    shard: Shard
    rows: pa.Table | None = None
    tasks: TaskTables = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    cuts: tuple[int, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
    runs_on: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    stored: tuple[Mapping[Place, pa.Table], ...] = ()

    def with_(self, *, tasks: TaskTables | None = None, facts: Mapping[str, float] | None = None) -> "ShardTables":
        """The same shard with tables of tasks and facts added or replaced."""
        added = {name: {**self.tasks.get(name, {}), **tables} for name, tables in (tasks or {}).items()}
        return replace(self, tasks={**self.tasks, **added}, facts={**self.facts, **(facts or {})})

    def tables(self) -> Iterator[tuple[Place, pa.Table]]:
        """Every table with its place."""
        if self.rows is not None:
            yield None, self.rows
        for task, tables in self.tasks.items():
            yield from (((task, name), table) for name, table in tables.items())


def pack(shards: Iterable[ShardTables], *, onto: pa.Table | None = None) -> pa.Table:
    """Shards as one dataset row: a header each, and the tables of all of them.

    onto: the bundle that these shards were unpacked from. Its tables are not written again; new ones get a column.
    """
    shards = list(shards)
    columns = {} if onto is None else _kept(onto, shards)
    if not columns:
        shards = [replace(shard, stored=()) for shard in shards]
    added = [_added(shard) for shard in shards]
    headers = [_header(shard, new) for shard, new in zip(shards, added, strict=True)]
    cells = _to_ipc([table for new in added for table in new.values()])
    lists = pa.ListArray.from_arrays(pa.array([0, len(cells)], pa.int32()), cells)
    return pa.table({"header": pa.array([headers], pa.list_(pa.string())), **columns, f"tables_{len(columns)}": lists})


def unpack(bundle: pa.Table) -> list[ShardTables]:
    """The shards of a batch of dataset rows; tables are views of the batch's memory."""
    shards = []
    for index in range(bundle.num_rows):
        cells = [iter(bundle[name][index].values) for name in bundle.column_names if name != "header"]
        shards += [_from_header(header.as_py(), cells) for header in bundle["header"][index].values]
    return shards


def _kept(bundle: pa.Table, shards: Sequence[ShardTables]) -> dict[str, pa.ChunkedArray]:
    """The columns of tables of a bundle; none if the shards are not all that it holds."""
    columns = {name: bundle[name] for name in bundle.column_names if name != "header"}
    held = [sum(len(column[0]) for column in columns.values())] if bundle.num_rows == 1 else []
    return columns if held == [sum(len(tables) for shard in shards for tables in shard.stored)] else {}


def _added(shard: ShardTables) -> dict[Place, pa.Table]:
    """The tables of a shard that are not those it was unpacked with."""
    return {
        place: table
        for place, table in shard.tables()
        if not any(tables.get(place) is table for tables in shard.stored)
    }


def _header(shard: ShardTables, added: Mapping[Place, pa.Table]) -> str:
    fields = {
        "shard": shard.shard.to_dict(),
        "failure": shard.failure,
        "facts": dict(shard.facts),
        "runs_on": dict(shard.runs_on),
        "cuts": shard.cuts,
        "tables": [list(tables) for tables in (*shard.stored, added)],
    }
    return json.dumps(fields)


def _from_header(text: str, cells: Sequence[Iterator[pa.LargeBinaryScalar]]) -> ShardTables:
    """A shard from its header, with as many cells of each column as the header lists tables for it."""
    values = json.loads(text)
    failure, rows = values["failure"], None
    tasks: dict[str, dict[str, pa.Table]] = {}
    stored: list[dict[Place, pa.Table]] = []
    for places, column in zip(values["tables"], cells, strict=True):
        stored.append({})
        for place in places:
            table = pa.ipc.open_stream(next(column).as_buffer()).read_all()
            stored[-1][None if place is None else tuple(place)] = table
            if place is None:
                rows = table
            else:
                task, name = place
                tasks.setdefault(task, {})[name] = table
    return ShardTables(
        shard=Shard.from_dict(values["shard"]),
        rows=rows,
        tasks=tasks,
        failure=None if failure is None else (failure[0], failure[1]),
        cuts=tuple(values["cuts"]),
        facts=values["facts"],
        runs_on=values["runs_on"],
        stored=tuple(stored),
    )


def _to_ipc(tables: Sequence[pa.Table]) -> pa.LargeBinaryArray:
    """One IPC stream per table, end to end in one buffer, without a further copy."""
    sink = pa.BufferOutputStream()
    offsets = [0]
    for table in tables:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        offsets.append(sink.tell())
    buffers = [None, pa.array(offsets, pa.int64()).buffers()[1], sink.getvalue()]
    return pa.Array.from_buffers(pa.large_binary(), len(tables), buffers)
