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

from pipeline import __version__
from pipeline.bundle import ShardTables
from pipeline.output.job import FrozenJob
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
    cuts: where a failed shard was too large, the rows at which its parts begin, which are shards of their own then.
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
    cuts: tuple[int, ...] = ()
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
        values["cuts"] = tuple(values.get("cuts", ()))
        return from_stored(cls, values, where="a receipt")


def write_shard(
    shard: ShardTables, table: pa.Table, *, data: Folder, prefix: str, footer: Mapping[str, str]
) -> Receipt:
    """Store the shard's object, open it again, and return what is in it; a failed receipt if Parquet can't hold the rows.

    data: the output folder's `data/`. footer: of the job. Raises StorageError.
    """
    began = time.monotonic()
    errors = count_reasons(table[prefix + "error"])
    truncated = int(table[prefix + "truncated"].combine_chunks().true_count)
    whole_footer = {**footer, **shard_footer(shard.shard, rows=table.num_rows, errors=errors)}
    try:
        content = to_parquet(table, footer=whole_footer)
    except (pa.ArrowException, OSError) as error:  # the second is how Arrow says that a footer can't be read
        return _unwritable(shard, table, error)
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


def _unwritable(shard: ShardTables, table: pa.Table, error: Exception) -> Receipt:
    """The receipt of a shard whose rows no Parquet file holds: nothing is written, and the other shards go on."""
    why = " ".join(str(error).split())[:300]
    name = next((name for name in table.column_names if not _is_written(table.select([name]))), None)
    message = (
        f"{shard.shard.file.uri}: its rows can't be written to Parquet that can be read again: "
        f"{'' if name is None else f'column {name!r}: '}{why}; leave the column out with input.keep"
    )
    return Receipt(shard=shard.shard, state="failed", reason="unwritable", message=message, facts=shard.facts)


def _is_written(table: pa.Table) -> bool:
    try:
        to_parquet(table, footer={})
    except (pa.ArrowException, OSError):
        return False
    return True


def job_footer(job: FrozenJob) -> dict[str, str]:
    """The job's fields in every footer: enough to find out, years later, which model gave these answers."""
    return {
        "preln": __version__,
        "fingerprint": job.fingerprint,
        "checkpoint": job.spec.model.checkpoint,
        "checkpoint_digest": job.checkpoint.digest,
        "task": job.spec.task_name,
        "framework": job.spec.model.framework,
        "dtype": job.dtype,
        **({} if job.checkpoint.model_type is None else {"model_type": job.checkpoint.model_type}),
    }


def shard_footer(shard: Shard, *, rows: int, errors: Mapping[str, int]) -> dict[str, object]:
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
    """A table as the bytes of one Parquet file, with `footer` in the footer's key-value metadata."""
    sink = pa.BufferOutputStream()
    metadata = {FOOTER_KEY: json.dumps(footer, sort_keys=True).encode()}
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        row_group_size=max(table.num_rows, 1),
        write_page_index=True,
        write_page_checksum=True,
    )
    _check_opens(sink.getvalue(), table)
    return sink.getvalue().to_pybytes()


def _check_opens(content: pa.Buffer, table: pa.Table) -> None:
    """Raise ArrowException or OSError where a file that was just written does not open with the table's columns and rows."""
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        if file.metadata.num_rows != table.num_rows or file.schema_arrow.names != table.schema.names:
            raise pa.ArrowInvalid("it does not have the rows and columns that were written")


def read_footer(content: Any) -> dict[str, Any]:
    """Our fields in a Parquet file's footer, given a path or an open file. Raises KeyError if there are none."""
    return footer_of(pq.read_metadata(content))


def footer_of(metadata: pq.FileMetaData) -> dict[str, Any]:
    """Our fields in a Parquet footer. Raises KeyError if there are none, ValueError or TypeError if they are no JSON object."""
    values = json.loads((metadata.metadata or {})[FOOTER_KEY])
    return dict(values)
