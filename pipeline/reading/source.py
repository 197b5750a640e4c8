"""Shards in, Arrow tables of rows out, in bundles of whole shards.

A read task is a run of bundles from one place (a row group, neighbouring byte ranges, many small files, or one file that
reads in sequence) and yields one block of one row for each; so a task streams, and a large row group is decoded once.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Literal, TypeAlias

import pyarrow as pa

from pipeline.bundle import ShardTables
from pipeline.errors import SourceError
from pipeline.isolation import Isolated, in_time
from pipeline.reading.formats import delimited, delimited_parity, jsonl, lines, streams
from pipeline.reading.formats.columnar import READERS as COLUMNAR_READERS
from pipeline.reading.formats.conform import Carried
from pipeline.reading.formats.decoded_size import TooLarge, decoded_bytes
from pipeline.reading.isolated import shards_in, stream_in
from pipeline.reading.partitions import with_partitions
from pipeline.reading.planned_version import check_version, explained
from pipeline.rows import LEFT_OUT, SKIPPED, STORED, UNFIT
from pipeline.shards import (
    COLUMNAR,
    DELIMITED,
    READING,
    CutRule,
    Shard,
    SourceFile,
    Stream,
    Work,
    delimiter_of,
    into_bundles,
    parts_of,
    shard_key,
)

BUNDLE_SHARDS = 64
"""Shards in a bundle at most."""

TASK_BUNDLES = 64
"""Bundles that one read task yields at most."""

DECODED_BYTES = 128 << 20
"""What the rows of a shard may take in memory, at least; the stages hold them several times."""
DECODED_TO_CUT = 8
"""How often `shards.bytes` the rows of a shard may take, where that is more."""

STORE_SECONDS = 300.0
"""Seconds that reading a shard may take, at least: a store is retried for two minutes, and a call may take 90 seconds."""

Large: TypeAlias = Literal["cut", "parts", "whole"]
"""What becomes of a shard whose rows take more memory than one may: it fails and says where to cut it, its parts are read one
after the other, or it is read all the same."""


@dataclass(frozen=True)
class Reading:
    """What every read task needs: the frozen schema and its required columns, the cut, the fingerprint for the keys, the longest
    line allowed.

    carried: columns that no task reads. every: all columns are to be carried; declared: by `input.schema`. rules: those that
    the output folder was begun under (`pipeline.shards.READING`). stall: seconds that one shard may take.
    """

    schema: pa.Schema
    required: tuple[str, ...]
    rule: CutRule
    fingerprint: str
    line_bytes: int
    delimiter: str | None = None
    quote: str = "double"
    carried: frozenset[str] = frozenset()
    rules: int = READING
    partitions: tuple[str, ...] | None = None
    every: bool = False
    declared: bool = False
    large: Large = "cut"
    stall: float = STORE_SECONDS

    @property
    def decoded_bytes(self) -> int:
        """The memory that the rows of one shard may take."""
        return max(DECODED_BYTES, DECODED_TO_CUT * self.rule.bytes)

    def counting(self, file: SourceFile) -> Carried | None:
        """A new count of carried values that do not fit; None under the first rules, in which they are errors of their rows."""
        every = self.every and not (self.declared and file.format == "jsonl")
        return Carried(self.carried, every=every) if self.rules > 1 else None


def read_tasks(*, work: Sequence[Work], rule: CutRule) -> Iterator[list[Work]]:
    """Work grouped into read tasks: each stream alone, neighbouring shards together."""
    for sequential, items in groupby(work, key=lambda item: isinstance(item, Stream)):
        if sequential:
            yield from ([item] for item in items)
        else:
            shards = [item for item in items if isinstance(item, Shard)]
            yield from _runs(shards, rule=rule)


def _runs(shards: Sequence[Shard], *, rule: CutRule) -> Iterator[list[Work]]:
    """Parquet and Arrow shards of one file are in one task, so that a row group is decoded once. Any other shard can be read from
    its offset, so each bundle is a task of its own, for the most readers."""
    for columnar, group in groupby(shards, key=lambda shard: shard.file if shard.file.format in COLUMNAR else None):
        bundles = list(into_bundles(shards=group, rule=rule, most=BUNDLE_SHARDS))
        step = TASK_BUNDLES if columnar is not None else 1
        for first in range(0, len(bundles), step):
            yield [shard for bundle in bundles[first : first + step] for shard in bundle]


def read_bundles(
    *, task: Sequence[Work], reading: Reading, child: Isolated | None = None
) -> Iterator[list[ShardTables]]:
    """The bundles of one read task, each a list of whole shards.

    child: the process that reads them, for files that may end it; all others are read as without it.
    """
    first = task[0]
    if isinstance(first, Stream):
        if child is None:
            yield from ([tables] for tables in read_stream(stream=first, reading=reading))
        else:
            stream_of = partial(read_stream, reading=reading)
            yield from ([tables] for tables in stream_in(child, first, read=stream_of))
        return
    shards = [item for item in task if isinstance(item, Shard)]
    shards_of = partial(read_shards, reading=reading)
    tables = shards_of(shards=shards) if child is None else shards_in(child, shards, read=shards_of)
    if reading.large == "parts":  # there are more of them than shards
        yield from ([read] for read in tables)
        return
    for bundle in into_bundles(shards=shards, rule=reading.rule, most=BUNDLE_SHARDS):
        yield from _bounded((next(tables) for _ in bundle), most_bytes=reading.decoded_bytes)


def _bounded(bundle: Iterator[ShardTables], *, most_bytes: int) -> Iterator[list[ShardTables]]:
    """A bundle, in several if its rows take more memory than one shard may: the stored size of a shard does not show that."""
    held: list[ShardTables] = []
    size = 0
    for read in bundle:
        more = 0 if read.rows is None else decoded_bytes(read.rows)
        if held and size + more > most_bytes:
            yield held
            held, size = [], 0
        held.append(read)
        size += more
    yield held


def read_shards(*, shards: Sequence[Shard], reading: Reading) -> Iterator[ShardTables]:
    """Each shard's rows, in the order given; a shard that can't be read carries its failure instead, and the rest is read."""
    for file, group in groupby(shards, key=lambda shard: shard.file):
        rest = list(group)
        while rest:
            rest = yield from _read_some(file, rest, reading)


def _read_some(file: SourceFile, shards: list[Shard], reading: Reading) -> Generator[ShardTables, None, list[Shard]]:
    """Yields shards of one file until one can't be read, and returns those after it; if the file itself fails, all fail."""
    made, carried = 0, reading.counting(file)
    try:
        for shard, table in zip(shards, _tables(file, shards, reading, carried), strict=True):
            in_time()
            check_version(file)
            if isinstance(table, TooLarge):
                yield from _in_parts(shard, table, reading)
                made += 1
                continue
            table = with_partitions(table, uri=file.uri, schema=reading.schema, keys=reading.partitions)
            yield ShardTables(shard=shard, rows=table, facts=_unfit(carried))
            made += 1
    except SourceError as error:
        reason, message = explained(error, file)
        failed = shards[made : made + 1] if reason == "corrupt" else shards[made:]
        yield from (ShardTables(shard=shard, failure=(reason, message)) for shard in failed)
        return shards[made + len(failed) :]
    return []


def _in_parts(shard: Shard, found: TooLarge, reading: Reading) -> Iterator[ShardTables]:
    """A shard that is too large for one: as a failure that says where to cut it, or its parts one after the other."""
    if reading.large == "parts":
        yield from read_shards(shards=parts_of(shard, found.cuts, fingerprint=reading.fingerprint), reading=reading)
        return
    message = (
        f"{shard.file.uri}: its rows from {shard.first} to {shard.stop} take more than {reading.decoded_bytes >> 20} MB "
        "of memory; they are written in parts"
    )
    yield ShardTables(shard=shard, failure=("too-large", message), cuts=found.cuts)


def _unfit(carried: Carried | None) -> dict[str, float]:
    """The facts of a shard's receipt about carried values that did not fit, and columns left out; resets the counts."""
    if carried is None:
        return {}
    facts = {f"{UNFIT}{name}": float(count) for name, count in carried.unfit.items()}
    facts |= {f"{LEFT_OUT}{name}": float(count) for name, count in carried.left_out.items()}
    carried.unfit.clear()
    carried.left_out.clear()
    return facts


def _tables(
    file: SourceFile, shards: Sequence[Shard], reading: Reading, carried: Carried | None
) -> Iterator[pa.Table | TooLarge]:
    if file.format in COLUMNAR:
        ranges = [(shard.first, shard.stop) for shard in shards]
        read_ranges = COLUMNAR_READERS[file.format].read_ranges
        yield from read_ranges(
            uri=file.uri,
            ranges=ranges,
            schema=reading.schema,
            required=reading.required,
            carried=carried,
            most_bytes=None if reading.large == "whole" else reading.decoded_bytes,
        )
        return
    for shard in shards:
        block = lines.read_block(
            uri=file.uri, first=shard.first, stop=shard.stop, size=file.size, line_bytes=reading.line_bytes
        )
        yield _parse(file, block, reading, carried)


def _parse(file: SourceFile, block: lines.LineBlock, reading: Reading, carried: Carried | None) -> pa.Table:
    if block.offset == 0:
        streams.refuse_utf16(block.content[:16], uri=file.uri)
        if reading.rules > 1 and file.format == "text":
            streams.refuse_lone_returns(block.content, uri=file.uri)
    lines.check_lengths(block, uri=file.uri, line_bytes=reading.line_bytes)
    if file.format == "jsonl":
        return jsonl.json_rows(block, schema=reading.schema, carried=carried)
    return lines.text_rows(block, schema=reading.schema)


def read_stream(*, stream: Stream, reading: Reading) -> Iterator[ShardTables]:
    """The shards of a file that is read in sequence, except those already written; a failure covers all the rest of the file."""
    file, reached, carried = stream.file, 0, reading.counting(stream.file)
    stored = skipped = 0
    try:
        for block, parse in _blocks(file, reading, carried):
            in_time()
            shard = _stream_shard(file, block, reading)
            reached = shard.stop
            behind = file.size if block.last else min(block.reached, file.size)
            if shard.key in stream.done:
                skipped += behind - stored
            else:
                check_version(file)
                table = with_partitions(parse(), uri=file.uri, schema=reading.schema, keys=reading.partitions)
                facts = {STORED: float(behind - stored), SKIPPED: float(skipped)}
                yield ShardTables(shard=shard, rows=table, facts={**_unfit(carried), **facts})
                skipped = 0
            stored = behind
    except SourceError as error:
        rest = Shard(file=file, first=reached, stop=-1, key="", size=0)
        facts = {STORED: float(file.size - stored), SKIPPED: float(skipped)}
        yield ShardTables(shard=rest, failure=explained(error, file), facts=facts)


Parse: TypeAlias = Callable[[], pa.Table]


def _blocks(file: SourceFile, reading: Reading, carried: Carried | None) -> Iterator[tuple[streams.StreamBlock, Parse]]:
    """The blocks of a stream, each with a function that parses it, which is not called for blocks already written."""
    stream_blocks = partial(
        streams.stream_blocks,
        uri=file.uri,
        compression=file.compression,
        rule=reading.rule,
        line_bytes=reading.line_bytes,
    )
    if file.format not in DELIMITED:
        for block in stream_blocks(record_ends=lines.line_ends):
            yield block, partial(_parse, file, block.lines, reading, carried)
    elif reading.rules == 1:
        delimiter = delimiter_of(file, reading.delimiter)
        header = delimited_parity.read_header(uri=file.uri, compression=file.compression, delimiter=delimiter)
        rows_of = partial(
            delimited_parity.delimited_rows,
            header=header,
            delimiter=delimiter,
            schema=reading.schema,
            required=reading.required,
        )
        for block in stream_blocks(record_ends=delimited_parity.record_ends):
            yield block, partial(rows_of, block.lines)
    else:
        opened = delimited.open_delimited(
            file, delimiter=reading.delimiter, quote=reading.quote, most_bytes=reading.line_bytes
        )
        rows_of = partial(
            delimited.delimited_rows,
            file=opened,
            schema=reading.schema,
            required=reading.required,
            carried=carried,
        )
        for block in stream_blocks(record_ends=opened.record_ends):
            yield block, partial(rows_of, block.lines)


def _stream_shard(file: SourceFile, block: streams.StreamBlock, reading: Reading) -> Shard:
    first, stop = block.lines.offset, block.lines.stop
    key = shard_key(file=file, first=first, stop=stop, fingerprint=reading.fingerprint)
    return Shard(file=file, first=first, stop=stop, key=key, size=stop - first, last=block.last)
