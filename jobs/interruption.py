"""Ctrl-C or SIGTERM in, one KeyboardInterrupt and the end of the process within ten seconds out.

The first asks the command to end cleanly. What does not manage that in time, or is asked again, is ended all the same:
nothing that is committed depends on it.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

INTERRUPTED = 130
"""Exit code of a command that was asked to end: what shells give for Ctrl-C."""
PATIENCE = 9.0
"""Seconds that a clean end may take, the writing of the run's record included."""
ONE_KEYSTROKE = 1.0
"""Seconds within which a further signal is the same wish: runners of commands pass on what the terminal sent anyway."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GOES_ON = "what is written stays, and the same command goes on"
_SHOW_CURSOR = "\x1b[?25h"


@dataclass
class Asked:
    """Whether and when this process was asked to end. put_off: it is told later."""

    at: float | None = None
    put_off: bool = False

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """The handler of both signals."""
        first = self.at is None
        self.note()
        if first and not self.put_off:
            raise KeyboardInterrupt

    def note(self) -> None:
        """It was asked: the first time the clock begins to run, the second time ends it."""
        signal.alarm(0)  # Ray's own handler, where it came first, has set one that aborts the process
        now = time.monotonic()
        if self.at is None:
            self.at = now
            watchdog = threading.Timer(PATIENCE, end_at_once)
            watchdog.daemon = True
            watchdog.start()
        elif now - self.at > ONE_KEYSTROKE:
            end_at_once()


_ASKED = Asked()


def end_when_asked() -> None:
    """From now on this process, whose main thread calls this, ends when it is asked to."""
    for each in SIGNALS:
        signal.signal(each, _ASKED.handle)


def end_at_once() -> None:
    """The end of this process, without anything that might wait."""
    cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
    os.write(2, f"{cursor}Interrupted: ended without waiting any longer; {GOES_ON}.\n".encode())
    os._exit(INTERRUPTED)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Around what sets handlers of its own, as ray.init does, and breaks when it is interrupted half-way.

    The handlers are the same afterwards; a signal that came meanwhile is raised then, as KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in SIGNALS}
    _ASKED.put_off = True
    try:
        yield
    except SystemExit as end:  # how Ray's handler answers SIGTERM
        if end.code != signal.SIGTERM:
            raise
        _ASKED.note()
    finally:
        _ASKED.put_off = False
        for each, handler in before.items():
            signal.signal(each, handler)
    if _ASKED.at is not None:
        raise KeyboardInterrupt
