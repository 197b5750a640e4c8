"""Columns of any text-like Arrow type in, plain strings and the reasons of rows that can't be answered out.

Legend: R rows, I items.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RowError
from pipeline.ragged import offsets_of
from pipeline.reading.formats.arrow_types import is_json, is_string, plain_array, plain_type
from pipeline.reading.formats.conform import absent_column, decode_utf8, is_blank
from pipeline.rows import EMPTY, first_error, spread_error
from pipeline.spec.job_spec import JobSpec
from pipeline.spec.named_tasks import NamedTask
from pipeline.tasks.task import Part

CONTROL = r"[\x00-\x08\x0e-\x1f\x7f]"
"""Characters that only misread text has. Tab, line ends, vertical tab and form feed are not among them."""


def item_parts(rows: pa.Table, *, marks: pa.Table, task: NamedTask) -> dict[str, pa.Array]:
    """The parts of each item again, from the first row that has it; what `Task.encode` was given."""
    item_R = pc.fill_null(marks["item"], -1).to_numpy()
    items, first = np.unique(item_R, return_index=True)
    first_I = pa.array(first[items >= 0])
    columns = {part.name: task.column(part.name) for part in task.task.parts()}
    return {
        name: plain_text(rows[column].combine_chunks().take(first_I), column)[0]
        for name, column in columns.items()
        if column in rows.column_names
    }


def checked_parts(rows: pa.Table, *, task: NamedTask, spec: JobSpec) -> tuple[dict[str, pa.Array], pa.StructArray]:
    """The columns that the task reads, as plain strings (or lists of them), and the first error of each row that has one."""
    found = [rows["__error__"].combine_chunks()]
    parts: dict[str, pa.Array] = {}
    for number, part in enumerate(task.task.parts()):
        column = task.column(part.name)
        if column not in rows.column_names:
            if part.required:
                found.append(absent_column(name=column, count=rows.num_rows))
            continue
        values, errors = plain_text(rows[column].combine_chunks(), column)
        if errors is not None:
            found.append(errors)
        parts[part.name] = values
        found += _part_errors(values, part, first=number == 0, column=column, spec=spec)
    return parts, first_error(found)


def _part_errors(values: pa.Array, part: Part, *, first: bool, column: str, spec: JobSpec) -> list[pa.StructArray]:
    """The errors of a part's values, row by row, the most serious first."""
    missing = (EMPTY, f"column {column!r} is null or blank") if first else _missing(part, column)
    if part.kind == "texts":
        lengths = pc.fill_null(values.value_lengths(), 0).to_numpy(zero_copy_only=False)
        absent = lengths == 0 if first else _nulls(values)
        texts, owner = values.flatten(), pc.list_parent_indices(values).to_numpy()
    else:
        absent = is_blank(values) if first or part.required else _nulls(values)
        texts, owner = values, np.arange(len(values))
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)
    large = np.bincount(owner, weights=sizes, minlength=len(values)) > spec.limits.text_bytes
    found = [
        spread_error(error=missing, where=np.asarray(absent, bool)),
        spread_error(
            error=("too-large", f"column {column!r} is longer than limits.text_bytes ({spec.limits.text_bytes})"),
            where=large,
        ),
    ]
    if spec.input.control_characters == "error":
        controlled = np.zeros(len(values), bool)
        controlled[
            owner[pc.fill_null(pc.match_substring_regex(texts, CONTROL), False).to_numpy(zero_copy_only=False)]
        ] = True
        message = (
            f"column {column!r} holds control characters; input.control_characters: keep reads them like any other"
        )
        found.append(spread_error(error=("control-characters", message), where=controlled))
    return found


def _missing(part: Part, column: str) -> RowError:
    blank = " or blank" if part.required and part.kind == "text" else ""
    return (f"missing-{part.name}", f"column {column!r} is null{blank}")


def _nulls(values: pa.Array) -> np.ndarray:
    return np.asarray(values.is_null().to_numpy(zero_copy_only=False), bool)


def plain_text(column: pa.Array, name: str) -> tuple[pa.Array, pa.StructArray | None]:
    """Any Arrow column of text as large_string (dictionaries decoded, bytes read as UTF-8), lists of text as they are."""
    column = plain_array(column)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_fixed_size_binary(kind):
        column, kind = column.cast(pa.binary()), pa.binary()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return decode_utf8(column, name=name, kind=pa.large_string())
    if is_texts(kind):
        return _plain_lists(column, name)
    return column.cast(pa.large_string()), None


def _plain_lists(column: pa.Array, name: str) -> tuple[pa.Array, pa.StructArray | None]:
    """Lists of text as lists of large_string; a row with a value that is not UTF-8 has an error."""
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    offsets = offsets_of(lengths.to_numpy(zero_copy_only=False))
    child = column.flatten()
    if pa.types.is_string(child.type) or pa.types.is_large_string(child.type):
        child = child.cast(pa.large_binary() if pa.types.is_large_string(child.type) else pa.binary())
    texts, faults = plain_text(child, name)
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), texts, mask=pa.array(_nulls(column)))
    if faults is None or faults.null_count == len(faults):
        return lists, None
    bad = np.flatnonzero(faults.is_valid().to_numpy(zero_copy_only=False))
    rows, place = np.unique(np.searchsorted(offsets, bad, side="right") - 1, return_index=True)
    source = np.full(len(column), -1)
    source[rows] = bad[place]
    return lists, faults.take(pa.array(source, mask=source < 0))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read as text."""
    flat = plain_type(kind, inside=True)
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_null, is_json)
    return is_string(flat) or any(test(flat) for test in tests)


def is_texts(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists of text."""
    flat = plain_type(kind, inside=True)
    lists = pa.types.is_list(flat) or pa.types.is_large_list(flat) or pa.types.is_fixed_size_list(flat)
    return lists and is_text(flat.value_type)
