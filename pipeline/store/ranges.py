"""Makes sure that what a store replies to a range is that range: neither shorter nor, as where ranges are ignored, longer.

fsspec passes on whatever came. A short reply then looks like the end of the file, a long one like the bytes at another place.
"""

from typing import Any

from fsspec.caching import BaseCache

from pipeline.errors import StorageError

TRIES = 4
"""Wrong replies, one after the other, after which the store is taken at its word."""


def check_ranges(handle: Any, *, url: str) -> None:
    """Let reads of an open file raise where a reply is not its range: ConnectionError, and StorageError after TRIES.

    A file that is not read in ranges stays as it is.
    """
    cache = getattr(handle, "cache", None)
    if not isinstance(cache, BaseCache) or not isinstance(cache.size, int):
        return
    fetch, size, wrong = cache.fetcher, cache.size, 0

    def checked(start: int, end: int) -> bytes:
        nonlocal wrong
        content: bytes = fetch(start, end)
        wanted = min(end, size) - start
        if len(content) == wanted:
            wrong = 0
            return content
        wrong += 1
        words = f"{url}: asked for {wanted} bytes from byte {start}, got {len(content)}"
        if wrong < TRIES:
            raise ConnectionError(words)
        raise StorageError(
            f"{words}, {wrong} times: the file has changed, or its server ignores ranges; copy it to a store that supports them",
            refused=True,
        )

    cache.fetcher = checked
