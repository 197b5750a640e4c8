"""Texts in, windows of token ids out, for the tasks that read a text from its beginning.

Legend: N items, W windows, T tokens of all items end to end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Encoding as TokenizerEncoding
from tokenizers import Tokenizer

from pipeline.arrow_lists import list_array
from pipeline.errors import RowError
from pipeline.ragged import Integers, joined, offsets_of, ranges, run_starts
from pipeline.rows import error_array, no_errors
from pipeline.tasks.task import Encoding, ModelFacts

OnLong: TypeAlias = Literal["truncate", "error"]
"""A text longer than the model is cut and marked in `truncated`, or is an error of its row."""

TEXTS_AT_ONCE = 1_024
"""Texts given to the tokenizer in one call: its own objects take more than a hundred bytes per token."""


def first_positions(windows: int) -> pa.ListArray:
    """The position of `<s>` in each window."""
    return list_array(np.zeros(windows, np.int32), np.ones(windows, np.int32))


def all_positions(lengths: Integers) -> pa.ListArray:
    """Every position of each window."""
    zeros: Integers = np.zeros(len(lengths), np.int64)
    return list_array(ranges(zeros, lengths), lengths)


@dataclass(frozen=True, eq=False)
class Piece:
    """One part of every window: tokens first … first + count of a flat array; `Piece.mark` is one id in each window."""

    ids_T: npt.NDArray[np.int32]
    first_W: Integers
    count_W: Integers

    @classmethod
    def mark(cls, token: int, windows: int) -> "Piece":
        """The same id once in every window."""
        return cls(np.array([token], np.int32), np.zeros(windows, np.int64), np.ones(windows, np.int64))


def laid_out(pieces: Sequence[Piece]) -> pa.ListArray:
    """The pieces of each window one after the other, as list<int32>."""
    lengths_W: Integers = np.add.reduce([piece.count_W for piece in pieces], axis=0, dtype=np.int64)
    place_W = np.cumsum(lengths_W) - lengths_W
    flat = np.empty(int(lengths_W.sum()), np.int32)
    for piece in pieces:
        flat[ranges(place_W, piece.count_W)] = piece.ids_T[ranges(piece.first_W, piece.count_W)]
        place_W = place_W + piece.count_W
    return list_array(flat, lengths_W)


@dataclass(frozen=True, eq=False)
class Tokenized:
    """Texts, or lists of words, as tokens without `<s>` and `</s>`, end to end.

    start_T, end_T: character offsets of each token, in its text or in its word, leading space left out.
    word_T: the number of the tokenizer's word in the text, or of the word in the list.
    offsets: [N + 1], where the tokens of each item begin.
    """

    ids_T: npt.NDArray[np.int32]
    start_T: npt.NDArray[np.int32]
    end_T: npt.NDArray[np.int32]
    word_T: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    @property
    def lengths_N(self) -> npt.NDArray[np.int64]:
        """Tokens of each item."""
        return np.diff(self.offsets)

    @property
    def item_T(self) -> npt.NDArray[np.int64]:
        """The item of each token."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.lengths_N)

    @property
    def word_starts_T(self) -> npt.NDArray[np.bool_]:
        """Which tokens begin a word."""
        return run_starts(self.item_T, self.word_T)


def tokenize(texts: pa.Array, *, backend: Tokenizer) -> Tokenized:
    """Texts, or lists of words, as tokens with offsets and words."""
    words = pa.types.is_list(texts.type) or pa.types.is_large_list(texts.type)
    ids, starts, ends, numbers, lengths = [], [], [], [], []
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        batch = texts.slice(first, TEXTS_AT_ONCE).to_pylist()
        encodings = backend.encode_batch(batch, is_pretokenized=words, add_special_tokens=False)
        ids.append(_flat(encoding.ids for encoding in encodings))
        bounds = np.fromiter(
            chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings)), np.int32
        )
        starts.append(bounds[0::2])
        ends.append(bounds[1::2])
        numbers.append(_flat(encoding.word_ids for encoding in encodings))
        lengths.append(np.fromiter(map(len, encodings), np.int64, len(encodings)))
    offsets = offsets_of(joined(lengths))
    return Tokenized(
        ids_T=joined(ids), start_T=joined(starts), end_T=joined(ends), word_T=joined(numbers), offsets=offsets
    )


def _flat(lists: Any) -> npt.NDArray[np.int32]:
    return np.fromiter(chain.from_iterable(lists), np.int32)


def encode_from_start(
    texts: pa.Array, *, facts: ModelFacts, on_long: OnLong, pairs: pa.Array | None = None
) -> Encoding:
    """One window a text, `<s> … </s>` (or `<s> a </s></s> b </s>`), at most `facts.max_length` tokens; no positions yet."""
    ids, truncated_N = [], np.zeros(len(texts), bool)
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        chosen = slice(first, first + TEXTS_AT_ONCE)
        batch = texts[chosen].to_pylist()
        inputs = batch if pairs is None else list(zip(batch, pairs[chosen].to_pylist(), strict=True))
        encodings: list[TokenizerEncoding] = facts.truncating.encode_batch_fast(inputs)
        ids += [np.array(encoding.ids, np.int32) for encoding in encodings]
        truncated_N[chosen] = [bool(encoding.overflowing) for encoding in encodings]
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    item = pa.array(np.arange(len(ids), dtype=np.int32))
    windows = pa.table({"item": item, "input_ids": list_array(joined(ids), lengths)})
    if on_long == "truncate" or not truncated_N.any():
        return Encoding(windows=windows, truncated=truncated_N, errors=no_errors(len(ids)))
    errors = error_array([too_long(limit=facts.max_length) if long else None for long in truncated_N])
    return Encoding(windows=windows.filter(pa.array(~truncated_N)), truncated=np.zeros(len(ids), bool), errors=errors)


def too_long(*, limit: int, tokens: int | None = None) -> RowError:
    """The error of a text that the model can't take whole."""
    count = f"more than {limit} tokens" if tokens is None else f"{tokens} tokens; {limit} is"
    middle = "," if tokens is None else ""
    return ("too-long", f"the text has {count}{middle} the model's limit; task.on_long: truncate cuts it")
