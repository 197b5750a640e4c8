"""A table as a file has it in, the job's frozen columns out: cast, filled, checked; what does not fit is an error of its row."""

import math
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rows import ERROR, ROW, RowError, error_array, first_error, no_errors, spread_error


def conform(
    table: pa.Table,
    *,
    schema: pa.Schema,
    row: pa.Array,
    errors: pa.StructArray | None = None,
    required: Sequence[str] = (),
) -> pa.Table:
    """The columns of `schema`, then `row` and `error`; an absent column is null, a value that does not fit too, with an error.

    required: columns whose absence is the error of every row.
    """
    columns: list[pa.ChunkedArray | pa.Array] = []
    found = [no_errors(table.num_rows) if errors is None else errors]
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            if field.name in required:
                found.append(absent_column(name=field.name, count=table.num_rows))
            continue
        column = table[field.name].combine_chunks()
        values, column_errors = _fitted(column, field)
        columns.append(values)
        if column_errors is not None:
            found.append(column_errors)
    fields = [*schema, pa.field("__row__", ROW.type), pa.field("__error__", ERROR.type)]
    return pa.table([*columns, row, first_error(found)], schema=pa.schema(fields))


def _fitted(column: pa.Array, field: pa.Field) -> tuple[pa.Array, pa.StructArray | None]:
    column, errors = _valid(column, field.name)
    if column.type == field.type:
        return column, errors
    try:
        return column.cast(field.type), errors
    except pa.ArrowException:
        values, cast_errors = _cast_each(column.to_pylist(), field)
        return values, cast_errors if errors is None else first_error([errors, cast_errors])


def _valid(column: pa.Array, name: str) -> tuple[pa.Array, pa.StructArray | None]:
    """A column with every invalid value (text that is no UTF-8) nulled: Arrow does not look when it reads, and other
    readers would stumble."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        kind = column.type
        if pa.types.is_dictionary(kind) and is_string(kind.value_type):
            text, errors = decode_utf8(_bytes(column.dictionary_decode()), name=name, kind=kind.value_type)
            return text.dictionary_encode().cast(kind), errors
        if is_string(kind):
            return decode_utf8(_bytes(column), name=name, kind=kind)
        return _null_invalid(column, name)
    return column, None


def is_string(kind: pa.DataType) -> bool:
    """Whether a type is text, in any of Arrow's three layouts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _bytes(text: pa.Array) -> pa.Array:
    """Text as the bytes it claims to be of, unchecked."""
    return text.cast(pa.binary_view() if pa.types.is_string_view(text.type) else pa.binary())


def _null_invalid(column: pa.Array, name: str) -> tuple[pa.Array, pa.StructArray]:
    """A nested column with each value nulled that Arrow finds invalid, one by one."""
    valid = np.ones(len(column), bool)
    for index in range(len(column)):
        try:
            pa.concat_arrays([column.slice(index, 1)]).validate(full=True)
        except pa.ArrowInvalid:
            valid[index] = False
    errors = spread_error(error=("invalid-utf8", f"column {name!r}: text inside the value is not UTF-8"), where=~valid)
    return pc.if_else(pa.array(valid), column, pa.scalar(None, column.type)), errors


def decode_utf8(column: pa.Array, *, name: str, kind: pa.DataType) -> tuple[pa.Array, pa.StructArray | None]:
    """Bytes as text; a value that is not UTF-8 is null with an error that says where."""
    try:
        return column.cast(kind), None
    except pa.ArrowInvalid:
        pass
    values: list[str | None] = []
    errors: list[RowError | None] = []
    for value in column.to_pylist():
        try:
            values.append(None if value is None else value.decode("utf-8"))
            errors.append(None)
        except UnicodeDecodeError as problem:
            values.append(None)
            errors.append(("invalid-utf8", f"column {name!r}: byte {problem.start} of the value is not UTF-8"))
    return pa.array(values, kind), error_array(errors)


def _cast_each(values: Sequence[object], field: pa.Field) -> tuple[pa.Array, pa.StructArray]:
    """Python values one by one: what does not fit the field is null with an error."""
    fitted: list[object] = []
    errors: list[RowError | None] = []
    for value in values:
        error = misfit(value, field)
        fitted.append(None if error else value)
        errors.append(error)
    return pa.array(fitted, field.type), error_array(errors)


def misfit(value: object, field: pa.Field) -> RowError | None:
    """Why a Python value does not fit a field; None when it does."""
    try:
        if not _alike(value, field.type):
            raise TypeError  # as Arrow does for what it does not convert
        pa.scalar(value, field.type)
    except UnicodeEncodeError:
        return ("invalid-utf8", f"column {field.name!r}: the text holds a lone surrogate, which is no character")
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return ("wrong-type", f"column {field.name!r}: {shown(value)} is no {field.type}")
    return None


def _alike(value: object, kind: pa.DataType) -> bool:
    """Whether a value is of the kind that a type holds. Arrow would cut fractions off, and take a text for a list of letters."""
    if value is None:
        return True
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return isinstance(value, list) and all(_alike(item, kind.value_type) for item in value)
    if pa.types.is_struct(kind):
        return isinstance(value, dict) and all(_alike(value.get(field.name), field.type) for field in kind)
    if pa.types.is_floating(kind):
        return not isinstance(value, bool)
    if pa.types.is_integer(kind) or pa.types.is_temporal(kind):
        return not isinstance(value, float | Decimal) or (math.isfinite(value) and value == int(value))
    return True


def shown(value: object) -> str:
    """A value as an error message quotes it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def absent_column(*, name: str, count: int) -> pa.StructArray:
    """The error of every row of a file that lacks a column the task needs."""
    return spread_error(error=("missing-column", f"the file has no column {name!r}"), where=np.ones(count, bool))


def is_blank(text: pa.Array) -> np.ndarray:
    """Where text is null or only white space."""
    trimmed = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(text), ""), True)
    return np.asarray(trimmed.to_numpy(zero_copy_only=False), bool)
