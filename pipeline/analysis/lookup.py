"""Rows named by source and number in, their answers and texts out: from the output, or, where it carries no texts, the input."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.analysis.dataset import Dataset
from pipeline.analysis.input_rows import input_rows
from pipeline.errors import SourceError
from pipeline.output.records import Entry
from pipeline.spec.named_tasks import NamedTask

Place: TypeAlias = tuple[str, int]
"""A row's source and number."""
Wanted: TypeAlias = Mapping[str, Sequence[int]]
"""Key of an object -> numbers of its rows."""


def tables(
    stored: Dataset, columns: Iterable[str], *, shards: Sequence[Entry] | None = None
) -> Iterator[tuple[Entry, pa.Table]]:
    """Some columns of all shards, or of some, in order; a shard of many rows comes in parts."""
    for entry, batch in stored.batches(list(dict.fromkeys(columns)), shards=shards):
        yield entry, pa.table(batch)


def wanted_rows(rows: Iterable[Mapping[str, Any]], *, key: str) -> dict[str, list[int]]:
    """Rows by the object that holds them. key: the field that names it."""
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row["row"])
    return found


def look_up(stored: Dataset, wanted: Wanted, columns: Mapping[str, str]) -> dict[Place, dict[str, Any]]:
    """Some columns of some rows. columns: name in the result -> column of the output."""
    found: dict[Place, dict[str, Any]] = {}
    entries = [entry for entry in stored.shards if entry.key in wanted]
    number = stored.own("row")
    for entry, table in tables(stored, [number, *columns.values()], shards=entries):
        for row, values in _rows(table, number, wanted[entry.key]):
            found[entry.uri, row] = {name: values[column] for name, column in columns.items()}
    return found


def look_up_texts(stored: Dataset, wanted: Wanted, *, task: NamedTask) -> tuple[dict[Place, dict[str, Any]], bool]:
    """(what the task reads of some rows, by part; whether the input was read again, since the output does not carry it).

    A list of words is a text, with spaces between, as the offsets count. Raises SourceError if the input is gone or has changed.
    """
    parts = {part.name: task.column(part.name) for part in task.task.parts()}
    parts = {part: column for part, column in parts.items() if column in stored.job.schema.names}
    option = getattr(task.task, "question", None)
    own = {} if option is None else {"question": option}
    parts = {part: column for part, column in parts.items() if part not in own}
    carried = all(column in stored.schema.names for column in parts.values())
    found = look_up(stored, wanted, parts) if carried else _of_input(stored, wanted, parts)
    return {
        place: dict(_readable(part, value) for part, value in {**values, **own}.items())
        for place, values in found.items()
    }, not carried


def _of_input(stored: Dataset, wanted: Wanted, columns: Mapping[str, str]) -> dict[Place, dict[str, Any]]:
    found: dict[Place, dict[str, Any]] = {}
    entries = [entry for entry in stored.shards if entry.key in wanted]
    for _, of_file in groupby(entries, key=lambda entry: entry.uri):
        for entry, table in input_rows(stored, list(of_file)):
            chosen = table.select(["__row__", *dict.fromkeys(columns.values())])
            for row, values in _rows(chosen, "__row__", wanted[entry.key]):
                found[entry.uri, row] = {name: values[column] for name, column in columns.items()}
    if len(found) < sum(map(len, wanted.values())):
        raise SourceError("rows that were annotated are not in their input file any more", reason="changed")
    return found


def _rows(table: pa.Table, number: str, rows: Sequence[int]) -> list[tuple[int, dict[str, Any]]]:
    found = table.filter(pc.is_in(table[number], pa.array(sorted(rows), pa.int64()))).to_pylist()
    return [(values[number], values) for values in found]


def _readable(part: str, value: Any) -> tuple[str, Any]:
    if part == "words":
        return "text", " ".join(
            word.decode("utf-8", "replace") if isinstance(word, bytes) else word for word in value or ()
        )
    return part, value.decode("utf-8", "replace") if isinstance(value, bytes) else value
