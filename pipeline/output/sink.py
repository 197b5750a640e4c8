"""An annotated shard in, one whole Parquet object in the store and its receipt out.

The object's bytes follow from the shard alone: no time, no attempt, no replica. Its existence is the commit.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.bundle import ShardTables
from pipeline.output.stored import from_stored
from pipeline.rows import count_reasons
from pipeline.shards import Shard, SourceFile
from pipeline.store.folder import Folder

FOOTER_KEY = b"preln"


@dataclass(frozen=True)
class Receipt:
    """What became of one shard.

    state: done (its object is written) or failed (its file could not be read as planned).
    rows: output rows. errors: rows by reason. tokens: real tokens computed. bytes: size of the object.
    facts: seconds and counts of the stages, for the run's record. runs_on: what the replica's model runs on, once a bundle.
    """

    shard: Shard
    state: Literal["done", "failed"]
    rows: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    truncated: int = 0
    bytes: int = 0
    reason: str = ""
    message: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)
    runs_on: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Receipt":
        """From `to_json`."""
        values: dict[str, Any] = json.loads(text)
        shard = values["shard"]
        file = from_stored(SourceFile, shard["file"], where="a receipt")
        values["shard"] = from_stored(Shard, {**shard, "file": file}, where="a receipt")
        return from_stored(cls, values, where="a receipt")


def write_shard(
    shard: ShardTables, table: pa.Table, *, data: Folder, prefix: str, provenance: Mapping[str, str]
) -> Receipt:
    """Store the shard's object, and return what is in it. data: the output folder's `data/`. Raises StorageError."""
    began = time.monotonic()
    errors = count_reasons(table[prefix + "error"])
    truncated = int(table[prefix + "truncated"].combine_chunks().true_count)
    footer = {**provenance, **footer_facts(shard.shard, rows=table.num_rows, errors=errors)}
    content = to_parquet(table, footer=footer)
    data.put(shard.shard.key, content)
    return Receipt(
        shard=shard.shard,
        state="done",
        rows=table.num_rows,
        errors=dict(errors),
        truncated=truncated,
        bytes=len(content),
        facts={**shard.facts, "write_s": time.monotonic() - began},
        runs_on=shard.runs_on,
    )


def footer_facts(shard: Shard, *, rows: int, errors: Mapping[str, int]) -> dict[str, object]:
    """Where a shard's rows come from, and how many there are."""
    return {
        "source": shard.file.uri,
        "source_version": shard.file.version,
        "source_bytes": shard.file.size,
        "first": shard.first,
        "stop": shard.stop,
        "last": shard.last,
        "rows": rows,
        "errors": dict(sorted(errors.items())),
    }


def to_parquet(table: pa.Table, *, footer: Mapping[str, object]) -> bytes:
    """A table as the bytes of one Parquet file, with provenance in the footer's key-value metadata."""
    sink = pa.BufferOutputStream()
    metadata = {FOOTER_KEY: json.dumps(footer, sort_keys=True).encode()}
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        row_group_size=max(table.num_rows, 1),
        write_page_index=True,
    )
    return sink.getvalue().to_pybytes()


def read_footer(content: Any) -> dict[str, Any]:
    """The provenance in a Parquet file's footer, given a path or an open file. Raises KeyError where there is none."""
    values: dict[str, Any] = json.loads((pq.read_metadata(content).metadata or {})[FOOTER_KEY])
    return values
