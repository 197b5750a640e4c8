"""An object under `data/` in, what it says of itself and what is in it out: what `preln verify` holds against the records."""

import io
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.output.columns import TRUNCATED, carried_columns
from pipeline.output.drift import ScoreCounts, counts_of
from pipeline.output.folder import OutputFolder
from pipeline.output.job import FrozenJob
from pipeline.output.records import Entry, entry_from_footer
from pipeline.output.sink import footer_of
from pipeline.rows import ERROR, ROW, SOURCE, count_reasons

BATCH_ROWS = 8_192


@dataclass(frozen=True)
class Inspected:
    """One object, read. entry: as its footer says; None, and the problem, where it is none of ours or can't be read.

    rows, row_numbers, sources, errors, scores: what is in it. source_bytes: the size of its file, as the footer has it.
    """

    key: str
    entry: Entry | None = None
    fingerprint: str | None = None
    source_bytes: int | None = None
    schema: pa.Schema | None = None
    row_numbers: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    sources: frozenset[str] = frozenset()
    errors: Counter[str] = field(default_factory=Counter)
    scores: Mapping[str, ScoreCounts] = field(default_factory=dict)
    problem: str = ""

    @property
    def rows(self) -> int:
        """How many rows are in it."""
        return len(self.row_numbers)


def inspect(key: str, *, folder: OutputFolder, job: FrozenJob) -> Inspected:
    """One object, read to its end, so that a damaged page of any column is found."""
    try:
        content = io.BytesIO(folder.data.read(key))
        with pq.ParquetFile(content, page_checksum_verification=True) as file:
            footer = footer_of(file.metadata)
            present = set(file.schema_arrow.names)
            missing = [field.name for field in _own_fields(job) if field.name not in present]
            if missing:
                return Inspected(key, problem=f"it has no column {missing[0]!r}")
            return _read(key, file, footer, job=job)
    except Exception as error:
        problem = "it has no footer of preln" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        return Inspected(key, problem=" ".join(problem.split())[:200])


def _read(key: str, file: pq.ParquetFile, footer: dict[str, Any], *, job: FrozenJob) -> Inspected:
    prefix = job.spec.output.prefix
    scores: dict[str, ScoreCounts] = defaultdict(ScoreCounts)
    numbers: list[np.ndarray] = [np.empty(0, np.int64)]
    sources: set[str] = set()
    errors: Counter[str] = Counter()
    for batch in file.iter_batches(batch_size=BATCH_ROWS):
        numbers.append(batch[prefix + ROW.name].to_numpy(zero_copy_only=False))
        sources.update(batch[prefix + SOURCE.name].unique().to_pylist())
        errors.update(count_reasons(batch[prefix + ERROR.name]))
        for name, counts in counts_of(pa.Table.from_batches([batch]), job=job).items():
            scores[name] += counts
    return Inspected(
        key,
        entry=entry_from_footer(footer, key=key),
        fingerprint=footer.get("fingerprint"),
        source_bytes=footer.get("source_bytes"),
        schema=file.schema_arrow.remove_metadata(),
        row_numbers=np.concatenate(numbers),
        sources=frozenset(sources),
        errors=errors,
        scores=scores,
    )


def _own_fields(job: FrozenJob) -> list[pa.Field]:
    prefix = job.spec.output.prefix
    return [one.with_name(prefix + one.name) for one in (SOURCE, ROW, TRUNCATED, ERROR)]


def faults_of(item: Inspected, *, job: FrozenJob) -> list[tuple[str, str]]:
    """(rule, message) of all that an object breaks by itself: of this job, as many rows as it says, in order, from its source."""
    entry = item.entry
    if entry is None:
        return [("readable", f"can't be read as one of ours ({item.problem})")]
    if item.fingerprint != job.fingerprint:
        return [("fingerprint", f"was made by another job ({item.fingerprint})")]
    found = []
    if entry.rows != item.rows:
        found.append(("footer", f"says {entry.rows} rows and has {item.rows}"))
    if dict(entry.errors) != dict(item.errors):
        found.append(("footer", f"says errors {_shown(entry.errors)} and has {_shown(item.errors)}"))
    if item.sources - {entry.uri}:
        found.append(("footer", f"holds rows of {sorted(map(str, item.sources))}, not of {entry.uri} alone"))
    if (np.diff(item.row_numbers) <= 0).any():
        found.append(("order", "rows are not in the order of the input, or there twice"))
    elif item.rows and not (entry.first <= int(item.row_numbers[0]) and int(item.row_numbers[-1]) < entry.stop):
        found.append(("footer", f"holds rows outside [{entry.first}, {entry.stop})"))
    assert item.schema is not None
    kinds = {field.name: field.type for field in item.schema}
    for wanted in _fixed_fields(job):
        if wanted.name not in kinds:
            found.append(("schema", f"has no column {wanted.name!r}"))
        elif (kind := kinds[wanted.name]) != wanted.type:
            found.append(("schema", f"has the column {wanted.name!r} as {kind}, and the job as {wanted.type}"))
    return found


def _fixed_fields(job: FrozenJob) -> list[pa.Field]:
    """The columns whose types the job states: those that are carried, and those that every row has."""
    carried = carried_columns(schema=job.schema, keep=job.spec.input.keep)
    own = {field.name: field for field in job.schema}
    return [*(own[name] for name in carried if name in own), *_own_fields(job)]


def _shown(errors: object) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(dict(errors).items())) or "none"  # type: ignore[call-overload]
