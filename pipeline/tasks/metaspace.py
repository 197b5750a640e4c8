"""Moves the offsets of Metaspace tokens onto characters of the text, and makes punctuation separate words.

Metaspace writes a space as `▁` and makes it part of a token, so that offsets include spaces, and splits at spaces only,
so that punctuation is glued to words. Here a leading space belongs to no token, and a word is what byte-level BPE would
call one: letters with their accents, digits, or other signs; an English ending ('s, n't's 't) is one too.

Legend: N texts, T tokens, C characters of all texts end to end, V the vocabulary.
"""

import re
import unicodedata
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ragged import offsets_of
from pipeline.tasks.tokens import Tokenized

Classes = npt.NDArray[np.uint8]

SPACE, LETTER, NUMBER, OTHER, MARK = range(5)
_ENDING = re.compile(r"'(?:s|t|re|ve|m|ll|d)(?!\w)")


def on_characters(tokens: Tokenized, *, texts: pa.Array, blank_V: npt.NDArray[np.bool_], lists: bool) -> Tokenized:
    """Offsets without spaces; a token of spaces only becomes empty. lists: texts are lists of words, whose words are kept."""
    flat = texts.flatten() if lists else texts
    strings = flat.to_pylist()
    offsets = offsets_of(np.fromiter(map(len, strings), np.int64, len(strings)))
    class_C = _classes("".join(strings))
    text_T = tokens.item_T
    if lists:
        counts_N = texts.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        text_T = (np.cumsum(counts_N) - counts_N)[text_T] + tokens.word_T
    first_T = offsets[text_T]
    start_T, end_T = _trimmed(tokens.start_T + first_T, tokens.end_T + first_T, class_C == SPACE)
    blank_T = blank_V[tokens.ids_T]
    start_T = _past_blanks(start_T, blank_T, tokens)
    end_T = np.where(blank_T, start_T, end_T)
    found = replace(tokens, start_T=(start_T - first_T).astype(np.int32), end_T=(end_T - first_T).astype(np.int32))
    if lists or not len(blank_T):
        return found
    begins_C = _word_begins(class_C, "".join(strings), offsets)
    # A token inside a character that was normalised to several stays in its word.
    apart_T = np.append(True, start_T[1:] >= end_T[:-1])
    begins_T = tokens.word_starts_T | (np.append(begins_C, False)[start_T] & apart_T & ~blank_T)
    # What begins a word is its first token; a lone space before it is a part of it.
    alone_T = np.append(False, (blank_T & tokens.word_starts_T)[:-1]) & ~tokens.word_starts_T
    begins_T &= ~alone_T
    number_T = np.cumsum(begins_T)
    return replace(found, word_T=(number_T - number_T[tokens.offsets[text_T]]).astype(np.int32))


def _past_blanks(
    start_T: npt.NDArray[np.int64], blank_T: npt.NDArray[np.bool_], tokens: Tokenized
) -> npt.NDArray[np.int64]:
    """Start offsets in which a lone space starts where the next token of its word does."""
    if not len(blank_T):
        return start_T
    places = np.arange(len(blank_T))
    next_T = np.minimum.accumulate(np.where(blank_T, len(blank_T) - 1, places)[::-1])[::-1]
    word_T = np.cumsum(tokens.word_starts_T)
    return np.where(blank_T & ~blank_T[next_T] & (word_T[next_T] == word_T), start_T[next_T], start_T)


def _trimmed(
    start_T: npt.NDArray[np.int64], end_T: npt.NDArray[np.int64], space_C: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ranges without the spaces at their ends."""
    places = np.arange(len(space_C) + 1)
    solid_C = np.append(~space_C, True)
    following_C = np.minimum.accumulate(np.where(solid_C, places, len(space_C))[::-1])[::-1]
    before_C = np.maximum.accumulate(np.where(np.append(False, ~space_C), places, 0))
    start_T = np.minimum(following_C[start_T], end_T)
    return start_T, np.maximum(before_C[end_T], start_T)


def _word_begins(class_C: Classes, text: str, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """[C], which characters begin a word. A mark belongs to what it stands on."""
    places = np.maximum.accumulate(np.where(class_C != MARK, np.arange(len(class_C)), 0))
    base_C = class_C[places]
    begins_C = np.append(True, base_C[1:] != base_C[:-1])[: len(base_C)]
    begins_C[offsets[:-1][offsets[:-1] < len(begins_C)]] = True
    if "'" in text:
        for ending in _ENDING.finditer(text):
            if ending.start() and base_C[ending.start() - 1] == LETTER:
                begins_C[ending.start() + 1] = False
    return begins_C


def _classes(text: str) -> Classes:
    return _class_table()[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]


@cache
def _class_table() -> Classes:
    """The class of every code point."""
    table = np.full(0x110000, OTHER, np.uint8)
    kinds = {"L": LETTER, "N": NUMBER, "M": MARK, "Z": SPACE}
    for point in range(0x110000):
        sign = chr(point)
        table[point] = SPACE if sign.isspace() else kinds.get(unicodedata.category(sign)[0], OTHER)
    return table
