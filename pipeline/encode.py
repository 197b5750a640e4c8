"""Rows of a shard in, windows of token ids out; rows that no model can answer are marked with an error first.

Identical inputs are encoded, and later computed, once: the distinct ones are the shard's items.

Legend: R rows.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.bundle import TaskTables
from pipeline.errors import PrelnError, RowError
from pipeline.inference.questions import facts_of
from pipeline.inference.windows import numbered
from pipeline.isolation import DiedError, Isolated
from pipeline.ragged import offsets_of
from pipeline.reading.text_columns import checked_parts
from pipeline.rows import error_array, first_error
from pipeline.spec.job_spec import JobSpec
from pipeline.spec.named_tasks import NamedTask
from pipeline.tasks.task import Encoding, ModelFacts

PANIC = "PanicException"


def encode_tasks(
    rows: pa.Table, *, spec: JobSpec, facts: Mapping[str, ModelFacts], child: Isolated | None = None
) -> TaskTables:
    """Each task's marks and windows (`pipeline.bundle`); windows with the same tokens are numbered alike across tasks.

    child: the process in which the tokenizers run, for rows that may end it; with the same result for all others.
    """
    encoded = {
        name: encode_rows(rows, task=task, spec=spec, facts=facts[name], child=child)
        for name, task in spec.named_tasks.items()
    }
    windows = numbered({name: windows for name, (_, windows) in encoded.items()})
    return {name: {"marks": marks, "windows": windows[name]} for name, (marks, _) in encoded.items()}


def encode_rows(
    rows: pa.Table, *, task: NamedTask, spec: JobSpec, facts: ModelFacts, child: Isolated | None = None
) -> tuple[pa.Table, pa.Table]:
    """(marks, windows) of a shard's rows for one task, as `pipeline.bundle` describes them."""
    parts, errors = checked_parts(rows, task=task, spec=spec)
    answerable = np.asarray(errors.is_null().to_numpy(zero_copy_only=False), bool)
    items, item_of_row = distinct({name: part.filter(pa.array(answerable)) for name, part in parts.items()})
    item_R = np.full(rows.num_rows, -1, np.int32)
    item_R[answerable] = item_of_row
    encode = partial(task.task.encode, facts=facts) if child is None else partial(_encode_in, child, spec, task.name)
    encoding = encode_items(items, encode=encode)
    item = pa.array(item_R, mask=~answerable)
    errors = first_error([errors, encoding.errors.take(item)])
    truncated = pc.fill_null(pa.array(encoding.truncated).take(item), False)
    return pa.table({"item": item, "truncated": truncated, "error": errors}), encoding.windows


def _encode_in(child: Isolated, spec: JobSpec, name: str, items: Mapping[str, pa.Array]) -> Encoding:
    """A task's encoding of items, found in the child. Raises DiedError."""
    count = len(next(iter(items.values())))
    if not count:
        return _encoded_here(spec, name, items)
    own = {part: pa.concat_arrays([values]) for part, values in items.items()}  # a slice is pickled with all around it
    return child.call(partial(_encoded_here, spec, name, own), alone=count == 1)


def _encoded_here(spec: JobSpec, name: str, items: Mapping[str, pa.Array]) -> Encoding:
    return spec.named_tasks[name].task.encode(items, facts_of(spec)[name])


def encode_items(items: Mapping[str, pa.Array], *, encode: Callable[[Mapping[str, pa.Array]], Encoding]) -> Encoding:
    """The items' encoding; an item that the tokenizer fails on has an error, found by halving."""
    count = len(next(iter(items.values())))
    try:
        return encode(items)
    except BaseException as error:
        # The tokenizers library reports a panic, for instance of a regular expression, by a bare BaseException.
        if (not isinstance(error, Exception) and type(error).__name__ != PANIC) or not count:
            raise
        if isinstance(error, PrelnError | MemoryError):
            raise
        if count == 1:
            none = encode({name: part.slice(0, 0) for name, part in items.items()})
            return Encoding(windows=none.windows, truncated=np.zeros(1, bool), errors=error_array([_reason(error)]))
    half = (count + 1) // 2
    first = encode_items({name: part.slice(0, half) for name, part in items.items()}, encode=encode)
    second = encode_items({name: part.slice(half) for name, part in items.items()}, encode=encode)
    place = second.windows.column_names.index("item")
    item = pc.add(second.windows["item"], pa.scalar(half, second.windows["item"].type))
    moved = second.windows.set_column(place, second.windows.schema.field(place), item)
    return Encoding(
        windows=pa.concat_tables([first.windows, moved]).combine_chunks(),
        truncated=np.concatenate([first.truncated, second.truncated]),
        errors=pa.concat_arrays([first.errors, second.errors]),
    )


def _reason(error: BaseException) -> RowError:
    """Why one item can't be encoded."""
    said = " ".join(str(error).split())
    if isinstance(error, DiedError):
        return ("killed-tokenizer", f"killed the tokenizer {said}")
    return ("exception", f"the tokenizer failed: {said[:200]}")


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
    """Lists of text as the bytes of their values' codes: equal for equal lists."""
    codes = _codes(lists.flatten())
    lengths = pc.fill_null(lists.value_lengths(), 0).to_numpy(zero_copy_only=False)
    offsets = offsets_of(lengths) * codes.itemsize
    buffers = [lists.is_valid().buffers()[1], pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(codes)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(lists), buffers)
