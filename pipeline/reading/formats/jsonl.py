"""Lines of JSON in, rows of the job's columns out.

A line that is no JSON object is a row of nulls with an error; a value of another type than its column is null with an
error. Blank lines are nothing. Arrow's parser reads blocks of lines; of a block that it refuses each field is read apart, in
halves until the refused lines stand alone, so that what a row holds follows from its own line and no other.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as paj

from pipeline.errors import RowError
from pipeline.reading.formats.conform import conform, shown
from pipeline.reading.formats.lines import LineBlock, line_borders
from pipeline.rows import error_array, first_error


def json_rows(block: LineBlock, *, schema: pa.Schema) -> pa.Table:
    """Every line that is not blank as a row."""
    content, starts, stops = line_borders(block)
    if not len(starts):
        return conform(schema.empty_table(), schema=schema, row=pa.array([], pa.int64()))
    whole = _parse_whole(content, starts, stops, schema)
    if whole is not None:
        return conform(whole[0], schema=schema, row=pa.array(whole[1]))
    base = int(starts[0])
    lines = [
        (start, content[start - base : stop - base])
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    ]
    return _parse_lines([(start, line) for start, line in lines if line.strip()], schema)


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


def _parse_lines(lines: Sequence[tuple[int, bytes]], schema: pa.Schema) -> pa.Table:
    """(offset, bytes) of lines that Arrow refuses together as rows: those that are objects field by field, the others null."""
    parsed = [parse_line(line) for _, line in lines]
    sound = [index for index, (_, error) in enumerate(parsed) if error is None]
    objects = [(lines[index][1], parsed[index][0]) for index in sound]
    place = np.full(len(lines), -1)
    place[sound] = np.arange(len(sound))
    row_of_object = pa.array(place, mask=place < 0)
    columns, errors = [], [error_array([error for _, error in parsed])]
    for field in schema:
        pieces, misfits = _read_column(objects, field)
        columns.append(pa.concat_arrays([pa.nulls(0, field.type), *pieces]).take(row_of_object))
        if any(misfits):
            errors.append(error_array(misfits).take(row_of_object))
    starts = pa.array([start for start, _ in lines], pa.int64())
    return conform(pa.table(columns, schema=schema), schema=schema, row=starts, errors=first_error(errors))


def _read_column(
    objects: Sequence[tuple[bytes, Mapping[str, Any]]], field: pa.Field
) -> tuple[list[pa.Array], list[RowError | None]]:
    """One field of lines (as bytes and as parsed), by Arrow where it takes it, in halves down to the lines that it refuses."""
    if not objects:
        return [], []
    try:
        table = _read_json(b"\n".join(line for line, _ in objects), pa.schema([field]))
        if table.num_rows == len(objects):
            return table[field.name].chunks, [None] * len(objects)
    except pa.ArrowException:
        pass
    if len(objects) == 1:
        value, error = _read_field(objects[0][1].get(field.name), field)
        return [value], [error]
    half = len(objects) // 2
    (left, left_errors), (right, right_errors) = (
        _read_column(objects[:half], field),
        _read_column(objects[half:], field),
    )
    return left + right, left_errors + right_errors


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
