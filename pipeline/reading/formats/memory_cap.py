"""Runs a decoding step under a memory limit: raises MemoryError instead of exhausting the machine.

A few kilobytes of Parquet can decode to terabytes (a page that swells, one long value repeated), and no footer shows it. So
the process has a memory limit while it decodes; the limit is Linux's, and elsewhere there is none.
"""

import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Step = TypeVar("Step")

DECODED_BYTES = 4 << 30
"""The memory of one decoding step that can't be made smaller, such as one row: far too little for a decompression bomb."""
STEP_BYTES = DECODED_BYTES // 4
"""The memory of a step that can be tried again with fewer rows."""
_DATA_FIELD = 5
"""Of /proc/self/statm: pages of data and stack."""


_LOCK = threading.Lock()
_CAPS: dict[int, list[int]] = {}
"""The limits wanted by each thread that decodes now, the outer ones first. A thread keeps to its smallest; a process has only
one limit, so it is the largest that any of them keeps to."""
_USUAL: list[tuple[int, int]] = []
"""The process's own limit, while there are caps."""


@contextmanager
def memory_cap(bytes_more: int) -> Iterator[None]:
    """A context in which this process may take so much more private memory; beyond that MemoryError is raised.

    Several threads may be in such contexts; the process has its own limit again when the last one leaves.
    """
    now = _private_bytes()
    if now is None:
        yield
        return
    wanted = now + bytes_more
    thread = threading.get_ident()
    with _LOCK:
        if not _CAPS:
            _USUAL[:] = [resource.getrlimit(resource.RLIMIT_DATA)]
        _CAPS.setdefault(thread, []).append(wanted)
        _limit()
    try:
        yield
    finally:
        with _LOCK:
            _CAPS[thread].pop()
            if not _CAPS[thread]:
                del _CAPS[thread]
            _limit()


def _limit() -> None:
    ((soft, hard),) = _USUAL
    wanted = max((min(caps) for caps in _CAPS.values()), default=soft)
    within = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (within, hard))


def capped(steps: Iterator[Step], *, bytes_each: int | None = None) -> Iterator[Step]:
    """The same steps, each under a cap, by default DECODED_BYTES; what the caller does between them is not capped.

    Raises MemoryError.
    """
    while True:
        with memory_cap(DECODED_BYTES if bytes_each is None else bytes_each):
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step


def _private_bytes() -> int | None:
    if sys.platform != "linux":
        return None
    return int(Path("/proc/self/statm").read_text().split()[_DATA_FIELD]) * resource.getpagesize()
