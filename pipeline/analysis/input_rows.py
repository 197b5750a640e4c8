"""Shards of an output folder in, the rows that they were made from out, read again as the job reads them."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipeline.analysis.dataset import Dataset
from pipeline.errors import SourceError
from pipeline.output.plan import known_shards, newest
from pipeline.output.records import Entry
from pipeline.shards import Stream


def input_rows(stored: Dataset, shards: Sequence[Entry]) -> Iterator[tuple[Entry, pa.Table]]:
    """The rows that objects of one file were made from, read again as the job reads them; their numbers are in `__row__`.

    Raises SourceError if the file is gone, or has changed since.
    """
    from pipeline.flow import reading_of
    from pipeline.reading.source import read_shards, read_stream

    planned, wanted = newest(stored.folder.read_plans()[1])[shards[0].uri], {entry.key: entry for entry in shards}
    if planned.shards is None:
        others = frozenset(entry.key for entry in stored.shards) - wanted.keys()
        read = read_stream(stream=Stream(file=planned.file, done=others), reading=reading_of(stored.job, large="whole"))
    else:
        cut = [shard for shard in known_shards(planned) if shard.key in wanted]
        read = read_shards(shards=cut, reading=reading_of(stored.job, large="whole"))
    for tables in read:
        if tables.failure is not None:
            reason, message = tables.failure
            raise SourceError(message, reason=reason)
        entry = wanted.pop(tables.shard.key, None)
        if entry is not None:
            assert tables.rows is not None
            yield entry, tables.rows
        if not wanted:
            return
    raise SourceError(f"{planned.file.uri}: rows that were annotated are not there any more", reason="changed")
