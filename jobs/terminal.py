"""The console that verbs print on: what stands in a file or a checkpoint can't give a terminal orders."""

from typing import Any

from rich.console import Console
from rich.text import Text

from models.printable import printable


class Terminal(Console):
    """Prints texts without markup or highlighting, and shows control characters as escapes, such as \\x1b."""

    def __init__(self, *, soft_wrap: bool = True, **options: Any) -> None:
        super().__init__(**{"highlight": False, "markup": False, "soft_wrap": soft_wrap, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Every text passes here: printed ones and the cells of tables."""
        lines = (printable(line.replace("\t", "    ")) for line in text.split("\n"))
        return super().render_str("\n".join(lines), **options)
