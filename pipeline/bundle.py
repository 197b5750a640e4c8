"""One row of the Ray Dataset: a bundle of whole shards, each a few Arrow tables, packed into IPC buffers and taken out again.

Ray splits and merges rows at will, never a row; so a shard can be neither torn nor mixed with another. The tables that
ride along, by the stage that adds them:

rows       source    the input's columns, `row`, and `error` where a record could not be read
marks      encode    a row's `item` (the distinct input it shares, null where it has an error), `truncated`, `error`
windows    encode    what the model reads: `item`, `input_ids`, `positions`, and the task's own columns for decoding
answers    infer     what the model answered, one entry a position (or a window)
failures   infer     a window's `error`, null where it was answered
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from pipeline.shards import Shard

TABLES = ("rows", "marks", "windows", "answers", "failures")


@dataclass(frozen=True, eq=False)
class ShardTables:
    """A shard on its way through the flow.

    failure: why the shard as a whole can't be done (reason, message); such a shard has no tables.
    facts: counts and seconds that stages hand on to the receipt.
    """

    shard: Shard
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    facts: Mapping[str, float] = field(default_factory=dict)

    def having(
        self, *, drop: Sequence[str] = (), facts: Mapping[str, float] | None = None, **tables: pa.Table
    ) -> "ShardTables":
        """The same shard with tables added or replaced, and others dropped."""
        kept = {name: table for name, table in self.tables.items() if name not in drop}
        return replace(self, tables={**kept, **tables}, facts={**self.facts, **(facts or {})})


def pack(shards: Iterable[ShardTables]) -> pa.Table:
    """Shards as one dataset row."""
    shards = list(shards)
    columns = {"header": pa.array([[_header(shard) for shard in shards]], pa.list_(pa.string()))}
    for name in TABLES:
        cells = _to_ipc([shard.tables.get(name) for shard in shards])
        columns[name] = pa.ListArray.from_arrays(pa.array([0, len(shards)], pa.int32()), cells)
    return pa.table(columns)


def unpack(bundle: pa.Table) -> list[ShardTables]:
    """The shards of a batch of dataset rows; tables are views of the batch's memory."""
    shards = []
    for index in range(bundle.num_rows):
        headers = bundle["header"][index].values
        buffers = {name: bundle[name][index].values for name in TABLES}
        for position, header in enumerate(headers):
            tables = {
                name: pa.ipc.open_stream(cells[position].as_buffer()).read_all()
                for name, cells in buffers.items()
                if cells[position].is_valid
            }
            shards.append(_from_header(header.as_py(), tables))
    return shards


def _header(shard: ShardTables) -> str:
    return json.dumps({"shard": shard.shard.to_dict(), "failure": shard.failure, "facts": dict(shard.facts)})


def _from_header(text: str, tables: Mapping[str, pa.Table]) -> ShardTables:
    values = json.loads(text)
    failure = values["failure"]
    return ShardTables(
        shard=Shard.from_dict(values["shard"]),
        tables=tables,
        failure=None if failure is None else (failure[0], failure[1]),
        facts=values["facts"],
    )


def _to_ipc(tables: Sequence[pa.Table | None]) -> pa.LargeBinaryArray:
    """One IPC stream a table, end to end in one buffer: written once, copied nowhere."""
    sink = pa.BufferOutputStream()
    offsets = [0]
    for table in tables:
        if table is not None:
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
        offsets.append(sink.tell())
    valid = pa.array([table is not None for table in tables], pa.bool_())
    return pa.Array.from_buffers(
        pa.large_binary(),
        len(tables),
        [valid.buffers()[1], pa.array(offsets, pa.int64()).buffers()[1], sink.getvalue()],
    )
