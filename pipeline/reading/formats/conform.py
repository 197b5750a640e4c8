"""A table as a file has it in, the job's frozen columns out: cast, filled, checked.

A value that does not fit is null: with an error of its row where a task reads the column, counted where it is only carried.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RowError
from pipeline.reading.formats.arrow_types import is_string, plain
from pipeline.reading.formats.exact import prints_back
from pipeline.rows import ERROR, ROW, error_array, first_error, no_errors, spread_error

MOST_NAMES = 50
OTHERS = "(others)"


@dataclass(frozen=True)
class Carried:
    """The columns that no task reads. unfit: how many of each one's values did not fit its type, and are null.

    every: all of the input's columns are to be carried. left_out: rows with a column that was not known when the job's columns
    were fixed, by column.
    """

    names: frozenset[str]
    unfit: Counter[str] = dataclasses.field(default_factory=Counter)
    every: bool = False
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)

    def count(self, name: str, errors: pa.StructArray | None) -> None:
        """Count the errors of a column."""
        found = 0 if errors is None else len(errors) - errors.null_count
        if found:
            self.unfit[name] += found

    def leave_out(self, names: Iterable[str], *, known: Set[str], rows: int = 1) -> None:
        """Count rows that have columns of these names, as far as they are not among the job's; the first fifty by name."""
        for name in names if self.every else ():
            if name not in known:
                named = name in self.left_out or len(self.left_out) < MOST_NAMES
                self.left_out[(name if name.isprintable() else ascii(name)) if named else OTHERS] += rows


def conform(
    table: pa.Table,
    *,
    schema: pa.Schema,
    row: pa.Array,
    errors: pa.StructArray | None = None,
    required: Sequence[str] = (),
    carried: Carried | None = None,
) -> pa.Table:
    """The columns of `schema`, then `row` and `error`. Absent columns are null, and so are values that do not fit.

    required: columns whose absence is an error of every row. carried: columns in which a value that does not fit is counted
    instead of being an error of its row, and numbers must print back as written; None under the first rules of reading.
    """
    columns: list[pa.ChunkedArray | pa.Array] = []
    found = [no_errors(table.num_rows) if errors is None else errors]
    present = set(table.column_names)
    for field in schema:
        if field.name not in present:
            columns.append(pa.nulls(table.num_rows, field.type))
            if field.name in required:
                found.append(absent_column(name=field.name, count=table.num_rows))
            continue
        column = plain(table[field.name], kind=field.type)
        values, column_errors = _fitted(column, field, exact=carried is not None)
        columns.append(values)
        if carried is not None and field.name in carried.names:
            carried.count(field.name, column_errors)
        elif column_errors is not None:
            found.append(column_errors)
    fields = [*schema, pa.field("__row__", ROW.type), pa.field("__error__", ERROR.type)]
    return pa.table([*columns, row, first_error(found)], schema=pa.schema(fields))


def _fitted(column: pa.Array, field: pa.Field, *, exact: bool) -> tuple[pa.Array, pa.StructArray | None]:
    """A valid column of the field's type, and the errors of values that did not fit or were invalid."""
    if column.type == field.type:
        return _valid(column, field.name)
    pieces, misfits = _cast(column, field)
    values, errors = _valid(pa.concat_arrays(pieces), field.name)
    found = [error_array(misfits)] if any(misfits) else []
    if exact and is_string(column.type):
        same = prints_back(column, values)
        if not same.all():
            error = ("wrong-type", f"column {field.name!r}: a value is not the same as {field.type}")
            found.append(spread_error(error=error, where=~same))
            values = pc.if_else(pa.array(same), values, pa.scalar(None, values.type))
    found += [] if errors is None else [errors]
    return values, first_error(found) if found else None


def _valid(column: pa.Array, name: str) -> tuple[pa.Array, pa.StructArray | None]:
    """A column with every invalid value (text that is not UTF-8) nulled: Arrow does not validate when it reads, but other
    readers fail on such values."""
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


def _bytes(text: pa.Array) -> pa.Array:
    """The bytes of text, unvalidated."""
    return text.cast(pa.binary_view() if pa.types.is_string_view(text.type) else pa.binary())


def _null_invalid(column: pa.Array, name: str) -> tuple[pa.Array, pa.StructArray]:
    """A nested column with every value that Arrow finds invalid nulled, checked one by one."""
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


def _cast(column: pa.Array, field: pa.Field) -> tuple[list[pa.Array], list[RowError | None]]:
    """A column cast by Arrow without loss to the field's type; if it fails, halves are cast until each failing value is alone,
    and becomes null with an error."""
    try:
        return [column.cast(field.type)], [None] * len(column)
    except pa.ArrowException:
        pass
    if len(column) == 1 and not column[0].is_valid:
        return [pa.nulls(1, field.type)], [None]
    if len(column) == 1:
        error = ("wrong-type", f"column {field.name!r}: {shown(column[0].as_py())} is no {field.type}")
        return [pa.nulls(1, field.type)], [error]
    half = len(column) // 2
    left, left_errors = _cast(column.slice(0, half), field)
    right, right_errors = _cast(column.slice(half), field)
    return left + right, left_errors + right_errors


def shown(value: object) -> str:
    """A value as an error message quotes it."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def absent_column(*, name: str, count: int) -> pa.StructArray:
    """The error of every row of a file that lacks a column the task needs."""
    return spread_error(error=("missing-column", f"the file has no column {name!r}"), where=np.ones(count, bool))


def is_blank(text: pa.Array) -> np.ndarray:
    """Where text is null or white space only."""
    trimmed = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(text), ""), True)
    return np.asarray(trimmed.to_numpy(zero_copy_only=False), bool)
