"""`preln jobs`: a cluster's address in, the jobs that were submitted to it and how they ended out."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.submit import LOCALHOST, Address

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

PREFIX = "preln-"


@dataclass(frozen=True)
class SubmittedJob:
    """One submission. started, ended: seconds since 1970, None where the cluster does not say."""

    id: str
    status: str
    task: str
    output: str
    started: float | None
    ended: float | None
    exit_code: int | None


def jobs(
    address: Address = LOCALHOST,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, for machines.")] = False,
) -> None:
    """List the jobs that were submitted to a cluster, the newest last."""
    from jobs.events import emit_values
    from jobs.submission.job_api import JobApi
    from jobs.terminal import Terminal, harmless

    say = Terminal(stderr=True).print
    found = sorted(map(_submitted, _of_preln(JobApi.at(address, say=say).jobs())), key=lambda job: job.started or 0.0)
    if as_json:
        for job in found:
            emit_values("job", **asdict(job))
        return
    if not found:
        print(f"{address}: no job of preln; `preln submit` starts one")
    for job in found:
        code = f" (exit code {job.exit_code})" if job.exit_code else ""
        print(harmless(f"{job.id}  {job.status.lower()}{code}{_lasted(job)}  {job.task}  {job.output}".rstrip()))


def _of_preln(details: list[JobDetails]) -> list[JobDetails]:
    return [job for job in details if (job.submission_id or "").startswith(PREFIX)]


def _submitted(details: JobDetails) -> SubmittedJob:
    said = details.metadata or {}
    started, ended = (None if moment is None else moment / 1000 for moment in (details.start_time, details.end_time))
    return SubmittedJob(
        id=details.submission_id or "",
        status=str(details.status.value),
        task=said.get("task", ""),
        output=said.get("output", ""),
        started=started,
        ended=ended,
        exit_code=details.driver_exit_code,
    )


def _lasted(job: SubmittedJob) -> str:
    if job.started is None:
        return ""
    minutes, seconds = divmod(int((job.ended or time.time()) - job.started), 60)
    return f", {minutes} min {seconds} s"
