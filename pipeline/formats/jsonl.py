"""Lines of JSON in, rows of the job's columns out.

A line that is no JSON object is a row of nulls with an error; a value of another type than its column is null with an
error. Blank lines are nothing. Arrow's parser reads blocks of lines; a block that it refuses is halved until the refused
lines stand alone, so that what a row holds follows from its own line and no other.
"""

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as paj

from pipeline.formats.conform import conform, shown
from pipeline.formats.lines import LineBlock, line_borders
from pipeline.rows import RowError, error_array


def json_rows(block: LineBlock, *, schema: pa.Schema) -> pa.Table:
    """Every line that is not blank as a row."""
    content, starts, stops = line_borders(block)
    tables = list(_parsed(content, starts, stops, schema)) if len(starts) else []
    empty = conform(schema.empty_table(), schema=schema, row=pa.array([], pa.int64()))
    return pa.concat_tables(tables or [empty]).combine_chunks()


def _parsed(content: bytes, starts: np.ndarray, stops: np.ndarray, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of consecutive lines. content: the bytes from the first line's beginning on."""
    whole = _parse_whole(content, starts, stops, schema)
    if whole is not None:
        yield conform(whole[0], schema=schema, row=pa.array(whole[1]))
    elif len(starts) == 1:
        line = content[: int(stops[0] - starts[0])]
        if line.strip():
            yield _parse_alone(line, int(starts[0]), schema)
    else:
        half = len(starts) // 2
        border = int(starts[half] - starts[0])
        yield from _parsed(content[:border], starts[:half], stops[:half], schema)
        yield from _parsed(content[border:], starts[half:], stops[half:], schema)


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


def _parse_alone(line: bytes, start: int, schema: pa.Schema) -> pa.Table:
    """A line that Arrow refuses, as one row: each field is read by itself."""
    record, error = parse_line(line)
    columns = []
    for field in schema:
        value, misfit = _read_field(record.get(field.name), field)
        columns.append(value)
        error = error or misfit
    table = pa.table(columns, schema=schema)
    return conform(table, schema=schema, row=pa.array([start], pa.int64()), errors=error_array([error]))


def _read_field(value: Any, field: pa.Field) -> tuple[pa.Array, RowError | None]:
    """One field of one line as Arrow's parser reads it; null, and why, where it refuses."""
    try:
        column = _read_json(json.dumps({"value": value}).encode(), pa.schema([field.with_name("value")]))["value"]
        return column.combine_chunks(), None
    except pa.ArrowException:
        if isinstance(value, str) and pa.types.is_string(field.type):
            error = ("invalid-utf8", f"column {field.name!r}: the text holds a lone surrogate, which is no character")
        else:
            error = ("wrong-type", f"column {field.name!r}: {shown(value)} is no {field.type}")
        return pa.nulls(1, field.type), error


def _read_json(content: bytes, schema: pa.Schema) -> pa.Table:
    return paj.read_json(
        io.BytesIO(content),
        read_options=paj.ReadOptions(use_threads=False, block_size=len(content) + 1),
        parse_options=paj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


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
