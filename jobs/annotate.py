"""`preln annotate`: a job in, its output folder brought up to date out."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.arguments import (
    DtypeName,
    FrameworkName,
    Input,
    JobFile,
    Model,
    Output,
    Replicas,
    Settings,
    TaskName,
    job_spec,
)
from jobs.interruption import GOES_ON, INTERRUPTED
from pipeline.errors import PrelnError, SpecError

if TYPE_CHECKING:
    from rich.console import Console


if TYPE_CHECKING:
    from pipeline import run
    from pipeline.output.report import Report
    from pipeline.spec.job_spec import JobSpec


EXIT_CODES = {"done": 0, "failed-shards": 3, "too-many-errors": 3, "interrupted": INTERRUPTED}


def annotate(
    job: JobFile = None,
    task: TaskName = None,
    model: Model = None,
    input_urls: Input = None,
    output: Output = None,
    framework: FrameworkName = None,
    dtype: DtypeName = None,
    replicas: Replicas = None,
    settings: Settings = None,
    show_spec: Annotated[
        bool, typer.Option("--show-spec", help="Print the job with all its defaults, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON lines, for machines.")] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Run shards that hold error rows again.")
    ] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Drop the rows of input files that are gone.")] = False,
    accept_failed: Annotated[
        bool, typer.Option("--accept-failed", help="Write _SUCCESS although files failed, with their list in it.")
    ] = False,
    every: Annotated[
        str | None,
        typer.Option(
            "--every",
            metavar="DURATION",
            help="Stay, and annotate what is new so often, such as 15m or 1h.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Annotate every row that is not annotated yet. The same command goes on where the last one stopped.

    Exit codes: 0 done, 1 a run that could not go on, 2 wrong use and nothing was started, 3 finished with failed shards or
    too many bad rows, 130 interrupted.
    """
    from pipeline import run

    spec = job_spec(
        job=job,
        task=task,
        model=model,
        input_urls=input_urls,
        output=output,
        framework=framework,
        dtype=dtype,
        replicas=replicas,
        settings=settings,
    )
    if show_spec:
        print(spec.to_yaml(), end="")
        return
    options = run.RunOptions(retry_errors=retry_errors, prune=prune, accept_failed=accept_failed)
    if every is not None:
        raise typer.Exit(annotate_again(spec, every=duration(every), as_json=as_json, options=options))
    try:
        report = annotate_spec(spec, as_json=as_json, options=options)
    except KeyboardInterrupt:
        say_interrupted()
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(EXIT_CODES[report.state])


def say_interrupted() -> None:
    """How to go on after an interruption outside a run: before it began, or between two."""
    sys.stderr.write(f"Interrupted: no shard was under way; {GOES_ON}.\n")


def duration(text: str) -> float:
    """Seconds of a duration such as 90s, 15m, 2h. Raises SpecError."""
    from pydantic import TypeAdapter, ValidationError

    from pipeline.spec.job_spec import Seconds

    try:
        return TypeAdapter(Seconds).validate_python(text)
    except ValidationError:
        raise SpecError(f"--every {text}: write a duration such as 90s, 15m, 2h") from None


def annotate_again(spec: JobSpec, *, every: float, as_json: bool, options: run.RunOptions) -> int:
    """Run a job now and then, until it is interrupted or its rows are too bad; the exit code.

    A run that can't go on, once one has begun well, is told and tried again at the next time: stores and clusters come back.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    ran = False
    try:
        while True:
            began = time.monotonic()
            try:
                report = annotate_spec(spec, as_json=as_json, options=options)
            except PrelnError as error:
                if not ran:
                    raise
                console.print(f"preln: {error}", style="red")
            else:
                ran = True
                if report.state in ("interrupted", "too-many-errors"):
                    return EXIT_CODES[report.state]
            time.sleep(max(0.0, every - (time.monotonic() - began)))
    except KeyboardInterrupt:
        say_interrupted()
        return INTERRUPTED


def annotate_spec(spec: JobSpec, *, as_json: bool = False, options: run.RunOptions | None = None) -> Report:
    """Run a job under a live line, and print how it ended."""
    from rich.console import Console

    from jobs.connect import this_cluster
    from jobs.progress import ProgressLine
    from pipeline import run
    from pipeline.output.report import record_of

    console = Console(stderr=as_json, highlight=False, soft_wrap=True, markup=False)
    with ProgressLine(console, as_json=as_json) as line:
        report = run.annotate(
            spec=spec, cluster=this_cluster(say=line.waiting), watcher=line, options=options or run.DEFAULT_OPTIONS
        )
    if as_json:
        print(json.dumps({"event": "finished", **record_of(report)}), flush=True)
    else:
        print_report(report, console)
    return report


def print_report(report: Report, console: Console) -> None:
    """What a run did and how the dataset stands, in a few lines."""
    from pipeline.rows import EMPTY
    from pipeline.store.storage import readable

    tally, output = report.tally, readable(report.job.output)
    if tally.receipts:
        rate = tally.rows / report.seconds
        console.print(
            f"{tally.rows:,} rows in {report.seconds:,.1f} s ({rate:,.0f} rows/s, start-up included) written to {output}/data"
        )
    for reason, count in tally.errors.most_common():
        note = " (null answers; never counted against the limit)" if reason == EMPTY else ""
        console.print(f"  {count:,} rows have the error {reason}{note}")
    if tally.truncated:
        console.print(f"  {tally.truncated:,} texts were longer than the model and were cut (column truncated)")
    for column, count in tally.unfit_values().items():
        console.print(
            f"  {count:,} values of the column {column!r} did not fit its type and are null; input.schema names another"
        )
    for note in report.notes[:10]:
        console.print(f"  {note}")
    for name in report.ignored[:3]:
        console.print(f"  not read, of no known format: {name}")
    for failure in report.failures[:10]:
        console.print(f"  failed: {failure}")
    if report.state == "done":
        console.print(f"Done: {report.total_rows:,} rows of {report.files:,} files in {report.shards:,} shards.")
    elif report.state == "failed-shards":
        console.print(f"Not complete: {len(report.failures):,} files failed; the same command tries them again.")
    elif report.state == "too-many-errors":
        console.print(
            f"Stopped: {tally.earlier_bad_rows + tally.bad_rows:,} of {tally.earlier_rows + tally.rows:,} rows, those of "
            "earlier runs included, have errors, more than limits.error_rows and limits.error_share allow. What is written "
            "stays. Mend the input, or raise the limits, and run the same command."
        )
    else:
        console.print(
            f"Interrupted: {len(tally.receipts):,} shards of this run are written and stay; the same command goes on."
        )
