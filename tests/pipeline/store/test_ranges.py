"""A reply that is not the range asked for is neither the end of a file nor the bytes at another place."""

from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

from pipeline.errors import StorageError
from pipeline.store.ranges import TRIES
from pipeline.store.storage import Place, opened

CONTENT = bytes(range(256)) * 40
BLOCK = 1_000


class WrongRanges(MemoryFileSystem):
    """A store whose first replies, or all, are other than the range asked for."""

    cachable = False

    def __init__(self, *, short: bool, wrong: int) -> None:
        super().__init__()
        self.short, self.wrong = short, wrong

    def open(self, path: str, mode: str = "rb", **options: Any) -> AbstractBufferedFile:
        """A file that is read in ranges."""
        return RangedFile(self, path, mode, block_size=BLOCK, cache_type="readahead", size=len(CONTENT))


class RangedFile(AbstractBufferedFile):
    """Reads CONTENT."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        self.fs.wrong -= 1
        if self.fs.wrong < 0:
            return CONTENT[start:end]
        return CONTENT[start : (start + end) // 2] if self.fs.short else CONTENT


def read(*, short: bool, wrong: int) -> bytes:
    """All of a file, in pieces."""
    place = Place("memory://a", WrongRanges(short=short, wrong=wrong), "a")
    pieces = []
    with opened(place) as file:
        while piece := file.read(700):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("wrong", [0, 1, TRIES - 1])
def test_a_wrong_reply_is_asked_for_again(short: bool, wrong: int) -> None:
    assert read(short=short, wrong=wrong) == CONTENT


@pytest.mark.parametrize("short", [True, False])
def test_a_store_that_always_replies_wrongly_is_refused_in_one_line(short: bool) -> None:
    with pytest.raises(StorageError, match=r"asked for .* bytes from byte 0, got .* ignores ranges") as refused:
        read(short=short, wrong=10_000)
    assert refused.value.refused
    assert "\n" not in str(refused.value)
