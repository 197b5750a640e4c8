"""An output folder in, its rows out in a stream: current shards, answer columns by kind, chosen columns in bounded memory."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.output.folder import OutputFolder
from pipeline.output.job import FrozenJob
from pipeline.output.records import Entry
from pipeline.output.settle import survey
from pipeline.output.tally import Tally
from pipeline.store.storage import canonical, readable

Kind: TypeAlias = Literal[
    "label", "score", "labels", "entities", "answers", "masks", "choice", "choice_scores", "number", "embedding"
]
"""What an answer column holds.

label: a string. score: a float. labels: a list of {label, score}. entities: a list of {entity_group or entity, score, word,
start, end, …}. answers: a list of {answer, score, start, end}. masks: a list of {start, fills}. choice: an index.
choice_scores: a list of floats. number: a float or an integer. embedding: a vector, or a list of them.
"""

KINDS: dict[str, dict[str, Kind]] = {
    "text-classification": {"label": "label", "score": "score", "labels": "labels", "scores": "labels"},
    "token-classification": {"entities": "entities", "labels": "labels"},
    "question-answering": {"answers": "answers", "null_score": "number"},
    "fill-mask": {"masks": "masks"},
    "multiple-choice": {"choice": "choice", "scores": "choice_scores"},
    "text-scoring": {"log_probability": "number", "tokens": "number", "perplexity": "number"},
    "feature-extraction": {"embedding": "embedding"},
}
"""Task -> answer field -> kind."""

LOOKAHEAD = 4
"""Shards that are read ahead: stores answer slowly, and each shard is bounded by its folder's cut."""


@dataclass(frozen=True)
class AnswerColumn:
    """An answer column of the output. task: the user's name of the task. field: the column's name without prefixes."""

    column: str
    task: str
    field: str
    kind: Kind


class Dataset:
    """What an output folder holds now, finished or not; opened by its URL. Raises OutputError where it is none, StorageError."""

    def __init__(self, url: str) -> None:
        self.folder = OutputFolder(canonical(url))
        self.job: FrozenJob = self.folder.require_job()

    @cached_property
    def shards(self) -> list[Entry]:
        """The current objects, in the order of their files and rows; also those of a run that has not ended."""
        entries = survey(folder=self.folder, tally=Tally(), fingerprint=self.job.fingerprint).entries.values()
        return sorted(entries, key=lambda entry: (entry.uri, entry.first))

    @property
    def rows(self) -> int:
        """How many rows the shards have."""
        return sum(entry.rows for entry in self.shards)

    @cached_property
    def schema(self) -> pa.Schema:
        """The schema of every shard. Raises OutputError where there is none yet."""
        if not self.shards:
            raise OutputError(f"{readable(self.folder.url)}: no rows yet; see preln status")
        with self._opened(self.shards[0]) as file:
            return file.schema_arrow

    def own(self, name: str) -> str:
        """A column that every row has (source, row, truncated, error), as this folder names it."""
        return self.job.spec.output.prefix + name

    @cached_property
    def answers(self) -> list[AnswerColumn]:
        """The answer columns, task by task."""
        present = set(self.schema.names)
        return [
            AnswerColumn(column=task.prefix + field, task=name, field=field, kind=kind)
            for name, task in self.job.spec.named_tasks.items()
            for field, kind in KINDS[task.task.name].items()
            if task.prefix + field in present
        ]

    @property
    def text_columns(self) -> list[str]:
        """The columns that the tasks read, as far as the output carries them."""
        read = [task.column(part.name) for task in self.job.spec.named_tasks.values() for part in task.task.parts()]
        return [name for name in dict.fromkeys(read) if name in self.schema.names]

    def batches(
        self, columns: Sequence[str], *, shards: Sequence[Entry] | None = None, rows: int = 65_536
    ) -> Iterator[tuple[Entry, pa.RecordBatch]]:
        """Some columns of all shards, or of some, in order, at most `rows` rows at a time.

        columns: `error.reason` is the field `reason` of the struct `error`. A few shards' columns are in memory at once.
        """
        waiting = iter(self.shards if shards is None else shards)
        with ThreadPoolExecutor(LOOKAHEAD) as pool:
            ahead: deque[tuple[Entry, Future[pa.Table]]] = deque(
                (entry, pool.submit(self._table, entry, columns)) for entry in islice(waiting, LOOKAHEAD)
            )
            while ahead:
                entry, reading = ahead.popleft()
                table = reading.result()
                ahead.extend((later, pool.submit(self._table, later, columns)) for later in islice(waiting, 1))
                for batch in table.to_batches(max_chunksize=rows):
                    yield entry, batch

    def _table(self, entry: Entry, columns: Sequence[str]) -> pa.Table:
        with self._opened(entry) as file:
            return file.read(columns=list(columns), use_threads=False)

    @contextmanager
    def _opened(self, entry: Entry) -> Iterator[pq.ParquetFile]:
        try:
            with self.folder.data.open(entry.key) as stream, pq.ParquetFile(stream) as file:
                yield file
        except FileNotFoundError:
            where = readable(self.folder.data.url_of(entry.key))
            raise OutputError(f"{where}: gone since the folder was listed; is a run changing it? Try again") from None
        except (pa.ArrowException, OSError) as error:
            where = readable(self.folder.data.url_of(entry.key))
            raise OutputError(f"{where}: not readable as Parquet ({error}); preln verify checks the folder") from None
