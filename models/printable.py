"""Makes text from files and checkpoints harmless to print: one line, without what a terminal would obey."""

import re
import unicodedata

MOST_CHARACTERS = 2_000
"""Of a message. What is longer quotes a value whole; its middle is left out."""
_TAIL = 500
_LINE_BREAK = re.compile(r"\s*[\r\n\u2028\u2029]\s*")
_OBEYED = ("Cc", "Cs", "Zl", "Zp")
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of the text behind them."""


def printable(text: str) -> str:
    """The text with each control character, lone surrogate and change of direction as its escape, such as \\x1b."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(one) if unicodedata.category(one) in _OBEYED or one in _TURNING else one for one in text)


def one_line(text: str) -> str:
    """The text for a message: printable, line breaks as spaces, and of a very long one its beginning and end."""
    text = printable(_LINE_BREAK.sub(" ", text.strip("\r\n")))
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[: MOST_CHARACTERS - _TAIL]} … {text[-_TAIL:]}"


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
