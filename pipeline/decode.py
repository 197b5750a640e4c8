"""Rows, marks, windows and answers of a shard in, its annotated rows out: every row of the input once, in its order."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.bundle import ShardTables
from pipeline.inference.answers import answer_arrays
from pipeline.output.columns import carried_columns, output_schema
from pipeline.reading.text_columns import item_parts
from pipeline.rows import EMPTY, ERROR_TYPE, first_error, no_errors
from pipeline.spec.job_spec import JobSpec
from pipeline.spec.named_tasks import NamedTask
from pipeline.tasks.task import Decoded, ModelFacts


def annotated(shard: ShardTables, *, schema: pa.Schema, spec: JobSpec, facts: Mapping[str, ModelFacts]) -> pa.Table:
    """The shard's output rows. `error` is the first task's that has one, blank texts after all others; a task's answers are null
    only for its own errors."""
    rows = shard.rows
    assert rows is not None, "a shard that was not read has a failure instead"
    answers: list[pa.Array] = []
    errors: list[pa.StructArray] = []
    truncated = pa.array(np.zeros(rows.num_rows, np.bool_))
    for name, task in spec.named_tasks.items():
        columns, own = _answered(rows, shard.tasks[name], task=task, facts=facts[name])
        answers += columns
        errors.append(_naming_task(own, task, but=rows["__error__"].combine_chunks()))
        truncated = pc.or_(truncated, shard.tasks[name]["marks"]["truncated"].combine_chunks())
    columns = [rows[name] for name in carried_columns(schema=schema, keep=spec.input.keep)]
    columns += [pa.array([shard.shard.file.uri]).take(pa.array(np.zeros(rows.num_rows, np.int32))), rows["__row__"]]
    columns += [*answers, truncated, first_error([*(_not_blank(own) for own in errors), *errors])]
    return pa.table(columns, schema=output_schema(schema=schema, spec=spec, facts=facts))


def _answered(
    rows: pa.Table, tables: Mapping[str, pa.Table], *, task: NamedTask, facts: ModelFacts
) -> tuple[list[pa.Array], pa.StructArray]:
    """One task's columns, and its errors. A row whose item, or one of its windows, has an error has null answers."""
    marks = tables["marks"]
    item = marks["item"].combine_chunks()
    items = (pc.max(item).as_py() if item.null_count < len(item) else -1) + 1
    decoded, item_errors = decode_items(rows, tables, items=items, task=task, facts=facts)
    errors = first_error([marks["error"].combine_chunks(), item_errors.take(item)])
    answered = pc.if_else(errors.is_null(), item, pa.scalar(None, pa.int32()))
    return [column.take(answered) for column in decoded.columns], errors


def _naming_task(errors: pa.StructArray, task: NamedTask, *, but: pa.StructArray) -> pa.StructArray:
    """Errors with the task's name before their messages, in a job of several tasks; errors of the row itself (`but`) stay."""
    if not task.of_several or errors.null_count == len(errors):
        return errors
    messages = pc.struct_field(errors, "message")
    messages = pc.if_else(but.is_valid(), messages, pc.binary_join_element_wise(f"{task.name}: ", messages, ""))
    parts = [pc.struct_field(errors, "reason"), messages]
    return pa.StructArray.from_arrays(parts, fields=list(ERROR_TYPE), mask=errors.is_null())


def _not_blank(errors: pa.StructArray) -> pa.StructArray:
    """The errors that are not of blank texts."""
    blank = pc.fill_null(pc.equal(pc.struct_field(errors, "reason"), EMPTY), True)
    return pc.if_else(blank, pa.scalar(None, ERROR_TYPE), errors)


def decode_items(
    rows: pa.Table, tables: Mapping[str, pa.Table], *, items: int, task: NamedTask, facts: ModelFacts
) -> tuple[Decoded, pa.StructArray]:
    """The task's columns for every item, and why an item has none."""
    windows, answers = tables["windows"], answer_arrays(tables["answers"])
    failures = tables["failures"]["error"].combine_chunks()
    if failures.null_count < len(failures):
        answers = {column: _zeros_for_failed(values) for column, values in answers.items()}
    window_item = windows["item"].to_numpy()
    item_errors = _of_items(failures, window_item, items)
    if answers and items:
        parts = item_parts(rows, marks=tables["marks"], task=task)
        decoded = task.task.decode(parts=parts, windows=windows, answers=answers, facts=facts)
        return decoded, first_error([item_errors, decoded.errors])
    return Decoded(columns=task.task.unasked(items, facts), errors=no_errors(items)), item_errors


def _zeros_for_failed(values: np.ndarray) -> np.ndarray:
    """Unanswered values (NaN scores, ids of -1) as zeros, so that tasks can compute on them; the results are not used."""
    return np.nan_to_num(values) if np.issubdtype(values.dtype, np.floating) else np.maximum(values, 0)


def _of_items(failures: pa.StructArray, window_item: np.ndarray, items: int) -> pa.StructArray:
    """The first failure among an item's windows."""
    if failures.null_count == len(failures):
        return no_errors(items)
    failed = np.flatnonzero(failures.is_valid().to_numpy(zero_copy_only=False))
    owners, first = np.unique(window_item[failed], return_index=True)
    index = np.full(items, -1, np.int64)
    index[owners] = failed[first]
    return failures.take(pa.array(index, mask=index < 0))
