"""Counts the records of an input file, with other code than cuts it into shards."""

import csv
import io
from collections.abc import Iterator

from pipeline.errors import SourceError
from pipeline.reading.formats import arrow_ipc, parquet
from pipeline.reading.formats.streams import decompressed
from pipeline.shards import DELIMITED, SourceFile, delimiter_of

CHUNK_BYTES = 4 << 20


def count_records(file: SourceFile, *, delimiter: str | None) -> int:
    """Rows of Parquet and Arrow, lines of text, lines of JSON that are not blank, records of delimited files behind the
    header. Raises SourceError."""
    if file.format == "parquet":
        return parquet.describe(file.uri).rows
    if file.format == "arrow":
        return arrow_ipc.describe(file.uri).rows
    with decompressed(file.uri, compression=file.compression) as stream:
        lines = _lines(stream)
        if file.format in DELIMITED:
            return _count_delimited(lines, delimiter_of(file, delimiter), uri=file.uri)
        return sum(1 for line in lines if file.format == "text" or line.strip(b" \t\r\n\xef\xbb\xbf"))


def _lines(stream: io.BufferedIOBase) -> Iterator[bytes]:
    """Lines with their ends; a byte order mark alone is no line."""
    held = b""
    while chunk := bytes(stream.read(CHUNK_BYTES)):
        *whole, held = (held + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if held.removeprefix(b"\xef\xbb\xbf"):
        yield held


def _count_delimited(lines: Iterator[bytes], delimiter: str, *, uri: str) -> int:
    try:
        reader = csv.reader((line.decode("utf-8", "replace") for line in lines), delimiter=delimiter)
        records = sum(1 for fields in reader if fields and "".join(fields[:2]).strip() + delimiter * (len(fields) - 1))
    except csv.Error as error:
        raise SourceError(f"{uri}: {error}", reason="corrupt") from error
    return max(records - 1, 0)
