"""`preln status`: shows what is done in an output folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.plurals import counted

if TYPE_CHECKING:
    from pipeline.output.status import Status


def status(
    output: Annotated[str, typer.Argument(help="Output folder of a job, at any URL.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Show what is done, missing and failed in an output folder."""
    from jobs.terminal import Terminal
    from pipeline.output.status import read_status
    from pipeline.store.storage import readable

    found = read_status(output)
    if as_json:
        print(json.dumps(as_values(found)))
        return
    console = Terminal()
    job = found.job
    console.print(
        f"{job.spec.task_name} with {readable(job.spec.model.checkpoint)} ({job.spec.model.framework} {job.dtype})"
    )
    console.print(f"  files     {found.files:,}")
    console.print(f"  done      {counted(found.done, 'shard')}")
    console.print(
        f"  missing   {counted(found.missing, 'shard')}"
        + (f" and the rest of {counted(found.open_files, 'file')} cut while reading" if found.open_files else "")
    )
    console.print(f"  failed    {counted(len(found.failed), 'file')}")
    for failure in found.failed[:10]:
        console.print(f"            {failure}")
    more = f", and those of {counted(found.uncounted, 'shard')} more" if found.uncounted else ""
    console.print(f"  rows      {found.rows:,}{more}")
    if found.unfinished:
        console.print(
            f"            {found.unfinished_rows:,}{' or more' if found.uncounted else ''} in "
            f"{counted(found.unfinished, 'shard')} of a run that is not finished: killed, interrupted or at work"
        )
    for reason, count in found.errors.most_common():
        console.print(f"            {count:,} with the error {reason}")
    if found.last_state:
        console.print(f"  last run  {found.last_state}, {found.last_finished}")
    for one in found.last_runs_on:
        console.print(f"            on {', '.join(f'{key} {value}' for key, value in one.items() if key != 'said')}")
    if found.last_reason:
        console.print(f"            {found.last_reason}")
    console.print("Complete." if found.complete else "Not complete; run the same annotate command to resume.")


def as_values(found: Status) -> dict[str, object]:
    """A status as plain values."""
    fields = {key: value for key, value in vars(found).items() if key != "job"}
    return {
        **fields,
        "errors": dict(found.errors),
        "task": found.job.spec.task_name,
        "fingerprint": found.job.fingerprint,
    }
