"""A file that can only be read in sequence in, blocks of whole records out, cut by the job's rule, the same at every reading."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.reading.formats.lines import CHUNK_BYTES, LineBlock
from pipeline.reading.formats.parquet import FIX, reading_error
from pipeline.shards import CutRule
from pipeline.store.storage import opened


@dataclass(frozen=True)
class StreamBlock:
    """One shard's worth of a file. last: no record follows it. reached: bytes of the stored file up to its end, about."""

    lines: LineBlock
    last: bool
    reached: int = 0


def refuse_lone_returns(content: bytes, *, uri: str) -> None:
    """Raise SourceError where a file, of which this is all, has carriage returns between its lines and no line feed."""
    if b"\n" not in content and b"\r" in content.strip():
        raise SourceError(
            f"{uri}: its lines end with a carriage return alone, as on old Macs; write them with line feeds "
            "(tr '\\r' '\\n')",
            reason="unreadable",
        )


def refuse_utf16(head: bytes, *, uri: str) -> None:
    """Raise SourceError where a file begins like UTF-16 or UTF-32: with their marks, or with every second byte zero."""
    halves = (head[0:16:2], head[1:16:2]) if len(head) >= 16 else (b"", b"")
    zeros = any(half and not any(half) for half in halves) and any(halves[0] + halves[1])
    if zeros or head.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
        raise SourceError(
            f"{uri}: the file is UTF-16 or UTF-32; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)",
            reason="unreadable",
        )


@contextmanager
def decompressed(uri: str, *, compression: str) -> Iterator[Any]:
    """A file as a stream of its decompressed bytes, over all members or frames of it. Raises SourceError."""
    with _decompressed(uri, compression=compression) as (stream, _):
        yield stream


@contextmanager
def _decompressed(uri: str, *, compression: str) -> Iterator[tuple[Any, Any]]:
    """The stream of decompressed bytes, and the stored file below it, whose position says how far it is read."""
    try:
        with opened(uri, block_size=4 * CHUNK_BYTES) as handle:
            if compression == "none":
                yield handle, handle
            elif compression == "gzip":
                # Not Arrow's stream, which takes the zeros that some tools pad a file with for a member that is corrupt.
                with gzip.GzipFile(fileobj=handle) as stream:
                    yield stream, handle
            else:
                with pa.CompressedInputStream(pa.PythonFile(handle, mode="r"), compression) as stream:
                    yield stream, handle
    except SourceError:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{uri}: {str(error).rstrip('.')}; {FIX}", reason="corrupt") from error
    except Exception as error:
        if "too much memory" in str(error):
            raise SourceError(
                f"{uri}: was compressed with a window of more than 128 MB; compress it again with a smaller one "
                "(zstd --long=27, or without --long)",
                reason="unreadable",
            ) from error
        raise reading_error(uri, error) from error


def stream_blocks(
    *,
    uri: str,
    compression: str,
    rule: CutRule,
    line_bytes: int,
    record_ends: Callable[[bytes, int, bool], np.ndarray],
) -> Iterator[StreamBlock]:
    """A file in blocks of at most `rule.rows` records and about `rule.bytes` bytes.

    record_ends: (bytes that begin with a record, their offset in the file, whether nothing follows) -> where records end,
    as the positions of their last bytes, as far as these bytes tell.
    Raises SourceError where the stream breaks; blocks before that are whole.
    """
    with _decompressed(uri, compression=compression) as (stream, stored):
        held, offset, ended = b"", 0, False
        ends = np.empty(0, np.int64)  # of the bytes held, as far as known: each byte is looked at about once
        while True:
            cut = _cut_point(ends, len(held), rule=rule, ended=ended)
            if cut is None or (cut == len(held) and not ended):  # in the second case: is there more behind the cut?
                # A quote may have to be followed for line_bytes before it is known to open nothing.
                if cut is None and len(held) > rule.bytes + 3 * line_bytes:
                    raise SourceError(
                        f"{uri}: the record at byte {offset} is over limits.line_bytes ({line_bytes}); raise it, or fix "
                        "the file",
                        reason="unreadable",
                    )
                more = bytes(stream.read(max(CHUNK_BYTES, rule.bytes // 4, len(held) // 2)))
                ended = not more
                held += more
                known = int(ends[-1]) + 1 if len(ends) else 0
                ends = np.append(ends, record_ends(held[known:], offset + known, ended) + known)
                continue
            last = ended and cut == len(held)
            # What is held behind the cut is read too: count the stored bytes in proportion.
            reached = int(stored.tell() * (offset + cut) / max(offset + len(held), 1))
            yield StreamBlock(LineBlock(held[:cut], offset), last=last, reached=reached)
            if last:
                return
            held, offset = held[cut:], offset + cut
            ends = ends[np.searchsorted(ends, cut) :] - cut


def _cut_point(ends: np.ndarray, held: int, *, rule: CutRule, ended: bool) -> int | None:
    """How many of the bytes held make the next block; None when more must be read to know."""
    by_rows = int(ends[rule.rows - 1]) + 1 if len(ends) >= rule.rows else None
    full = np.searchsorted(ends, rule.bytes - 1)
    by_bytes = int(ends[full]) + 1 if full < len(ends) else None
    cuts = [cut for cut in (by_rows, by_bytes) if cut is not None]
    if cuts:
        return min(cuts)
    return held if ended else None
