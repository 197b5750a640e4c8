"""Texts in, windows of token ids out, for the tasks that read a text from its beginning."""

from itertools import chain
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.rows import RowError, error_array, no_errors
from pipeline.tasks.task import Encoding, ModelFacts

OnLong: TypeAlias = Literal["truncate", "error"]
"""What becomes of a text longer than the model: cut and marked in `truncated`, or an error of its row."""


def list_array(values: npt.NDArray[np.int32], lengths: npt.NDArray[np.integer]) -> pa.ListArray:
    """Flat int32 values and the length of each list, as list<int32>, without a copy of the values."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def first_positions(windows: int) -> pa.ListArray:
    """The position of `<s>` in each window."""
    return list_array(np.zeros(windows, np.int32), np.ones(windows, np.int32))


def all_positions(lengths: npt.NDArray[np.integer]) -> pa.ListArray:
    """Every position of each window."""
    total = int(lengths.sum())
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return list_array((np.arange(total) - starts).astype(np.int32), lengths)


def encode_from_start(
    texts: pa.Array, *, facts: ModelFacts, on_long: OnLong, pairs: pa.Array | None = None
) -> Encoding:
    """One window a text, `<s> … </s>` (or `<s> a </s></s> b </s>`), at most `facts.max_length` tokens; no positions yet."""
    inputs = texts.to_pylist() if pairs is None else list(zip(texts.to_pylist(), pairs.to_pylist(), strict=True))
    encodings = facts.truncating.encode_batch_fast(inputs)
    ids = [encoding.ids for encoding in encodings]
    truncated = np.fromiter((bool(encoding.overflowing) for encoding in encodings), bool, len(ids))
    lengths = np.fromiter(map(len, ids), np.int32, len(ids))
    flat = np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum()))
    windows = pa.table({"item": pa.array(np.arange(len(ids), dtype=np.int32)), "input_ids": list_array(flat, lengths)})
    if on_long == "truncate" or not truncated.any():
        return Encoding(windows=windows, truncated=truncated, errors=no_errors(len(ids)))
    errors = error_array([_too_long(facts.max_length) if long else None for long in truncated])
    return Encoding(windows=windows.filter(pa.array(~truncated)), truncated=np.zeros(len(ids), bool), errors=errors)


def _too_long(limit: int) -> RowError:
    return ("too-long", f"the text has more than {limit} tokens, the model's limit; task.on_long: truncate cuts it")
