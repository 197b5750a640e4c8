"""A job and a cluster's address in, the job running there under an id of its own out: Ray's job API, and what it is sent.

The id is `preln-{digest of the job}-{attempt}`: the same job finds itself while it runs, and gets a new attempt after it has
ended, whatever way (Ray takes no id twice). Ray never repeats a driver that failed; the same command goes on.
"""

import asyncio
import hashlib
import json
import re
import shutil
import tempfile
import time
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from models.errors import PrelnError
from pipeline.spec import JobSpec
from pipeline.storage import readable

ROOT = Path(__file__).resolve().parents[1]
SENT = ("pipeline", "models", "jobs", "pyproject.toml", "constraints.txt")
"""What a cluster needs of this repository."""
NOT_SENT = ("__pycache__", "*.pyc", "clusters", "kubernetes", "sample", ".*")
JOB_FILE = "job.yaml"
STORES = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
    "hf": "hub",
}
"""URL scheme -> the extra that reads it."""
STOP_SECONDS = "15"
"""How long a stopped driver has to end by itself; Ray's own 3 seconds would often be too few."""
RECONNECT_SECONDS = 2.0
EXIT_FAILED, EXIT_STOPPED = 1, 130


@dataclass(frozen=True)
class Submission:
    """One attempt of a job on a cluster. fresh: started now, rather than found running."""

    id: str
    fresh: bool


def client_of(address: str) -> JobSubmissionClient:
    """The job API at an address. Raises PrelnError where nobody answers, or not to us."""
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise PrelnError(
            f"{address}: no Ray job API answers there ({_first_line(error)}). Is the dashboard's port (8265) reached, by a "
            "tunnel (`ray dashboard cluster.yaml`, `kubectl port-forward`), and is the cluster's token known here?"
        ) from None


def job_digest(spec: JobSpec, flags: Sequence[str] = ()) -> str:
    """What makes two submissions the same job: everything that is in it."""
    content = json.dumps([spec.model_dump(mode="json", by_alias=True), list(flags)], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=6).hexdigest()


def submit(
    client: JobSubmissionClient,
    *,
    spec: JobSpec,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    image_has_it: bool = False,
    patience: float = 60.0,
) -> Submission:
    """Start the job on the cluster, or find it running there. Raises PrelnError.

    flags: further ones for `annotate`. environment: variables of the driver and all workers. image_has_it: the nodes have
    all packages, nothing is to be installed there. patience: seconds that a cluster that has just started may need.
    """
    deadline = time.monotonic() + patience
    stem = f"preln-{job_digest(spec, flags)}"
    while True:
        attempts = attempts_of(client, stem)
        if attempts and not attempts[max(attempts)].is_terminal():
            return Submission(f"{stem}-{max(attempts)}", fresh=False)
        name = f"{stem}-{max(attempts, default=0) + 1}"
        with working_folder(spec) as folder:
            try:
                client.submit_job(
                    entrypoint=" ".join(["python -m jobs annotate", JOB_FILE, *flags]),
                    submission_id=name,
                    runtime_env=runtime_environment(
                        spec, folder=folder, environment=environment or {}, image_has_it=image_has_it
                    ),
                    metadata={"task": spec.task.name, "output": readable(spec.output.url)},
                )
            except RuntimeError as error:
                # Somebody took the attempt's id between looking and submitting, or the head's agent is still starting.
                passing = "already exists" in str(error) or "No available agent" in str(error)
                if not passing or time.monotonic() > deadline:
                    raise PrelnError(f"the cluster did not take the job: {_first_line(error)}") from None
                time.sleep(RECONNECT_SECONDS)
            else:
                return Submission(name, fresh=True)


def attempts_of(client: JobSubmissionClient, stem: str) -> dict[int, JobStatus]:
    """Attempt number -> status, of all attempts at a job that the cluster remembers."""
    found = {}
    for job in client.list_jobs():
        if match := re.fullmatch(re.escape(stem) + r"-(\d+)", job.submission_id or ""):
            found[int(match[1])] = job.status
    return found


@contextmanager
def working_folder(spec: JobSpec) -> Iterator[Path]:
    """A folder with the job's file and as much of this repository as a cluster needs; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="preln-submit-") as temporary:
        folder = Path(temporary)
        for name in SENT:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*NOT_SENT))
            else:
                shutil.copy(ROOT / name, folder / name)
        (folder / JOB_FILE).write_text(spec.to_yaml(), encoding="utf-8")
        yield folder


def runtime_environment(
    spec: JobSpec, *, folder: Path, environment: Mapping[str, str], image_has_it: bool
) -> dict[str, Any]:
    """Ray's runtime environment of the job: the folder, the variables, and the pinned packages unless the image has them."""
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": STOP_SECONDS, **environment}
    values: dict[str, Any] = {"working_dir": str(folder), "env_vars": variables}
    if not image_has_it:
        values["pip"] = {"packages": packages_for(spec), "pip_check": False}
    return values


def extras_for(spec: JobSpec) -> list[str]:
    """The extras of this repository that a job needs: its framework's, and those of the stores it names."""
    urls = [*spec.input.urls, spec.model.checkpoint, spec.output.url]
    stores = {STORES[scheme] for url in urls if (scheme := url.partition("://")[0]) in STORES}
    return [spec.model.framework, *sorted(stores)]


def packages_for(spec: JobSpec) -> list[str]:
    """Pinned packages of the base and of the job's extras; Ray itself is the cluster's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in extras_for(spec):
        wanted += project["optional-dependencies"][extra]
    pins = _pins()
    names = dict.fromkeys(_name(requirement) for requirement in wanted)
    return [pins.get(name, name) for name in names if name != "ray"]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {_name(line): line for line in lines if "==" in line and not line.startswith("#")}


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ;]", requirement)[0].lower().replace("_", "-")


def follow(client: JobSubmissionClient, submission_id: str) -> Iterator[str]:
    """A job's log, from its beginning until the job has ended; a connection that breaks is taken up again. Raises PrelnError."""
    seen = 0
    while True:
        behind = seen
        try:
            for text in _tail(client, submission_id):
                fresh, behind = text[behind:], max(0, behind - len(text))
                seen += len(fresh)
                yield fresh
        except (RuntimeError, OSError, ClientError):
            info_of(client, submission_id)  # raises where there is no such job
        if info_of(client, submission_id).status.is_terminal():
            return
        time.sleep(RECONNECT_SECONDS)


def _tail(client: JobSubmissionClient, submission_id: str) -> Iterator[str]:
    """Pieces of the log, from the beginning, as long as the connection lasts."""
    pieces = client.tail_job_logs(submission_id).__aiter__()
    with asyncio.Runner() as runner:
        while (piece := runner.run(_next(pieces))) is not None:
            yield piece


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await anext(pieces, None)


def info_of(client: JobSubmissionClient, submission_id: str) -> JobDetails:
    """What the cluster says of a job. Raises PrelnError where it knows none of this id."""
    try:
        return client.get_job_info(submission_id)
    except RuntimeError as error:
        if "does not exist" not in str(error) and "404" not in str(error):
            raise PrelnError(f"{submission_id}: the cluster can't be asked about it: {_first_line(error)}") from None
        known = [job.submission_id for job in client.list_jobs() if (job.submission_id or "").startswith("preln-")]
        told = f"it knows {', '.join(sorted(map(str, known))[-5:])}" if known else "it knows no job of preln"
        raise PrelnError(f"{submission_id}: this cluster knows no such job; {told}") from None


def exit_code(client: JobSubmissionClient, submission_id: str) -> int:
    """The exit code of a job that has ended: its driver's own, 130 where it was stopped, 1 where it never ran."""
    info = info_of(client, submission_id)
    if info.status == JobStatus.STOPPED:
        return EXIT_STOPPED
    if info.status == JobStatus.SUCCEEDED:
        return 0
    return EXIT_FAILED if info.driver_exit_code is None else info.driver_exit_code


def stop(client: JobSubmissionClient, submission_id: str, *, patience: float = 60.0) -> JobStatus:
    """End a job as Ctrl-C would, wait until it has ended, and return how. Raises PrelnError."""
    if info_of(client, submission_id).status.is_terminal():
        return info_of(client, submission_id).status
    client.stop_job(submission_id)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        status = info_of(client, submission_id).status
        if status.is_terminal():
            return status
        time.sleep(0.5)
    raise PrelnError(f"{submission_id}: asked to stop, and still running after {patience:.0f} s; look at the cluster")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
