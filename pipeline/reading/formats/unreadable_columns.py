"""The bytes of a file that Arrow can't open in, the names of the columns out whose types it does not know, such as integers of
128 bits.

Arrow's own error names no column. The schema is a flatbuffer: it is cut down to some of its columns, and Arrow asked again.
"""

import base64
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

MOST_BYTES = 16 << 20
"""Of a schema; one that is larger is not looked into."""
MOST_NAMED = 5
IN_A_FOOTER = re.compile(rb"ARROW:schema\x18([\x80-\xff]{0,4}[\x00-\x7f])")
"""The key under which Parquet keeps an Arrow schema, and the length of what follows, as a varint of 32 bits."""


def unreadable_columns(handle: Any) -> list[str]:
    """The columns of an open Parquet or Arrow file whose types Arrow can't read; none where they can't be found."""
    try:
        size = handle.seek(0, 2)
        handle.seek(0)
        begin = handle.read(8)
        if begin[:6] == b"ARROW1":
            return _of_arrow_footer(_tail(handle, size - 10))
        if begin[:4] != b"PAR1":
            handle.seek(0)
            return _of_message(handle.read(MOST_BYTES))
        footer = _tail(handle, size - 8)
        found = IN_A_FOOTER.search(footer)
        if found is None:
            return []
        count = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(found[1]))
        return _of_message(base64.b64decode(footer[found.end() : found.end() + count]))
    except (struct.error, ValueError, IndexError, OSError):  # damaged, or cut off
        return []


def _tail(handle: Any, stop: int) -> bytes:
    """What lies before its own length."""
    handle.seek(stop)
    (length,) = struct.unpack("<I", handle.read(4))
    handle.seek(max(0, stop - min(length, MOST_BYTES)))
    return bytes(handle.read(min(length, MOST_BYTES)))


def _of_message(content: bytes) -> list[str]:
    """Of the message that a stream begins with: its length, behind a mark that the first versions of Arrow left out."""
    start = 8 if content[:4] == b"\xff\xff\xff\xff" else 4
    (length,) = struct.unpack_from("<I", content, start - 4)
    message = bytearray(content[start : start + length])
    schema = _followed(message, _field(message, _followed(message, 0), 2))
    return _unread(
        message, schema, lambda: pa.ipc.read_schema(pa.py_buffer(struct.pack("<iI", -1, len(message)) + message))
    )


def _of_arrow_footer(content: bytes) -> list[str]:
    footer = bytearray(content)
    schema = _followed(footer, _field(footer, _followed(footer, 0), 1))
    return _unread(
        footer,
        schema,
        lambda: pa.ipc.open_file(pa.py_buffer(b"ARROW1\0\0" + footer + struct.pack("<I", len(footer)) + b"ARROW1")),
    )


def _unread(message: bytearray, schema: int, read: Callable[[], object]) -> list[str]:
    """The names of the first columns of a schema that can't be read. read: reads the message, which is changed."""
    fields = _followed(message, _field(message, schema, 1))
    count = min(_number(message, fields), len(message) // 4)
    tables = [_followed(message, fields + 4 + 4 * number) for number in range(count)]

    def readable(some: Sequence[int]) -> bool:
        struct.pack_into("<I", message, fields, len(some))
        for number, table in enumerate(some):
            place = fields + 4 + 4 * number
            struct.pack_into("<I", message, place, table - place)
        try:
            read()
        except pa.ArrowNotImplementedError:
            return False
        except pa.ArrowException:
            return True  # damaged
        return True

    return [_name(message, table) for table in islice(_bad(tables, readable), MOST_NAMED)]


def _bad(tables: Sequence[int], readable: Callable[[Sequence[int]], bool]) -> Iterator[int]:
    """By halves: with thousands of columns, reading them one at a time would take seconds."""
    if not tables or readable(tables):
        return
    if len(tables) == 1:
        yield tables[0]
        return
    half = len(tables) // 2
    yield from _bad(tables[:half], readable)
    yield from _bad(tables[half:], readable)


def _name(message: bytearray, table: int) -> str:
    text = _followed(message, _field(message, table, 0))
    return bytes(message[text + 4 : text + 4 + _number(message, text)]).decode("utf-8", "replace")


def _number(message: bytearray, place: int) -> int:
    (number,) = struct.unpack_from("<I", message, place)
    return int(number)


def _followed(message: bytearray, place: int) -> int:
    """Where an offset leads."""
    return place + _number(message, place)


def _field(message: bytearray, table: int, slot: int) -> int:
    """Where a table has its field of this number. Raises IndexError where it has none."""
    (back,) = struct.unpack_from("<i", message, table)
    (length,) = struct.unpack_from("<H", message, table - back)
    if 4 + 2 * slot + 2 > length:
        raise IndexError(slot)
    (offset,) = struct.unpack_from("<H", message, table - back + 4 + 2 * slot)
    if not offset:
        raise IndexError(slot)
    return int(table + offset)
