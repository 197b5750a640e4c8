"""What is done, missing and failed in an output folder, from its own records and one listing; nothing is run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.output.folder import OutputFolder
from pipeline.output.job import FrozenJob
from pipeline.output.plan import missing_work, newest
from pipeline.output.records import Entry, PlannedFile, totals
from pipeline.shards import Shard, key_stem
from pipeline.store.storage import canonical

READ_AT_MOST = 2_000
"""Footers that a status reads of objects that no manifest names."""


@dataclass(frozen=True)
class Status:
    """How far an output folder is.

    done: objects of files as they are now; not another's, nor those of a file's older version. missing: planned shards
    that are not there. open_files: compressed files not read to their end, whose shards nobody can count. rows, errors: of
    all objects but the uncounted. failed: of the last run, whose last_reason says why it could not go on, if it could not.
    last_runs_on: on what its models ran.
    complete: _SUCCESS covers the newest plan and nothing is missing.
    unfinished: objects that no finished run has recorded, since one was killed or is at work; unfinished_rows: their rows.
    uncounted: those of them that were not opened, being more than READ_AT_MOST.
    """

    job: FrozenJob
    files: int
    done: int
    missing: int
    open_files: int
    rows: int
    errors: Counter[str]
    failed: list[str]
    complete: bool
    last_state: str | None
    last_reason: str | None
    last_finished: str | None
    last_runs_on: list[dict[str, object]] = field(default_factory=list)
    unfinished: int = 0
    unfinished_rows: int = 0
    uncounted: int = 0


def read_status(output: str) -> Status:
    """The status of an output folder. Raises OutputError where it is none."""
    folder = OutputFolder(canonical(output))
    job = folder.require_job()
    plan_name, plans = folder.read_plans()
    current = newest(plans)
    objects = folder.objects()
    _, entries = folder.read_manifest()
    changed = {
        key: objects[key]
        for key, entry in entries.items()
        if entry.object not in (None, "", objects.get(key)) and key in objects
    }
    entries |= (now := folder.entries_from_footers(changed, fingerprint=job.fingerprint))
    written = frozenset(objects.keys() - (changed.keys() - now.keys()))
    entries = {key: entry for key, entry in entries.items() if key in written}
    recorded = list(entries.values())
    unknown = {key: objects[key] for key in written - entries.keys()}
    found = of_open_streams(folder, current=current, unknown=unknown, fingerprint=job.fingerprint)
    unfinished = sorted(unknown.keys() & keys_of(current, entries=entries | found))
    opened = {key: unknown[key] for key in _opened(unfinished, known=found)}
    found |= folder.entries_from_footers(opened, fingerprint=job.fingerprint)
    rows, _, errors = totals([*entries.values(), *(found[key] for key in unfinished if key in found)])
    entries |= found
    work = list(missing_work(current=current.values(), written=written, entries=entries))
    shards = sum(isinstance(item, Shard) for item in work)
    last = folder.read_last_run() or {}
    success = folder.read_success()
    unreadable = [planned.failure for planned in current.values() if planned.failure is not None]
    return Status(
        job=job,
        files=len(current),
        done=len(keys_of(current, entries=entries) & written),
        missing=shards,
        open_files=len(work) - shards,
        rows=rows,
        errors=errors,
        failed=list(last.get("failed", [])) or unreadable,
        complete=success is not None and success.plan == plan_name and not work and not success.differences(recorded),
        last_state=last.get("state"),
        last_reason=last.get("reason"),
        last_finished=last.get("finished"),
        last_runs_on=list(last.get("runs_on", [])),
        unfinished=len(unfinished),
        unfinished_rows=sum(found[key].rows for key in unfinished if key in found),
        uncounted=sum(key not in found for key in unfinished),
    )


def _opened(keys: Sequence[str], *, known: Mapping[str, Entry]) -> list[str]:
    """The objects whose footers are still to be read: each is a request, and a killed run may have left very many."""
    return [key for key in keys if key not in known][:READ_AT_MOST]


def keys_of(current: Mapping[str, PlannedFile], *, entries: Mapping[str, Entry]) -> set[str]:
    """Keys of the shards of the newest version of every file: as planned, or, where only reading tells, as their objects say."""
    planned = {key for file in current.values() for _, _, key in file.shards or ()}
    read = {
        entry.key
        for entry in entries.values()
        if (file := current.get(entry.uri)) is not None and file.shards is None and entry.version == file.file.version
    }
    return planned | read


def of_open_streams(
    folder: OutputFolder, *, current: Mapping[str, PlannedFile], unknown: Mapping[str, str], fingerprint: str
) -> dict[str, Entry]:
    """What a run that is not finished has written of files read in sequence, by the objects' own footers."""
    stems = {key_stem(file.file.uri) for file in current.values() if file.shards is None and file.failure is None}
    objects = {key: version for key, version in sorted(unknown.items()) if key.rsplit("-", 2)[0] in stems}
    return folder.entries_from_footers(objects, fingerprint=fingerprint)
