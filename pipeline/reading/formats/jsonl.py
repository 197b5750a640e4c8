"""Lines of JSON in, rows of the job's columns out.

A line that is no JSON object is a row of nulls with an error; a value of another type than its column is null with an
error. Blank lines are skipped. Arrow's parser reads blocks of lines; if it refuses a block, each field is read by itself, in
halves until each refused line is alone, so that a row depends on its own line only. Columns of JSON text, and lines whose
numbers or objects Arrow's parser would change, are read by `json_values`.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as paj

from pipeline.errors import RowError
from pipeline.reading.formats import json_values
from pipeline.reading.formats.arrow_types import JSON_TEXT, is_json, with_nulls_inside
from pipeline.reading.formats.conform import Carried, conform, shown
from pipeline.reading.formats.lines import LineBlock, line_borders
from pipeline.rows import error_array, first_error

Lines = Sequence[tuple[int, bytes]]
"""Offset in the file, and bytes, of each line that is a row."""


def json_rows(block: LineBlock, *, schema: pa.Schema, carried: Carried | None = None) -> pa.Table:
    """Every line that is not blank as a row."""
    content, starts, stops = line_borders(block)
    if not len(starts):
        return conform(schema.empty_table(), schema=schema, row=pa.array([], pa.int64()))
    typed = pa.schema([field.with_type(with_nulls_inside(field.type)) for field in schema if not is_json(field.type)])
    whole = _parse_whole(content, starts, stops, typed, strict=carried is not None and carried.every)
    if whole is not None:
        table, rows, borders, strange = whole
        errors = None
        if carried is not None and strange:
            _leave_out(_slices(content, rows, borders), schema, carried)
        lines = _slices(content, rows, borders) if carried is not None and _to_look_at(content, schema) else []
    else:
        every = _slices(content, starts, (starts - starts[0], stops - starts[0]))
        lines = [(start, line) for start, line in every if line.strip()]
        table, errors = _parse_lines(lines, typed, carried)
        rows = np.array([start for start, _ in lines], np.int64)
        if carried is not None:
            _leave_out(lines, schema, carried)
    if carried is not None and lines:
        table = _as_written(table, lines, schema=schema, carried=carried)
    return conform(table, schema=schema, row=pa.array(rows), errors=errors, carried=carried)


def _slices(content: bytes, rows: np.ndarray, borders: tuple[np.ndarray, np.ndarray]) -> Lines:
    begins, ends = borders
    return [
        (row, content[begin:end]) for row, begin, end in zip(rows.tolist(), begins.tolist(), ends.tolist(), strict=True)
    ]


def _to_look_at(content: bytes, schema: pa.Schema) -> bool:
    """Whether some line may hold a value that Arrow's parser would change or drop."""
    kinds = [field.type for field in schema]
    if any(is_json(kind) or json_values.has_objects(kind) for kind in kinds):
        return True
    return any(_has_numbers(kind) for kind in kinds) and json_values.LONG_NUMBER.search(content) is not None


def _has_numbers(kind: pa.DataType) -> bool:
    inner = any(_has_numbers(kind.field(index).type) for index in range(kind.num_fields))
    return inner or pa.types.is_floating(kind)


def _as_written(table: pa.Table, lines: Lines, *, schema: pa.Schema, carried: Carried) -> pa.Table:
    """The table with its columns of JSON text filled in, and null where a carried value would differ from what is written."""
    texts: dict[str, list[str | None]] = {field.name: [None] * len(lines) for field in schema if is_json(field.type)}
    typed = {field.name: field.type for field in schema if field.name in carried.names and not is_json(field.type)}
    nested = {name for name, kind in typed.items() if json_values.has_objects(kind)}
    numbers = {name for name, kind in typed.items() if _has_numbers(kind)}
    unfit: dict[str, list[int]] = {}
    for index, (_, line) in enumerate(lines):
        look_at = nested | (numbers if json_values.LONG_NUMBER.search(line) else set())
        if not texts and not look_at:
            continue
        try:
            text = line.decode("utf-8")
            if not isinstance(json_values.loads(text), dict):
                continue
            fields = json_values.raw_fields(text, texts.keys() | look_at)
        except ValueError:
            continue  # an error of its row already
        except RecursionError:
            carried.unfit.update(texts)
            continue
        for name, raw in fields.items():
            if name in texts:
                texts[name][index] = None if raw == "null" else raw
            elif not json_values.fits(json_values.loads(raw), typed[name]):
                unfit.setdefault(name, []).append(index)
    # One table in the end: each that is made of another with one column more or other takes as long as it has columns.
    columns = dict(zip(table.column_names, table.columns, strict=True))
    for name, rows in unfit.items():
        columns[name] = _without(columns[name].combine_chunks(), name, rows, carried)
    for name, values in texts.items():
        storage = [None if value is None or not json_values.is_text(value) else value for value in values]
        columns[name] = pa.ExtensionArray.from_storage(JSON_TEXT, pa.array(storage, pa.string()))
    return pa.table(columns)


def _without(column: pa.Array, name: str, rows: list[int], carried: Carried) -> pa.Array:
    """A column with null in some rows; values that were not null before are counted."""
    place = np.arange(len(column))
    place[rows] = -1
    kept = column.take(pa.array(place, mask=place < 0))
    if kept.null_count > column.null_count:
        carried.unfit[name] += kept.null_count - column.null_count
    return kept


def _parse_whole(
    content: bytes, starts: np.ndarray, stops: np.ndarray, schema: pa.Schema, *, strict: bool
) -> tuple[pa.Table, np.ndarray, tuple[np.ndarray, np.ndarray], bool] | None:
    """All lines in one call of Arrow's parser, with each line's offset and borders in the content; None unless every line is
    certainly one row. The last says, where strict, that some line may have a field that the schema lacks."""
    none = np.empty(0, np.int64)
    if not content:
        return schema.empty_table(), none, (none, none), False
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
        table, strange = _read_fields(content, schema, strict=strict)
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    return (table, rows, (begins, ends), strange) if table.num_rows == len(rows) else None


def _read_fields(content: bytes, schema: pa.Schema, *, strict: bool) -> tuple[pa.Table, bool]:
    """The table, and, where strict, whether there may be fields that the schema lacks. Raises ArrowException."""
    if strict:
        try:
            return _read_json(content, schema, unexpected="error"), False
        except pa.ArrowException:
            pass  # such a field, or what Arrow refuses either way
    return _read_json(content, schema), strict


def _leave_out(lines: Lines, schema: pa.Schema, carried: Carried) -> None:
    """Count the fields of lines that the schema lacks."""
    known = set(schema.names)
    for _, line in lines if carried.every else ():
        value, _ = parse_line(line)
        carried.leave_out([name for name, given in value.items() if given is not None], known=known)


def _parse_lines(lines: Lines, schema: pa.Schema, carried: Carried | None) -> tuple[pa.Table, pa.StructArray]:
    """Lines that Arrow refuses as a block, and their errors: objects are read field by field, other lines are null."""
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
        if carried is not None and field.name in carried.names:
            carried.count(field.name, error_array(misfits))
        elif any(misfits):
            errors.append(error_array(misfits).take(row_of_object))
    return _table(columns, schema, rows=len(lines)), first_error(errors)


def _table(columns: list[pa.Array], schema: pa.Schema, *, rows: int) -> pa.Table:
    """Columns as a table, which knows its number of rows without columns too."""
    return pa.table(columns, schema=schema) if columns else pa.table({"__none__": pa.nulls(rows)})


def _read_column(
    objects: Sequence[tuple[bytes, Mapping[str, Any]]], field: pa.Field
) -> tuple[list[pa.Array], list[RowError | None]]:
    """One field of lines (as bytes and as parsed), read by Arrow, in halves down to the single lines that it refuses."""
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
    """One field of one line as Arrow's parser reads it; null and the reason if it refuses."""
    try:
        column = _read_json(json.dumps({"value": value}).encode(), pa.schema([field.with_name("value")]))["value"]
        return column.combine_chunks(), None
    except RecursionError:
        return pa.nulls(1, field.type), (
            "wrong-type",
            f"column {field.name!r}: a value nested too deep is no {field.type}",
        )
    except pa.ArrowException:
        if isinstance(value, str) and pa.types.is_string(field.type):
            error = ("invalid-utf8", f"column {field.name!r}: the text holds a lone surrogate, which is no character")
        else:
            error = ("wrong-type", f"column {field.name!r}: {shown(value)} is no {field.type}")
        return pa.nulls(1, field.type), error


def _read_json(content: bytes, schema: pa.Schema, *, unexpected: str = "ignore") -> pa.Table:
    return paj.read_json(
        io.BytesIO(content),
        read_options=paj.ReadOptions(use_threads=False, block_size=len(content) + 1),
        parse_options=paj.ParseOptions(explicit_schema=schema, unexpected_field_behavior=unexpected),
    )


def parse_line(line: bytes) -> tuple[Mapping[str, Any], RowError | None]:
    """One line as a JSON object, or None and the reason."""
    try:
        value = json_values.loads(line.decode("utf-8"))
    except UnicodeDecodeError as problem:
        return {}, ("invalid-utf8", f"byte {problem.start} of the line is not UTF-8")
    except (ValueError, RecursionError) as problem:
        return {}, ("malformed-json", f"{problem}: {line[:60]!r}")
    if not isinstance(value, dict):
        return {}, ("malformed-json", f"the line is a JSON {type(value).__name__}, not an object: {line[:60]!r}")
    return value, None
