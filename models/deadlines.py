"""Gives every call of an asynchronous file system a deadline of its own, and cancels the call that its caller gives up.

fsspec's `sync` waits without limit: for a free connection that never comes, for instance. And when its caller is
interrupted, the call goes on in fsspec's thread and keeps its connection.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem, sync

CALL_SECONDS = 90.0
"""Seconds that one call may take, its wait for a connection among them; less than RETRY_SECONDS of `pipeline.store.storage`, for
a second try."""
SLOWEST_BYTES = 250_000
"""Bytes of content for which a call has a second more."""
LISTING_SECONDS = 3_600.0
"""The same for a listing, which is many requests, each with its own deadline."""

REQUESTS = ("cat_file", "pipe_file", "info", "rm_file", "isdir", "exists", "call_s3", "call")
LISTINGS = ("ls", "find", "glob")
INSIDE = ("call_s3", "call")
"""What open files and listings of S3 and Google's store call, as coroutines."""

READS = (("async_fetch_range", "_fetch_range"), ("_async_fetch_range", "_fetch_range"), ("_read", "read"))
"""How open files of http (in ranges, or from their start) and of Azure read: the coroutine, and what waits for it without limit.
Those of S3 and Google's store read by INSIDE."""

AsyncCall = Callable[..., Awaitable[Any]]


def with_deadlines(fs: fsspec.AbstractFileSystem) -> None:
    """Bound the calls of a file system that storage uses; one without an event loop stays as it is."""
    if not isinstance(fs, AsyncFileSystem) or fs.asynchronous or getattr(fs, "preln_deadlines", False):
        return
    for name in (*REQUESTS, *LISTINGS):
        call: AsyncCall | None = getattr(fs, f"_{name}", None)
        if call is None or not callable(getattr(fs, name, None)):
            continue
        limited = _limited(call, listing=name in LISTINGS)
        if name in INSIDE:
            setattr(fs, f"_{name}", limited)
        setattr(fs, name, _cancelled_with_its_caller(fs, limited))
    fs.preln_deadlines = True


def with_read_deadlines(file: Any) -> None:
    """Bound the reads of an open file whose file system does not bound them; any other stays as it is."""
    loop = getattr(file, "loop", None)
    for name, waiting in READS:
        call: AsyncCall | None = getattr(file, name, None)
        if loop is None or not asyncio.iscoroutinefunction(call):
            continue
        limited = partial(sync, loop, _limited(call, listing=False))
        setattr(file, waiting, limited)
        cache = getattr(file, "cache", None)
        if waiting == "_fetch_range" and cache is not None:
            cache.fetcher = limited  # it has kept the one that it was made with


def _limited(call: AsyncCall, *, listing: bool) -> AsyncCall:
    @wraps(call)
    async def limited(*arguments: Any, **options: Any) -> Any:
        seconds = LISTING_SECONDS if listing else CALL_SECONDS + _content_bytes(arguments, options) / SLOWEST_BYTES
        try:
            return await asyncio.wait_for(call(*arguments, **options), seconds)
        except TimeoutError as error:  # fsspec would raise one without a message
            raise ConnectionError(f"the store did not finish in {seconds:.0f} s: {call.__name__} {error}") from error

    return limited


def _content_bytes(arguments: Sequence[Any], options: Mapping[str, Any]) -> int:
    """Bytes that a call sends, or asks for."""
    sent = sum(len(value) for value in (*arguments, *options.values()) if isinstance(value, bytes | bytearray))
    start, end = options.get("start"), options.get("end")
    return sent + (max(end - start, 0) if isinstance(start, int) and isinstance(end, int) else 0)


def _cancelled_with_its_caller(fs: AsyncFileSystem, call: AsyncCall) -> Callable[..., Any]:
    @wraps(call)
    def blocking(*arguments: Any, **options: Any) -> Any:
        tasks: list[asyncio.Task[Any] | None] = []
        given_up = False

        async def run() -> Any:
            if given_up:
                raise asyncio.CancelledError
            tasks.append(asyncio.current_task())
            return await call(*arguments, **options)

        def cancel() -> None:
            for task in tasks:
                if task is not None:
                    task.cancel()

        try:
            return sync(fs.loop, run)
        except Exception:
            raise  # its own end
        except BaseException:  # an interrupted caller
            given_up = True
            fs.loop.call_soon_threadsafe(cancel)
            raise

    return blocking
