"""Comma- or tab-separated values in, rows of the job's columns out; `records` says where a record ends.

A newline inside quotes is part of its field, so such a file only reads in sequence. `row` of a record is its byte offset;
the header is no record. A record with another number of fields than the header is a row of nulls with an error. Every field
is text as it is written; an empty one without quotes is null.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.csv as pac

from pipeline.errors import RowError, SourceError
from pipeline.reading.formats.conform import Carried, conform
from pipeline.reading.formats.lines import LineBlock
from pipeline.reading.formats.records import Dialect, Places, Scan, scan
from pipeline.reading.formats.streams import decompressed, refuse_lone_returns, refuse_utf16
from pipeline.rows import error_array, no_errors
from pipeline.shards import SourceFile, delimiter_of

HEADER_BYTES = 1 << 20
"""The header must lie within this many first bytes of a file."""

_BOM = b"\xef\xbb\xbf"
_QUOTE, _CR, _LF = b'"', b"\r", b"\n"


@dataclass(frozen=True)
class Header:
    """names: of the columns; none in a file without a line. stop: offset of the first record."""

    names: list[str]
    stop: int


@dataclass(frozen=True)
class DelimitedFile:
    """How one file is read: its header and its dialect. header_only: whether nothing but white space follows the header."""

    header: Header
    dialect: Dialect
    header_only: bool = False

    def record_ends(self, content: bytes, offset: int, ended: bool) -> Places:
        """Where records end in bytes that begin with a record at `offset` of the file, as far as these bytes decide it."""
        return scan(content, self.dialect, ended=ended, begin=_mark(content, offset)).ends

    def records(self, block: LineBlock) -> "Records":
        """The records of a block that are rows: neither blank lines nor the header."""
        found = scan(block.content, self.dialect, ended=True, begin=_mark(block.content, block.offset))
        ends, size = found.ends, len(block.content)
        stops = ends + 1 if len(ends) and ends[-1] == size - 1 else np.append(ends + 1, size)
        starts = np.concatenate([[0], stops[:-1]]).astype(np.int64)
        chosen = starts + block.offset >= self.header.stop
        starts, stops = starts[chosen], stops[chosen]
        filled = _filled(block.content, starts, stops)
        return Records(block, starts[filled], stops[filled], found)


@dataclass(frozen=True)
class Records:
    """Records of a block, as places in its content."""

    block: LineBlock
    starts: Places
    stops: Places
    found: Scan = field(repr=False)

    def of(self, places: Places) -> np.ndarray:
        """[records], whether each contains one of these positions."""
        hit = np.zeros(len(self.starts) + 1, bool)
        number = np.searchsorted(self.starts, places, side="right") - 1
        hit[number[number >= 0]] = True
        return hit[:-1]


def _mark(content: bytes, offset: int) -> int:
    return len(_BOM) if offset == 0 and content.startswith(_BOM) else 0


def _filled(content: bytes, starts: Places, stops: Places) -> np.ndarray:
    """Which records are more than white space."""
    filled = stops > starts
    if not filled.any():
        return filled
    first = np.frombuffer(content, np.uint8)[np.minimum(starts, len(content) - 1)]
    for index in np.flatnonzero(first <= ord(" ")):
        filled[index] = bool(content[starts[index] : stops[index]].strip())
    return filled


def open_delimited(file: SourceFile, *, delimiter: str | None, quote: str, most_bytes: int) -> DelimitedFile:
    """A file's header, and how the job reads its records. Raises SourceError if column names are ambiguous."""
    quoting = quote != "none"
    plain = Dialect(delimiter=delimiter_of(file, delimiter), quoting=quoting, most_bytes=most_bytes)
    with decompressed(file.uri, compression=file.compression) as stream:
        head = bytes(stream.read(HEADER_BYTES))
    header = read_header(head, plain, uri=file.uri)
    columns = len(header.names) if file.format == "tsv" else None
    header_only = len(head) < HEADER_BYTES and not head[header.stop :].strip()
    return DelimitedFile(header, Dialect(plain.delimiter, quoting, most_bytes, columns), header_only)


def read_header(head: bytes, dialect: Dialect, *, uri: str) -> Header:
    """The header in the first bytes of a file. Raises SourceError."""
    refuse_utf16(head, uri=uri)
    begin = _mark(head, 0)
    if not head[begin:].strip():
        return Header([], len(head))
    if len(head) < HEADER_BYTES:
        refuse_lone_returns(head, uri=uri)
    begin += _blank_lines(head[begin:])
    ends = scan(head[begin:], dialect, ended=True).ends
    stop = begin + int(ends[0]) + 1 if len(ends) else len(head)
    try:
        line = head[begin:stop].decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{uri}: the header is not UTF-8; write the file as UTF-8", reason="unreadable") from error
    names = [name for name, _ in fields_of(line, dialect)]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise SourceError(
            f"{uri}: the header names the column {twice!r} twice; rename one of them", reason="unreadable"
        )
    return Header(names, stop)


def _blank_lines(head: bytes) -> int:
    """Bytes of the lines of white space that a file begins with."""
    filled = len(head) - len(head.lstrip(b" \t\r\n"))
    return head.rfind(_LF, 0, filled) + 1


def fields_of(record: str, dialect: Dialect) -> list[tuple[str, bool]]:
    """The fields of one record by the rules of `records`, each with whether it was quoted."""
    text = record.removesuffix("\n").removesuffix("\r")
    fields: list[tuple[str, bool]] = []
    place = 0
    while True:
        close = _close_of(text, place, dialect) if dialect.quoting and text.startswith('"', place) else None
        if close is None:
            stop = text.find(dialect.delimiter, place)
            stop = len(text) if stop < 0 else stop
            fields.append((text[place:stop], False))
        else:
            stop = close + 1
            fields.append((text[place + 1 : close].replace('""', '"'), True))
        if stop >= len(text):
            return fields
        place = stop + 1


def _close_of(text: str, opening: int, dialect: Dialect) -> int | None:
    """Where the quoted field that opens at this quote closes; None if the quote opens none."""
    place = text.find('"', opening + 1)
    while place >= 0 and text.startswith('"', place + 1):
        place = text.find('"', place + 2)
    if place < 0 or (text[place + 1 : place + 2] not in {"", dialect.delimiter, "\n"} and text[place + 1 :] != "\r"):
        return None
    return place


def delimited_rows(
    block: LineBlock,
    *,
    file: DelimitedFile,
    schema: pa.Schema,
    required: Sequence[str] = (),
    carried: Carried | None = None,
) -> pa.Table:
    """Every record of a block as a row."""
    records = file.records(block)
    names = file.header.names
    if carried is not None:
        carried.leave_out(names, known=set(schema.names), rows=len(records.starts))
    row = pa.array(records.starts + block.offset)
    faults = _faults(records, columns=len(names), delimiter=file.dialect.delimiter)
    if faults:
        bad = np.zeros(len(records.starts), bool)
        bad[list(faults)] = True
        table = _read(_content(records, ~bad, file), names, file.dialect)
        table = table.take(pa.array(np.cumsum(~bad) - 1, mask=bad))
        errors = error_array([faults.get(index) for index in range(len(bad))])
    else:
        table = _read(_content(records, None, file), names, file.dialect)
        errors = no_errors(len(records.starts))
    return conform(table, schema=schema, row=row, errors=errors, required=required, carried=carried)


def _faults(records: Records, *, columns: int, delimiter: str) -> dict[int, RowError]:
    """Why a record can't be read, by its number: it is not UTF-8, or has another number of fields than the header."""
    content, starts, stops = records.block.content, records.starts, records.stops
    faults: dict[int, RowError] = {}
    delimiters = np.flatnonzero(np.frombuffer(content, np.uint8) == ord(delimiter)).astype(np.int64)
    delimiters = records.found.outside(delimiters)
    counts = np.searchsorted(delimiters, stops) - np.searchsorted(delimiters, starts) + 1
    for index in np.flatnonzero(counts != columns).tolist():
        text = content[starts[index] : stops[index]]
        found = f"{counts[index]} field{'' if counts[index] == 1 else 's'}, and the header has {columns}"
        faults[index] = ("malformed-csv", f"{found}: {text[:60].decode('utf-8', 'replace')!r}")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        for index, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            try:
                content[start:stop].decode("utf-8")
            except UnicodeDecodeError as problem:
                faults[index] = ("invalid-utf8", f"byte {problem.start} of the record is not UTF-8")
    return faults


def _content(records: Records, chosen: np.ndarray | None, file: DelimitedFile) -> tuple[bytes, bool]:
    """(bytes of the chosen records, or of all if None, which Arrow reads as `records` does; whether Arrow should see quotes).

    Arrow takes any carriage return for a line end, and any quote at a field's start for an opening one. Records that have such
    are rewritten, with quotes around each field that needs them.
    """
    content, dialect = records.block.content, file.dialect
    if not len(records.starts):
        return b"", dialect.quoting
    returns = _lone_returns(content, records)
    if dialect.quoting:
        odd = (
            records.of(np.concatenate([records.found.strays, returns]))
            if len(records.found.strays) + len(returns)
            else None
        )
    else:
        odd = np.ones(len(records.starts), bool) if len(returns) else None
    if odd is None and chosen is None and not _blanks_between(content, records):
        return content[int(records.starts[0]) : int(records.stops[-1])], dialect.quoting
    everything = np.ones(len(records.starts), bool)
    pieces = [
        _quoted_anew(content[start:stop], dialect) if again else _whole_line(content[start:stop])
        for start, stop, again, wanted in zip(
            records.starts.tolist(),
            records.stops.tolist(),
            (~everything if odd is None else odd).tolist(),
            (everything if chosen is None else chosen).tolist(),
            strict=True,
        )
        if wanted
    ]
    return b"".join(pieces), dialect.quoting or odd is not None


def _blanks_between(content: bytes, records: Records) -> bool:
    """Whether lines of spaces or tabs stand between the records: Arrow skips empty lines only."""
    gaps = np.flatnonzero(records.starts[1:] != records.stops[:-1])
    return any(content[records.stops[gap] : records.starts[gap + 1]].strip(b"\r\n") for gap in gaps.tolist())


def _lone_returns(content: bytes, records: Records) -> Places:
    """Carriage returns outside quotes that end no line."""
    if _CR not in content:
        return np.empty(0, np.int64)
    raw = np.frombuffer(content, np.uint8)
    returns = np.flatnonzero(raw == ord(_CR)).astype(np.int64)
    lone = returns[raw[np.minimum(returns + 1, len(raw) - 1)] != ord(_LF)]
    return records.found.outside(lone)


def _whole_line(record: bytes) -> bytes:
    return record if record.endswith(_LF) else record + _LF


def _quoted_anew(record: bytes, dialect: Dialect) -> bytes:
    """A record rewritten with quotes around each field that has a special character; it is known to be valid UTF-8."""
    fields = [
        '"' + value.replace('"', '""') + '"' if quoted or any(sign in value for sign in '"\r\n') else value
        for value, quoted in fields_of(record.decode("utf-8"), dialect)
    ]
    return dialect.delimiter.join(fields).encode() + _LF


def _read(content: tuple[bytes, bool], names: list[str], dialect: Dialect) -> pa.Table:
    """Sound records as text."""
    records, quoting = content
    text = pa.schema([(name, pa.string()) for name in names])
    if not records:
        return text.empty_table()
    return pac.read_csv(
        pa.BufferReader(records),
        read_options=pac.ReadOptions(use_threads=False, block_size=len(records) + 1, column_names=names),
        parse_options=pac.ParseOptions(
            delimiter=dialect.delimiter, newlines_in_values=True, quote_char='"' if quoting else False
        ),
        convert_options=pac.ConvertOptions(
            column_types=text,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=False,  # done
        ),
    )
