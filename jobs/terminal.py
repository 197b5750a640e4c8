"""The console that verbs print on: what stands in a file or a checkpoint can't give a terminal orders."""

import re
from typing import Any

from rich.console import Console
from rich.text import Text

from models.printable import printable

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(Console):
    """Prints texts without markup or highlighting, and shows control characters as escapes, such as \\x1b."""

    def __init__(self, *, soft_wrap: bool = True, **options: Any) -> None:
        super().__init__(**{"highlight": False, "markup": False, "emoji": False, "soft_wrap": soft_wrap, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Every text passes here: printed ones and the cells of tables."""
        return super().render_str(harmless(text), **options)


def harmless(text: str) -> str:
    """A text of several lines with its control characters as escapes, but for line ends; tabs are spaces."""
    return "\n".join(printable(line.replace("\t", "    ")) for line in text.replace("\r\n", "\n").split("\n"))


def harmless_log(text: str) -> str:
    """The same of a log, less its colours, with which Ray marks the lines of workers."""
    return harmless(_COLOURS.sub("", text))
