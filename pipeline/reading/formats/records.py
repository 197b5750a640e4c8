"""Finds where the records of a delimited file end, whatever quotes its texts hold.

A quote opens a field only at the field's start, and only where it is closed again: by the next quote that stands alone (two
are one quote of the value), before a delimiter or a line end, within `limits.line_bytes`. Any other quote is a character of
its text. So a stray quote costs no other record.

Why odd runs are all that matters: inside a quoted field, a run of quotes closes it when its length is odd. A run at a field's
start of even length opens and closes at once, or is text; either way no line end lies inside. So an opening run is closed by
the very next odd run, or by none.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]

_QUOTE, _LF, _CR = ord('"'), ord("\n"), ord("\r")


@dataclass(frozen=True)
class Dialect:
    """How the records of a delimited file are written.

    quoting: whether quotes mean anything. most_bytes: of one quoted field. columns: of the header, where a field that spans
    lines is only believed if its lines are no records by themselves: TSV, which most programs write without quoting.
    """

    delimiter: str
    quoting: bool
    most_bytes: int
    columns: int | None = None


@dataclass(frozen=True)
class Scan:
    """What is known of some bytes that begin with a record.

    ends: where records end, as positions of their line ends. regions: [start, stop) of each quoted field that has an odd run
    of quotes at its start, in order. strays: quotes at the start of a field that open none. undecided: where a quoted field
    begins whose end is not in view; nothing behind it is known.
    """

    ends: Places
    region_starts: Places
    region_stops: Places
    strays: Places
    undecided: int | None = None

    def outside(self, places: Places) -> Places:
        """The positions that are not inside a quoted field."""
        if not len(self.region_starts):
            return places
        before = np.searchsorted(self.region_starts, places, side="right") - 1
        return places[(before < 0) | (places >= self.region_stops[before])]


def scan(content: bytes, dialect: Dialect, *, ended: bool, begin: int = 0) -> Scan:
    """Where the records end.

    ended: nothing follows the content; otherwise the meaning of its last lines may still be undecided. begin: where the first
    record begins, after a byte order mark.
    """
    raw = np.frombuffer(content, np.uint8)
    newlines = np.flatnonzero(raw == _LF).astype(np.int64)
    none = np.empty(0, np.int64)
    if not dialect.quoting:
        return Scan(newlines, none, none, none)
    view = len(raw) if ended else (int(newlines[-1]) + 1 if len(newlines) else 0)
    quotes = np.flatnonzero(raw[:view] == _QUOTE).astype(np.int64)
    if not len(quotes):
        return Scan(newlines, none, none, none)
    starts, stops = _runs(quotes)
    first = _at_field_start(raw, starts, dialect, begin)
    last = _before_field_end(raw, stops, dialect)
    odd = (stops - starts) % 2 == 1
    runs = _Runs.of(raw, (starts[odd], stops[odd], first[odd], last[odd]), newlines, dialect, view)
    opening, undecided = _openings(runs, view=view, most=dialect.most_bytes, ended=ended)
    found = Scan(newlines, runs.starts[opening], runs.stops[opening + 1], none, undecided)
    ends, strays = found.outside(newlines), found.outside(starts[first & (odd | ~last)])
    if undecided is not None:
        ends, strays = ends[ends < undecided], strays[strays < undecided]
    return Scan(ends, found.region_starts, found.region_stops, strays, undecided)


@dataclass(frozen=True)
class _Runs:
    """The runs of an odd number of quotes. opens: whether each stands at a field's start. closes: whether each closes the run
    before it, if that one opens."""

    starts: Places
    stops: Places
    opens: npt.NDArray[np.bool_]
    closes: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        raw: npt.NDArray[np.uint8],
        odd: tuple[Places, Places, npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
        newlines: Places,
        dialect: Dialect,
        view: int,
    ) -> "_Runs":
        starts, stops, opens, closes = odd
        closes[1:] &= stops[1:] - starts[:-1] <= dialect.most_bytes
        closes[:1] = False
        if dialect.columns is not None and dialect.columns > 1:
            closes[1:] &= ~_records_by_themselves(raw, starts[:-1], stops[1:], newlines, dialect, view=view)
        return cls(starts, stops, opens, closes)


def _runs(quotes: Places) -> tuple[Places, Places]:
    first = np.flatnonzero(np.diff(quotes, prepend=-2) != 1)
    last = np.append(first[1:], len(quotes)) - 1
    return quotes[first], quotes[last] + 1


def _at_field_start(raw: npt.NDArray[np.uint8], places: Places, dialect: Dialect, begin: int) -> npt.NDArray[np.bool_]:
    """Whether each place is where the first record begins, or behind a delimiter or a line end."""
    before = raw[np.maximum(places - 1, 0)]
    return (places == begin) | (before == ord(dialect.delimiter)) | (before == _LF)


def _before_field_end(raw: npt.NDArray[np.uint8], places: Places, dialect: Dialect) -> npt.NDArray[np.bool_]:
    """Whether each place has a delimiter, a line end or the content's end."""
    last = len(raw) - 1
    here, behind = raw[np.minimum(places, last)], raw[np.minimum(places + 1, last)]
    line_end = (here == _LF) | ((here == _CR) & ((behind == _LF) | (places + 1 > last)))
    return (places > last) | (here == ord(dialect.delimiter)) | line_end


def _records_by_themselves(
    raw: npt.NDArray[np.uint8], starts: Places, stops: Places, newlines: Places, dialect: Dialect, *, view: int
) -> npt.NDArray[np.bool_]:
    """For each would-be field, whether all lines that it touches have as many fields as the header when quotes mean nothing."""
    first, behind = np.searchsorted(newlines, starts), np.searchsorted(newlines, stops)
    found = np.zeros(len(starts), bool)
    spanning = np.flatnonzero(behind > first)
    if not len(spanning):
        return found
    delimiters = np.flatnonzero(raw[:view] == ord(dialect.delimiter))
    borders = np.concatenate([[-1], newlines, [len(raw)]])
    counts = np.diff(np.searchsorted(delimiters, borders)) + 1
    wrong = np.concatenate([[0], np.cumsum(counts != dialect.columns)])
    found[spanning] = wrong[behind[spanning] + 1] == wrong[first[spanning]]
    return found


def _openings(runs: _Runs, *, view: int, most: int, ended: bool) -> tuple[Places, int | None]:
    """Which runs open a quoted field, which the next run closes; and where one begins that is not decided yet.

    Well-formed stretches, where runs open and close in turn, are taken at once; only what is irregular is stepped through.
    """
    count = len(runs.starts)
    number = np.arange(count)
    stretches = [
        np.flatnonzero(np.where(number % 2 == phase, ~runs.opens, ~runs.closes)) for phase in (0, 1)
    ]  # where opening and closing in turn breaks off, if the runs of this phase are those that open
    opening = np.flatnonzero(runs.opens)
    found: list[Places] = []
    reached = 0
    while True:
        place = np.searchsorted(opening, reached)
        if place == len(opening):
            break
        reached = int(opening[place])
        breaks = stretches[reached % 2]
        behind = np.searchsorted(breaks, reached)
        stop = int(breaks[behind]) if behind < len(breaks) else count
        pairs = (stop - reached) // 2
        found.append(np.arange(reached, reached + 2 * pairs, 2))
        reached += 2 * pairs
        if reached == count - 1 and runs.opens[reached]:  # the last run opens, and nothing in view closes it
            if not ended and view - int(runs.starts[reached]) <= most:
                return np.concatenate(found), int(runs.starts[reached])
            break
        if pairs == 0:
            reached += 1
    return (np.concatenate(found) if found else np.empty(0, np.int64)), None
