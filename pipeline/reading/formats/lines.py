"""Byte ranges of a file of lines in, the lines that begin in them out; text lines as rows.

`row` of a record is the byte offset of its line in the (decompressed) file. Blank lines are rows of a text file.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import SourceError, StorageError
from pipeline.reading.formats.conform import conform, decode_utf8
from pipeline.store.storage import read_range

TEXT_SCHEMA = pa.schema([("text", pa.string())])
"""The one column of a text file."""

CHUNK_BYTES = 1 << 20
_NEWLINE = 10
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class LineBlock:
    """Whole lines of a file: their bytes, and where in the file they begin."""

    content: bytes
    offset: int

    @property
    def stop(self) -> int:
        """Offset after the last byte."""
        return self.offset + len(self.content)


def read_block(*, uri: str, first: int, stop: int, size: int, line_bytes: int) -> LineBlock:
    """The lines that begin in bytes [first, stop) of a file of `size` bytes. Raises SourceError."""
    start = max(first - 1, 0)
    content = _fetch(uri, start, min(stop, size))
    if first > 0:
        border = content.find(b"\n")
        if border < 0:
            return LineBlock(b"", stop)  # one line spans the whole range and began before it
        start, content = start + border + 1, content[border + 1 :]
    if start >= stop:
        return LineBlock(b"", stop)
    pieces, reached = [content], start + len(content)
    while reached < size and not pieces[-1].endswith(b"\n"):
        if reached - stop > line_bytes:
            raise SourceError(
                f"{uri}: the line at byte {stop} or before is over limits.line_bytes ({line_bytes}); raise it, or fix the file",
                reason="unreadable",
            )
        more = _fetch(uri, reached, min(reached + CHUNK_BYTES // 4, size))
        if not more:
            break
        border = more.find(b"\n")
        pieces.append(more if border < 0 else more[: border + 1])
        reached += len(pieces[-1])
    return LineBlock(b"".join(pieces), start)


def _fetch(uri: str, start: int, stop: int) -> bytes:
    try:
        content = read_range(uri, start, stop)
    except FileNotFoundError as error:
        raise SourceError(f"{uri}: the file is gone", reason="gone") from error
    except StorageError as error:
        if not error.refused:
            raise
        raise SourceError(f"{uri}: {error}", reason="corrupt") from error
    if len(content) != stop - start:
        raise SourceError(
            f"{uri}: asked for {stop - start} bytes from byte {start}, got {len(content)}: the file has changed, or its server "
            "ignores ranges; copy it to a store that supports them",
            reason="corrupt",
        )
    return content


def text_rows(block: LineBlock, *, schema: pa.Schema) -> pa.Table:
    """Every line as a row with one column, `text`, without its line end (LF, CRLF) and without a byte order mark."""
    content, starts, _ = line_borders(block)
    if not len(starts):
        return conform(TEXT_SCHEMA.empty_table(), schema=schema, row=pa.array([], pa.int64()))
    content = content.removesuffix(b"\n")
    lines = pc.split_pattern(pa.array([content], pa.large_binary()), b"\n").values
    if b"\r\n" in content or content.endswith(b"\r"):
        lines = pa.array([line.removesuffix(b"\r") for line in lines.to_pylist()], pa.large_binary())
    text, errors = decode_utf8(lines, name="text", kind=pa.large_string())
    return conform(pa.table({"text": text}), schema=schema, row=pa.array(starts), errors=errors)


def line_ends(content: bytes, _offset: int = 0, _ended: bool = True) -> np.ndarray:
    """Where the newlines are."""
    return np.flatnonzero(np.frombuffer(content, np.uint8) == _NEWLINE).astype(np.int64)


def check_lengths(block: LineBlock, *, uri: str, line_bytes: int) -> None:
    """Raise SourceError where a line is longer than the limit."""
    _, starts, stops = line_borders(block)
    long = np.flatnonzero(stops - starts > line_bytes)
    if len(long):
        where = int(starts[long[0]])
        raise SourceError(
            f"{uri}: the line at byte {where} is over limits.line_bytes ({line_bytes}); raise it, or fix the file",
            reason="unreadable",
        )


def line_borders(block: LineBlock) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Bytes without a byte order mark, and for each line its offset in the file and the offset behind it.

    The mark is replaced by nothing but still counts in the offsets, which are those of the file.
    """
    content = block.content
    skipped = len(_BOM) if block.offset == 0 and content.startswith(_BOM) else 0
    content = content[skipped:]
    if not content:
        return b"", np.empty(0, np.int64), np.empty(0, np.int64)
    newlines = line_ends(content)
    stops = newlines if content.endswith(b"\n") else np.append(newlines, len(content))
    starts = np.concatenate([[0], stops[:-1] + 1]).astype(np.int64)
    return content, starts + block.offset + skipped, stops + block.offset + skipped
