"""A spec in, its output folder brought up to date out: the work of `preln annotate`, with what it did as a report."""

import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, Protocol

from pipeline import __version__, ledger
from pipeline.cluster import Cluster
from pipeline.errors import PrelnError, RunFailed, SpecError, StorageError
from pipeline.flow import MODEL_LOADER, annotate_shards
from pipeline.job import FrozenJob, freeze
from pipeline.ledger import Entry, PlannedFile, Success
from pipeline.plan import Plan, is_whole, make_plan, newest
from pipeline.prepare import open_job
from pipeline.shards import Shard, Stream
from pipeline.sink import DATA, Receipt
from pipeline.spec import JobSpec
from pipeline.storage import delete, join, sweep
from pipeline.tally import Tally

State = Literal["done", "failed-shards", "too-many-errors", "interrupted", "crashed"]

PACKAGES = ("ray", "torch", "tensorflow", "jax", "flax", "tokenizers", "pyarrow", "numpy", "fsspec")


class Watcher(Protocol):
    """Who is told how a run goes, while it goes."""

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """The plan stands; nothing has run yet."""

    def committed(self, receipt: Receipt) -> None:
        """A shard is done, or has failed."""


@dataclass(frozen=True)
class Report:
    """How a run ended.

    seconds: all of it; first_shard: to the first receipt; driver_cpu: of this process alone.
    files, shards, total_rows, total_errors: of the whole dataset as it stands now. failures: file and reason. reason: why
    the run itself could not go on.
    """

    state: State
    job: FrozenJob
    tally: Tally
    seconds: float
    first_shard: float | None
    driver_cpu: float
    files: int
    shards: int
    total_rows: int
    total_errors: Counter[str]
    failures: Sequence[str]
    ignored: Sequence[str]
    reason: str | None = None


@dataclass(frozen=True)
class Wishes:
    """What one command asks for beyond bringing the folder up to date.

    retry_errors: run the shards with error rows again. prune: drop the rows of input files that are gone.
    accept_failed: close the run although some files failed.
    """

    retry_errors: bool = False
    prune: bool = False
    accept_failed: bool = False


NO_WISHES = Wishes()

SETTLING_ROUNDS = 8
"""How often a run looks again at a folder that others change while it settles."""


def annotate(
    *, spec: JobSpec, cluster: Cluster, watcher: Watcher, loader: str = MODEL_LOADER, wishes: Wishes = NO_WISHES
) -> Report:
    """Annotate every row that is not annotated yet. Raises PrelnError for what stops a run before it goes, RunFailed while.

    KeyboardInterrupt ends it at once; what is committed stays, the run is recorded, and the same call goes on.
    """
    began, cpu_began = time.monotonic(), time.process_time()
    job, described = open_job(spec=spec, cluster=cluster)
    how: dict[str, Any] = {"described": described, "retry_errors": wishes.retry_errors, "prune": wishes.prune}
    plan = make_plan(job=job, spec=job.spec, **how)
    placement = cluster.placement(job.spec) if plan.work else None
    frozen = freeze(job)
    if frozen != job:  # another driver was first, with the same answers and another cut
        job, plan = frozen, make_plan(job=frozen, spec=frozen.spec, **how)
    run = ledger.new_run_id()
    for folder in (
        job.output,
        *(join(job.output, name) for name in (DATA, ledger.PLANS, ledger.MANIFESTS, ledger.RUNS)),
    ):
        sweep(folder)
    if plan.changes:
        ledger.withdraw_success(job.output)
        plan = replace(plan, name=ledger.write_plan(job.output, run=run, files=plan.changes))
    watcher.planned(job, plan)
    tally = Tally()
    ended = Ended(job=job, plan=plan, tally=tally, run=run, began=began, cpu_began=cpu_began)
    try:
        if placement is None:
            within_limits = True
        else:
            how_run: dict[str, Any] = {"placement": placement, "loader": loader, "say": cluster.say, "run": run}
            with closing(annotate_shards(job=job, work=plan.work, **how_run)) as receipts:
                within_limits = consume(receipts, tally=tally, plan=plan, job=job, watcher=watcher)
        settled = settle(job=job, tally=tally, run=run)
        if not within_limits:
            return ended.record(state="too-many-errors", settled=settled)
        return ended.record(state=close(job=job, settled=settled, wishes=wishes), settled=settled)
    except KeyboardInterrupt:
        return ended.record_what_can_be(state="interrupted")
    except Exception as error:
        ended.record_what_can_be(state="crashed", reason=f"{type(error).__name__}: {error}")
        if isinstance(error, SpecError) and not tally.receipts:
            raise  # Ray tells only a run that asks for replicas that there can be none: the job must be changed all the same
        if isinstance(error, PrelnError):
            raise RunFailed(f"{error}. What is written stays, and the same command goes on") from error
        raise


def consume(receipts: Iterator[Receipt], *, tally: Tally, plan: Plan, job: FrozenJob, watcher: Watcher) -> bool:
    """Take receipts until they end; False where the rows with errors, of all runs of this output, pass the limits."""
    tally.earlier_rows, tally.earlier_bad_rows, _ = ledger.totals(standing(plan))
    limits = job.spec.limits
    for receipt in receipts:
        tally.add(receipt)
        watcher.committed(receipt)
        rows, bad = tally.earlier_rows + tally.rows, tally.earlier_bad_rows + tally.bad_rows
        if bad > limits.error_rows and bad > limits.error_share * rows:
            return False
    return True


def standing(plan: Plan) -> list[Entry]:
    """Objects of files as they are now that the plan does not make anew: neither the shards of a mended file's old version
    nor those that are run again because of their errors."""
    again = {item.key for item in plan.work if isinstance(item, Shard)}
    done_of = {item.file.uri: item.done for item in plan.work if isinstance(item, Stream)}
    return [
        entry
        for entry in plan.entries.values()
        if (planned := plan.current.get(entry.uri)) is not None
        and entry.version == planned.file.version
        and entry.key not in again
        and entry.key in done_of.get(entry.uri, (entry.key,))
    ]


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


def settle(*, job: FrozenJob, tally: Tally, run: str) -> Settled:
    """Write the manifest of what exists now, and delete what a changed file's new shards have superseded.

    In this order, so that a manifest never names what is gone. Then it is looked again, until there is nothing left to write
    or to delete: where two drivers settle at once, the one that comes last has seen what both did.
    """
    settled = survey(job=job, tally=tally)
    for _ in range(SETTLING_ROUNDS):
        manifest, stored = ledger.read_manifest(job.output)
        if stored != settled.entries:
            manifest = ledger.write_manifest(job.output, run=run, entries=settled.entries.values())
        delete([join(job.output, DATA, key) for key in settled.superseded])
        settled = replace(settled, manifest=manifest)
        if stored == settled.entries and not settled.superseded:
            break
        settled = replace(survey(job=job, tally=tally), manifest=manifest)
    return settled


def survey(*, job: FrozenJob, tally: Tally) -> Settled:
    """The dataset as it is now; plans and objects are looked up afresh, since another driver may have been at work."""
    name, plans = ledger.read_plans(job.output)
    versions: dict[str, list[str]] = {}
    for planned in (planned for plan in plans for planned in plan):
        versions.setdefault(planned.file.uri, []).append(planned.file.version)
    by_file: dict[str, list[Entry]] = {}
    written = ledger.written_keys(job.output)
    made = {receipt.shard.key: ledger.entry_of(receipt) for receipt in tally.receipts if receipt.state == "done"}
    known = ledger.known_entries(job.output, written=written, made=made)
    for entry in known.values():
        by_file.setdefault(entry.uri, []).append(entry)
    kept: dict[str, Entry] = {}
    superseded: list[str] = []
    incomplete: list[PlannedFile] = []
    current_files = newest(plans)
    for uri, planned in current_files.items():
        entries = by_file.get(uri, [])
        current = [entry for entry in entries if entry.version == planned.file.version]
        old = [entry for entry in entries if entry.version != planned.file.version and entry.version in versions[uri]]
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


def close(*, job: FrozenJob, settled: Settled, wishes: Wishes) -> State:
    """Write _SUCCESS where everything planned is there, or where the user accepts, now or before, what failed."""
    stored = ledger.read_success(job.output)
    rows, bad, _ = ledger.totals(settled.entries.values())
    success = Success(
        plan=settled.plan or "",
        manifest=settled.manifest or "",
        files=settled.files,
        shards=len(settled.entries),
        rows=rows,
        error_rows=bad,
        accepted_failures=tuple(settled.failures),
    )
    accepted = wishes.accept_failed or (
        stored is not None and stored.plan == success.plan and set(settled.failures) <= set(stored.accepted_failures)
    )
    if not settled.complete and not accepted:
        return "failed-shards"
    if stored != success:
        ledger.write_success(job.output, success)
    return "done"


@dataclass(frozen=True)
class Ended:
    """What a run was, to be told however it ends. began: by the monotonic clock; cpu_began: by this process's."""

    job: FrozenJob
    plan: Plan
    tally: Tally
    run: str
    began: float
    cpu_began: float

    def record_what_can_be(self, *, state: State, reason: str | None = None) -> Report:
        """The report of a run that was broken off; its record is no reason to fail, where the store is away."""
        failures = [
            *(receipt.message or receipt.shard.file.uri for receipt in self.tally.failed),
            *(planned.failure or planned.file.uri for planned in self.plan.unreadable),
        ]
        settled = Settled(entries=self.plan.entries, failures=tuple(dict.fromkeys(failures)))
        try:
            return self.record(state=state, settled=settled, reason=reason)
        except StorageError:
            return self.report(state=state, settled=settled, reason=reason)

    def record(self, *, state: State, settled: Settled, reason: str | None = None) -> Report:
        """The report of the run, kept under _runs/ where there was anything to do."""
        report = self.report(state=state, settled=settled, reason=reason)
        if self.plan.work or self.plan.changes:
            ledger.write_run(self.job.output, run=self.run, record=record_of(report))
        return report

    def report(self, *, state: State, settled: Settled, reason: str | None = None) -> Report:
        """How the run ended."""
        rows, _, errors = ledger.totals(settled.entries.values())
        return Report(
            state=state,
            job=self.job,
            tally=self.tally,
            seconds=time.monotonic() - self.began,
            first_shard=None if self.tally.first_at is None else self.tally.first_at - self.began,
            driver_cpu=time.process_time() - self.cpu_began,
            files=len(self.plan.current),
            shards=len(settled.entries),
            total_rows=rows,
            total_errors=errors,
            failures=settled.failures,
            ignored=self.plan.ignored,
            reason=reason,
        )


def record_of(report: Report) -> dict[str, Any]:
    """What is kept of a run under _runs/."""
    tally = report.tally
    return {
        "state": report.state,
        "reason": report.reason,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(report.seconds, 3),
        "first_shard_seconds": None if report.first_shard is None else round(report.first_shard, 3),
        "driver_cpu_seconds": round(report.driver_cpu, 3),
        "bundles": tally.bundles,
        "shards": len(tally.receipts) - len(tally.failed),
        "rows": tally.rows,
        "tokens": tally.tokens,
        "rows_per_second": round(tally.rows / report.seconds, 1),
        "tokens_per_second": round(tally.tokens / report.seconds, 1),
        "batch_fill": round(tally.tokens / tally.facts["budget_tokens"], 4) if tally.facts["budget_tokens"] else None,
        "errors": dict(sorted(tally.errors.items())),
        "truncated": tally.truncated,
        "failed": list(report.failures),
        "stage_seconds": {name: round(value, 3) for name, value in sorted(tally.facts.items()) if name.endswith("_s")},
        "replica_shares": tally.replica_shares(),
        "dataset": {"files": report.files, "shards": report.shards, "rows": report.total_rows},
        "versions": {"preln": __version__, "python": platform.python_version(), **package_versions()},
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that answers could depend on, as installed where the driver runs."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
