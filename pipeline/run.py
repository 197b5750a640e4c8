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
    facts: Counter[str] = field(default_factory=Counter)

    def add(self, receipt: Receipt) -> None:
        """One more receipt."""
        self.receipts.append(receipt)
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

    files, shards, total_rows, total_errors: of the whole dataset as it stands now. failures: file and reason.
    """

    state: State
    job: FrozenJob
    tally: Tally
    seconds: float
    files: int
    shards: int
    total_rows: int
    total_errors: Counter[str]
    failures: Sequence[str]
    ignored: Sequence[str]


def annotate(
    *, spec: JobSpec, cluster: Cluster, watcher: Watcher, loader: str = MODEL_LOADER, accept_failed: bool = False
) -> Report:
    """Annotate every row that is not annotated yet. Raises PrelnError for what stops a run before or while it goes.

    KeyboardInterrupt ends it at once; what is committed stays, the run is recorded, and the same call goes on.
    """
    began = time.monotonic()
    job, described = open_job(spec=spec, cluster=cluster)
    plan = make_plan(job=job, spec=job.spec, described=described)
    placement = cluster.placement(job.spec) if plan.work else None
    frozen = freeze(job)
    if frozen != job:  # another driver was first, with the same answers and another cut
        job, plan = frozen, make_plan(job=frozen, spec=frozen.spec, described=described)
    run = ledger.new_run_id()
    for folder in (DATA, ledger.PLANS, ledger.MANIFESTS, ledger.RUNS):
        sweep(join(job.output, folder))
    if plan.changes:
        ledger.withdraw_success(job.output)
        plan = replace(plan, name=ledger.write_plan(job.output, run=run, files=plan.changes))
    watcher.planned(job, plan)
    tally = Tally()
    try:
        receipts = (
            annotate_shards(job=job, work=plan.work, placement=placement, loader=loader) if placement else iter(())
        )
        within_limits = consume(receipts, tally=tally, plan=plan, job=job, watcher=watcher)
        settled = settle(job=job, tally=tally, run=run)
        state = (
            close(job=job, plan=plan, settled=settled, accept_failed=accept_failed)
            if within_limits
            else "too-many-errors"
        )
    except KeyboardInterrupt:
        settled, state = Settled(entries=plan.entries), "interrupted"
    except Exception as error:
        settled = Settled(entries=plan.entries, failures=[f"the run ended by {type(error).__name__}: {error}"])
        crashed = report_of(
            state="crashed", job=job, plan=plan, tally=tally, settled=settled, seconds=time.monotonic() - began
        )
        ledger.write_run(job.output, run=run, record=record_of(crashed))
        raise
    report = report_of(state=state, job=job, plan=plan, tally=tally, settled=settled, seconds=time.monotonic() - began)
    if plan.work or plan.changes:
        ledger.write_run(job.output, run=run, record=record_of(report))
    return report


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
    for entry in ledger.known_entries(job.output, written=written).values():
        by_file.setdefault(entry.uri, []).append(entry)
    kept: dict[str, Entry] = {}
    superseded: list[str] = []
    incomplete: list[PlannedFile] = []
    for uri, planned in newest(plans).items():
        entries = by_file.get(uri, [])
        current = [entry for entry in entries if entry.version == planned.file.version]
        old = [entry for entry in entries if entry.version != planned.file.version and entry.version in versions[uri]]
        if is_whole(planned, current):
            superseded += [entry.key for entry in old]
        else:
            incomplete.append(planned)
            current += old
        kept |= {entry.key: entry for entry in sorted(current, key=lambda entry: entry.first)}
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


def close(*, job: FrozenJob, plan: Plan, settled: Settled, accept_failed: bool) -> State:
    """Write _SUCCESS where everything planned is there, or where the user accepts what failed."""
    if not settled.complete and not accept_failed:
        return "failed-shards"
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
    if ledger.read_success(job.output) != success:
        ledger.write_success(job.output, success)
    return "done"


def report_of(*, state: State, job: FrozenJob, plan: Plan, tally: Tally, settled: Settled, seconds: float) -> Report:
    """The report of a run that has ended."""
    rows, _, errors = ledger.totals(settled.entries.values())
    return Report(
        state=state,
        job=job,
        tally=tally,
        seconds=seconds,
        files=len(plan.current),
        shards=len(settled.entries),
        total_rows=rows,
        total_errors=errors,
        failures=settled.failures,
        ignored=plan.ignored,
    )


def record_of(report: Report) -> dict[str, Any]:
    """What is kept of a run under _runs/."""
    tally = report.tally
    return {
        "state": report.state,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(report.seconds, 3),
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
