"""Opens the standard streams of a process that was started without them."""

import os
import sys


def open_streams() -> None:
    """Open missing standard streams on /dev/null: otherwise the first files that the process opens would get their descriptors,
    and what is printed would be written into them."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
