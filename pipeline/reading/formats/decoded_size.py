"""A table's rows in, the bytes out that they take when every value stands by itself, and where to cut rows that take too many.

A value that is stored once and repeated counts each time.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.reading.formats.arrow_types import is_string


@dataclass(frozen=True)
class TooLarge:
    """Rows that take more than one shard may. cuts: the numbers of the rows at which all of its parts but the first begin."""

    cuts: tuple[int, ...]


TableOrTooLarge: TypeAlias = Any
"""A table (which has no type for a type checker), or TooLarge: only for those who set a limit."""


@dataclass
class Gathered:
    """Rows collected piece by piece as long as they take at most so many bytes; beyond that only where to cut them.

    most: None for no limit. A single row is never too large, since it can't be cut.
    """

    most: int | None
    pieces: list[pa.Table] = field(default_factory=list)
    _cuts: list[int] = field(default_factory=list)
    _bytes: int = 0
    _part_bytes: int = 0

    def add(self, piece: pa.Table, *, first: int) -> None:
        """The next rows, which begin at this number."""
        if self.most is not None:
            self._measure(piece, first=first, part=max(1, self.most // 2))
        self.pieces = [] if self.too_large else [*self.pieces, piece]

    def _measure(self, piece: pa.Table, *, first: int, part: int) -> None:
        """part: bytes of one part; half of what is too large, so that no part is cut again for a few bytes."""
        size = decoded_bytes(piece)
        if self._part_bytes and self._part_bytes + size > part:
            self._cuts.append(first)
            self._part_bytes = 0
        parts = max(1, min(piece.num_rows, -(-size // part)))
        self._cuts += [first + piece.num_rows * number // parts for number in range(1, parts)]
        self._part_bytes += size // parts
        self._bytes += size

    @property
    def too_large(self) -> TooLarge | None:
        """Where to cut the rows; None if they are not too large."""
        is_over = self.most is not None and self._bytes > self.most and self._cuts
        return TooLarge(tuple(self._cuts)) if is_over else None


def decoded_bytes(table: pa.Table) -> int:
    """The bytes of a table's rows with dictionaries, runs and views decoded."""
    return sum(_array_bytes(chunk) for column in table.columns for chunk in column.chunks)


def _array_bytes(array: pa.Array) -> int:
    kind = array.type
    if pa.types.is_primitive(kind) or pa.types.is_string(kind):
        return int(array.nbytes)
    if isinstance(kind, pa.BaseExtensionType):
        return _array_bytes(array.storage)
    if pa.types.is_dictionary(kind):
        return _repeated(array.dictionary, array.indices)
    if pa.types.is_run_end_encoded(kind):
        places = pa.array(range(array.offset, array.offset + len(array)), pa.int64())
        runs = array.run_ends.to_numpy().searchsorted(places.to_numpy(), side="right")
        return _repeated(array.values, pa.array(runs))
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        # Arrow has no kernel for their lengths: each view is 16 bytes, of which the first four say it.
        views = np.frombuffer(array.buffers()[1], np.int32).reshape(-1, 4)[array.offset : array.offset + len(array)]
        return 16 * len(array) + int(views[:, 0].sum(dtype=np.int64))
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return _share(array.values, _total(pc.list_value_length(array)))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return 8 * len(array) + _array_bytes(array.flatten())
    if pa.types.is_struct(kind):
        return sum(_array_bytes(part) for part in array.flatten())
    return int(array.nbytes)


def _repeated(values: pa.Array, places: pa.Array) -> int:
    """The bytes of values that each stand at several places."""
    if is_string(values.type) or pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        return 8 * len(places) + _total(pc.binary_length(values).take(places))
    return _share(values, len(places))


def _share(values: pa.Array, count: int) -> int:
    """The bytes of so many values, if they are all like these on average."""
    return _array_bytes(values) * count // max(1, len(values))


def _total(lengths: pa.Array) -> int:
    return int(pc.sum(lengths).as_py() or 0)
