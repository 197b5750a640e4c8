"""A file that only reads in sequence in, blocks of whole records out, cut by the job's rule, the same at every reading."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.reading.formats.lines import CHUNK_BYTES, LineBlock
from pipeline.reading.formats.parquet import reading_error
from pipeline.shards import CutRule
from pipeline.store.storage import opened


@dataclass(frozen=True)
class StreamBlock:
    """One shard's worth of a file. last: no record follows it."""

    lines: LineBlock
    last: bool


@contextmanager
def decompressed(uri: str, *, compression: str) -> Iterator[Any]:
    """A file as a stream of its decompressed bytes, over all members or frames of it. Raises SourceError."""
    try:
        with opened(uri, block_size=4 * CHUNK_BYTES) as handle:
            if compression == "none":
                yield handle
            else:
                with pa.CompressedInputStream(pa.PythonFile(handle, mode="r"), compression) as stream:
                    yield stream
    except SourceError:
        raise
    except Exception as error:
        raise reading_error(uri, error) from error


def stream_blocks(
    *,
    uri: str,
    compression: str,
    rule: CutRule,
    line_bytes: int,
    record_ends: Callable[[bytes], np.ndarray],
) -> Iterator[StreamBlock]:
    """A file in blocks of at most `rule.rows` records and about `rule.bytes` bytes.

    record_ends: where records end in bytes that begin with a record, as the positions of their last bytes.
    Raises SourceError where the stream breaks; blocks before that are whole.
    """
    with decompressed(uri, compression=compression) as stream:
        held, offset, ended = b"", 0, False
        while True:
            cut = _cut_point(record_ends(held), len(held), rule=rule, ended=ended)
            if cut is None:
                if len(held) > rule.bytes + line_bytes:
                    raise SourceError(
                        f"{uri}: the record at byte {offset} is over limits.line_bytes ({line_bytes}); raise it, or fix "
                        "the file",
                        reason="unreadable",
                    )
                more = bytes(stream.read(max(CHUNK_BYTES, rule.bytes // 4)))
                ended = not more
                held += more
                continue
            if cut == len(held) and not ended:  # is there more behind the cut?
                more = bytes(stream.read(CHUNK_BYTES))
                ended = not more
                held += more
            last = ended and cut == len(held)
            yield StreamBlock(LineBlock(held[:cut], offset), last=last)
            if last:
                return
            held, offset = held[cut:], offset + cut


def _cut_point(ends: np.ndarray, held: int, *, rule: CutRule, ended: bool) -> int | None:
    """How many of the bytes held make the next block; None when more must be read to know."""
    by_rows = int(ends[rule.rows - 1]) + 1 if len(ends) >= rule.rows else None
    full = np.searchsorted(ends, rule.bytes - 1)
    by_bytes = int(ends[full]) + 1 if full < len(ends) else None
    cuts = [cut for cut in (by_rows, by_bytes) if cut is not None]
    if cuts:
        return min(cuts)
    return held if ended else None
