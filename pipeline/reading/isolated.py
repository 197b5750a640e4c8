"""Shards in, Arrow tables of rows out, read by a child process: what ends the child fails alone.

What can be read has the same rows and facts as `source` reads without a child.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from pipeline.bundle import ShardTables, pack, unpack
from pipeline.errors import SourceError
from pipeline.inference.child_process import Suspect
from pipeline.isolation import DiedError, Isolated
from pipeline.reading.planned_version import explained
from pipeline.rows import SKIPPED, STORED
from pipeline.shards import Shard, SourceFile, Stream

Read = Callable[..., Iterator[ShardTables]]
"""`read_shards` with its `reading`, or `read_stream`."""


def shards_in(child: Isolated, shards: Sequence[Shard], *, read: Read) -> Iterator[ShardTables]:
    """As `read_shards`; a shard that has ended the child often enough fails, and the rest is read."""
    rest, suspect = list(shards), Suspect()
    while rest:
        try:
            for packed in child.stream(partial(_packed, read, shards=rest)):
                yield from unpack(packed)
                rest, suspect = rest[1:], Suspect()
            return
        except DiedError as died:
            if suspect.is_guilty(died.death):
                place, cause = f"from {rest[0].first} to {rest[0].stop}", suspect.described(died.death)
                yield ShardTables(shard=rest[0], failure=_killed(rest[0].file, place, cause))
                rest, suspect = rest[1:], Suspect()


@dataclass
class _Place:
    """How far a stream was read in one go. stored: bytes of the file. stop: of the last shard, in decompressed bytes."""

    stored: float = 0.0
    stop: int = 0


def stream_in(child: Isolated, stream: Stream, *, read: Read) -> Iterator[ShardTables]:
    """As `read_stream`; the file fails where it has ended the child often enough.

    The child leaves out no shard, not even those already written, so that each shows in time that it is still reading.
    """
    file, passed, suspect = stream.file, set[str](), Suspect()
    skipped = 0.0
    while True:
        place = _Place()
        try:
            for packed in child.stream(partial(_packed, read, stream=replace(stream, done=frozenset()))):
                (found,) = unpack(packed)
                place = _Place(place.stored + found.facts[STORED], found.shard.stop)
                if found.shard.key in passed:
                    continue
                suspect = Suspect()
                if found.shard.key in stream.done:
                    skipped += found.facts[STORED]
                else:
                    yield found.with_(facts={SKIPPED: skipped})
                    skipped = 0.0
                passed.add(found.shard.key)
            return
        except DiedError as died:
            if suspect.is_guilty(died.death):
                failure = _killed(file, f"from byte {place.stop}", suspect.described(died.death))
                facts = {STORED: file.size - place.stored, SKIPPED: skipped}
                rest = Shard(file=file, first=place.stop, stop=-1, key="", size=0)
                yield ShardTables(shard=rest, failure=failure, facts=facts)
                return


def _packed(read: Read, **work: object) -> Iterator[pa.Table]:
    """Shards as they go through a pipe: without what their tables are slices of."""
    return (pack([shard]) for shard in read(**work))


def _killed(file: SourceFile, place: str, cause: str) -> tuple[str, str]:
    """The failure of what ends the process that reads it."""
    message = f"{file.uri}: reading it {place} killed the reader {cause}; replace or remove the file"
    return explained(SourceError(message, reason="killed-reader"), file)
