"""`preln annotate`: brings a job's output folder up to date."""

from __future__ import annotations

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
from pipeline.plurals import counted

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.output.forecast import Forecast, Range
    from pipeline.output.report import Report
    from pipeline.output.tally import Tally
    from pipeline.run_options import RunOptions
    from pipeline.spec.job_spec import JobSpec

EXIT_CODES = {"done": 0, "failed-shards": 3, "too-many-errors": 3, "interrupted": INTERRUPTED, "probed": 0}


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
        bool, typer.Option("--show-spec", help="Print the job with all its defaults and exit.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON lines, for machines.")] = False,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Rerun shards that have error rows.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Drop the rows of deleted input files.")] = False,
    accept_failed: Annotated[
        bool, typer.Option("--accept-failed", help="Write _SUCCESS despite failed files, and list them in it.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="ROWS",
            help="Only answer the first rows, and print them; nothing is written.",
            min=1,
            show_default=False,
        ),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option("--into", help="With --limit: write those rows to this folder instead.", show_default=False),
    ] = None,
    report_too: Annotated[
        bool, typer.Option("--report", help="Write report.html when the run ends, as `preln report` does.")
    ] = False,
    probe: Annotated[
        int | None,
        typer.Option(
            "--probe",
            metavar="SHARDS",
            help="Only run a few shards, spread over the input, and forecast the rest; without it, the command resumes.",
            min=1,
            show_default=False,
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option("--price", help="With --probe: the price of a replica and hour.", min=0.0, show_default=False),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(
            "--every",
            metavar="DURATION",
            help="Keep running, and annotate new files at this interval, such as 15m or 1h.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Annotate every row that is not annotated yet. To resume a run, give the same command again.

    Exit codes: 0 done, 1 the run could not continue, 2 wrong use and nothing was started, 3 finished with failed shards or
    too many bad rows, 130 interrupted.
    """
    from jobs import events
    from pipeline.run_options import RunOptions

    with events.failures_emitted(wanted=as_json):
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
    if report_too and (limit is not None or every is not None):
        raise SpecError("--report is about a run that ends: leave out --limit and --every, or run preln report")
    if into is not None and limit is None:
        raise SpecError(
            "--into names the folder for the rows of --limit; give --limit too, or --output for the whole job"
        )
    if limit is not None:
        with events.failures_emitted(wanted=as_json):
            look(spec, rows=limit, into=into, as_json=as_json)
        return
    if report_too:
        from jobs.pages.page import require_extra

        require_extra()  # now, and not after hours
    if probe is not None and (limit is not None or every is not None):
        raise SpecError("--probe runs real shards once: leave out --limit and --every")
    if price is not None and probe is None:
        raise SpecError("--price is for the forecast of --probe; give --probe too, such as --probe 3")
    options = RunOptions(retry_errors=retry_errors, prune=prune, accept_failed=accept_failed, probe=probe)
    if every is not None:
        raise typer.Exit(annotate_again(spec, every=duration(every), as_json=as_json, options=options))
    try:
        report = annotate_spec(spec, as_json=as_json, options=options, price=price)
    except KeyboardInterrupt:
        say_interrupted()
        raise typer.Exit(INTERRUPTED) from None
    if report_too and report.shards:
        from jobs.report import DEFAULT, write_report

        sys.stderr.write(f"report written to {write_report(report.job.output, into=DEFAULT)}\n")
    raise typer.Exit(EXIT_CODES[report.state])


def look(spec: JobSpec, *, rows: int, into: str | None, as_json: bool) -> None:
    """Answer the first rows of a job's input, and print them, or write them to a folder."""
    from jobs.events import emit_values
    from jobs.preview import first_answers, write_rows
    from jobs.show import as_table
    from jobs.terminal import Terminal

    found = first_answers(spec, rows=rows)
    if into is not None:
        print(f"{counted(found.num_rows, 'row')} written to {write_rows(found, folder=into, spec=spec)}")
    elif as_json:
        for row in found.to_pylist():
            emit_values("row", row=row)
    else:
        Terminal(soft_wrap=False).print(as_table(found))


def say_interrupted() -> None:
    """Print how to resume after an interruption before a run or between two runs."""
    sys.stderr.write(f"Interrupted: no shard was in progress; {GOES_ON}.\n")


def duration(text: str) -> float:
    """Seconds of a duration such as 90s, 15m, 2h. Raises SpecError."""
    from pydantic import TypeAdapter, ValidationError

    from pipeline.spec.job_spec import Seconds

    try:
        return TypeAdapter(Seconds).validate_python(text)
    except ValidationError:
        raise SpecError(f"--every {text}: write a duration such as 90s, 15m, 2h") from None


def annotate_again(spec: JobSpec, *, every: float, as_json: bool, options: RunOptions) -> int:
    """Run a job repeatedly until it is interrupted or has too many bad rows; returns the exit code.

    After a first successful run, one that fails is reported and tried again at the next interval: stores and clusters recover.
    """
    from jobs.events import failures_emitted
    from jobs.terminal import Terminal

    console = Terminal(stderr=True)
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
            with failures_emitted(wanted=as_json):
                time.sleep(max(0.0, every - (time.monotonic() - began)))
    except KeyboardInterrupt:
        say_interrupted()
        return INTERRUPTED


def annotate_spec(
    spec: JobSpec, *, as_json: bool = False, options: RunOptions | None = None, price: float | None = None
) -> Report:
    """Run a job with a progress line, and print how it ended. price: of a replica and hour, for a forecast."""
    from jobs import events
    from jobs.progress import ProgressLine
    from jobs.terminal import Terminal

    console = Terminal(stderr=as_json)
    with events.failures_emitted(wanted=as_json), ProgressLine(console, as_json=as_json) as line:
        from jobs.connect import this_cluster
        from pipeline import run
        from pipeline.output.report import record_of
        from pipeline.run_options import DEFAULT_OPTIONS

        report = run.annotate(
            spec=spec,
            cluster=this_cluster(say=line.waiting, phase=line.phase),
            watcher=line,
            options=options or DEFAULT_OPTIONS,
            live=line,
        )
    if as_json:
        events.emit_values("finished", **record_of(report))
    else:
        print_report(report, console)
        if report.state == "probed":
            console.print("\n".join(forecast_lines(report.forecast, price=price)))
    return report


def print_report(report: Report, console: Console) -> None:
    """Print what a run did and the state of the dataset, in a few lines."""
    from pipeline.rows import EMPTY
    from pipeline.store.storage import readable

    tally, output = report.tally, readable(report.job.output)
    if tally.receipts:
        rate = tally.rows / report.seconds
        console.print(
            f"{counted(tally.rows, 'row')} in {report.seconds:,.1f} s ({rate:,.0f} rows/s, start-up included) "
            f"written to {output}/data"
        )
    for reason, count in tally.errors.most_common():
        note = " (null answers; does not count against the limits)" if reason == EMPTY else ""
        console.print(f"  {counted(count, 'row')} with the error {reason}{note}")
    if tally.truncated:
        console.print(f"  {counted(tally.truncated, 'text')} cut at the model's maximum length (column truncated)")
    for line in _columns_not_carried(tally):
        console.print(line)
    for note in report.notes[:10]:
        console.print(f"  {note}")
    for name in report.ignored[:3]:
        console.print(f"  not read, unknown format: {name}")
    for failure in report.failures[:10]:
        console.print(f"  failed: {failure}")
    if report.state == "done":
        dataset = f"{counted(report.total_rows, 'row')} of {counted(report.files, 'file')}"
        console.print(f"Done: {dataset} in {counted(report.shards, 'shard')}.")
    elif report.state == "failed-shards":
        console.print(
            f"Not complete: {counted(len(report.failures), 'file')} failed; run the same command to try again."
        )
    elif report.state == "too-many-errors":
        console.print(
            f"Stopped: {tally.earlier_bad_rows + tally.bad_rows:,} of {tally.earlier_rows + tally.rows:,} rows, "
            "including earlier runs, have errors, more than limits.error_rows and limits.error_share allow. Committed shards "
            "stay. Fix the input or raise the limits, then run the same command."
        )
    elif report.state == "interrupted":
        console.print(
            f"Interrupted: {counted(len(tally.receipts), 'shard')} of this run committed; run the same command to resume."
        )


def _columns_not_carried(tally: Tally) -> list[str]:
    """What carried columns lost, and how to declare them."""
    unfit = [
        f"  {counted(count, 'value')} of the column {column!r} did not fit its type: null; set input.schema"
        for column, count in tally.unfit_values().items()
    ]
    return unfit + [
        f"  {counted(count, 'row')} with a column {column!r} that is not carried: it was not in the files, or not in their "
        "first megabyte, when this output folder was begun; declare the columns in input.schema, with a new output"
        for column, count in tally.left_out_columns().items()
    ]


def forecast_lines(forecast: Forecast | None, *, price: float | None) -> list[str]:
    """A forecast as lines of text, each number as a range with what it rests on."""
    again = "The same command without --probe resumes; the probe's shards are done."
    if forecast is None:
        return ["No forecast: no shard of the probe has rows; probe more shards.", again]

    def line(name: str, found: Range, digits: int, ground: str) -> str:
        low, likely, high = (f"{number:,.{digits}f}" for number in (found.low, found.likely, found.high))
        shown = low if low == high else f"{low} to {high}, about {likely}"
        return f"  {name:<8} {shown} ({ground})"

    hours = forecast.hours
    digits = 0 if hours.likely >= 100 else 1 if hours.likely >= 10 else 2 if hours.likely >= 0.1 else 4
    grounds = forecast.grounds
    lines = [
        f"Left after {counted(forecast.shards, 'probed shard')}, on {counted(forecast.replicas, 'replica')}:",
        line("rows", forecast.rows, 0, grounds["rows"]),
        line("tokens", forecast.tokens, 0, grounds["tokens"]),
        line("hours", hours, digits, grounds["hours"]),
    ]
    if price is not None:
        cost = price * forecast.replicas
        money = type(hours)(hours.low * cost, hours.likely * cost, hours.high * cost)
        lines.append(line("money", money, 2, f"{price:g} a replica and hour"))
    return [*lines, again]
