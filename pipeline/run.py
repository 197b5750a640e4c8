"""A spec in, its output folder brought up to date out: the work of `preln annotate`, with what it did as a report."""

import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, Protocol

from pipeline import __version__, ledger
from pipeline.cluster import Cluster
from pipeline.errors import PrelnError, RunFailed
from pipeline.flow import MODEL_LOADER, annotate_shards
from pipeline.job import FrozenJob, freeze
from pipeline.ledger import Entry, PlannedFile, Success
from pipeline.plan import Plan, is_whole, make_plan, newest
from pipeline.prepare import open_job
from pipeline.rows import EMPTY
from pipeline.sink import DATA, Receipt
from pipeline.spec import JobSpec
from pipeline.storage import delete, join, sweep

State = Literal["done", "failed-shards", "too-many-errors", "interrupted", "crashed"]

PACKAGES = ("ray", "torch", "tensorflow", "jax", "flax", "tokenizers", "pyarrow", "numpy", "fsspec")


class Watcher(Protocol):
    """Who is told how a run goes, while it goes."""

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """The plan stands; nothing has run yet."""

    def committed(self, receipt: Receipt) -> None:
        """A shard is done, or has failed."""


@dataclass
class Tally:
    """What a run has done so far, from its receipts."""

    receipts: list[Receipt] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    bundles: int = 0
    first_at: float | None = None
    facts: Counter[str] = field(default_factory=Counter)

    def add(self, receipt: Receipt) -> None:
        """One more receipt."""
        self.receipts.append(receipt)
        self.first_at = self.first_at or time.monotonic()
        self.bundles += "computing_s" in receipt.facts  # told once a bundle
        self.rows += receipt.rows
        self.truncated += receipt.truncated
        self.errors.update(receipt.errors)
        self.tokens += int(receipt.facts.get("tokens", 0))
        self.facts.update({name: seconds for name, seconds in receipt.facts.items() if name != "replica"})

    @property
    def failed(self) -> list[Receipt]:
        """Receipts of shards that could not be read."""
        return [receipt for receipt in self.receipts if receipt.state == "failed"]

    @property
    def bad_rows(self) -> int:
        """Rows with an error other than an empty text."""
        return sum(count for reason, count in self.errors.items() if reason != EMPTY)


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
    for folder in (DATA, ledger.PLANS, ledger.MANIFESTS, ledger.RUNS):
        sweep(join(job.output, folder))
    if plan.changes:
        ledger.withdraw_success(job.output)
        plan = replace(plan, name=ledger.write_plan(job.output, run=run, files=plan.changes))
    watcher.planned(job, plan)
    tally = Tally()
    ended = Ended(job=job, plan=plan, tally=tally, run=run, began=began, cpu_began=cpu_began)
    try:
        receipts = (
            annotate_shards(job=job, work=plan.work, placement=placement, loader=loader, say=cluster.say, run=run)
            if placement
            else iter(())
        )
        within_limits = consume(receipts, tally=tally, plan=plan, job=job, watcher=watcher)
        settled = settle(job=job, tally=tally, run=run)
        if not within_limits:
            return ended.record(state="too-many-errors", settled=settled)
        return ended.record(state=close(job=job, plan=plan, settled=settled, wishes=wishes), settled=settled)
    except KeyboardInterrupt:
        return ended.record(state="interrupted", settled=Settled(entries=plan.entries))
    except Exception as error:
        ended.record(state="crashed", settled=Settled(entries=plan.entries), reason=f"{type(error).__name__}: {error}")
        if isinstance(error, PrelnError):
            raise RunFailed(f"{error}. What is written stays, and the same command goes on") from error
        raise


def consume(receipts: Iterator[Receipt], *, tally: Tally, plan: Plan, job: FrozenJob, watcher: Watcher) -> bool:
    """Take receipts until they end; False where the rows with errors, of all runs of this output, pass the limits."""
    rows_before, bad_before, _ = ledger.totals(plan.entries.values())
    limits = job.spec.limits
    for receipt in receipts:
        tally.add(receipt)
        watcher.committed(receipt)
        rows, bad = rows_before + tally.rows, bad_before + tally.bad_rows
        if bad > limits.error_rows and bad > limits.error_share * rows:
            return False
    return True


@dataclass(frozen=True)
class Settled:
    """The dataset after a run. entries: its current objects. manifest: the name they are stored under.

    failures: files that are not whole, and why. complete: nothing is missing.
    """

    entries: Mapping[str, Entry]
    manifest: str | None = None
    failures: Sequence[str] = ()
    complete: bool = False


def settle(*, job: FrozenJob, tally: Tally, run: str) -> Settled:
    """Write the manifest of what exists now, and delete what a changed file's new shards have superseded.

    Plans and objects are looked up afresh: another driver may have planned and written meanwhile.
    """
    plans = ledger.read_plans(job.output)[1]
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
    delete([join(job.output, DATA, key) for key in superseded])
    manifest, stored = ledger.read_manifest(job.output)
    if stored != kept:
        manifest = ledger.write_manifest(job.output, run=run, entries=kept.values())
    reasons = {receipt.shard.file.uri: receipt.message for receipt in tally.failed}
    failures = [
        reasons.get(planned.file.uri) or planned.failure or f"{planned.file.uri}: not finished"
        for planned in incomplete
    ]
    return Settled(entries=kept, manifest=manifest, failures=failures, complete=not incomplete)


def close(*, job: FrozenJob, plan: Plan, settled: Settled, wishes: Wishes) -> State:
    """Write _SUCCESS where everything planned is there, or where the user accepts, now or before, what failed."""
    stored = ledger.read_success(job.output)
    rows, bad, _ = ledger.totals(settled.entries.values())
    success = Success(
        plan=plan.name or "",
        manifest=settled.manifest or "",
        files=len(plan.current),
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

    def record(self, *, state: State, settled: Settled, reason: str | None = None) -> Report:
        """The report of the run, kept under _runs/ where there was anything to do."""
        rows, _, errors = ledger.totals(settled.entries.values())
        report = Report(
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
        if self.plan.work or self.plan.changes:
            ledger.write_run(self.job.output, run=self.run, record=record_of(report))
        return report


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
