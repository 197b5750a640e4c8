"""Reads delimited files by the first rules, which count quotes: for output folders that were begun under them.

A newline inside quotes is part of its field, so such a file only reads in sequence. `row` of a record is its byte offset;
the header is no record. A record with another number of fields than the header is a row of nulls with an error.
"""

import csv
import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv as pac

from pipeline.errors import RowError, SourceError
from pipeline.reading.formats.conform import conform
from pipeline.reading.formats.lines import LineBlock, line_ends
from pipeline.reading.formats.streams import decompressed
from pipeline.rows import error_array

HEADER_BYTES = 1 << 20
"""The header must lie within this many first bytes of a file."""

_QUOTE = ord('"')
_BOM = b"\xef\xbb\xbf"


def record_ends(content: bytes, _offset: int = 0, _ended: bool = True) -> np.ndarray:
    """Where records end: newlines outside quotes, in bytes that begin with a record."""
    newlines = line_ends(content)
    quotes = np.flatnonzero(np.frombuffer(content, np.uint8) == _QUOTE)
    return newlines[np.searchsorted(quotes, newlines) % 2 == 0] if len(quotes) else newlines


def read_header(*, uri: str, compression: str, delimiter: str) -> tuple[list[str], int]:
    """(names of the columns, offset of the first record). Raises SourceError if names are ambiguous."""
    with decompressed(uri, compression=compression) as stream:
        head = bytes(stream.read(HEADER_BYTES))
    if not head.strip():
        return [], len(head)
    ends = record_ends(head)
    stop = int(ends[0]) + 1 if len(ends) else len(head)
    try:
        line = head[:stop].removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{uri}: the header is not UTF-8", reason="unreadable") from error
    names = next(csv.reader(io.StringIO(line, newline=""), delimiter=delimiter), [])
    if len(set(names)) < len(names):
        raise SourceError(f"{uri}: the header names a column twice: {', '.join(names)}", reason="unreadable")
    return names, stop


def delimited_rows(
    block: LineBlock, *, header: tuple[list[str], int], delimiter: str, schema: pa.Schema, required: tuple[str, ...]
) -> pa.Table:
    """Every record of a block as a row. Blank lines and the header, whose block begins at 0, are skipped."""
    names, first_record = header
    skipped = first_record if block.offset == 0 else 0
    content = block.content[skipped:]
    starts, stops = _records(content)
    tables = list(_parsed(content, starts, stops, names, delimiter)) if len(starts) else []
    text = pa.schema([pa.field(name, pa.string()) for name in names])
    table = pa.concat_tables([table for table, _ in tables] or [text.empty_table()])
    errors = error_array([error for _, found in tables for error in found])
    row = pa.array(starts + block.offset + skipped)
    return conform(table, schema=schema, row=row, errors=errors, required=required)


def count(block: LineBlock, *, header: tuple[list[str], int]) -> int:
    """How many rows a block has."""
    return len(_records(block.content[header[1] if block.offset == 0 else 0 :])[0])


def _records(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Where records begin and stop; blank lines are skipped."""
    ends = record_ends(content)
    stops = ends + 1 if len(ends) and ends[-1] == len(content) - 1 else np.append(ends + 1, len(content))
    starts = np.concatenate([[0], stops[:-1]]).astype(np.int64)
    filled = np.array([bool(content[a:b].strip()) for a, b in zip(starts, stops, strict=True)], bool)
    return starts[filled], stops[filled]


Parsed = tuple[pa.Table, list[RowError | None]]


def _parsed(
    content: bytes, starts: np.ndarray, stops: np.ndarray, names: list[str], delimiter: str
) -> Iterator[Parsed]:
    """Consecutive records as text; if Arrow fails, halves are parsed until each failing record is alone."""
    piece = content[int(starts[0]) : int(stops[-1])]
    try:
        piece.decode("utf-8")
        table = _read(piece, names, delimiter)
        if table.num_rows == len(starts):
            yield table, [None] * len(starts)
            return
    except (pa.ArrowException, UnicodeDecodeError):
        pass
    if len(starts) == 1:
        yield _refused(piece, names, delimiter)
        return
    half = len(starts) // 2
    yield from _parsed(content, starts[:half], stops[:half], names, delimiter)
    yield from _parsed(content, starts[half:], stops[half:], names, delimiter)


def _read(content: bytes, names: list[str], delimiter: str) -> pa.Table:
    return pac.read_csv(
        io.BytesIO(content),
        read_options=pac.ReadOptions(use_threads=False, block_size=len(content) + 1, column_names=names),
        parse_options=pac.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pac.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _refused(record: bytes, names: list[str], delimiter: str) -> Parsed:
    """A record that can't be read, as one row of nulls, and why."""
    nulls = pa.table({name: pa.nulls(1, pa.string()) for name in names})
    try:
        text = record.decode("utf-8")
    except UnicodeDecodeError as problem:
        return nulls, [("invalid-utf8", f"byte {problem.start} of the record is not UTF-8")]
    try:
        fields = len(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), []))
        message = f"{fields} fields, and the header has {len(names)}"
    except csv.Error as problem:
        message = str(problem)
    return nulls, [("malformed-csv", f"{message}: {text[:60]!r}")]
