"""Reads training or test files at any URL as plain values: Parquet, Arrow, JSON Lines, CSV, text.

For data that fits into memory, which labelled data does; jobs that annotate read with pipeline.reading.source instead.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from models.addresses import open_address
from pipeline.errors import SpecError
from pipeline.store.storage import readable

Record = dict[str, Any]
SUFFIXES = (".parquet", ".arrow", ".feather", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt")


def read_records(urls: str | Sequence[str]) -> list[Record]:
    """All rows of files, folders or globs, in the order given, files of one folder by name. Raises SpecError."""
    asked = [urls] if isinstance(urls, str) else list(urls)
    records = [record for url in asked for file in _files(url) for record in _rows(file)]
    if not records:
        raise SpecError(f"{', '.join(asked)}: no rows there")
    return records


def texts_of(records: Sequence[Record], *, column: str) -> list[str]:
    """A column's texts; rows without text are left out. Raises SpecError where no row has the column."""
    check_column(records, column=column)
    return [record[column] for record in records if isinstance(record.get(column), str) and record[column].strip()]


def check_column(records: Sequence[Record], *, column: str) -> None:
    """Refuse a column that the first row has not."""
    if column not in records[0]:
        raise SpecError(f"the data has no column {column!r}; it has {', '.join(records[0])}; name yours under columns")


def _files(url: str) -> Iterator[tuple[fsspec.AbstractFileSystem, str]]:
    try:
        system, path = open_address(url)
        if any(sign in path for sign in "*?["):
            paths = sorted(str(found) for found in system.glob(path))
        elif system.isdir(path):
            paths = sorted(str(found) for found in system.find(path) if str(found).endswith(SUFFIXES))
        else:
            paths = [path] if system.exists(path) else []
    except (OSError, ValueError) as error:
        raise SpecError(f"{readable(url)}: {error}") from None
    if not paths:
        raise SpecError(f"{url}: no such file; check the path and the credentials")
    for found in paths:
        yield system, found


def _rows(file: tuple[fsspec.AbstractFileSystem, str]) -> Iterator[Record]:
    system, path = file
    suffix = next((ending for ending in SUFFIXES if path.endswith(ending)), None)
    if suffix is None:
        raise SpecError(f"{path}: unknown file type; known types: {', '.join(SUFFIXES)}")
    try:
        with system.open(path, "rb") as opened:
            if suffix in (".jsonl", ".ndjson"):
                yield from (json.loads(line) for line in opened if line.strip())
            elif suffix == ".txt":
                yield from ({"text": line.decode().rstrip("\r\n")} for line in opened)
            else:
                yield from _table(opened, suffix).to_pylist()
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise SpecError(f"{path}: can't be read: {error}") from None


def _table(opened: Any, suffix: str) -> pa.Table:
    if suffix == ".parquet":
        return pq.read_table(opened)
    if suffix in (".csv", ".tsv"):
        return pa_csv.read_csv(
            opened,
            parse_options=pa_csv.ParseOptions(delimiter="," if suffix == ".csv" else "\t", newlines_in_values=True),
        )
    with pa.ipc.open_file(opened) as reader:
        return reader.read_all()
