"""An output folder in, the rows of its current objects out, one object at a time; and the input rows that they were made from."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError, SourceError
from pipeline.output.folder import OutputFolder
from pipeline.output.plan import known_shards, newest
from pipeline.output.records import Entry, PlannedFile
from pipeline.output.status import keys_of
from pipeline.shards import Stream
from pipeline.store.storage import canonical, readable

AHEAD = 4
"""Objects that are read at once."""


class StoredRows:
    """The rows of an output folder as it is now, finished or not: of the newest version of every input file.

    entries: one for each object, by source and place in it. Raises OutputError if it is no output folder.
    """

    def __init__(self, output: str) -> None:
        self.folder = OutputFolder(canonical(output))
        self.job = self.folder.require_job()
        self.prefix = self.job.spec.output.prefix
        _, plans = self.folder.read_plans()
        self.files: dict[str, PlannedFile] = newest(plans)
        known = self.folder.known_entries(written=self.folder.written_keys())
        current = keys_of(self.files, entries=known)
        entries = [entry for key, entry in known.items() if key in current]
        self.entries = sorted(entries, key=lambda entry: (entry.uri, entry.first))
        if not self.entries:
            raise OutputError(f"{readable(self.folder.url)}: no rows yet; see preln status")

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of its objects."""
        with self.folder.data.open(self.entries[0].key) as file:
            return pq.read_schema(file)

    def read(self, entry: Entry, columns: Sequence[str]) -> pa.Table:
        """Some columns of one object."""
        with self.folder.data.open(entry.key) as file:
            return pq.read_table(file, columns=list(columns))

    def tables(
        self, columns: Sequence[str], *, entries: Iterable[Entry] | None = None
    ) -> Iterator[tuple[Entry, pa.Table]]:
        """Some columns of every object, in order; a few are read ahead."""
        waiting = iter(self.entries if entries is None else entries)
        with ThreadPoolExecutor(AHEAD) as pool:
            ahead = [(entry, pool.submit(self.read, entry, columns)) for entry in islice(waiting, AHEAD)]
            while ahead:
                entry, table = ahead.pop(0)
                ahead += [(later, pool.submit(self.read, later, columns)) for later in islice(waiting, 1)]
                yield entry, table.result()

    def input_rows(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, pa.Table]]:
        """The rows that objects of one file were made from, read again as the job reads them; their numbers are in `__row__`.

        Raises SourceError if the file is gone, or has changed since.
        """
        from pipeline.flow import reading_of
        from pipeline.reading.source import read_shards, read_stream

        planned, wanted = self.files[entries[0].uri], {entry.key: entry for entry in entries}
        if planned.shards is None:
            others = frozenset(entry.key for entry in self.entries) - wanted.keys()
            read = read_stream(stream=Stream(file=planned.file, done=others), reading=reading_of(self.job))
        else:
            shards = [shard for shard in known_shards(planned) if shard.key in wanted]
            read = read_shards(shards=shards, reading=reading_of(self.job))
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
