"""Turns Ctrl-C or SIGTERM into one KeyboardInterrupt, and ends the process within ten seconds.

The first signal asks for a clean end. If that takes too long, or a second signal comes, the process is ended at once:
nothing that is committed depends on a clean end.
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
"""Exit code of an interrupted command, as shells use it for Ctrl-C."""
PATIENCE = 9.0
"""Seconds that a clean end may take, including writing the run's record."""
ONE_KEYSTROKE = 1.0
"""Seconds within which a second signal counts as the same request: wrappers pass on what the terminal sends anyway."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GOES_ON = "committed shards stay; run the same command to resume"
_SHOW_CURSOR = "\x1b[?25h"


@dataclass
class Interruption:
    """Whether and when this process was asked to end. put_off: raise later."""

    at: float | None = None
    put_off: bool = False

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """The handler of both signals."""
        first = self.at is None
        self.note()
        if first and not self.put_off:
            raise KeyboardInterrupt

    def note(self) -> None:
        """Record a signal: the first starts the timer, the second ends the process."""
        signal.alarm(0)  # Ray's own handler, where it came first, has set one that aborts the process
        now = time.monotonic()
        if self.at is None:
            self.at = now
            watchdog = threading.Timer(PATIENCE, end_at_once)
            watchdog.daemon = True
            watchdog.start()
        elif now - self.at > ONE_KEYSTROKE:
            end_at_once()


_INTERRUPTION = Interruption()


def end_when_asked() -> None:
    """Install the handlers. Call from the main thread."""
    for each in SIGNALS:
        signal.signal(each, _INTERRUPTION.handle)


def end_at_once() -> None:
    """End this process without anything that could block."""
    cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
    os.write(2, f"{cursor}Interrupted: ended without waiting any longer; {GOES_ON}.\n".encode())
    os._exit(INTERRUPTED)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Keep our handlers around code that installs its own and must not be interrupted half-way, such as ray.init.

    A signal that arrives meanwhile raises KeyboardInterrupt afterwards.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in SIGNALS}
    _INTERRUPTION.put_off = True
    try:
        yield
    except SystemExit as end:  # how Ray's handler answers SIGTERM
        if end.code != signal.SIGTERM:
            raise
        _INTERRUPTION.note()
    finally:
        _INTERRUPTION.put_off = False
        for each, handler in before.items():
            signal.signal(each, handler)
    if _INTERRUPTION.at is not None:
        raise KeyboardInterrupt
