"""Turns a panic of a library written in Rust into an exception that can be handled as any other."""

from collections.abc import Iterator
from contextlib import contextmanager


class RustPanic(Exception):
    """A panic: PyO3 raises it as a BaseException, which would pass every handler and end the process."""


@contextmanager
def panics_caught() -> Iterator[None]:
    """A context in which a panic is a RustPanic."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RustPanic(f"{error}") from None
