"""Checks an output folder: every planned shard is there, every row once, nothing from another job.

Reads every object, the plans, the manifest and _SUCCESS, and holds each against the others; with a recount, the input too.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import TypeVar

import numpy as np

from pipeline.errors import OutputError, SourceError
from pipeline.output.drift import Drift, ScoreCounts, drift_of
from pipeline.output.folder import SUCCESS, OutputFolder
from pipeline.output.inspection import Inspected, faults_of, inspect
from pipeline.output.job import JOB_FILE, FrozenJob, fingerprint_of
from pipeline.output.plan import is_whole, newest
from pipeline.output.records import Entry, PlannedFile, Success
from pipeline.reading.inputs import list_files
from pipeline.reading.recount import count_records
from pipeline.shards import shard_key
from pipeline.spec.job_spec import InputSpec
from pipeline.store.storage import canonical

Record = TypeVar("Record")

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


def verify(output: str, *, input_spec: InputSpec | None = None) -> Verdict:
    """Hold an output folder against its own records, and against the input where one is given. Raises OutputError."""
    folder = OutputFolder(canonical(output))
    job = folder.require_job()
    findings: list[Finding] = []
    if fingerprint_of(job.identity) != job.fingerprint:
        findings.append(Finding("job", JOB_FILE, "its identity does not make its fingerprint: the file was edited"))
    no_plans: tuple[str | None, list[list[PlannedFile]]] = (None, [])
    no_manifest: tuple[str | None, dict[str, Entry]] = (None, {})
    plan, plans = _readable("plan", "_plans", folder.read_plans, no_plans, findings)
    manifest, entries = _readable("manifest", "_manifest", folder.read_manifest, no_manifest, findings)
    success = _readable("success", SUCCESS, folder.read_success, None, findings)
    _readable("run", "_runs", folder.read_last_run, None, findings)
    current = newest(plans)
    findings += _strangers(folder)
    keys = sorted(folder.written_keys())
    with ThreadPoolExecutor(READERS) as pool:
        seen = {item.key: item for item in pool.map(lambda key: inspect(key, folder=folder, job=job), keys)}
    findings += [Finding(rule, key, why) for key, item in seen.items() for rule, why in faults_of(item, job=job)]
    findings += _one_schema(seen)
    findings += [
        *_manifest(manifest, entries, seen),
        *_plans(current, job=job),
        *_files(current, entries, seen),
        *_entries(plans, current, entries, seen, job=job),
        *_rows_once([seen[key] for key in entries if key in seen]),
    ]
    findings += _success(success, plan=plan, manifest=manifest, entries=entries, current=current, findings=findings)
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


def _scores(seen: Iterable[Inspected]) -> dict[str, ScoreCounts]:
    whole: dict[str, ScoreCounts] = defaultdict(ScoreCounts)
    for item in seen:
        for name, counts in item.scores.items():
            whole[name] += counts
    return whole


def _readable(rule: str, where: str, read: Callable[[], Record], default: Record, findings: list[Finding]) -> Record:
    """A record of the folder; a finding, and the default, where it is not as preln writes it."""
    try:
        return read()
    except OutputError as error:
        findings.append(Finding(rule, where, str(error)))
        return default


def _strangers(folder: OutputFolder) -> list[Finding]:
    """What lies under data/ and is no object; hidden names aside, which no reader of a folder of Parquet looks at."""
    found = []
    for name, entry in folder.data.listed().items():
        if name.startswith((".", "_")) or name == "data":  # the second is how some stores list the folder itself
            continue
        if entry.folder:
            found.append(Finding("owner", name, "is a folder, and preln makes none in data/; move it elsewhere"))
        elif not name.endswith(".parquet"):
            found.append(Finding("owner", name, "is no object of preln; move it elsewhere"))
        elif entry.size == 0:
            found.append(Finding("readable", name, "is empty"))
    return found


def _one_schema(seen: Mapping[str, Inspected]) -> list[Finding]:
    """All objects have the same columns: those of most of them."""
    schemas = {key: item.schema.to_string() for key, item in seen.items() if item.schema is not None}
    (usual, _), *_ = Counter(schemas.values()).most_common(1) or [("", 0)]
    return [
        Finding("schema", key, "has other columns, or columns of other types, than most objects")
        for key, schema in schemas.items()
        if schema != usual
    ]


def _manifest(name: str | None, entries: Mapping[str, Entry], seen: Mapping[str, Inspected]) -> list[Finding]:
    """The manifest against what exists."""
    if name is None:
        return [Finding("manifest", "_manifest", "there is none yet; run annotate to its end")] if seen else []
    missing = [Finding("manifest", key, "is in the manifest and not there") for key in entries if key not in seen]
    foreign = [Finding("owner", key, "is owned by no manifest") for key in seen if key not in entries]
    differs = []
    for key, entry in entries.items():
        own = seen[key].entry if key in seen else None
        if own is None:
            continue
        names = [one.name for one in fields(Entry) if one.name != "object"]
        pairs = {name: (getattr(own, name), getattr(entry, name)) for name in names}
        differs += [
            Finding("manifest", key, f"has {name} {here}, and the manifest says {there}")
            for name, (here, there) in pairs.items()
            if here != there
        ]
    return [*missing, *foreign, *differs]


def _plans(current: Mapping[str, PlannedFile], *, job: FrozenJob) -> list[Finding]:
    """Every planned shard has the name that its range gives it, and a file's shards cover it from its beginning to its end."""
    findings = []
    for uri, planned in current.items():
        if planned.shards is None:
            continue
        reached = 0
        for first, stop, key in planned.shards:
            if shard_key(file=planned.file, first=first, stop=stop, fingerprint=job.fingerprint) != key:
                findings.append(Finding("plan", uri, f"{key} is not the name of its range [{first}, {stop})"))
            if first != reached:
                findings.append(Finding("plan", uri, f"no shard begins at {reached}"))
            reached = stop
        end = planned.file.size if planned.rows is None else planned.rows
        if reached != end:
            findings.append(Finding("plan", uri, f"its shards end at {reached}, and the file at {end}"))
    return findings


def _files(
    current: Mapping[str, PlannedFile], entries: Mapping[str, Entry], seen: Mapping[str, Inspected]
) -> list[Finding]:
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
        elif planned.rows is not None and (counted := sum(seen[entry.key].rows for entry in present)) != planned.rows:
            findings.append(Finding("rows", uri, f"{planned.rows} rows went in and {counted} came out"))
    return findings


def _entries(
    plans: Sequence[Sequence[PlannedFile]],
    current: Mapping[str, PlannedFile],
    entries: Mapping[str, Entry],
    seen: Mapping[str, Inspected],
    *,
    job: FrozenJob,
) -> list[Finding]:
    """Every object is of a file of some plan, of its newest version where that is whole, and has the name that the plan's way of
    reading the file gives it."""
    planned_once = {(one.file.uri, one.file.version) for plan in plans for one in plan}
    newest_of: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries.values():
        if entry.uri in current and entry.version == current[entry.uri].file.version:
            newest_of[entry.uri].append(entry)
    whole = {uri for uri, planned in current.items() if is_whole(planned, newest_of[uri])}
    findings = []
    for key, entry in entries.items():
        planned = current.get(entry.uri)
        if (entry.uri, entry.version) not in planned_once:
            findings.append(Finding("plan", key, f"is of a file that no plan names ({entry.uri}, {entry.version})"))
        elif planned is None:
            findings.append(Finding("plan", key, f"is of {entry.uri}, which was removed; run annotate again"))
        elif planned.file.version != entry.version:
            if entry.uri in whole:
                why = f"is of an older version of {entry.uri}, whose newest is whole; run annotate again"
                findings.append(Finding("superseded", key, why))
        elif shard_key(file=planned.file, first=entry.first, stop=entry.stop, fingerprint=job.fingerprint) != key:
            how = planned.file.format
            findings.append(
                Finding("reading", key, f"was not read from {entry.uri} as {how}, which is what the plan says")
            )
        elif key in seen and seen[key].source_bytes not in (None, planned.file.size):
            why = f"was read from {seen[key].source_bytes} bytes, and the plan says {planned.file.size}"
            findings.append(Finding("plan", key, why))
    return findings


def _success(
    success: Success | None,
    *,
    plan: str | None,
    manifest: str | None,
    entries: Mapping[str, Entry],
    current: Mapping[str, PlannedFile],
    findings: Sequence[Finding],
) -> list[Finding]:
    """_SUCCESS is there where everything planned is, and says what there is."""
    if success is None:
        finished = plan is not None and not findings
        return [Finding("success", SUCCESS, "is missing; run annotate again")] if finished else []
    named = {
        "plan": (success.plan, plan),
        "manifest": (success.manifest, manifest),
        "files": (success.files, len(current)),
    }
    says = [f"{name} is {there}, but it is {here} now" for name, (there, here) in named.items() if there != here]
    says += success.differences(entries.values())
    says += [
        f"it says that everything planned is there, but {finding.where} is not"
        for finding in findings
        if finding.rule == "complete" and not any(finding.where in failure for failure in success.accepted_failures)
    ]
    return [Finding("success", SUCCESS, message) for message in says]


def _rows_once(seen: Sequence[Inspected]) -> list[Finding]:
    """No (source, row) in two objects."""
    of_source: dict[str, list[Inspected]] = defaultdict(list)
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
    current: Mapping[str, PlannedFile], entries: Mapping[str, Entry], *, input_spec: InputSpec, job: FrozenJob
) -> list[Finding]:
    """The records of the input, counted by reading it, against the rows of the output."""
    findings = []
    rows: dict[str, int] = defaultdict(int)
    for entry in entries.values():
        if entry.uri in current and entry.version == current[entry.uri].file.version:
            rows[entry.uri] += entry.rows
    for file in list_files(input_spec, output=job.output, known=current).files:
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
