"""Lists of words as texts, and where the words of texts begin and end.

Legend: N items, T tokens of all items end to end, V vocabulary.
"""

from dataclasses import replace
from unicodedata import category

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RowError
from pipeline.ragged import run_starts
from pipeline.rows import EMPTY
from pipeline.tasks.spans import Characters
from pipeline.tasks.tokens import Tokenized

JOINERS = "\u200c\u200d"
"""Zero-width characters that stand inside words of Persian and of the scripts of India."""
MARKS = r"\p{M}|[\x{200C}\x{200D}]"


def joined(words: pa.Array) -> pa.LargeStringArray:
    """Each list of words as one text, with a space between words; null if one of them is."""
    return pc.binary_join(words, pa.scalar(" ", pa.large_string()))


def fault_of(words: list[str | None]) -> RowError | None:
    """Why a list of words can't be labelled; names the word."""
    if not words:
        return (EMPTY, "the list of words is empty")
    for number, word in enumerate(words):
        if word is None:
            return ("null-word", f"word {number} of {len(words)} is null")
        if not word.strip():
            return ("empty-word", f"word {number} of {len(words)} is empty or blank")
    return None


def in_joined_text(tokens: Tokenized, *, words: pa.Array) -> Tokenized:
    """Tokens of lists of words, their offsets counted in the joined texts instead of in their words."""
    lengths = pc.utf8_length(words.flatten()).to_numpy(zero_copy_only=False).astype(np.int64)
    counts_N = words.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    first_word_N = np.cumsum(counts_N) - counts_N
    starts = np.cumsum(lengths + 1) - (lengths + 1)
    starts -= np.repeat(starts[first_word_N] if len(starts) else starts, counts_N)
    shift_T = starts[first_word_N[tokens.item_T] + tokens.word_T].astype(np.int32)
    return replace(tokens, start_T=tokens.start_T + shift_T, end_T=tokens.end_T + shift_T)


def joined_at_marks(tokens: Tokenized, *, texts: pa.Array) -> Tokenized:
    """The same tokens in words that no combining mark cuts: the tokenizer's rule takes a mark for punctuation, so that Zürich
    with a mark of its own, or Devanagari, Thai and vocalised Arabic, come in pieces."""
    marked = np.flatnonzero(pc.fill_null(pc.match_substring_regex(texts, MARKS), False).to_numpy(zero_copy_only=False))
    if not len(marked):
        return tokens
    word_T = tokens.word_T.copy()
    for item in marked.tolist():
        own = slice(tokens.offsets[item], tokens.offsets[item + 1])
        word_T[own] = _words_with_marks(
            texts[item].as_py(), tokens.start_T[own].tolist(), tokens.end_T[own].tolist(), tokens.word_T[own].tolist()
        )
    return replace(tokens, word_T=word_T)


def _words_with_marks(text: str, starts: list[int], ends: list[int], words: list[int]) -> list[int]:
    """The number of each token's word. A mark continues the word before it, and so does a letter after a mark."""
    numbers: list[int] = []
    for place, (start, end, word) in enumerate(zip(starts, ends, words, strict=True)):
        if place == 0:
            numbers.append(0)
            continue
        begins = word != words[place - 1]
        if start == ends[place - 1] and start < end:
            first, before = text[start], text[start - 1]
            if _is_mark(first):
                begins = False
            elif _is_mark(before):
                begins = not first.isalnum()
        numbers.append(numbers[-1] + begins)
    return numbers


def _is_mark(character: str) -> bool:
    return category(character).startswith("M") or character in JOINERS


def wholly_blank(tokens: Tokenized, *, blank_V: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """[T], whether all pieces of a token's word are white space."""
    blank_T = blank_V[tokens.ids_T]
    first = np.flatnonzero(tokens.word_starts_T) if len(blank_T) else np.empty(0, np.int64)
    if not len(first):
        return blank_T
    counts = np.diff(np.append(first, len(blank_T)))
    return np.repeat(np.logical_and.reduceat(blank_T, first), counts)


def first_of_words(tokens: Tokenized, *, real_T: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """[T], the first of each word's tokens that are real."""
    real = np.flatnonzero(real_T)
    found_T = np.zeros(len(real_T), bool)
    if len(real):
        found_T[real[run_starts(tokens.item_T[real], tokens.word_T[real])]] = True
    return found_T


def word_ends(tokens: Tokenized) -> npt.NDArray[np.int32]:
    """[T], where each token's word ends."""
    if not len(tokens.ids_T):
        return tokens.end_T
    first = np.flatnonzero(tokens.word_starts_T)
    counts = np.diff(np.append(first, len(tokens.ids_T)))
    return np.repeat(tokens.end_T[first + counts - 1], counts)


def continues_by_spaces(tokens: Tokenized, *, characters: Characters, unknown: int) -> npt.NDArray[np.bool_]:
    """[T], whether the reference takes a token for a piece of the word before it: no space at its first character or before.

    So punctuation belongs to the word it follows, and tabs and line ends separate no words.
    """
    item_T, start_T = tokens.item_T, tokens.start_T
    here_T = characters.is_space(text_E=item_T, place_E=start_T)
    before_T = characters.is_space(text_E=item_T, place_E=np.maximum(start_T - 1, 0))
    return (start_T > 0) & ~here_T & ~before_T & (tokens.ids_T != unknown)
