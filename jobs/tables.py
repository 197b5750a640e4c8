"""Converts a program's data (texts, dicts, Arrow, pandas, Polars) to an Arrow table, and adds the answers to it."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import RowError, SpecError
from pipeline.reading.formats import json_values
from pipeline.reading.formats.conform import shown
from pipeline.rows import error_array, first_error
from pipeline.spec.job_spec import JobSpec

ACCEPTED = "a list of texts or dicts, a dict of columns, an Arrow table, a pandas or a Polars frame"


def rows_of(data: Any, *, spec: JobSpec) -> tuple[pa.Table, pa.StructArray | None]:
    """The rows as an Arrow table, and the errors of values that no column can hold. Raises SpecError."""
    if isinstance(data, str | bytes):
        raise SpecError(f"the data is one text; give {ACCEPTED}")
    if isinstance(data, pa.Table):
        return data, None
    if isinstance(data, pa.RecordBatch):
        return pa.table(data), None
    if isinstance(data, Mapping):
        return _by_column(list(data), lambda name: pa.table({name: data[name]})), None
    if _is(data, "pandas", "DataFrame"):
        return _from_pandas(data, spec), None
    if _is(data, "polars", "DataFrame"):
        return _by_column(data.columns, lambda name: data.select(name).to_arrow()), None
    if isinstance(data, pa.Array | pa.ChunkedArray):
        return pa.table(dict.fromkeys(text_columns(spec), data)), None
    if not hasattr(data, "__iter__"):
        raise SpecError(f"the data is of type {type(data).__name__}; give {ACCEPTED}")
    values = list(data)
    if _is(data, "pandas", "Series"):
        values = [None if missing else value for value, missing in zip(values, data.isna(), strict=True)]
    return _from_values(values, spec)


def text_columns(spec: JobSpec) -> list[str]:
    """The columns that a bare list of texts fills: the one that each task needs. Raises SpecError if a task needs several."""
    columns: dict[str, None] = {}
    for task in spec.named_tasks.values():
        needed = [task.column(part.name) for part in task.task.parts() if part.required]
        if len(needed) > 1 or any(part.required and part.kind == "texts" for part in task.task.parts()):
            raise SpecError(
                f"a list of texts names no columns, and {task.name} reads {', '.join(needed)}; give dicts or a table"
            )
        columns.update(dict.fromkeys(needed))
    return list(columns)


def _from_values(values: Sequence[Any], spec: JobSpec) -> tuple[pa.Table, pa.StructArray | None]:
    if not any(isinstance(value, Mapping) for value in values):
        names = text_columns(spec)
        column, errors = _column(values, names[0], pa.string())
        return pa.table(dict.fromkeys(names, column)), errors
    strange = next((value for value in values if not isinstance(value, Mapping)), None)
    if strange is not None or not all(isinstance(value, Mapping) for value in values):
        raise SpecError(f"the data mixes dicts with {shown(strange)}; give {ACCEPTED}")
    columns, found = {}, []
    for name in dict.fromkeys(name for value in values for name in value):
        cells = [value.get(name) for value in values]
        columns[str(name)], errors = _column(cells, str(name), json_values.type_of(list(cells)) or pa.string())
        found += [] if errors is None else [errors]
    return pa.table(columns), first_error(found) if found else None


def _column(values: Sequence[Any], name: str, kind: pa.DataType) -> tuple[pa.Array, pa.StructArray | None]:
    """A column of a type, null with an error where a value does not fit."""
    try:
        return pa.array(values, kind), None
    except (pa.ArrowException, UnicodeEncodeError, TypeError, OverflowError):
        pass
    cells: list[Any] = []
    errors: list[RowError | None] = []
    for value in values:
        try:
            cells.append(pa.array([value], kind)[0])
            errors.append(None)
        except UnicodeEncodeError:
            cells.append(None)
            message = f"column {name!r}: the text holds a lone surrogate, which is no character"
            errors.append(("invalid-utf8", message))
        except (pa.ArrowException, TypeError, OverflowError):
            cells.append(None)
            errors.append(("wrong-type", f"column {name!r}: {shown(value)} is no {kind}"))
    return pa.array(cells, kind), error_array(errors)


def _from_pandas(frame: Any, spec: JobSpec) -> pa.Table:
    """Only the columns that the tasks read, since Arrow may not know the types of others."""
    names = [task.column(part.name) for task in spec.named_tasks.values() for part in task.task.parts()]
    read = [name for name in dict.fromkeys(names) if name in frame.columns]
    if not read:
        raise SpecError(
            f"the frame has no column {names[0]!r}; it has {', '.join(map(str, frame.columns))}; set columns"
        )
    return _by_column(read, lambda name: pa.Table.from_pandas(frame[[name]], preserve_index=False))


def _by_column(names: Sequence[str], table_of: Callable[[str], pa.Table]) -> pa.Table:
    """A table, converted column by column, since Arrow's error may not name the column. Raises SpecError, which does."""
    columns = {}
    for name in names:
        try:
            columns[name] = table_of(name)[name]
        except (pa.ArrowException, OverflowError) as error:
            raise SpecError(
                f"column {name!r} can't become an Arrow column: {error}; cast it to another type, such as text, or leave it out"
            ) from None
    return pa.table(columns)


def with_answers(data: Any, *, rows: pa.Table, answers: pa.Table, keep: Sequence[str] | None) -> Any:
    """The kept columns unchanged, then the answers. Raises SpecError if a name occurs in both."""
    names = list(data.columns) if _is(data, "pandas", "DataFrame") else rows.column_names
    if isinstance(data, pa.Array | pa.ChunkedArray) or not _has_columns(data):
        names = names[:1]  # the same texts, under the name of every task's column
    kept = names if keep is None else list(keep)
    missing = [name for name in kept if name not in names]
    if missing:
        raise SpecError(f"keep: the data has no column {missing[0]!r}; it has {', '.join(map(str, names))}")
    taken = [name for name in answers.column_names if name in kept]
    if taken:
        raise SpecError(
            f"the data has a column {taken[0]!r}, and so have the answers; set prefix, such as prefix='preln_'"
        )
    if _is(data, "pandas", "DataFrame"):
        return data[kept].assign(**{name: answers[name].to_pandas().to_numpy() for name in answers.column_names})
    if _is(data, "polars", "DataFrame"):
        import polars

        found = polars.from_arrow(answers)
        assert isinstance(found, polars.DataFrame)
        return data.select(kept).hstack(found)
    table = rows.select(kept)
    for name in answers.column_names:
        table = table.append_column(answers.schema.field(name), answers[name])
    return table


def _has_columns(data: Any) -> bool:
    tables = isinstance(data, pa.Table | pa.RecordBatch | Mapping)
    frames = _is(data, "pandas", "DataFrame") or _is(data, "polars", "DataFrame")
    return tables or frames or any(isinstance(value, Mapping) for value in data)


def _is(data: Any, module: str, name: str) -> bool:
    """Whether a value is a frame of a library, without importing the library."""
    found = sys.modules.get(module)
    return found is not None and isinstance(data, getattr(found, name))
