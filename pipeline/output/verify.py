"""Checks an output folder: every planned shard is there, every row once, nothing from another job.

Reads footers, and the `source` and `row` columns of every object; with a recount, the input too.
"""

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.output.drift import Drift, ScoreCounts, counted_columns, counts_of, drift_of
from pipeline.output.folder import OutputFolder
from pipeline.output.job import FrozenJob
from pipeline.output.plan import is_whole, newest
from pipeline.output.records import Entry, PlannedFile
from pipeline.output.sink import read_footer
from pipeline.reading.inputs import list_files
from pipeline.reading.recount import count_records
from pipeline.shards import shard_key
from pipeline.spec.job_spec import InputSpec
from pipeline.store.storage import canonical

READERS = 16


@dataclass(frozen=True)
class Finding:
    """One violation. rule: what is violated. where: the object or file."""

    rule: str
    where: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """What was checked, and what is wrong with it; no findings if the folder is OK.

    drift: of scores from those of the labelled rows, for tasks with a known error rate; no fault of the folder.
    """

    files: int
    shards: int
    rows: int
    recounted: bool
    findings: Sequence[Finding] = field(default_factory=tuple)
    drift: Sequence[Drift] = ()

    @property
    def holds(self) -> bool:
        """Whether everything is as promised."""
        return not self.findings


@dataclass(frozen=True)
class Seen:
    """What one object says of itself, and what is in it."""

    key: str
    footer: dict[str, Any] | None
    rows: int
    row_numbers: np.ndarray
    sources: frozenset[str]
    problem: str | None = None
    scores: Mapping[str, ScoreCounts] = field(default_factory=dict)


def verify(output: str, *, input_spec: InputSpec | None = None) -> Verdict:
    """Hold an output folder against its own records, and against the input where one is given. Raises OutputError."""
    folder = OutputFolder(canonical(output))
    job = folder.require_job()
    _, plans = folder.read_plans()
    current = newest(plans)
    written = folder.written_keys()
    manifest, entries = folder.read_manifest()
    with ThreadPoolExecutor(READERS) as pool:
        seen = {item.key: item for item in pool.map(lambda key: look(key, folder=folder, job=job), sorted(written))}
    findings = [
        *_objects(seen.values(), job=job),
        *_manifest(manifest, entries, seen),
        *_files(current, entries, seen),
        *_read_as_planned(current, entries, job=job),
        *_rows_once([seen[key] for key in entries if key in seen]),
    ]
    if input_spec is not None:
        findings += recount(current, entries, input_spec=input_spec, job=job)
    return Verdict(
        files=len(current),
        shards=len(seen),
        rows=sum(item.rows for key, item in seen.items() if key in entries),
        recounted=input_spec is not None,
        findings=tuple(findings),
        drift=drift_of(job, _scores(seen[key] for key in entries if key in seen)),
    )


def _scores(seen: Iterable[Seen]) -> dict[str, ScoreCounts]:
    whole: dict[str, ScoreCounts] = defaultdict(ScoreCounts)
    for item in seen:
        for name, counts in item.scores.items():
            whole[name] += counts
    return whole


def look(key: str, *, folder: OutputFolder, job: FrozenJob) -> Seen:
    """One object, read."""
    prefix = job.spec.output.prefix
    try:
        content = io.BytesIO(folder.data.read(key))
        footer = read_footer(content)
        counted = [column for columns in counted_columns(job).values() for column in columns]
        table = pq.read_table(content, columns=[f"{prefix}source", f"{prefix}row", *counted])
        scores = counts_of(table, job=job)
    except Exception as error:
        return Seen(key, None, 0, np.empty(0, np.int64), frozenset(), problem=f"{type(error).__name__}: {error}")
    sources = frozenset(pc.unique(table[f"{prefix}source"]).to_pylist())
    return Seen(key, footer, table.num_rows, table[f"{prefix}row"].to_numpy(), sources, scores=scores)


def _objects(seen: Iterable[Seen], *, job: FrozenJob) -> list[Finding]:
    """Each object by itself: readable, of this job, as many rows as it says, in order, from its own source."""
    findings = []
    for item in seen:
        footer = item.footer
        if footer is None:
            findings.append(Finding("readable", item.key, f"can't be read as one of ours ({item.problem})"))
        elif footer["fingerprint"] != job.fingerprint:
            findings.append(Finding("fingerprint", item.key, f"was made by another job ({footer['fingerprint']})"))
        elif footer["rows"] != item.rows:
            findings.append(Finding("footer", item.key, f"says {footer['rows']} rows and has {item.rows}"))
        elif item.sources - {footer["source"]}:
            findings.append(
                Finding("footer", item.key, f"holds rows of {sorted(item.sources)}, not of {footer['source']} alone")
            )
        elif (np.diff(item.row_numbers) <= 0).any():
            findings.append(Finding("order", item.key, "rows are not in the order of the input, or there twice"))
        elif not _inside(item.row_numbers, footer):
            findings.append(Finding("footer", item.key, f"holds rows outside [{footer['first']}, {footer['stop']})"))
    return findings


def _inside(rows: np.ndarray, footer: dict[str, Any]) -> bool:
    return not len(rows) or (int(rows[0]) >= footer["first"] and int(rows[-1]) < footer["stop"])


def _manifest(name: str | None, entries: dict[str, Entry], seen: dict[str, Seen]) -> list[Finding]:
    """The manifest against what exists."""
    if name is None:
        return [Finding("manifest", "_manifest", "there is none yet; run annotate to its end")] if seen else []
    missing = [Finding("manifest", key, "is in the manifest and not there") for key in entries if key not in seen]
    foreign = [Finding("owner", key, "is owned by no manifest") for key in seen if key not in entries]
    counts = [
        Finding("manifest", key, f"has {seen[key].rows} rows, and the manifest says {entry.rows}")
        for key, entry in entries.items()
        if key in seen and seen[key].footer is not None and seen[key].rows != entry.rows
    ]
    return [*missing, *foreign, *counts]


def _files(current: dict[str, PlannedFile], entries: dict[str, Entry], seen: dict[str, Seen]) -> list[Finding]:
    """Every planned file: all its shards, and as many rows as its footer promised."""
    of_file: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries.values():
        if entry.key in seen:
            of_file[entry.uri].append(entry)
    findings = []
    for uri, planned in current.items():
        present = [entry for entry in of_file[uri] if entry.version == planned.file.version]
        if planned.failure is not None:
            findings.append(Finding("complete", uri, planned.failure))
        elif not is_whole(planned, present):
            findings.append(Finding("complete", uri, "shards of this file are missing; run annotate again"))
        elif planned.rows is not None and sum(entry.rows for entry in present) != planned.rows:
            counted = sum(entry.rows for entry in present)
            findings.append(Finding("rows", uri, f"{planned.rows} rows went in and {counted} came out"))
    return findings


def _read_as_planned(current: dict[str, PlannedFile], entries: dict[str, Entry], *, job: FrozenJob) -> list[Finding]:
    """Every object has the name that the plan's way of reading its file gives it."""
    findings = []
    for key, entry in entries.items():
        planned = current.get(entry.uri)
        if planned is None or planned.file.version != entry.version:
            continue
        named = shard_key(file=planned.file, first=entry.first, stop=entry.stop, fingerprint=job.fingerprint)
        if named != key:
            how = planned.file.format
            findings.append(
                Finding("reading", key, f"was not read from {entry.uri} as {how}, which is what the plan says")
            )
    return findings


def _rows_once(seen: Sequence[Seen]) -> list[Finding]:
    """No (source, row) in two objects."""
    of_source: dict[str, list[Seen]] = defaultdict(list)
    for item in seen:
        for source in item.sources:
            of_source[source].append(item)
    findings = []
    for source, items in of_source.items():
        rows = np.concatenate([item.row_numbers for item in items])
        values, counts = np.unique(rows, return_counts=True)
        if (counts > 1).any():
            row = int(values[counts > 1][0])
            keys = [item.key for item in items if row in item.row_numbers]
            findings.append(Finding("once", source, f"row {row} is in {' and in '.join(keys)}"))
    return findings


def recount(
    current: dict[str, PlannedFile], entries: dict[str, Entry], *, input_spec: InputSpec, job: FrozenJob
) -> list[Finding]:
    """The records of the input, counted by reading it, against the rows of the output."""
    findings = []
    rows: dict[str, int] = defaultdict(int)
    for entry in entries.values():
        if entry.uri in current and entry.version == current[entry.uri].file.version:
            rows[entry.uri] += entry.rows
    for file in list_files(input_spec, output=job.output).files:
        planned = current.get(file.uri)
        if planned is None:
            findings.append(Finding("recount", file.uri, "was never planned; run annotate again"))
        elif planned.file != file:
            findings.append(Finding("recount", file.uri, "changed since it was annotated; run annotate again"))
        else:
            try:
                counted = count_records(
                    file,
                    delimiter=job.spec.input.delimiter,
                    quote=job.spec.input.quote,
                    line_bytes=job.spec.limits.line_bytes,
                    rules=job.reading,
                )
            except SourceError as error:
                findings.append(Finding("recount", file.uri, str(error)))
                continue
            if counted != rows[file.uri]:
                findings.append(
                    Finding("recount", file.uri, f"has {counted} records, and {rows[file.uri]} rows came out")
                )
    return findings
