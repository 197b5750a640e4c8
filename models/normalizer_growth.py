"""A normaliser of tokenizer.json in, by how much it can lengthen a text out: one that could fill the memory is refused before it
reads any."""

import base64
import re
from collections.abc import Mapping
from typing import Any

MOST_GROWTH = 256
"""Bytes that one byte of a text may become. The largest known is 66, of xlm-roberta's table of characters. A text has a megabyte
by default (`limits.text_bytes`)."""
UNICODE_GROWTH = 11
"""Of the normal forms of Unicode, in UTF-8: U+FDFA, three bytes, becomes 33."""
REPEATED = re.compile(r"(?:[\w ]|\\s)(?:\+|\{([1-9]\d{0,3}),\})")
FIXED = {
    "NFC": 3,
    "NFD": 4,
    "NFKC": UNICODE_GROWTH,
    "NFKD": UNICODE_GROWTH,
    "Lowercase": 2,
    "ByteLevel": 2,
    "BertNormalizer": 4,
}


def growth(normalizer: Mapping[str, Any] | None) -> int:
    """The bytes that one byte of a text can become, at most. Raises KeyError, TypeError or ValueError for what is none."""
    if normalizer is None:
        return 1
    kind = normalizer["type"]
    if kind == "Sequence":
        whole = 1
        for part in normalizer["normalizers"]:
            whole *= growth(part)
        return whole
    if kind == "Replace":
        return _of_replacing(normalizer["pattern"], normalizer["content"])
    if kind == "Prepend":
        return 1 + len(normalizer["prepend"].encode())
    if kind == "Precompiled":
        return _of_table(base64.b64decode(normalizer["precompiled_charsmap"] or ""))
    return FIXED.get(kind, 1)


def _of_replacing(pattern: Mapping[str, str], content: str) -> int:
    """A regular expression may match nothing, before and behind every character, unless it is one character some times over, such
    as ` {2,}`; a text replaces at least itself."""
    new = len(content.encode())
    repeated = REPEATED.fullmatch(pattern.get("Regex", ""))
    found = int(repeated[1] or 1) if repeated else len(pattern.get("String", "").encode())
    return max(1, -(-new // found)) if found else 1 + 2 * new


def _of_table(table: bytes) -> int:
    """The longest text in SentencePiece's table: after a tree, whose size stands first, texts that end with a zero byte."""
    tree = int.from_bytes(table[:4], "little")
    return max(1, *(len(text) for text in table[4 + tree :].split(b"\0")))
