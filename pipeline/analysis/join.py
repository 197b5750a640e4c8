"""Two output folders in, their common rows side by side out, by source and row.

Objects of one source hold its rows in order, so that both sides are merged as they are read: whatever the cuts, one object of
each side is in memory.

Legend: R rows.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipeline.analysis.dataset import Dataset
from pipeline.analysis.lookup import tables
from pipeline.output.records import Entry

Side = tuple[Entry, pa.Table]


@dataclass(frozen=True, eq=False)
class Pair:
    """Rows that both sides have, in the same order. keys: of the objects that hold them."""

    source: str
    keys: tuple[str, str]
    a: pa.Table
    b: pa.Table


@dataclass
class Join:
    """The join of two folders, as far as it went. only_a, only_b: rows that one side lacks. changed: files whose versions differ,
    which are not joined, since a row's number may stand for another text.

    columns: of each side: the name in the pairs -> the output's column.
    """

    a: Dataset
    b: Dataset
    columns_a: Mapping[str, str]
    columns_b: Mapping[str, str]
    rows: int = 0
    only_a: int = 0
    only_b: int = 0
    changed: list[str] = field(default_factory=list)

    def pairs(self) -> Iterator[Pair]:
        """The common rows, source by source."""
        of_a, of_b = by_file(self.a), by_file(self.b)
        self.only_a = sum(entry.rows for file in of_a.keys() - of_b.keys() for entry in of_a[file])
        self.only_b = sum(entry.rows for file in of_b.keys() - of_a.keys() for entry in of_b[file])
        self.changed = sorted(
            {uri for uri, _ in of_a.keys() - of_b.keys()} & {uri for uri, _ in of_b.keys() - of_a.keys()}
        )
        for file in sorted(of_a.keys() & of_b.keys()):
            sides = (
                tables(self.a, self.columns_a.values(), shards=of_a[file]),
                tables(self.b, self.columns_b.values(), shards=of_b[file]),
            )
            yield from self._merged(file[0], _named(sides[0], self.columns_a), _named(sides[1], self.columns_b))

    def _merged(self, source: str, of_a: Iterator[Side], of_b: Iterator[Side]) -> Iterator[Pair]:
        a, b = next(of_a, None), next(of_b, None)
        while a is not None and b is not None:
            rows_a, rows_b = (side[1]["row"].to_numpy() for side in (a, b))
            last = min(rows_a[-1], rows_b[-1])
            stop_a, stop_b = (int(np.searchsorted(rows, last, side="right")) for rows in (rows_a, rows_b))
            common, in_a, in_b = np.intersect1d(
                rows_a[:stop_a], rows_b[:stop_b], assume_unique=True, return_indices=True
            )
            self.rows += len(common)
            self.only_a += stop_a - len(common)
            self.only_b += stop_b - len(common)
            if len(common):
                pair = (a[1].take(pa.array(in_a)), b[1].take(pa.array(in_b)))
                yield Pair(source=source, keys=(a[0].key, b[0].key), a=pair[0], b=pair[1])
            a = (a[0], a[1].slice(stop_a)) if stop_a < len(rows_a) else next(of_a, None)
            b = (b[0], b[1].slice(stop_b)) if stop_b < len(rows_b) else next(of_b, None)
        self.only_a += _rest(a, of_a)
        self.only_b += _rest(b, of_b)


def by_file(stored: Dataset) -> dict[tuple[str, str], list[Entry]]:
    """The entries that have rows of each file at its version, in the order of its rows."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in stored.shards:
        if entry.rows:
            found.setdefault((entry.uri, entry.version), []).append(entry)
    return found


def _named(sides: Iterable[Side], columns: Mapping[str, str]) -> Iterator[Side]:
    return ((entry, pa.table({name: table[column] for name, column in columns.items()})) for entry, table in sides)


def _rest(side: Side | None, others: Iterable[Side]) -> int:
    return (side[1].num_rows if side is not None else 0) + sum(table.num_rows for _, table in others)
