"""Calls functions in a child process, for work that may end its process: the child is replaced, and the caller goes on.

A Ray task works in its own process first, which ends if it hangs (`deadline`); a task that has ended two goes on in a child.

`python -m pipeline.isolation` is started by `Isolated` only. Messages are pickled tuples whose first item is their kind:

in    ("memory", bytes)                first
      ("stream", function)             called without arguments, for the values that it yields
out   ("begun",)                       once the function and what it needs are imported
      ("value", value) ... ("end",)
      ("raised", error)
"""

import faulthandler
import logging
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

from pipeline.inference.child_process import ChildProcess, Death, Suspect, pipe_of_parent
from pipeline.inference.pipe import Pipe
from pipeline.reading.formats.memory_cap import memory_cap
from pipeline.telemetry import journal

DEATHS_BEFORE = 2
"""Attempts at a Ray task that have ended before its work moves to a child process. A lost node is an attempt too."""
STARTING = 120.0
"""Seconds that a process may take, at least, to start, import what it calls, and load a tokenizer."""
LEAST_MEMORY = 1 << 30
"""What a child may take on any machine; otherwise half of what there is."""

Value = TypeVar("Value")


class DiedError(Exception):
    """The child ended, or did not answer in time."""

    def __init__(self, death: Death) -> None:
        super().__init__(death.cause)
        self.death = death


class ChildFailure(Exception):
    """An exception of the child that can't be sent, with its message."""


class Isolated:
    """Calls functions in a child process, which is started at the first call and again after each death.

    stall: seconds for one value. memory: bytes that the child may take, on Linux; beyond that it ends.
    """

    def __init__(self, *, stall: float, memory: int | None = None) -> None:
        self._memory = _half_of_the_memory() if memory is None else memory
        self._child = ChildProcess(module=__name__, stall=stall)

    def stream(self, function: Callable[[], Iterable[Value]]) -> Generator[Value, None, None]:
        """The values that a function yields there, one after the other. Raises DiedError, and what the function raises.

        function: picklable by its name, as are its values. A caller that takes only some of the values closes the stream.
        """
        if self._child.process is None:
            self._child.start({"RUST_BACKTRACE": "0"})  # its last words are why it ended
            self._child.send(("memory", self._memory))
        ended, seconds = False, max(STARTING, self._child.stall)
        try:
            self._child.send(("stream", function))
            while True:
                reply = self._child.receive(seconds=seconds)
                seconds = self._child.stall
                if isinstance(reply, Death):
                    raise DiedError(reply)
                if reply[0] == "value":
                    yield reply[1]
                    continue
                ended = reply[0] in ("end", "raised")
                if reply[0] == "raised":
                    raise reply[1]
                if ended:
                    return
        finally:
            if not ended:
                self._child.close()

    def call(self, function: Callable[[], Value], *, alone: bool = False) -> Value:
        """What a function returns there. Raises as `stream` does.

        alone: it is for a single row, which is repeated until it has ended the child often enough to be the cause.
        """
        suspect = Suspect()
        while True:
            try:
                with closing(self.stream(partial(_only, function))) as values:
                    (value,) = values
                return value
            except DiedError as died:
                if not alone:
                    raise
                if suspect.is_guilty(died.death):
                    cause = suspect.described(died.death)
                    raise DiedError(Death(cause=cause, by_sigkill=died.death.by_sigkill)) from None

    def close(self) -> None:
        """End the child."""
        self._child.close()


def _only(function: Callable[[], Value]) -> Iterator[Value]:
    yield function()


def isolated_after_deaths(
    attempts: int | None, *, stall: float, what: str, **fields: object
) -> AbstractContextManager[Isolated | None]:
    """A child process for the work of a Ray task that has been attempted too often; None for any other.

    Ray repeats a task whose process ends, forever: where a row or a shard is the cause, nobody would hear of it. attempts:
    earlier ones at this task, None if unknown. stall: seconds for one value of the child. what: the work, for the journal.
    fields: of its line.
    """
    if attempts is None or attempts < DEATHS_BEFORE:
        return nullcontext()
    message = f"{what} in a child process: the task has lost its process or node before"
    journal.write(message, level=logging.WARNING, attempts=attempts, **fields)
    return closing(Isolated(stall=stall))


_seconds: float | None = None


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Ends this process, with the stacks of its threads on standard error, if what is inside takes longer than so many seconds.

    Works whatever hangs, since the clock is a thread of C. Of the main thread of a Ray worker only: there is one such clock.
    """
    global _seconds
    _seconds = seconds
    in_time()
    try:
        yield
    finally:
        _seconds = None
        faulthandler.cancel_dump_traceback_later()


def in_time() -> None:
    """A piece of the work is done: its deadline, where there is one, begins anew."""
    if _seconds is not None:
        faulthandler.dump_traceback_later(_seconds, exit=True, file=2)


def each_in_time(values: Iterable[Value], *, seconds: float | None) -> Iterator[Value]:
    """The values, each with the deadline for itself; the caller takes the time that it likes between them."""
    values = iter(values)
    while True:
        with deadline(seconds):
            try:
                value = next(values)
            except StopIteration:
                return
        yield value


def _half_of_the_memory() -> int:
    """Half of what the machine has left, or of what its container may take if that is less."""
    found = []
    for file, read in (
        ("/proc/meminfo", _available),
        ("/sys/fs/cgroup/memory.max", int),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", int),
    ):
        try:
            found.append(read(Path(file).read_text()))
        except (OSError, ValueError):
            continue  # another system, or no limit
    return max(min(found, default=0) // 2, LEAST_MEMORY)


def _available(meminfo: str) -> int:
    (line,) = [line for line in meminfo.splitlines() if line.startswith("MemAvailable:")]
    return int(line.split()[1]) << 10


def main() -> None:
    """Serve the parent's pipe until it closes, within the memory allowed."""
    pipe = pipe_of_parent()
    _, memory = pipe.receive()
    with memory_cap(memory):
        try:
            while True:
                _serve(pipe)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            os._exit(0)
        except MemoryError as error:
            # To the parent, what takes too much memory is the same whether it raises or aborts.
            print(f"MemoryError: {error}", file=sys.stderr, flush=True)
            os._exit(1)


def _serve(pipe: Pipe) -> None:
    """Answer one call."""
    _, function = pipe.receive()
    pipe.send(("begun",))
    try:
        for value in function():
            pipe.send(("value", value))
    except (MemoryError, BrokenPipeError, ConnectionResetError):
        raise
    except BaseException as error:  # the tokenizers library reports a panic by a bare BaseException
        pipe.send(("raised", _sendable(error)))
    else:
        pipe.send(("end",))


def _sendable(error: BaseException) -> BaseException:
    """The exception, or one of the same message if it can't be pickled."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        traceback.print_exception(error)
        return ChildFailure(str(error))
    return error


if __name__ == "__main__":
    main()
