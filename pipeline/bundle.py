"""One row of the Ray Dataset: a bundle of whole shards, each a few Arrow tables, packed into IPC buffers and taken out again.

Ray splits and merges rows at will, never a row; so a shard can be neither torn nor mixed with another. The tables that
ride along, by the stage that adds them:

rows       source    the input's columns, `row`, and `error` where a record could not be read
marks      encode    a row's `item` (the distinct input it shares, null where it has an error), `truncated`, `error`
windows    encode    what the model reads: `item`, `input_ids`, `positions`, and the task's own columns for decoding
answers    infer     what the model answered, one entry a position (or a window)
failures   infer     a window's `error`, null where it was answered

In a job of several tasks all but the rows are each task's own, `windows.NAME` and so on (`of_task`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from pipeline.shards import Shard


def of_task(table: str, name: str) -> str:
    """What a task's own table is called; name: "" in a job of one task."""
    return f"{table}.{name}" if name else table


@dataclass(frozen=True, eq=False)
class ShardTables:
    """A shard on its way through the flow.

    failure: why the shard as a whole can't be done (reason, message); such a shard has no tables.
    facts: counts and seconds that stages hand on to the receipt. runs_on: what the replica's model runs on, said once a bundle.
    """

    shard: Shard
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    facts: Mapping[str, float] = field(default_factory=dict)
    runs_on: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def with_(
        self, *, tables: Mapping[str, pa.Table] | None = None, facts: Mapping[str, float] | None = None
    ) -> "ShardTables":
        """The same shard with tables and facts added or replaced."""
        return replace(self, tables={**self.tables, **(tables or {})}, facts={**self.facts, **(facts or {})})


def pack(shards: Iterable[ShardTables]) -> pa.Table:
    """Shards as one dataset row: a header each, and the tables of all of them."""
    shards = list(shards)
    headers = pa.array([[_header(shard) for shard in shards]], pa.list_(pa.string()))
    cells = _to_ipc([table for shard in shards for table in shard.tables.values()])
    return pa.table(
        {"header": headers, "tables": pa.ListArray.from_arrays(pa.array([0, len(cells)], pa.int32()), cells)}
    )


def unpack(bundle: pa.Table) -> list[ShardTables]:
    """The shards of a batch of dataset rows; tables are views of the batch's memory."""
    shards = []
    for index in range(bundle.num_rows):
        cells = iter(bundle["tables"][index].values)
        shards += [_from_header(header.as_py(), cells) for header in bundle["header"][index].values]
    return shards


def _header(shard: ShardTables) -> str:
    told = {"shard": shard.shard.to_dict(), "failure": shard.failure, "facts": dict(shard.facts)}
    told["runs_on"] = dict(shard.runs_on)
    return json.dumps({**told, "tables": list(shard.tables)})


def _from_header(text: str, cells: Iterator[pa.LargeBinaryScalar]) -> ShardTables:
    values = json.loads(text)
    failure = values["failure"]
    tables = {name: pa.ipc.open_stream(next(cells).as_buffer()).read_all() for name in values["tables"]}
    return ShardTables(
        shard=Shard.from_dict(values["shard"]),
        tables=tables,
        failure=None if failure is None else (failure[0], failure[1]),
        facts=values["facts"],
        runs_on=values["runs_on"],
    )


def _to_ipc(tables: Sequence[pa.Table]) -> pa.LargeBinaryArray:
    """One IPC stream a table, end to end in one buffer: written once, copied nowhere."""
    sink = pa.BufferOutputStream()
    offsets = [0]
    for table in tables:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        offsets.append(sink.tell())
    buffers = [None, pa.array(offsets, pa.int64()).buffers()[1], sink.getvalue()]
    return pa.Array.from_buffers(pa.large_binary(), len(tables), buffers)
