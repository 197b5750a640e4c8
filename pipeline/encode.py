"""Rows of a shard in, windows of token ids out; rows that no model can answer are told apart and marked first.

Identical inputs are encoded, and later computed, once: the distinct ones are the shard's items.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.boundary import Head
from models.checkpoint import Checkpoint
from models.named_heads import head_folder
from models.tokenizer import load_tokenizer
from pipeline.bundle import of_task
from pipeline.errors import SpecError
from pipeline.formats.conform import absent_column, decode_utf8, is_blank
from pipeline.rows import EMPTY, RowError, first_error, spread_error
from pipeline.sequences import numbered
from pipeline.spec import JobSpec
from pipeline.tasks.task import HeadAsk, ModelFacts, Part

CONTROL = r"[\x00-\x08\x0e-\x1f\x7f]"
"""Characters that no text has unless it was read wrongly; tab, line ends, vertical tab and form feed are no such."""


def model_facts(spec: JobSpec) -> ModelFacts:
    """What the task of a job of one may know of its checkpoint; read once a process. Raises CheckpointError, SpecError."""
    return _model_facts(spec.model.checkpoint, "", spec.model.max_length)


def facts_of(spec: JobSpec) -> dict[str, ModelFacts]:
    """What each of the job's tasks may know of its head's checkpoint, by the names of `JobSpec.each`."""
    return {name: _model_facts(spec.model.checkpoint, name, spec.model.max_length) for name in spec.each()}


def asks_of(spec: JobSpec, facts: Mapping[str, ModelFacts]) -> dict[str, HeadAsk]:
    """What each of the job's tasks asks of the model."""
    return {name: one.one_task.asks(facts[name]) for name, one in spec.each().items()}


def heads_of(spec: JobSpec, facts: Mapping[str, ModelFacts]) -> tuple[Head, ...] | dict[str, Head]:
    """The heads that the model must have: kinds in a job of one task, else name -> kind."""
    if not spec.tasks:
        return spec.one_task.heads(facts[""])
    return {name: ask.head for name, ask in asks_of(spec, facts).items()}


@cache
def _model_facts(root: str, name: str, wanted_length: int | None) -> ModelFacts:
    checkpoint = head_folder(checkpoint=root, name=name) if name else root
    config = Checkpoint.open(checkpoint).config
    tokenizer = load_tokenizer(checkpoint)
    limit = config.max_position_embeddings - config.pad_token_id - 1
    limit = min(limit, tokenizer.model_max_length or limit)
    if wanted_length is not None and wanted_length > limit:
        raise SpecError(
            f"model.max_length: {wanted_length} tokens are more than {checkpoint} can take, which is {limit}"
        )
    return ModelFacts(config=config, tokenizer=tokenizer, max_length=wanted_length or limit)


def encode_tasks(rows: pa.Table, *, spec: JobSpec, facts: Mapping[str, ModelFacts]) -> dict[str, pa.Table]:
    """All that `pipeline.bundle` says of encoding a shard: each task's marks and windows, and what these have in common."""
    encoded = {name: encode_rows(rows, spec=one, facts=facts[name]) for name, one in spec.each().items()}
    tables = {of_task("marks", name): marks for name, (marks, _) in encoded.items()}
    windows = numbered({name: windows for name, (_, windows) in encoded.items()})
    return tables | {of_task("windows", name): table for name, table in windows.items()}


def encode_rows(rows: pa.Table, *, spec: JobSpec, facts: ModelFacts) -> tuple[pa.Table, pa.Table]:
    """(marks, windows) of a shard's rows for one task, as `pipeline.bundle` describes them."""
    parts, errors = checked_parts(rows, spec=spec)
    answerable = np.asarray(errors.is_null().to_numpy(zero_copy_only=False), bool)
    items, item_of_row = distinct({name: part.filter(pa.array(answerable)) for name, part in parts.items()})
    item_R = np.full(rows.num_rows, -1, np.int32)
    item_R[answerable] = item_of_row
    encoding = spec.one_task.encode(items, facts)
    item = pa.array(item_R, mask=~answerable)
    errors = first_error([errors, encoding.errors.take(item)])
    truncated = pc.fill_null(pa.array(encoding.truncated).take(item), False)
    return pa.table({"item": item, "truncated": truncated, "error": errors}), encoding.windows


def item_parts(rows: pa.Table, *, marks: pa.Table, spec: JobSpec) -> dict[str, pa.Array]:
    """The parts of each item again, from the first row that has it; what `Task.encode` was given."""
    item_R = pc.fill_null(marks["item"], -1).to_numpy()
    items, first = np.unique(item_R, return_index=True)
    first_I = pa.array(first[items >= 0])
    columns = {part.name: spec.input.columns.get(part.name, part.name) for part in spec.one_task.parts()}
    return {
        name: _plain(rows[column].combine_chunks().take(first_I), column)[0]
        for name, column in columns.items()
        if column in rows.column_names
    }


def checked_parts(rows: pa.Table, *, spec: JobSpec) -> tuple[dict[str, pa.Array], pa.StructArray]:
    """The columns that the task reads, as plain strings (or lists of them), and each row's first reason not to be answered."""
    found = [rows["__error__"].combine_chunks()]
    parts: dict[str, pa.Array] = {}
    for number, part in enumerate(spec.one_task.parts()):
        column = spec.input.columns.get(part.name, part.name)
        if column not in rows.column_names:
            if part.required:
                found.append(absent_column(name=column, count=rows.num_rows))
            continue
        values, errors = _plain(rows[column].combine_chunks(), column)
        if errors is not None:
            found.append(errors)
        parts[part.name] = values
        found += _part_errors(values, part, first=number == 0, column=column, spec=spec)
    return parts, first_error(found)


def _part_errors(values: pa.Array, part: Part, *, first: bool, column: str, spec: JobSpec) -> list[pa.StructArray]:
    """What is wrong with a part's values, row by row, the gravest first."""
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


def _plain(column: pa.Array, name: str) -> tuple[pa.Array, pa.StructArray | None]:
    """Any Arrow column of text as large_string (dictionaries decoded, bytes read as UTF-8), lists of text as they are."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return decode_utf8(column, name=name, kind=pa.large_string())
    if is_texts(kind):
        return _plain_lists(column, name)
    return column.cast(pa.large_string()), None


def _plain_lists(column: pa.Array, name: str) -> tuple[pa.Array, pa.StructArray | None]:
    """Lists of text as lists of large_string; a row with a value that is not UTF-8 has an error."""
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    offsets = np.concatenate([[0], np.cumsum(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)])
    child = column.flatten()
    if pa.types.is_string(child.type) or pa.types.is_large_string(child.type):
        child = child.cast(pa.large_binary() if pa.types.is_large_string(child.type) else pa.binary())
    texts, faults = _plain(child, name)
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
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
    )
    return any(test(kind) for test in (*tests, pa.types.is_null))


def is_texts(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists of text."""
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return lists and is_text(kind.value_type)


def distinct(parts: Mapping[str, pa.Array]) -> tuple[dict[str, pa.Array], np.ndarray]:
    """The distinct combinations of parts, in order of first appearance, and for each row the number of its own."""
    codes = [_codes(part) for part in parts.values()]
    if len(codes) == 1:
        combined = codes[0]
    else:
        _, combined = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)
    _, first, inverse = np.unique(combined, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    items = {name: part.take(pa.array(first[order])) for name, part in parts.items()}
    return items, rank[inverse.ravel()]


def _codes(part: pa.Array) -> np.ndarray:
    """A number a value, equal for equal values."""
    if pa.types.is_large_list(part.type):
        part = _as_bytes(part)
    codes = pc.fill_null(part.dictionary_encode().indices, -1)
    return np.asarray(codes.to_numpy(zero_copy_only=False), np.int64)


def _as_bytes(lists: pa.Array) -> pa.LargeBinaryArray:
    """Lists of text as the bytes of their values' numbers: equal for equal lists."""
    codes = _codes(lists.flatten())
    lengths = pc.fill_null(lists.value_lengths(), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]) * codes.itemsize
    buffers = [lists.is_valid().buffers()[1], pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(codes)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(lists), buffers)
