"""Text lines and JSON lines: byte ranges on line borders, or one sequential pass through a compressed file.

`row` of a record is the byte offset of its line in the (decompressed) file. A line that is no JSON object is a row with
nulls and an error. Blank lines are rows of a text file (with the error `empty`) and nothing in a JSON lines file.
"""

import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as paj

from pipeline.errors import SourceError
from pipeline.formats.conform import conform, decode_utf8, fit_column
from pipeline.rows import RowError, error_array, first_error
from pipeline.shards import CutRule
from pipeline.storage import filesystem, read_range

TEXT_SCHEMA = pa.schema([("text", pa.string())])
"""The one column of a text file."""

CHUNK_BYTES = 1 << 20
_NEWLINE = 10
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class LineBlock:
    """Whole lines of a file: their bytes, and where in the file they begin."""

    content: bytes
    offset: int

    @property
    def stop(self) -> int:
        """Offset behind the last byte."""
        return self.offset + len(self.content)


def read_block(*, uri: str, first: int, stop: int, size: int, line_bytes: int) -> LineBlock:
    """The lines that begin in bytes [first, stop) of a file of `size` bytes. Raises SourceError."""
    start = max(first - 1, 0)
    content = _fetch(uri, start, min(stop, size))
    if first > 0:
        border = content.find(b"\n")
        if border < 0:
            return LineBlock(b"", stop)  # one line spans the whole range and began before it
        start, content = start + border + 1, content[border + 1 :]
    if start >= stop:
        return LineBlock(b"", stop)
    pieces, reached = [content], start + len(content)
    while reached < size and not pieces[-1].endswith(b"\n"):
        if reached - stop > line_bytes:
            raise SourceError(
                f"{uri}: the line at byte {stop} or before is over limits.line_bytes ({line_bytes})",
                reason="unreadable",
            )
        more = _fetch(uri, reached, min(reached + CHUNK_BYTES // 4, size))
        if not more:
            break
        border = more.find(b"\n")
        pieces.append(more if border < 0 else more[: border + 1])
        reached += len(pieces[-1])
    return LineBlock(b"".join(pieces), start)


def _fetch(uri: str, start: int, stop: int) -> bytes:
    try:
        return read_range(uri, start, stop)
    except FileNotFoundError as error:
        raise SourceError(f"{uri}: the file is gone", reason="gone") from error


@dataclass(frozen=True)
class StreamBlock:
    """One shard's worth of a file that only reads in sequence."""

    lines: LineBlock
    last: bool


def stream_blocks(*, uri: str, compression: str, rule: CutRule, line_bytes: int) -> Iterator[StreamBlock]:
    """A compressed file in blocks of at most `rule.rows` lines and about `rule.bytes` bytes, the same at every reading.

    Raises SourceError where the stream breaks; blocks before that are whole.
    """
    fs, path = filesystem(uri)
    try:
        with fs.open(path, "rb", compression=compression, block_size=4 * CHUNK_BYTES) as stream:
            yield from _cut_stream(stream, uri=uri, rule=rule, line_bytes=line_bytes)
    except FileNotFoundError as error:
        raise SourceError(f"{uri}: the file is gone", reason="gone") from error
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{uri}: {type(error).__name__}: {error}", reason="corrupt") from error


def _cut_stream(stream: IO[bytes], *, uri: str, rule: CutRule, line_bytes: int) -> Iterator[StreamBlock]:
    held, offset, ended = b"", 0, False
    while True:
        cut = _cut_point(held, rule=rule, ended=ended)
        if cut is None:
            if len(held) > rule.bytes + line_bytes:
                raise SourceError(
                    f"{uri}: the line at byte {offset} is over limits.line_bytes ({line_bytes})", reason="unreadable"
                )
            more = stream.read(max(CHUNK_BYTES, rule.bytes // 4))
            ended = not more
            held += more
            continue
        if cut == len(held) and not ended:  # is there more behind the cut?
            more = stream.read(CHUNK_BYTES)
            ended = not more
            held += more
        yield StreamBlock(LineBlock(held[:cut], offset), last=ended and cut == len(held))
        if ended and cut == len(held):
            return
        held, offset = held[cut:], offset + cut


def _cut_point(held: bytes, *, rule: CutRule, ended: bool) -> int | None:
    """How many bytes of what is held make the next block; None when more must be read to know."""
    newlines = np.flatnonzero(np.frombuffer(held, np.uint8) == _NEWLINE)
    by_rows = int(newlines[rule.rows - 1]) + 1 if len(newlines) >= rule.rows else None
    full = np.searchsorted(newlines, rule.bytes - 1)
    by_bytes = int(newlines[full]) + 1 if full < len(newlines) else None
    cuts = [cut for cut in (by_rows, by_bytes) if cut is not None]
    if cuts:
        return min(cuts)
    return len(held) if ended else None


def text_rows(block: LineBlock, *, schema: pa.Schema) -> pa.Table:
    """Every line as a row with one column, `text`; line ends (LF, CRLF) and a byte order mark are no part of it."""
    content, starts, _ = _line_borders(block)
    if not len(starts):
        return conform(TEXT_SCHEMA.empty_table(), schema=schema, row=pa.array([], pa.int64()))
    content = content.removesuffix(b"\n")
    lines = pc.split_pattern(pa.array([content], pa.large_binary()), b"\n").values
    if b"\r\n" in content or content.endswith(b"\r"):
        lines = pa.array([line.removesuffix(b"\r") for line in lines.to_pylist()], pa.large_binary())
    text, errors = decode_utf8(lines, name="text", kind=pa.large_string())
    return conform(pa.table({"text": text}), schema=schema, row=pa.array(starts), errors=errors)


def json_rows(block: LineBlock, *, schema: pa.Schema) -> pa.Table:
    """Every line that is not blank as a row; one that is no JSON object, or a value of another type, is an error of its row.

    Arrow's parser reads them all at once, or, where it refuses one of them, Python's reads each: a row is the same either
    way, so that it depends on no other line of its shard.
    """
    content, starts, stops = _line_borders(block)
    parsed = _parse_whole(content, starts, stops, schema)
    if parsed is not None:
        table, rows = parsed
        return conform(table, schema=schema, row=pa.array(rows))
    return _parse_each(content, starts, stops, schema)


def _line_borders(block: LineBlock) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Bytes without a byte order mark, and for each line its offset in the file and the offset behind it.

    The mark is replaced by nothing but still counts in the offsets, which are those of the file.
    """
    content = block.content
    skipped = len(_BOM) if block.offset == 0 and content.startswith(_BOM) else 0
    content = content[skipped:]
    if not content:
        return b"", np.empty(0, np.int64), np.empty(0, np.int64)
    newlines = np.flatnonzero(np.frombuffer(content, np.uint8) == _NEWLINE).astype(np.int64)
    stops = newlines if content.endswith(b"\n") else np.append(newlines, len(content))
    starts = np.concatenate([[0], stops[:-1] + 1]).astype(np.int64)
    return content, starts + block.offset + skipped, stops + block.offset + skipped


def _parse_whole(
    content: bytes, starts: np.ndarray, stops: np.ndarray, schema: pa.Schema
) -> tuple[pa.Table, np.ndarray] | None:
    """All lines in one call of Arrow's parser; None unless it is sure that one line is one row."""
    if not content:
        return schema.empty_table(), np.empty(0, np.int64)
    base = int(starts[0])
    raw = np.frombuffer(content, np.uint8)
    begins, ends = starts - base, stops - base
    ends = ends - ((ends > begins) & (raw[np.maximum(ends - 1, 0)] == 13))
    filled = ends > begins
    begins, ends, rows = begins[filled], ends[filled], starts[filled]
    if not len(rows) or (raw[begins] != ord("{")).any() or (raw[ends - 1] != ord("}")).any():
        return None
    try:
        content.decode("utf-8")  # Arrow does not look
        table = _read_json(content, schema)
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    return (table, rows) if table.num_rows == len(rows) else None


def _read_json(content: bytes, schema: pa.Schema) -> pa.Table:
    return paj.read_json(
        io.BytesIO(content),
        read_options=paj.ReadOptions(use_threads=False, block_size=len(content) + 1),
        parse_options=paj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


def _parse_each(content: bytes, starts: np.ndarray, stops: np.ndarray, schema: pa.Schema) -> pa.Table:
    base = int(starts[0]) if len(starts) else 0
    rows: list[int] = []
    records: list[Mapping[str, Any]] = []
    errors: list[RowError | None] = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        line = content[start - base : stop - base]
        if not line.strip():
            continue
        record, error = parse_line(line)
        rows.append(start)
        records.append(record)
        errors.append(error)
    columns, found = {}, [error_array(errors)]
    for field in schema:
        given = [_as_arrow_reads(record.get(field.name), field.type) for record in records]
        values, column_errors = fit_column(given, field)
        columns[field.name] = values
        if column_errors is not None:
            found.append(column_errors)
    table = pa.table(columns, schema=schema) if columns else pa.table({})
    return conform(table, schema=schema, row=pa.array(rows, pa.int64()), errors=first_error(found))


def _as_arrow_reads(value: Any, kind: pa.DataType) -> object:
    """A JSON value as Arrow's JSON parser reads it for a type, where its conversion from Python is narrower."""
    if pa.types.is_floating(kind) and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str | int | float) and (
        pa.types.is_decimal(kind) or (pa.types.is_timestamp(kind) and isinstance(value, str))
    ):
        try:
            return _read_json(json.dumps({"value": value}).encode(), pa.schema([("value", kind)]))["value"][0].as_py()
        except pa.ArrowException:
            return value
    if pa.types.is_list(kind) and isinstance(value, list):
        return [_as_arrow_reads(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind) and isinstance(value, dict):
        return {field.name: _as_arrow_reads(value.get(field.name), field.type) for field in kind}
    return value


def parse_line(line: bytes) -> tuple[Mapping[str, Any], RowError | None]:
    """One line as a JSON object, or nothing and why."""
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as problem:
        return {}, ("invalid-utf8", f"byte {problem.start} of the line is not UTF-8")
    except (ValueError, RecursionError) as problem:
        return {}, ("malformed-json", f"{problem}: {line[:60]!r}")
    if not isinstance(value, dict):
        return {}, ("malformed-json", f"the line is a JSON {type(value).__name__}, not an object: {line[:60]!r}")
    return value, None
