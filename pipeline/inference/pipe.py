"""Sends Python values through a pair of pipes; neither end waits longer than its timeout.

A stopped process neither reads nor writes, so sending it a value larger than the pipe's buffer would block forever.
Values are pickled after their length; both ends run the same code as the same user on the same machine.
"""

import fcntl
import os
import pickle
import select
import struct
import time
from dataclasses import dataclass
from typing import Any

_LENGTH = struct.Struct("!Q")
_F_SETPIPE_SZ = 1031
"""Linux: the size of a pipe's buffer. A larger one wakes both ends less often."""
BUFFER = 1 << 20
AT_ONCE = 1 << 20


@dataclass
class Pipe:
    """One end of the pair: descriptors to read from and to write to, which this object closes."""

    incoming: int
    outgoing: int

    def __post_init__(self) -> None:
        for descriptor in (self.incoming, self.outgoing):
            os.set_blocking(descriptor, False)
            try:
                fcntl.fcntl(descriptor, _F_SETPIPE_SZ, BUFFER)
            except OSError:
                continue  # another system, or a user who has too many: it works with any size

    def send(self, value: object, *, seconds: float | None = None) -> None:
        """Send a value. Raises TimeoutError if the other end does not read all of it in time, OSError if it is gone."""
        content = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        deadline = _deadline(seconds)
        self._write(_LENGTH.pack(len(content)), deadline)
        self._write(content, deadline)

    def receive(self, *, seconds: float | None = None) -> Any:
        """The next value. Raises TimeoutError if it has not arrived completely in time, EOFError if the other end is gone."""
        deadline = _deadline(seconds)
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
        return pickle.loads(self._read(length, deadline))  # noqa: S301 - what the other end of this very pipe has written

    def _write(self, content: bytes, deadline: float | None) -> None:
        rest = memoryview(content)
        while rest:
            try:
                rest = rest[os.write(self.outgoing, rest[:AT_ONCE]) :]
            except BlockingIOError:
                _wait(self.outgoing, select.POLLOUT, deadline)

    def _read(self, length: int, deadline: float | None) -> bytearray:
        content = bytearray(length)
        rest = memoryview(content)
        while rest:
            try:
                count = os.readv(self.incoming, [rest[:AT_ONCE]])
            except BlockingIOError:
                _wait(self.incoming, select.POLLIN, deadline)
                continue
            if not count:
                raise EOFError("the other end of the pipe is closed")
            rest = rest[count:]
        return content

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self.incoming)
        os.close(self.outgoing)


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def _wait(descriptor: int, event: int, deadline: float | None) -> None:
    """Wait until the descriptor is ready. Raises TimeoutError."""
    poll = select.poll()
    poll.register(descriptor, event)
    left = None if deadline is None else max(deadline - time.monotonic(), 0.0) * 1_000
    if not poll.poll(left):
        raise TimeoutError("the other end of the pipe does not answer")
