"""`preln report`: one HTML page of what is in an output folder and how it came there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.plurals import counted

if TYPE_CHECKING:
    from collections import Counter

    from pipeline.analysis.dataset import Dataset
    from pipeline.analysis.histogram import Histogram
    from pipeline.analysis.summary import Distribution, Summary
    from pipeline.spec.job_spec import JobSpec

DEFAULT = "report.html"
RUNS = 20
"""Runs that the page lists."""
SHOWN = 40
"""Values of a column that the page lists; the others are summed."""
CARDS = ("README.md", "CARD.md", "MODEL_CARD.md")
CARD_CHARACTERS = 4_000

Into = Annotated[str, typer.Option("--into", help="The page's file, at any URL.")]


def report(
    output: Annotated[str, typer.Argument(help="Output folder of a job, at any URL.", show_default=False)],
    into: Into = DEFAULT,
) -> None:
    """Write one self-contained HTML page about an output folder: answers, errors, lengths, speed, versions."""
    from jobs.pages.page import require_extra

    require_extra()
    print(f"report written to {write_report(output, into=into)}")


def write_report(output: str, *, into: str) -> str:
    """Write the page of an output folder; returns where it is. Raises OutputError, StorageError, SpecError."""
    from pipeline.store.storage import canonical, put, readable

    url = canonical(into)
    put(url, page_of(output).encode())
    return readable(url)


def page_of(output: str) -> str:
    """The page of an output folder, as HTML."""
    from jobs.pages.page import render
    from pipeline.analysis.dataset import Dataset
    from pipeline.analysis.summary import summarize
    from pipeline.output.status import read_status
    from pipeline.store.storage import readable

    status = read_status(output)
    dataset = Dataset(output)
    summary = summarize(dataset)
    runs = dataset.folder.read_runs(RUNS)
    last = runs[-1] if runs else {}
    job = dataset.job
    values = {
        "output": readable(dataset.folder.url),
        "task": job.spec.task_name,
        "totals": [
            ("state", "complete" if status.complete else "not complete: see preln status"),
            ("rows", f"{summary.rows:,}"),
            ("rows with an error", f"{sum(summary.errors.values()):,}"),
            ("texts cut at the model's maximum length", f"{summary.truncated:,}"),
            ("shards", f"{len(dataset.shards):,} current, {status.missing:,} missing"),
            ("input files", f"{status.files:,}, {len(status.failed):,} failed"),
        ],
        "failed": status.failed[:SHOWN],
        "answers": [shown(one, name=f"a{index}") for index, one in enumerate(summary.answers)],
        "vectors": [one.column for one in dataset.answers if one.kind == "embedding"],
        "accepts": accepts(job.spec, summary),
        "errors": bars(summary.errors, whole=summary.rows),
        "examples": summary.examples,
        "lengths": [
            {"column": name, **drawn(found, name=f"l{index}", xlabel="characters")}
            for index, (name, found) in enumerate(summary.lengths.items())
            if found.count
        ],
        "truncated": (summary.truncated, summary.truncated / max(summary.rows, 1)),
        "last": last,
        "run": run_facts(last),
        "speed": speed(last.get("progress", [])),
        "replicas": replicas(last.get("replica_shares", {})),
        "slowest": last.get("slowest", {}),
        "versions": versions(dataset, last),
        "runs_on": last.get("runs_on", []),
        "card": card(job.spec.model.checkpoint),
        "changes": changes(dataset),
        "runs": runs[::-1],
    }
    return render("report.html", values)


def shown(one: Distribution, *, name: str) -> dict[str, Any]:
    """An answer column as the page shows it."""
    return {
        "column": one.column,
        "items": one.items,
        "values": bars(one.values, whole=one.items),
        "numbers": [
            {"what": what, **drawn(found, name=f"{name}n{index}", xlabel=what)}
            for index, (what, found) in enumerate(one.numbers.items())
            if found.count
        ],
    }


def accepts(spec: JobSpec, summary: Summary) -> list[dict[str, Any]]:
    """What each task with a known error rate accepts, and how far its scores have drifted; no drift where no row was answered."""
    from pipeline.spec.accepts import accepts_of

    drift = {one.task: one for one in summary.drift}
    found = ((name, accept, drift.get(name)) for name, accept in accepts_of(spec).items())
    return [
        {"task": name, "rule": accept.note(), "drift": one, "meaning": one and one.meaning}
        for name, accept, one in found
    ]


def bars(counts: Counter[str], *, whole: int) -> list[tuple[str, int, float, float]]:
    """(name, count, share of the whole, share of the largest), the largest first; what is not listed in one row at the end.

    That row has no bar: as the longest it would make the others too short to compare.
    """
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    most, whole = max(counts.values(), default=1), max(whole, 1)
    listed = [(name, count, count / whole, count / most) for name, count in ranked[:SHOWN]]
    rest = [count for _, count in ranked[SHOWN:]]
    return [*listed, (counted(len(rest), "other"), sum(rest), sum(rest) / whole, 0.0)] if rest else listed


def drawn(found: Histogram, *, name: str, xlabel: str) -> dict[str, Any]:
    """A histogram's picture and figures."""
    from jobs.pages.plots import histogram

    counts, edges = found.shown()
    figures = {key: getattr(found, key) for key in ("count", "mean", "least", "most", "not_finite")}
    return {**figures, "picture": histogram(counts, edges, name=name, xlabel=xlabel, ylabel="count")}


def run_facts(last: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A run's record in readable figures, as far as it has them."""
    from jobs.pages.page import number, percent
    from pipeline.plurals import duration

    figures: Sequence[tuple[str, str, Callable[[Any], str]]] = (
        ("state", "state", str),
        ("finished", "finished", str),
        ("time", "seconds", duration),
        ("time to the first shard", "first_shard_seconds", duration),
        ("rows", "rows", number),
        ("tokens", "tokens", number),
        ("rows a second, start-up included", "rows_per_second", number),
        ("tokens a second, start-up included", "tokens_per_second", number),
        ("batches filled", "batch_fill", percent),
    )
    return [(name, shown(last[key])) for name, key, shown in figures if last.get(key) is not None]


def speed(progress: Sequence[Sequence[float]]) -> Any:
    """Rows a second between the points of a run's record, each from its point to the next; None where it has too few."""
    from jobs.pages.plots import lines

    if len(progress) < 2:
        return None
    # From the first shard on: before it the replicas start, and the page says how long.
    at, rates = list[float](), list[float]()
    for (before, rows, _), (after, more, _) in itertools.pairwise(progress):
        if after > before:
            at += [before, after]
            rates += [(more - rows) / (after - before)] * 2
    return lines(at, {"rows": rates}, name="speed", xlabel="seconds since the run began", ylabel="rows a second")


def replicas(shares: Mapping[str, Sequence[float]]) -> list[tuple[float, ...]]:
    """(computing, waiting, handling) of each replica."""
    return list(zip(*(shares.get(name, ()) for name in ("computing", "waiting", "handling")), strict=False))


def versions(dataset: Dataset, last: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the answers depend on."""
    from pipeline.store.storage import readable

    job = dataset.job
    return [
        ("fingerprint", job.fingerprint),
        ("checkpoint", readable(job.spec.model.checkpoint)),
        ("checkpoint digest", job.checkpoint.digest),
        ("framework", f"{job.spec.model.framework} {job.dtype}"),
        *((name, str(version)) for name, version in last.get("versions", {}).items()),
    ]


def card(checkpoint: str) -> str | None:
    """The beginning of the checkpoint's card; None where it has none, or is away."""
    from pipeline.errors import PrelnError
    from pipeline.store.storage import join, read_bytes

    for name in CARDS:
        try:
            text = read_bytes(join(checkpoint, name)).decode("utf-8", errors="replace")
        except (OSError, PrelnError, ValueError):
            continue
        return text if len(text) <= CARD_CHARACTERS else f"{text[:CARD_CHARACTERS]}…"
    return None


def changes(dataset: Dataset) -> dict[str, Any] | None:
    """What the last run that found something found: new, changed and removed files; None where there is no plan."""
    name, plans = dataset.folder.read_plans()
    if name is None:
        return None
    from pipeline.output.plan import newest

    before, last = newest(plans[:-1]), plans[-1]
    found: dict[str, list[str]] = {"new": [], "changed": [], "removed": []}
    for planned in last:
        kind = "removed" if planned.removed else "changed" if planned.file.uri in before else "new"
        found[kind].append(planned.file.uri)
    uris = {planned.file.uri for planned in last}
    rows = sum(entry.rows for entry in dataset.shards if entry.uri in uris)
    return {"plan": name.removesuffix(".parquet"), "files": found, "rows": rows}
