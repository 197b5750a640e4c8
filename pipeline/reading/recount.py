"""Counts the records of an input file by the same rules by which its rows are read."""

import io
from collections.abc import Iterator
from functools import partial

from pipeline.reading.formats import arrow_ipc, delimited_parity, parquet
from pipeline.reading.formats.delimited import open_delimited
from pipeline.reading.formats.streams import decompressed, stream_blocks
from pipeline.shards import DELIMITED, CutRule, SourceFile, delimiter_of

CHUNK_BYTES = 4 << 20
BLOCK = CutRule(rows=1 << 20, bytes=8 << 20)


def count_records(
    file: SourceFile, *, delimiter: str | None, quote: str = "double", line_bytes: int = 64_000_000, rules: int = 2
) -> int:
    """Rows of Parquet and Arrow, lines of text, lines of JSON that are not blank, records of delimited files behind the
    header. Raises SourceError."""
    if file.format == "parquet":
        return parquet.describe(file.uri).rows
    if file.format == "arrow":
        return arrow_ipc.describe(file.uri).rows
    if file.format in DELIMITED:
        return sum(_records(file, delimiter=delimiter, quote=quote, line_bytes=line_bytes, rules=rules))
    with decompressed(file.uri, compression=file.compression) as stream:
        lines = _lines(stream)
        return sum(1 for line in lines if file.format == "text" or line.strip(b" \t\r\n\xef\xbb\xbf"))


def _lines(stream: io.BufferedIOBase) -> Iterator[bytes]:
    """Lines with their ends; a byte order mark alone is no line."""
    held = b""
    while chunk := bytes(stream.read(CHUNK_BYTES)):
        *whole, held = (held + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if held.removeprefix(b"\xef\xbb\xbf"):
        yield held


def _records(file: SourceFile, *, delimiter: str | None, quote: str, line_bytes: int, rules: int) -> Iterator[int]:
    """Records of each block of a delimited file."""
    blocks = partial(stream_blocks, uri=file.uri, compression=file.compression, rule=BLOCK, line_bytes=line_bytes)
    if rules == 1:
        between = delimiter_of(file, delimiter)
        header = delimited_parity.read_header(uri=file.uri, compression=file.compression, delimiter=between)
        for block in blocks(record_ends=delimited_parity.record_ends):
            yield delimited_parity.count(block.lines, header=header)
        return
    opened = open_delimited(file, delimiter=delimiter, quote=quote, most_bytes=line_bytes)
    for block in blocks(record_ends=opened.record_ends):
        yield len(opened.records(block.lines).starts)
