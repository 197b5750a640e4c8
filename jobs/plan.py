"""`preln plan`: shows what a job would run; writes nothing."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.arguments import DtypeName, FrameworkName, Input, JobFile, Model, Output, Settings, TaskName, job_spec
from pipeline.plurals import counted

if TYPE_CHECKING:
    from pipeline.spec.job_spec import JobSpec


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
    from jobs.terminal import Terminal
    from pipeline.store.storage import readable

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
    figures = asdict(summary_of(spec, before_ray=say_ray))
    if as_json:
        print(json.dumps(figures))
        return
    console = Terminal()
    rows = "not known before reading" if figures["rows"] is None else f"{figures['rows']:,}"
    console.print(f"{figures['task']} with {figures['framework']} {figures['dtype']}, to {readable(figures['output'])}")
    console.print(
        f"  files    {figures['files']:,} ({figures['new_files']:,} new or changed, {figures['unreadable']:,} unreadable)"
    )
    console.print(
        f"  shards   {figures['shards']:,} to run, {figures['written']:,} done; "
        f"{counted(figures['streams'], 'file')} to be cut while reading"
    )
    console.print(f"  rows     {rows}")
    console.print(f"  bytes    {figures['bytes']:,}")
    for name in figures["ignored"][:5]:
        console.print(f"  not read, unknown format: {name}")
    for note in figures["notes"][:5]:
        console.print(f"  {note}")


@dataclass(frozen=True)
class PlanSummary:
    """A plan in figures. rows: None if unknown before reading. streams: files that are cut as they are read."""

    task: str
    framework: str
    dtype: str
    output: str
    fingerprint: str
    files: int
    new_files: int
    unreadable: int
    shards: int
    streams: int
    written: int
    rows: int | None
    bytes: int
    ignored: list[str]
    notes: list[str]


def say_ray() -> None:
    """Say on standard error that Ray is needed, and when it is not."""
    sys.stderr.write(
        "asking Ray what the cluster has, which starts one on this machine where RAY_ADDRESS names none; "
        "not needed where the job sets resources.gpus and model.dtype\n"
    )


def summary_of(spec: "JobSpec", *, before_ray: Callable[[], None] = lambda: None) -> PlanSummary:
    """What a run of this job would do. Writes nothing, and connects to Ray only if it must.

    before_ray: called before Ray is connected to, or started.
    """
    from jobs.connect import connect
    from pipeline.cluster.placement import Cluster
    from pipeline.output.folder import OutputFolder
    from pipeline.output.plan import make_plan
    from pipeline.prepare import notes_of, open_job
    from pipeline.shards import Shard

    def connecting() -> None:
        before_ray()
        connect()

    job, described = open_job(spec=spec, cluster=Cluster(connecting))
    planned = make_plan(folder=OutputFolder(job.output), job=job, described=described)
    shards = sum(isinstance(item, Shard) for item in planned.work)
    return PlanSummary(
        task=job.spec.task_name,
        framework=job.spec.model.framework,
        dtype=job.dtype,
        output=job.output,
        fingerprint=job.fingerprint,
        files=len(planned.current),
        new_files=len(planned.changes),
        unreadable=len(planned.unreadable),
        shards=shards,
        streams=len(planned.work) - shards,
        written=len(planned.written),
        rows=planned.missing_rows,
        bytes=planned.missing_bytes,
        ignored=list(planned.ignored),
        notes=[*planned.notes, *notes_of(job.spec)],
    )
