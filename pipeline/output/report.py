"""What a run did, as the report its caller gets and the record kept under _runs/."""

import platform
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from models.families import PRE_LAYER_NORM
from pipeline import __version__
from pipeline.errors import StorageError
from pipeline.output.folder import OutputFolder
from pipeline.output.forecast import Forecast, forecast
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan
from pipeline.output.records import totals
from pipeline.output.settle import Settled, State
from pipeline.output.tally import Tally

PACKAGES = ("ray", "torch", "tensorflow", "jax", "flax", "tokenizers", "pyarrow", "numpy", "fsspec")


@dataclass(frozen=True)
class Report:
    """How a run ended.

    forecast: what is left after a probe. began: by the monotonic clock.
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
    notes: Sequence[str] = ()
    began: float = 0.0
    forecast: Forecast | None = None


@dataclass(frozen=True)
class Ended:
    """A run, for its report however it ends. began: by the monotonic clock; cpu_began: by this process's."""

    folder: OutputFolder
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
            self.folder.write_run(run=self.run, record=record_of(report))
        return report

    def probed(self, *, settled: Settled, replicas: int) -> Report:
        """The report of a probe, with its forecast; only its own failures count, since the rest has not been tried."""
        self.folder.withdraw_success()  # of an earlier run: there is more to do now
        failures = tuple(dict.fromkeys(receipt.message or receipt.shard.file.uri for receipt in self.tally.failed))
        report = self.report(state="probed", settled=replace(settled, failures=failures))
        if any(receipt.rows for receipt in self.tally.receipts):
            found = forecast(
                plan=self.plan, tally=self.tally, replicas=replicas, first_shard=report.first_shard or report.seconds
            )
            report = replace(report, forecast=found)
        self.folder.write_run(run=self.run, record=record_of(report))
        return report

    def report(self, *, state: State, settled: Settled, reason: str | None = None) -> Report:
        """How the run ended."""
        rows, _, errors = totals(settled.entries.values())
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
            notes=self.plan.notes,
            began=self.began,
        )


def record_of(report: Report) -> dict[str, Any]:
    """What is kept of a run under _runs/."""
    tally = report.tally
    return {
        "state": report.state,
        "model_type": report.job.checkpoint.model_type or PRE_LAYER_NORM,
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
        "unfit_values": tally.unfit_values(),
        "left_out_columns": tally.left_out_columns(),
        "notes": list(report.notes),
        "failed": list(report.failures),
        "stage_seconds": {
            name: round(value, 3) for name, value in sorted(tally.facts.items()) if re.fullmatch(r"\w+_s", name)
        },
        "replica_shares": tally.replica_shares(),
        "progress": tally.progress(began=report.began),
        "slowest": tally.slowest(),
        **({} if report.forecast is None else {"forecast": asdict(report.forecast)}),
        "runs_on": tally.runs_on(),
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
