"""The records of an output folder: plans, the keys that exist, manifests, runs and _SUCCESS, read and written.

No database, no lock, no rename: one listing of `data/` says what is done, and everything else can be made again from it
and the plans. Files are named by time and run, so that the newest sorts last and two drivers never share one.
"""

import io
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.output.sink import DATA, FOOTER_KEY, Receipt
from pipeline.output.stored import from_stored
from pipeline.rows import EMPTY
from pipeline.shards import SourceFile
from pipeline.store.storage import delete, join, names, opened, put, read_bytes

PLANS, MANIFESTS, RUNS, SUCCESS = "_plans", "_manifest", "_runs", "_SUCCESS"
READERS = 32
MOMENT = "%Y%m%dT%H%M%S.%fZ"

PLAN_SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("version", pa.string()),
        ("format", pa.string()),
        ("compression", pa.string()),
        ("rows", pa.int64()),
        ("shards", pa.list_(pa.struct([("first", pa.int64()), ("stop", pa.int64()), ("key", pa.string())]))),
        ("failure", pa.string()),
        ("removed", pa.bool_()),
    ]
)
"""A plan: one row a file that is new or changed. `rows` and `shards` are null where only reading tells; `failure` says why a
file could not even be looked at; `removed` that it is gone, and its rows with it."""

MANIFEST_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("version", pa.string()),
        ("first", pa.int64()),
        ("stop", pa.int64()),
        ("last", pa.bool_()),
        ("rows", pa.int64()),
        ("errors", pa.map_(pa.string(), pa.int64())),
    ]
)
"""A manifest: one row a current object under `data/`."""


def new_run_id() -> str:
    """Names what one run writes; later runs sort behind earlier ones."""
    return _moment_id(datetime.now(UTC))


def _moment_id(moment: datetime) -> str:
    return f"{moment:{MOMENT}}-{uuid.uuid4().hex[:8]}"


def _behind(run: str, *, stored: Sequence[str]) -> str:
    """The run's name, or one like it that sorts behind all that is stored: what is written last is the newest, also where
    another driver began later and ended sooner, or has a fast clock."""
    newest = max((name.removesuffix(".parquet") for name in stored), default="")
    if run > newest:
        return run
    after = datetime.strptime(newest.partition("-")[0], MOMENT).replace(tzinfo=UTC) + timedelta(microseconds=1)
    return _moment_id(max(after, datetime.now(UTC)))


@dataclass(frozen=True)
class PlannedFile:
    """An input file at the version that was planned. shards: (first, stop, key) of each, None where only reading tells."""

    file: SourceFile
    rows: int | None
    shards: tuple[tuple[int, int, str], ...] | None
    failure: str | None = None
    removed: bool = False


@dataclass(frozen=True)
class Entry:
    """One object of a manifest."""

    key: str
    uri: str
    version: str
    first: int
    stop: int
    last: bool
    rows: int
    errors: Mapping[str, int]

    @property
    def error_rows(self) -> int:
        """Rows with an error other than an empty text."""
        return sum(count for reason, count in self.errors.items() if reason != EMPTY)


@dataclass(frozen=True)
class Success:
    """The content of _SUCCESS: which plan and manifest it speaks of, and its totals."""

    plan: str
    manifest: str
    files: int
    shards: int
    rows: int
    error_rows: int
    accepted_failures: Sequence[str] = field(default_factory=tuple)


def write_plan(output: str, *, run: str, files: Sequence[PlannedFile]) -> str:
    """Store what a run found new or changed, and return the plan's name."""
    table = pa.Table.from_pylist(
        [
            {
                "uri": planned.file.uri,
                "size": planned.file.size,
                "version": planned.file.version,
                "format": planned.file.format,
                "compression": planned.file.compression,
                "rows": planned.rows,
                "shards": None
                if planned.shards is None
                else [{"first": first, "stop": stop, "key": key} for first, stop, key in planned.shards],
                "failure": planned.failure,
                "removed": planned.removed,
            }
            for planned in files
        ],
        schema=PLAN_SCHEMA,
    )
    name = f"{_behind(run, stored=names(join(output, PLANS)))}.parquet"
    put(join(output, PLANS, name), _parquet(table))
    return name


def read_plans(output: str) -> tuple[str | None, list[list[PlannedFile]]]:
    """(name of the newest plan, all plans from the oldest to the newest)."""
    plans = names(join(output, PLANS))
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(lambda name: _read_table(join(output, PLANS, name)), plans))
    return (plans[-1] if plans else None), [
        [_planned(row, where=join(output, PLANS, name)) for row in table.to_pylist()]
        for name, table in zip(plans, tables, strict=True)
    ]


def _planned(row: Mapping[str, Any], *, where: str) -> PlannedFile:
    values = {**row, "file": from_stored(SourceFile, row, where=where)}
    if row.get("shards") is not None:
        values["shards"] = tuple((shard["first"], shard["stop"], shard["key"]) for shard in row["shards"])
    return from_stored(PlannedFile, values, where=where)


def written_keys(output: str) -> frozenset[str]:
    """Keys of the objects under `data/`, by one listing."""
    return frozenset(
        name for name in names(join(output, DATA)) if name.endswith(".parquet") and not name.startswith(".")
    )


def write_manifest(output: str, *, run: str, entries: Iterable[Entry]) -> str:
    """Store the current keys with their counts, and return the manifest's name."""
    rows = [{**vars(entry), "errors": sorted(entry.errors.items())} for entry in entries]
    name = f"{_behind(run, stored=names(join(output, MANIFESTS)))}.parquet"
    put(join(output, MANIFESTS, name), _parquet(pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA)))
    return name


def read_manifest(output: str) -> tuple[str | None, dict[str, Entry]]:
    """(name of the newest manifest, its entries by key); none and empty where there is none yet."""
    manifests = names(join(output, MANIFESTS))
    if not manifests:
        return None, {}
    where = join(output, MANIFESTS, manifests[-1])
    entries = (_stored_entry(row, where=where) for row in _read_table(where).to_pylist())
    return manifests[-1], {entry.key: entry for entry in entries}


def _stored_entry(row: dict[str, Any], *, where: str) -> Entry:
    if "errors" in row:
        row["errors"] = dict(row["errors"])
    return from_stored(Entry, row, where=where)


def known_entries(output: str, *, written: frozenset[str], made: Mapping[str, Entry] | None = None) -> dict[str, Entry]:
    """Entries of all objects that exist: from the newest manifest, and from the footers of what an interrupted run left.

    made: entries of what this run has just written, over those of the manifest.
    """
    _, entries = read_manifest(output)
    known = {key: entry for key, entry in {**entries, **(made or {})}.items() if key in written}
    rest = entries_from_footers(output, [key for key in written if key not in known])
    return known | {entry.key: entry for entry in rest}


def entry_of(receipt: Receipt) -> Entry:
    """The manifest's entry for a shard that was just written."""
    shard = receipt.shard
    return Entry(
        key=shard.key,
        uri=shard.file.uri,
        version=shard.file.version,
        first=shard.first,
        stop=shard.stop,
        last=shard.last,
        rows=receipt.rows,
        errors=dict(receipt.errors),
    )


def entries_from_footers(output: str, keys: Sequence[str]) -> list[Entry]:
    """Entries of objects that no manifest names, read from their own footers; objects of others are passed over."""
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda key: _entry_from_footer(output, key), keys)
        return [entry for entry in found if entry is not None]


def _entry_from_footer(output: str, key: str) -> Entry | None:
    """None for an object that is gone, or that preln did not write."""
    try:
        with opened(join(output, DATA, key)) as handle:
            facts = json.loads((pq.read_metadata(handle).metadata or {})[FOOTER_KEY])
    except (FileNotFoundError, KeyError, pa.ArrowException):
        return None
    return Entry(
        key=key,
        uri=facts["source"],
        version=facts["source_version"],
        first=facts["first"],
        stop=facts["stop"],
        last=facts["last"],
        rows=facts["rows"],
        errors=facts["errors"],
    )


def write_run(output: str, *, run: str, record: Mapping[str, Any]) -> None:
    """Store what a run did."""
    put(join(output, RUNS, f"{run}.json"), json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")


def read_last_run(output: str) -> dict[str, Any] | None:
    """The newest run's record."""
    runs = names(join(output, RUNS))
    return json.loads(read_bytes(join(output, RUNS, runs[-1]))) if runs else None


def write_success(output: str, success: Success) -> None:
    """Declare the newest plan done."""
    put(
        join(output, SUCCESS),
        json.dumps({**vars(success), "accepted_failures": list(success.accepted_failures)}, indent=2).encode(),
    )


def read_success(output: str) -> Success | None:
    """The content of _SUCCESS; None where there is none."""
    where = join(output, SUCCESS)
    try:
        values = json.loads(read_bytes(where))
    except FileNotFoundError:
        return None
    values["accepted_failures"] = tuple(values.get("accepted_failures", ()))
    return from_stored(Success, values, where=where)


def withdraw_success(output: str) -> None:
    """Take _SUCCESS away: there is more to do than it speaks of."""
    delete([join(output, SUCCESS)])


def totals(entries: Iterable[Entry]) -> tuple[int, int, Counter[str]]:
    """(rows, rows with errors other than empty texts, rows by reason) of a manifest."""
    rows, bad, reasons = 0, 0, Counter[str]()
    for entry in entries:
        rows += entry.rows
        bad += entry.error_rows
        reasons.update(entry.errors)
    return rows, bad, reasons


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _read_table(url: str) -> pa.Table:
    return pq.read_table(io.BytesIO(read_bytes(url)))
