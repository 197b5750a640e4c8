"""The records that an output folder keeps: planned files, manifest entries and the success marker, and how each is stored."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from pipeline.output.stored import from_stored
from pipeline.rows import EMPTY
from pipeline.shards import SourceFile

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
"""A plan: one row a file that is new or changed. `rows` and `shards` are null where only reading the file tells; `failure` says
why it could not be looked at; `removed` that it is gone, and its rows with it."""

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
        ("object", pa.string()),
    ]
)
"""A manifest: one row a current object under `data/`. `object` is the object's version (an etag, or size and time) when its
footer was read: where the listing has another, what is in it decides."""

FOOTER_NAMES = {"source": "uri", "source_version": "version"}
"""What an object's footer calls fields of its entry."""


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
    """One object of a manifest, as its footer has it too. A new field needs a default: older folders lack it.

    object: the version of the object whose footer says so; None in older folders.
    """

    key: str
    uri: str
    version: str
    first: int
    stop: int
    last: bool
    rows: int
    errors: Mapping[str, int]
    object: str | None = None

    @property
    def error_rows(self) -> int:
        """Rows with an error other than an empty text."""
        return sum(count for reason, count in self.errors.items() if reason != EMPTY)


@dataclass(frozen=True)
class Success:
    """The content of _SUCCESS: the plan and the manifest that it covers, and its totals."""

    plan: str
    manifest: str
    files: int
    shards: int
    rows: int
    error_rows: int
    accepted_failures: Sequence[str] = field(default_factory=tuple)

    def differences(self, entries: Collection[Entry]) -> list[str]:
        """What it says otherwise than the current objects."""
        rows, error_rows, _ = totals(entries)
        found = {"shards": len(entries), "rows": rows, "error_rows": error_rows}
        return [
            f"{name} is {getattr(self, name)}, but there are {count}"
            for name, count in found.items()
            if getattr(self, name) != count
        ]


def planned_row(planned: PlannedFile) -> dict[str, Any]:
    """A planned file as a row of PLAN_SCHEMA."""
    file, shards = planned.file, planned.shards
    return {
        "uri": file.uri,
        "size": file.size,
        "version": file.version,
        "format": file.format,
        "compression": file.compression,
        "rows": planned.rows,
        "shards": None
        if shards is None
        else [{"first": first, "stop": stop, "key": key} for first, stop, key in shards],
        "failure": planned.failure,
        "removed": planned.removed,
    }


def planned_from_row(row: Mapping[str, Any], *, where: str) -> PlannedFile:
    """A planned file from a row of a stored plan. where: the plan, for messages."""
    values = {**row, "file": from_stored(SourceFile, row, where=where)}
    if row.get("shards") is not None:
        values["shards"] = tuple((shard["first"], shard["stop"], shard["key"]) for shard in row["shards"])
    return from_stored(PlannedFile, values, where=where)


def entry_row(entry: Entry) -> dict[str, Any]:
    """An entry as a row of MANIFEST_SCHEMA."""
    return {**vars(entry), "errors": sorted(entry.errors.items())}


def entry_from_row(row: Mapping[str, Any], *, where: str) -> Entry:
    """An entry from a row of a stored manifest. where: the manifest, for messages."""
    values = {**row, "errors": dict(row["errors"])} if "errors" in row else row
    return from_stored(Entry, values, where=where)


def entry_from_footer(footer: Mapping[str, Any], *, key: str, version: str | None = None) -> Entry:
    """The entry of an object of this version, from its own footer. Raises OutputError where the footer lacks a field."""
    values = {FOOTER_NAMES.get(name, name): value for name, value in footer.items()}
    return from_stored(Entry, {**values, "key": key, "object": version}, where=key)


def same_entries(stored: Mapping[str, Entry], found: Mapping[str, Entry]) -> bool:
    """Whether a stored manifest says what was found; one of an older preln, which lacks the objects' versions, does too."""
    return stored.keys() == found.keys() and all(
        entry == (found[key] if entry.object is not None else replace(found[key], object=None))
        for key, entry in stored.items()
    )


def totals(entries: Iterable[Entry]) -> tuple[int, int, Counter[str]]:
    """(rows, rows with errors other than empty texts, rows by reason) of a manifest."""
    rows, bad, reasons = 0, 0, Counter[str]()
    for entry in entries:
        rows += entry.rows
        bad += entry.error_rows
        reasons.update(entry.errors)
    return rows, bad, reasons
