"""A run's receipts in, a live line on a terminal or a line now and then elsewhere out."""

import json
import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan
from pipeline.output.sink import Receipt
from pipeline.output.tally import Tally
from pipeline.shards import Shard
from pipeline.store.storage import readable

QUIET_SECONDS = 10.0
"""Off a terminal, a line at most this often."""


class ProgressLine:
    """A watcher of a run, for people on a terminal, or off it for logs; with `as_json` one JSON object a line."""

    def __init__(self, console: Console, *, as_json: bool = False) -> None:
        self._console = console
        self._as_json = as_json
        self._tally = Tally()
        self._began = self._said = time.monotonic()
        self._bytes = 0
        self._bar: Progress | None = None

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """Say what is to be done, and begin the line."""
        self._began = self._said = time.monotonic()
        known = sum(isinstance(item, Shard) for item in plan.work)
        streams = len(plan.work) - known
        if self._as_json:
            self._print_json(
                event="planned", files=len(plan.current), new_files=len(plan.changes), shards=known, streams=streams
            )
            return
        if not plan.work:
            self._console.print(
                f"Nothing to do: all {len(plan.current):,} files are annotated in {readable(job.output)}"
            )
            return
        parts = [f"{known:,} shards"] if known else []
        parts += [f"{streams:,} compressed files, cut as they are read"] if streams else []
        self._console.print(
            f"{job.spec.task_name} with {job.spec.model.framework} {job.dtype}: {' and '.join(parts)} of "
            f"{len(plan.current):,} files, {plan.missing_bytes / 1e6:,.1f} MB; {len(plan.written):,} shards were there already"
        )
        if self._console.is_terminal:
            # A stream's file has its size as it lies there, its shards theirs when decompressed: of how much, nobody knows.
            total = plan.missing_bytes or None if not streams else None
            self._bar = _bar(self._console, counted=total is not None)
            self._bar.add_task("starting the replicas", total=total)
            self._bar.start()
        else:
            self._console.print("starting the replicas")

    def waiting(self, words: str) -> None:
        """The run can't go on until something is there."""
        if self._as_json:
            self._print_json(event="waiting", words=words)
        else:
            self._console.print(words)

    def committed(self, receipt: Receipt) -> None:
        """One shard more."""
        self._tally.add(receipt)
        self._bytes += receipt.shard.size
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._bytes, description=self._line())
        elif time.monotonic() - self._said > QUIET_SECONDS:
            self._said = time.monotonic()
            if self._as_json:
                self._print_json(event="progress", **self._numbers())
            else:
                self._console.print(self._line())

    def _numbers(self) -> dict[str, Any]:
        seconds = max(time.monotonic() - self._began, 1e-9)
        tally = self._tally
        return {
            "shards": len(tally.receipts),
            "failed": len(tally.failed),
            "rows": tally.rows,
            "rows_per_second": round(tally.rows / seconds, 1),
            "tokens_per_second": round(tally.tokens / seconds, 1),
            "fill": round(tally.tokens / tally.facts["budget_tokens"], 3) if tally.facts["budget_tokens"] else None,
            "errors": dict(tally.errors),
        }

    def _line(self) -> str:
        told = self._numbers()
        fill = f", batches {told['fill']:.0%} full" if told["fill"] else ""
        errors = ", ".join(f"{count:,} {reason}" for reason, count in self._tally.errors.most_common(3)) or "no errors"
        failed = f", {told['failed']:,} failed" if told["failed"] else ""
        return (
            f"{told['shards']:,} shards{failed}, {told['rows']:,} rows, {told['rows_per_second']:,.0f} rows/s, "
            f"{told['tokens_per_second']:,.0f} tokens/s{fill}, {errors}"
        )

    @staticmethod
    def _print_json(**fields: Any) -> None:
        print(json.dumps(fields), file=sys.stdout, flush=True)


def _bar(console: Console, *, counted: bool) -> Progress:
    """The live line: how much is done and left where that is counted, else how long it has taken."""
    what = TextColumn("{task.description}", markup=False)
    columns: list[ProgressColumn] = [SpinnerColumn(), what, TextColumn("so far:"), TimeElapsedColumn()]
    if counted:
        done = [BarColumn(bar_width=20), TaskProgressColumn()]
        columns = [SpinnerColumn(), *done, what, TextColumn("left:"), TimeRemainingColumn()]
    return Progress(*columns, console=console, transient=True)
