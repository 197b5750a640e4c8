"""`preln plan`: shows what a job would run; writes nothing."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from jobs.arguments import DtypeName, FrameworkName, Input, JobFile, Model, Output, Settings, TaskName, job_spec
from jobs.connect import this_cluster
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan, make_plan
from pipeline.plurals import counted
from pipeline.prepare import open_job
from pipeline.shards import Shard
from pipeline.store.storage import readable


def plan(
    job: JobFile = None,
    task: TaskName = None,
    model: Model = None,
    input_urls: Input = None,
    output: Output = None,
    framework: FrameworkName = None,
    dtype: DtypeName = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Show what `annotate` would run: files, shards, rows and bytes."""
    spec = job_spec(
        job=job,
        task=task,
        model=model,
        input_urls=input_urls,
        output=output,
        framework=framework,
        dtype=dtype,
        settings=settings,
    )
    frozen, described = open_job(spec=spec, cluster=this_cluster())
    figures = numbers(frozen, make_plan(job=frozen, spec=frozen.spec, described=described))
    if as_json:
        print(json.dumps(figures))
        return
    console = Console(highlight=False, soft_wrap=True, markup=False)
    rows = "not known before reading" if figures["rows"] is None else f"{figures['rows']:,}"
    console.print(f"{figures['task']} with {figures['framework']} {figures['dtype']}, to {readable(figures['output'])}")
    console.print(
        f"  files    {figures['files']:,} ({figures['new_files']:,} new or changed, {figures['unreadable']:,} unreadable)"
    )
    console.print(
        f"  shards   {figures['shards']:,} to run, {figures['written']:,} done; "
        f"{counted(figures['streams'], 'compressed file')} to be cut while reading"
    )
    console.print(f"  rows     {rows}")
    console.print(f"  bytes    {figures['bytes']:,}")
    for name in figures["ignored"][:5]:
        console.print(f"  not read, unknown format: {name}")


def numbers(job: FrozenJob, planned: Plan) -> dict[str, Any]:
    """A plan as numbers."""
    shards = sum(isinstance(item, Shard) for item in planned.work)
    return {
        "task": job.spec.task_name,
        "framework": job.spec.model.framework,
        "dtype": job.dtype,
        "output": job.output,
        "fingerprint": job.fingerprint,
        "files": len(planned.current),
        "new_files": len(planned.changes),
        "unreadable": len(planned.unreadable),
        "shards": shards,
        "streams": len(planned.work) - shards,
        "written": len(planned.written),
        "rows": planned.missing_rows,
        "bytes": planned.missing_bytes,
        "ignored": list(planned.ignored),
    }
