"""Submits, follows and stops a job through a cluster's job API.

The id is `preln-{digest of the job}-{attempt}`: the same job finds itself while it runs, and gets a new attempt after it has
ended, whatever way (Ray takes no id twice). Ray never restarts a failed driver; the same command resumes.
"""

import hashlib
import json
import re
import shlex
import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from ray.job_submission import JobStatus

from jobs.embedded import DEMO
from jobs.submission.job_api import RECONNECT_SECONDS, JobApi, NotAuthorized, UnknownJob, Unreachable
from models.errors import PrelnError
from pipeline.cluster.nodes import ACCELERATOR, ACCELERATOR_AMOUNT, Demand
from pipeline.spec.job_spec import JobSpec
from pipeline.store.storage import readable

ROOT = Path(__file__).resolve().parents[2]
SENT = ("preln", "pipeline", "models", "jobs", "pyproject.toml", "constraints.txt")
"""What a cluster needs of this repository."""
NOT_SENT = ("__pycache__", "*.pyc", "clusters", "kubernetes", "sample", ".*", DEMO.name)
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
SUBMIT_SECONDS = 60.0
"""Seconds that a cluster that has just started may need before it takes a job."""
EXIT_FAILED, EXIT_STOPPED = 1, 130


@dataclass(frozen=True)
class Submission:
    """One attempt of a job on a cluster. fresh: started now, rather than found running."""

    id: str
    fresh: bool


@dataclass(frozen=True)
class Entrypoint:
    """What the cluster runs for a job: a verb of preln with its words. demand: what its node must have; None for the head."""

    words: tuple[str, ...]
    demand: Demand | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The demand as options of Ray's client."""
        if self.demand is None:
            return {}
        kind = {ACCELERATOR + self.demand.accelerator: ACCELERATOR_AMOUNT} if self.demand.accelerator else None
        return {
            "entrypoint_num_cpus": self.demand.cpus,
            "entrypoint_num_gpus": self.demand.gpus or None,
            "entrypoint_resources": kind,
            "entrypoint_label_selector": dict(self.demand.labels) or None,
        }


ANNOTATE = Entrypoint(("annotate", JOB_FILE))


def doctor_for(spec: JobSpec) -> Entrypoint:
    """`preln doctor` for a job's framework, checkpoint, device and output, on a node where one of its replicas could be."""
    wanted = spec.resources
    words = [
        "doctor",
        "--framework",
        spec.model.framework,
        "--model",
        spec.model.checkpoint,
        "--storage",
        spec.output.url,
    ]
    if wanted.gpus is not None:
        words.append("--gpu" if wanted.gpus else "--cpu")
    if not (wanted.gpus or wanted.accelerator or wanted.labels):
        return Entrypoint(tuple(words))
    demand = Demand(cpus=1.0, gpus=wanted.gpus or 0.0, accelerator=wanted.accelerator, labels=wanted.labels)
    return Entrypoint(tuple(words), demand)


def job_digest(spec: JobSpec, flags: Sequence[str] = ()) -> str:
    """A digest of everything in a job: submissions with the same one are the same job."""
    content = json.dumps([spec.model_dump(mode="json", by_alias=True), list(flags)], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=6).hexdigest()


def submit(
    api: JobApi,
    *,
    spec: JobSpec,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    image_has_it: bool = False,
    work: Entrypoint = ANNOTATE,
) -> Submission:
    """Start the job on the cluster, or find it running there. Raises PrelnError.

    flags: further ones for the verb that is run. environment: variables of the driver and all workers. image_has_it: the
    nodes have all packages, nothing is to be installed there. work: what is run for the job.
    """
    deadline = time.monotonic() + SUBMIT_SECONDS
    stem = f"preln-{job_digest(spec, (*(() if work == ANNOTATE else work.words), *flags))}"
    reported = False
    while True:
        attempts = attempts_of(api, stem)
        if attempts and not attempts[max(attempts)].is_terminal():
            return Submission(f"{stem}-{max(attempts)}", fresh=False)
        name = f"{stem}-{max(attempts, default=0) + 1}"
        with working_folder(spec) as folder:
            try:
                api.submit(
                    # A shell reads it, on the cluster.
                    entrypoint=shlex.join(["python", "-m", "jobs", *work.words, *flags]),
                    name=name,
                    runtime_env=runtime_environment(
                        spec, folder=folder, environment=environment or {}, image_has_it=image_has_it
                    ),
                    metadata={"task": spec.task_name, "output": readable(spec.output.url)},
                    options=work.options,
                )
            except (NotAuthorized, UnknownJob):
                raise
            except PrelnError as error:
                # Somebody took the attempt's id between looking and submitting, the head's agent is still starting, or the
                # answer was lost on its way: then the next look finds the job running.
                transient = isinstance(error, Unreachable)
                if not (transient or "already exists" in str(error)) or time.monotonic() > deadline:
                    kind = Unreachable if transient else PrelnError
                    raise kind(f"the cluster did not take the job: {error}") from None
                if transient and not reported:
                    api.say(f"{error}; submitting again for {SUBMIT_SECONDS:.0f} s")
                    reported = True
                time.sleep(RECONNECT_SECONDS)
            else:
                return Submission(name, fresh=True)


def attempts_of(api: JobApi, stem: str) -> dict[int, JobStatus]:
    """Attempt number -> status, of all attempts at a job that the cluster remembers."""
    found = {}
    for job in api.jobs():
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
            elif (ROOT / name).is_file():  # an installed package has no pyproject.toml, and the cluster reads none
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
    wanted = requirements(extras_for(spec))
    pins = _pins()
    names = dict.fromkeys(_name(requirement) for requirement in wanted)
    return [pins.get(name, name) for name in names if name != "ray"]


def requirements(extras: Sequence[str]) -> list[str]:
    """What the package and these extras of it require: by pyproject.toml in the repository, else by the installed package."""
    file = ROOT / "pyproject.toml"
    if not file.is_file():
        wanted = [Requirement(line) for line in metadata.requires("preln") or ()]
        chosen = [one for one in wanted if not one.marker or any(one.marker.evaluate({"extra": e}) for e in extras)]
        return [one.name for one in chosen]
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    found = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return found


def constraints_file() -> Path | None:
    """The pinned versions: in the repository, or where the wheel put them; None where there are none."""
    files = [ROOT / "constraints.txt"]
    if not files[0].is_file():
        files = [Path(str(file.locate())) for file in metadata.files("preln") or () if file.name == "constraints.txt"]
    return next((file for file in files if file.is_file()), None)


def _pins() -> dict[str, str]:
    file = constraints_file()
    lines = [] if file is None else file.read_text(encoding="utf-8").splitlines()
    return {_name(line): line for line in lines if "==" in line and not line.startswith("#")}


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ;]", requirement)[0].lower().replace("_", "-")


def follow(api: JobApi, submission_id: str) -> Iterator[str]:
    """A job's log from its beginning until the job has ended; reconnects if the connection breaks. Raises PrelnError, also if
    nothing answers for longer than the timeout of `api`."""
    seen = 0
    while True:
        behind = seen
        try:
            for text in api.tail(submission_id):
                fresh, behind = text[behind:], max(0, behind - len(text))
                seen += len(fresh)
                yield fresh
        except Unreachable as error:
            api.say(f"{error}; following the log again")
        if api.job(submission_id).status.is_terminal():
            # The tail may have ended before the job did: a job may end while no client is connected.
            yield api.log(submission_id)[seen:]
            return
        time.sleep(RECONNECT_SECONDS)


def exit_code(api: JobApi, submission_id: str) -> int:
    """The exit code of a job that has ended: its driver's own, 130 where it was stopped, 1 where it never ran."""
    info = api.job(submission_id)
    if info.status == JobStatus.STOPPED:
        return EXIT_STOPPED
    if info.status == JobStatus.SUCCEEDED:
        return 0
    return EXIT_FAILED if info.driver_exit_code is None else info.driver_exit_code


def why_it_failed(api: JobApi, submission_id: str) -> str:
    """One line about a job that failed, without the log that the cluster repeats in its message."""
    message = (api.job(submission_id).message or "").partition(", last available logs")[0]
    why = f": {' '.join(message.split())[:300].rstrip('.')}" if message else ""
    return f"{submission_id} failed{why}. Committed shards stay; run the same command to resume"


def stop(api: JobApi, submission_id: str, *, timeout: float = 60.0) -> JobStatus:
    """End a job as Ctrl-C would, wait until it has ended, and return how. Raises PrelnError."""
    status = api.job(submission_id).status
    if status.is_terminal():
        return status
    api.stop(submission_id)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        status = api.job(submission_id).status
        if status.is_terminal():
            return status
        time.sleep(0.5)
    raise PrelnError(f"{submission_id}: still running {timeout:.0f} s after it was asked to stop; look at the cluster")
