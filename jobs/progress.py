"""Shows a run's progress: a live line on a terminal, otherwise a line every few seconds."""

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
from pipeline.plurals import counted
from pipeline.shards import Shard
from pipeline.store.storage import readable

QUIET_SECONDS = 10.0
"""Seconds between lines when not on a terminal."""


class ProgressLine:
    """Watches a run and prints its progress; with `as_json`, as one JSON object per line."""

    def __init__(self, console: Console, *, as_json: bool = False) -> None:
        self._console = console
        self._as_json = as_json
        self._tally = Tally()
        self._began = self._printed = time.monotonic()
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
        """Print what will be run, and start the line."""
        self._began = self._printed = time.monotonic()
        known = sum(isinstance(item, Shard) for item in plan.work)
        streams = len(plan.work) - known
        if self._as_json:
            self._print_json(
                event="planned", files=len(plan.current), new_files=len(plan.changes), shards=known, streams=streams
            )
            return
        if not plan.work:
            self._console.print(
                f"Nothing to do: {counted(len(plan.current), 'file')} annotated in {readable(job.output)}"
            )
            return
        parts = [counted(known, "shard")] if known else []
        parts += [f"{counted(streams, 'file')} to be cut while reading"] if streams else []
        self._console.print(
            f"{job.spec.task_name} with {job.spec.model.framework} {job.dtype}: {' and '.join(parts)} of "
            f"{counted(len(plan.current), 'file')}, {plan.missing_bytes / 1e6:,.1f} MB; {len(plan.written):,} already done"
        )
        if self._console.is_terminal:
            # A compressed file's size is known, its shards' sizes count decompressed bytes: the total is unknown.
            total = plan.missing_bytes or None if not streams else None
            self._bar = _bar(self._console, counted=total is not None)
            self._bar.add_task("starting the replicas", total=total)
            self._bar.start()
        else:
            self._console.print("starting the replicas")

    def waiting(self, words: str) -> None:
        """The run is waiting for something."""
        if self._as_json:
            self._print_json(event="waiting", words=words)
        else:
            self._console.print(words)

    def committed(self, receipt: Receipt) -> None:
        """Count one more shard."""
        self._tally.add(receipt)
        self._bytes += receipt.shard.size
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._bytes, description=self._line())
        elif time.monotonic() - self._printed > QUIET_SECONDS:
            self._printed = time.monotonic()
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
        numbers = self._numbers()
        fill = f", batches {numbers['fill']:.0%} full" if numbers["fill"] else ""
        errors = ", ".join(f"{count:,} {reason}" for reason, count in self._tally.errors.most_common(3)) or "no errors"
        failed = f", {numbers['failed']:,} failed" if numbers["failed"] else ""
        return (
            f"{counted(numbers['shards'], 'shard')}{failed}, {counted(numbers['rows'], 'row')}, "
            f"{numbers['rows_per_second']:,.0f} rows/s, "
            f"{numbers['tokens_per_second']:,.0f} tokens/s{fill}, {errors}"
        )

    @staticmethod
    def _print_json(**fields: Any) -> None:
        print(json.dumps(fields), file=sys.stdout, flush=True)


def _bar(console: Console, *, counted: bool) -> Progress:
    """The live line: how much is done and left if the total is known, else the time elapsed."""
    what = TextColumn("{task.description}", markup=False)
    columns: list[ProgressColumn] = [SpinnerColumn(), what, TextColumn("so far:"), TimeElapsedColumn()]
    if counted:
        done = [BarColumn(bar_width=20), TaskProgressColumn()]
        columns = [SpinnerColumn(), *done, what, TextColumn("left:"), TimeRemainingColumn()]
    return Progress(*columns, console=console, transient=True)
