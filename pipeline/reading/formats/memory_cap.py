"""Runs a decoding step under a memory limit: raises MemoryError instead of exhausting the machine.

A few kilobytes of Parquet can stand for terabytes: a page that swells, one long value repeated. No footer tells, so the
process is held to a bound while it decodes; where the system has no such bound (it is Linux's), nothing is bounded.
"""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Step = TypeVar("Step")

DECODED_BYTES = 4 << 30
"""What one step of decoding may take: thousands of long rows, and far less than what a bomb wants."""
_DATA_FIELD = 5
"""Of /proc/self/statm: pages of data and stack."""


@contextmanager
def memory_cap() -> Iterator[None]:
    """Within, this process may have DECODED_BYTES more private memory than it has now; what takes more raises MemoryError."""
    now = _private_bytes()
    if now is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = now + DECODED_BYTES
    within = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (within, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def capped(steps: Iterator[Step]) -> Iterator[Step]:
    """The same steps, each under the cap; not what is done with them in between. Raises MemoryError."""
    while True:
        with memory_cap():
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step


def _private_bytes() -> int | None:
    if sys.platform != "linux":
        return None
    return int(Path("/proc/self/statm").read_text().split()[_DATA_FIELD]) * resource.getpagesize()
