"""Brings an output folder's manifest and _SUCCESS up to date after a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.output.folder import OutputFolder
from pipeline.output.plan import as_planned, is_whole, newest
from pipeline.output.records import Entry, PlannedFile, Success, same_entries, totals
from pipeline.output.tally import Tally

State = Literal["done", "failed-shards", "too-many-errors", "interrupted", "crashed", "probed"]


SETTLING_ROUNDS = 8
"""How often a run looks again at a folder that others change while it settles."""


@dataclass(frozen=True)
class Settled:
    """The dataset after a run. entries: its current objects. manifest: the name they are stored under.

    plan: the newest, of whichever driver. files: how many there are. superseded: objects that are in nobody's way any more.
    failures: files that are not whole, and why. complete: nothing is missing.
    """

    entries: Mapping[str, Entry]
    manifest: str | None = None
    plan: str | None = None
    files: int = 0
    superseded: Sequence[str] = ()
    failures: Sequence[str] = ()
    complete: bool = False


def settle(*, folder: OutputFolder, tally: Tally, run: str, fingerprint: str) -> Settled:
    """Write the manifest of what exists now, and delete what a changed file's new shards have superseded. _SUCCESS of another
    manifest goes first.

    In this order, so that a manifest never names what is gone. Then it is looked again, until there is nothing left to write
    or to delete: where two drivers settle at once, the one that comes last has seen what both did.
    """
    settled = survey(folder=folder, tally=tally, fingerprint=fingerprint)
    for _ in range(SETTLING_ROUNDS):
        manifest, stored = folder.read_manifest()
        same = manifest is not None and same_entries(stored, settled.entries)
        if not same:
            folder.withdraw_success()
            manifest = folder.write_manifest(run=run, entries=settled.entries.values())
        folder.data.delete(settled.superseded)
        settled = replace(settled, manifest=manifest)
        if same and not settled.superseded:
            break
        settled = replace(survey(folder=folder, tally=tally, fingerprint=fingerprint), manifest=manifest)
    return settled


def survey(*, folder: OutputFolder, tally: Tally, fingerprint: str) -> Settled:
    """The dataset as it is now; plans and objects are looked up afresh, since another driver may have been at work, and a late
    writer may have put its object over one of this run's."""
    name, plans = folder.read_plans()
    versions: dict[str, list[str]] = {}
    for planned in (planned for plan in plans for planned in plan):
        versions.setdefault(planned.file.uri, []).append(planned.file.version)
    by_file: dict[str, list[Entry]] = {}
    known = folder.known_entries(objects=folder.objects(), fingerprint=fingerprint)
    known = as_planned(known, plans=plans, fingerprint=fingerprint)
    for entry in known.values():
        by_file.setdefault(entry.uri, []).append(entry)
    kept: dict[str, Entry] = {}
    superseded: list[str] = []
    incomplete: list[PlannedFile] = []
    current_files = newest(plans)
    for uri, planned in current_files.items():
        entries = by_file.get(uri, [])
        current = [entry for entry in entries if entry.version == planned.file.version]
        current, whole_once = cut_as_planned(planned, current)
        old = [entry for entry in entries if entry.version != planned.file.version and entry.version in versions[uri]]
        old += whole_once
        if is_whole(planned, current):
            superseded += [entry.key for entry in old]
        else:
            incomplete.append(planned)
            current += old
        kept |= {entry.key: entry for entry in sorted(current, key=lambda entry: entry.first)}
    for uri in versions.keys() - current_files.keys():  # pruned
        superseded += [entry.key for entry in by_file.get(uri, []) if entry.version in versions[uri]]
    reasons = {receipt.shard.file.uri: receipt.message for receipt in tally.failed}
    failures = [
        reasons.get(planned.file.uri) or planned.failure or f"{planned.file.uri}: not finished"
        for planned in incomplete
    ]
    return Settled(
        entries=kept,
        plan=name,
        files=len(current_files),
        superseded=superseded,
        failures=failures,
        complete=not incomplete,
    )


def cut_as_planned(planned: PlannedFile, entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """(entries of a file's shards as they are planned now, those of shards that were planned once and have been cut since).

    As long as the parts are not all there, the whole shard stands, and those of its parts that are there are left out.
    """
    if planned.shards is None:
        return list(entries), []
    keys = {key for _, _, key in planned.shards}
    now = [entry for entry in entries if entry.key in keys]
    once = [entry for entry in entries if entry.key not in keys]
    if is_whole(planned, now):
        return now, once
    return [entry for entry in now if not any(_overlap(entry, other) for other in once)], once


def _overlap(one: Entry, other: Entry) -> bool:
    return one.first < other.stop and other.first < one.stop


def close(*, folder: OutputFolder, settled: Settled, before: Success | None, accept_failed: bool) -> State:
    """Write _SUCCESS where everything planned is there, or where the user accepts, now or before, what failed; else remove it.

    before: _SUCCESS as the run found it.
    """
    rows, bad, _ = totals(settled.entries.values())
    success = Success(
        plan=settled.plan or "",
        manifest=settled.manifest or "",
        files=settled.files,
        shards=len(settled.entries),
        rows=rows,
        error_rows=bad,
        accepted_failures=tuple(settled.failures),
    )
    accepted = accept_failed or (
        before is not None and before.plan == success.plan and set(settled.failures) <= set(before.accepted_failures)
    )
    if not settled.complete and not accepted:
        folder.withdraw_success()
        return "failed-shards"
    if folder.read_success() != success:
        folder.write_success(success)
    return "done"
