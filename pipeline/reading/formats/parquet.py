"""Parquet: rows and schema from the footer; row ranges streamed, also from inside a row group."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError, StorageError
from pipeline.reading.formats.conform import Carried, conform
from pipeline.reading.formats.decoded_size import Gathered, TableOrTooLarge
from pipeline.reading.formats.memory_cap import DECODED_BYTES, STEP_BYTES, capped
from pipeline.reading.formats.unreadable_columns import unreadable_columns
from pipeline.store import storage

BUFFER_BYTES = 4 * 1024 * 1024
"""Read ahead of each column; with it a row group is never held whole."""

BATCH_ROWS = 8_192
"""Rows decoded at a time, at most."""
FIRST_ROWS = 16
"""Rows decoded first, from which follows how many fit into BATCH_BYTES."""
BATCH_BYTES = 32 << 20
FEWER = 16
"""By what fewer rows are tried where some take more memory than a step may."""

MOST_ROWS = 1 << 31
"""A footer with more rows is wrong, or the data should be in many files: a plan of its shards would fill the memory."""

FIX = "replace or remove the file"
"""The next step where a file is corrupt."""


@contextmanager
def opened(uri: str) -> Iterator[pq.ParquetFile]:
    """The file with its footer read. Raises SourceError (gone, corrupt)."""
    try:
        with (
            storage.opened(uri, cache_type="readahead", block_size=BUFFER_BYTES) as handle,
            pq.ParquetFile(handle, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True) as file,
        ):
            yield file
    except SourceError:
        raise
    except Exception as error:
        raise reading_error(uri, error) from error


def _columns_to_blame(uri: str) -> str:
    """What to do about a type that Arrow can't read; the file is opened again, as the error names no column."""
    names: list[str] = []
    with suppress(StorageError, OSError), storage.opened(uri) as handle:
        names = unreadable_columns(handle)
    if not names:
        return (
            "it has a type that Arrow can't read; write the file again with that column cast to another, such as text"
        )
    columns = f"column{'s' * (len(names) > 1)} {', '.join(map(repr, names))}"
    them = "it" if len(names) == 1 else "them"
    return f"Arrow can't read the type of {columns}; write the file again with {them} cast to another, such as text"


def reading_error(uri: str, error: Exception) -> Exception:
    """The error to raise for an exception while reading: a fault of the file, or a store that can't be reached."""
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{uri}: the file is gone", reason="gone")
    if isinstance(error, StorageError):
        return SourceError(str(error), reason="unreadable") if error.refused else error
    if isinstance(error, MemoryError):
        return SourceError(
            f"{uri}: one of its rows, or a batch of rows that is stored as one, takes more than {DECODED_BYTES >> 30} GB of "
            "memory; write it again with shorter values",
            reason="unreadable",
        )
    if isinstance(error, pa.ArrowNotImplementedError):
        return SourceError(
            f"{uri}: {_first_line(error).rstrip('.')}: {_columns_to_blame(uri)}",
            reason="unreadable",
        )
    if isinstance(error, pa.ArrowException) or (isinstance(error, OSError) and error.errno is None):
        return SourceError(f"{uri}: {_first_line(error).rstrip('.')}; {FIX}", reason="corrupt")
    if storage.is_transient(error):
        return StorageError(f"reading {uri}: {type(error).__name__}: {error}", refused=False)
    return SourceError(f"{uri}: {type(error).__name__}: {_first_line(error)}", reason="unreadable")


@dataclass(frozen=True)
class Footer:
    """What a file's footer states. bytes: of all its columns, decompressed."""

    rows: int
    bytes: int
    schema: pa.Schema


def describe(uri: str) -> Footer:
    """The footer of a file. Raises SourceError."""
    with opened(uri) as file:
        metadata = file.metadata
        size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
        if metadata.num_rows > MOST_ROWS:
            raise SourceError(
                f"{uri}: its footer states {metadata.num_rows} rows, but the limit for one file is {MOST_ROWS}; {FIX}",
                reason="unreadable",
            )
        return Footer(rows=metadata.num_rows, bytes=size, schema=file.schema_arrow)


def read_ranges(
    *,
    uri: str,
    ranges: Sequence[tuple[int, int]],
    schema: pa.Schema,
    required: Sequence[str] = (),
    carried: Carried | None = None,
    most_bytes: int | None = None,
) -> Iterator[TableOrTooLarge]:
    """For each range [first, stop) of ascending row numbers its rows, in one pass over the row groups they lie in.

    required: columns without which no row can be answered; a file that lacks one has it as the error of every row. most_bytes:
    that the rows of a range may take, decoded; where they take more, it is said where to cut them.

    Raises SourceError.
    """
    with opened(uri) as file:
        names = set(file.schema_arrow.names)
        columns = [name for name in schema.names if name in names]
        batches = _batches(file, ranges, columns)
        yield from rows_of_ranges(
            uri=uri,
            ranges=ranges,
            batches=batches,
            schema=schema,
            required=required,
            carried=carried,
            names=names,
            most_bytes=most_bytes,
        )


def rows_of_ranges(
    *,
    uri: str,
    ranges: Sequence[tuple[int, int]],
    batches: Iterator[tuple[int, pa.Table]],
    schema: pa.Schema,
    required: Sequence[str],
    carried: Carried | None,
    names: Collection[str],
    most_bytes: int | None = None,
) -> Iterator[TableOrTooLarge]:
    """For each range its rows, cut out of batches that come with the number of their first row. names: of the file's columns.
    most_bytes: as in `read_ranges`.

    Raises SourceError where the batches end too early.
    """
    position, batch = next(batches, (0, None))
    known = set(schema.names)
    for first, stop in ranges:
        gathered = Gathered(most_bytes)
        reached = first
        while reached < stop:
            if batch is None:
                raise SourceError(f"{uri}: ends at row {reached} and should have {stop}; {FIX}", reason="corrupt")
            if position + batch.num_rows <= reached:
                position, batch = next(batches, (0, None))
                continue
            piece = batch.slice(reached - position, stop - reached)
            gathered.add(piece, first=reached)
            reached += piece.num_rows
        if (too_large := gathered.too_large) is not None:
            yield too_large
            continue
        table = pa.concat_tables(gathered.pieces) if gathered.pieces else schema.empty_table()
        row = pa.array(range(first, stop), pa.int64())
        if carried is not None:
            carried.leave_out(names, known=known, rows=stop - first)
        yield conform(table, schema=schema, row=row, required=required, carried=carried)


def _batches(
    file: pq.ParquetFile, ranges: Sequence[tuple[int, int]], columns: Sequence[str]
) -> Iterator[tuple[int, Any]]:
    """(number of the first row, rows) of every batch of the row groups that the ranges touch."""
    first_row = 0
    for group in range(file.metadata.num_row_groups):
        group_rows = file.metadata.row_group(group).num_rows
        if any(first < first_row + group_rows and stop > first_row for first, stop in ranges):
            position = first_row
            if columns:
                for batch in _decoded(file, group=group, columns=list(columns)):
                    yield position, batch
                    position += batch.num_rows
            else:
                yield position, pa.table({"__none__": pa.nulls(group_rows)})
        first_row += group_rows


def _decoded(file: pq.ParquetFile, *, group: int, columns: list[str]) -> Iterator[pa.Table]:
    """A row group's rows, few at a time where they are long: a value may be stored once and repeated in every row, which no
    footer shows. Raises MemoryError where a single row takes more than DECODED_BYTES."""
    size, reached = FIRST_ROWS, 0
    while True:
        skipped = 0
        steps = file.iter_batches(batch_size=size, row_groups=[group], columns=columns, use_threads=False)
        try:
            for batch in capped(steps, bytes_each=DECODED_BYTES if size == 1 else STEP_BYTES):
                if skipped + batch.num_rows <= reached:  # decoded before the rows that took too much
                    skipped += batch.num_rows
                    continue
                table = pa.Table.from_batches([batch.slice(reached - skipped)])
                skipped += batch.num_rows
                reached = skipped
                yield table
                fit = BATCH_BYTES * table.num_rows // max(1, table.nbytes)
                size = max(1, min(BATCH_ROWS, fit, 4 * size))
                file.reader.set_batch_size(size)
            return
        except MemoryError:
            if size == 1:
                raise
            size = max(1, size // FEWER)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
