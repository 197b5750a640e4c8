"""`preln status`: an output folder in, how far it is out."""

import json
from typing import Annotated

import typer
from rich.console import Console

from pipeline.output.status import Status, read_status
from pipeline.store.storage import readable


def status(
    output: Annotated[str, typer.Argument(help="Output folder of a job, at any URL.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Say what is done, missing and failed in an output folder."""
    found = read_status(output)
    if as_json:
        print(json.dumps(as_values(found)))
        return
    console = Console(highlight=False, soft_wrap=True, markup=False)
    job = found.job
    console.print(
        f"{job.spec.task_name} with {readable(job.spec.model.checkpoint)} ({job.spec.model.framework} {job.dtype})"
    )
    console.print(f"  files     {found.files:,}")
    console.print(f"  done      {found.done:,} shards")
    console.print(
        f"  missing   {found.missing:,} shards"
        + (f" and the rest of {found.open_files:,} compressed files" if found.open_files else "")
    )
    console.print(f"  failed    {len(found.failed):,} files")
    for failure in found.failed[:10]:
        console.print(f"            {failure}")
    counted = "" if found.complete else ", by the last finished run"
    console.print(f"  rows      {found.rows:,}{counted}")
    for reason, count in found.errors.most_common():
        console.print(f"            {count:,} with the error {reason}")
    if found.last_state:
        console.print(f"  last run  {found.last_state}, {found.last_finished}")
    for one in found.last_runs_on:
        console.print(f"            on {', '.join(f'{key} {value}' for key, value in one.items() if key != 'said')}")
    if found.last_reason:
        console.print(f"            {found.last_reason}")
    console.print("Complete." if found.complete else "Not complete; the same annotate command goes on.")


def as_values(found: Status) -> dict[str, object]:
    """A status as plain values."""
    fields = {key: value for key, value in vars(found).items() if key != "job"}
    return {
        **fields,
        "errors": dict(found.errors),
        "task": found.job.spec.task_name,
        "fingerprint": found.job.fingerprint,
    }
