"""Shows a run's progress from its first second: a live line on a terminal, otherwise a line every ten seconds.

Imports nothing that takes long: the planning that it shows begins with the imports of everything else.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from pipeline.plurals import counted, duration

if TYPE_CHECKING:
    from types import TracebackType

    from jobs.time_left import TimeLeft
    from pipeline.cluster.flight import Flight
    from pipeline.output.job import FrozenJob
    from pipeline.output.plan import Plan
    from pipeline.output.sink import Receipt
    from pipeline.output.tally import Tally

QUIET_SECONDS = 10.0
"""Seconds between lines when not on a terminal."""
PLANNING, LOADING, READING, ANNOTATING = "planning", "loading the model", "reading", "annotating"
SETTLING = "writing the records"
DONE = {"starting Ray": "Ray started", "connecting to Ray": "connected to Ray"}
"""What is printed after a phase."""


class ProgressLine:
    """Watches a run and prints its progress; with `as_json`, as events (`jobs.events`), a JSON object per line."""

    def __init__(self, console: Console, *, as_json: bool = False) -> None:
        self._console = console
        self._as_json = as_json
        self._began = self._phase_began = time.monotonic()
        self._phase = ""
        self._ready_at: float | None = None
        self._flight: Flight | None = None
        self._tally: Tally | None = None
        self._left: TimeLeft | None = None
        # Never held while something is printed: the live line's own lock is taken then, under which it asks for the line.
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._errors: dict[str, int] = {}

    def __enter__(self) -> ProgressLine:
        self.phase(PLANNING)
        if not self._as_json and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                get_renderable=lambda: self._rendered(), console=self._console, transient=True, refresh_per_second=4
            )
            self._live.start()
        else:
            threading.Thread(target=self._tick, name="preln-progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._live is not None:
            self._live.stop()

    def phase(self, phase: str) -> None:
        """The run has come to its next phase."""
        with self._lock:
            if phase == self._phase:
                return
            before, self._phase = self._phase, phase
            took, self._phase_began = time.monotonic() - self._phase_began, time.monotonic()
        if self._as_json:
            self._emit_phase()
        elif before in DONE:
            self._console.print(f"{DONE[before]} in {duration(took)}")
        elif self._live is None and phase != PLANNING:  # a job that is refused is one line
            self._console.print(phase)

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """Print what will be run."""
        from jobs.time_left import TimeLeft
        from pipeline.output.tally import Tally
        from pipeline.shards import Shard
        from pipeline.store.storage import readable

        known = sum(isinstance(item, Shard) for item in plan.work)
        streams = len(plan.work) - known
        self._tally, self._left = Tally(), TimeLeft(plan.missing_bytes)
        if self._as_json:
            from jobs import events

            events.emit(
                events.Planned(
                    files=len(plan.current),
                    new_files=len(plan.changes),
                    shards=known,
                    streams=streams,
                    done=len(plan.written),
                    bytes=plan.missing_bytes,
                )
            )
        elif not plan.work:
            self._console.print(
                f"Nothing to do: {counted(len(plan.current), 'file')} annotated in {readable(job.output)}"
            )
        else:
            parts = [counted(known, "shard")] if known else []
            parts += [f"{counted(streams, 'file')} to be cut while reading"] if streams else []
            self._console.print(
                f"{job.spec.task_name} with {job.spec.model.framework} {job.dtype}: {' and '.join(parts)} of "
                f"{counted(len(plan.current), 'file')}, {plan.missing_bytes / 1e6:,.1f} MB; {len(plan.written):,} already done"
            )
        if plan.work:
            self.phase(LOADING)

    def waiting(self, words: str) -> None:
        """The run is waiting for something."""
        if self._as_json:
            from jobs import events

            events.emit(events.Waiting(words=words))
        else:
            self._console.print(words)

    def running(self, flight: Flight) -> None:
        """What the replicas are doing now."""
        self._flight = flight
        if self._left is not None:
            self._left.flying(flight)
        if flight.replicas:
            self._ready(flight.device, flight.seconds)
        if self._ready_at is not None and self._phase != SETTLING:
            self.phase(ANNOTATING if flight.known.rows or self._shards else READING)

    def committed(self, receipt: Receipt) -> None:
        """Count one more shard."""
        assert self._tally is not None
        assert self._left is not None
        self._tally.add(receipt)
        self._left.committed(receipt)
        self._errors = dict(self._tally.errors.most_common())
        if receipt.runs_on:  # a run that ends before the first look at its replicas
            self._ready(_device(receipt), None)
        self.phase(ANNOTATING)

    def settling(self) -> None:
        """All work is done."""
        self._flight = None
        if self._shards:
            self.phase(SETTLING)

    @property
    def _shards(self) -> int:
        return 0 if self._tally is None else len(self._tally.receipts)

    def _ready(self, device: str, seconds: float | None) -> None:
        with self._lock:
            if self._ready_at is not None:
                return
            self._ready_at = time.monotonic()
        took = self._ready_at - self._phase_began if seconds is None else seconds
        if self._as_json:
            from jobs import events

            events.emit(events.Ready(device=device, seconds=round(took, 3)))
        else:
            self._console.print(f"model ready on {device} in {duration(took)}")

    def _tick(self) -> None:
        while not self._ended.wait(QUIET_SECONDS):
            if self._as_json:
                self._emit_progress()
            else:
                self._console.print(self.line())

    def _rendered(self) -> Spinner:
        text = Text(self.line(width=self._console.width - 3), no_wrap=True, overflow="ellipsis")
        self._spinner.update(text=text)
        return self._spinner

    def line(self, *, width: int | None = None) -> str:
        """What the run is doing, and how far it is; in a width, as much as fits, the least important left out first."""
        parts = [(rank, words) for rank, words in self._parts() if words]
        while width is not None and len(parts) > 1 and len(_joined(parts)) > width:
            parts.remove(max(parts))
        return _joined(parts)

    def _parts(self) -> list[tuple[int, str]]:
        """The parts of the line in their order, each with its rank: the highest is left out first."""
        elapsed = duration(time.monotonic() - self._phase_began)
        if self._phase in (PLANNING, SETTLING) or self._tally is None or self._left is None:
            return [(0, f"{self._phase}, {elapsed}")]
        flight, tally, left = self._flight, self._tally, self._left
        if self._ready_at is None and not self._shards:
            queued = flight.queued if flight else 0
            return [(0, f"{self._phase}, {elapsed}"), (1, f"{counted(queued, 'bundle')} read" if queued else "")]
        share, seconds, rows = left.share, left.seconds, flight.rows if flight else 0
        failed = len(tally.failed)
        budget = tally.facts["budget_tokens"]
        errors = ", ".join(f"{count:,} {reason}" for reason, count in list(self._errors.items())[:3])
        return [
            (0, f"{self._phase}, {elapsed}"),
            (1, "" if share is None else f"{min(share, 0.99):.0%}"),
            (2, counted(tally.rows, "row") + (f" + {rows:,} in flight" if rows else "")),
            (3, "" if seconds is None else f"{duration(seconds)} left"),
            (4, f"{failed:,} failed" if failed else ""),
            (5, errors),
            (6, f"{self._rows_per_second():,.0f} rows/s" if tally.rows or left.rate else ""),
            (7, f"{left.rate:,.0f} tokens/s" if left.rate else ""),
            (8, counted(self._shards, "shard") if self._shards else ""),
            (9, f"{flight.replicas:,} replicas" if flight and flight.replicas > 1 else ""),
            (10, f"batches {tally.tokens / budget:.0%} full" if budget else ""),
        ]

    def _rows_per_second(self) -> float:
        assert self._tally is not None
        assert self._left is not None
        known = self._flight.known if self._flight else None
        if known and known.tokens and self._left.rate:  # committed rows come a shard at a time
            return self._left.rate * known.rows / known.tokens
        since = self._began if self._ready_at is None else self._ready_at
        return self._tally.rows / max(time.monotonic() - since, 1e-9)

    def _emit_phase(self) -> None:
        from jobs import events

        events.emit(events.PhaseBegun(phase=self._phase, seconds=round(time.monotonic() - self._began, 3)))

    def _emit_progress(self) -> None:
        from jobs import events

        if self._tally is None or self._left is None:
            return
        tally, left, flight = self._tally, self._left, self._flight
        budget = tally.facts["budget_tokens"]
        numbers: dict[str, Any] = {
            "phase": self._phase,
            "seconds": round(time.monotonic() - self._began, 3),
            "shards": self._shards,
            "failed": len(tally.failed),
            "rows": tally.rows,
            "rows_in_flight": flight.rows if flight else 0,
            "replicas": flight.replicas if flight else 0,
            "rows_per_second": round(self._rows_per_second(), 1),
            "tokens_per_second": round(left.rate, 1),
            "fill": round(tally.tokens / budget, 3) if budget else None,
            "errors": self._errors,
            "share": None if left.share is None else round(left.share, 4),
            "seconds_left": None if left.seconds is None else round(left.seconds, 1),
        }
        events.emit(events.Advanced(**numbers))


def _joined(parts: list[tuple[int, str]]) -> str:
    return ": ".join([parts[0][1], ", ".join(words for _, words in parts[1:])]) if len(parts) > 1 else parts[0][1]


def _device(receipt: Receipt) -> str:
    from pipeline.inference.replica_news import device_words

    return device_words(receipt.runs_on, dtype="")
