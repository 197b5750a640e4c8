"""`preln schedule`: writes files for Kubernetes, crontab, systemd or Airflow that run a job at given times."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from jobs.arguments import Settings, job_spec, job_text
from jobs.submit import with_absolute_paths
from pipeline.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.scheduling import manifests
    from jobs.scheduling.cron import Cron
    from pipeline.spec.job_spec import JobSpec


Target = Literal["kubernetes", "crontab", "systemd", "airflow"]
ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
"""Names that Kubernetes and systemd both take, with room for what KubeRay appends."""

LOCAL_SCHEMES = ("file", "local", "memory")
"""Schemes of addresses that only one machine, or one process, has."""
CHAINED = ("simplecache", "filecache", "blockcache")
"""What fsspec takes before `::`, without an address of its own."""

HOW_TO = {
    "kubernetes": "kubectl apply -f {0}   (KubeRay's own RayCronJob)   or   kubectl apply -f {1}   (a CronJob; any KubeRay)",
    "crontab": "put its lines into a crontab: (crontab -l; cat {0}) | crontab -",
    "systemd": "put both into ~/.config/systemd/user, then: systemctl --user enable --now {1.name}",
    "airflow": "put it into Airflow's DAGs folder",
}


def schedule(
    job: Annotated[Path, typer.Argument(help="Job file (YAML).")],
    cron: Annotated[str, typer.Option("--cron", help="When, as five fields of cron, such as '0 2 * * *', or @daily.")],
    to: Annotated[str, typer.Option("--to", help=f"{', '.join(get_args(Target))}.")],
    output_folder: Annotated[Path, typer.Option("--out", help="Where the files are written.")] = Path(),
    name: Annotated[
        str | None,
        typer.Option("--name", help="Of the schedule; preln and the job file's by default.", show_default=False),
    ] = None,
    zone: Annotated[
        str | None,
        typer.Option("--time-zone", help="Such as Europe/Berlin; the platform's own by default.", show_default=False),
    ] = None,
    cpu_image: Annotated[str, typer.Option("--cpu-image", help="Kubernetes: image of the driver.")] = "preln:cpu",
    cuda_image: Annotated[str, typer.Option("--cuda-image", help="Kubernetes: image of the workers.")] = "preln:cuda",
    address: Annotated[
        str | None,
        typer.Option("--address", help="Elsewhere: submit to this cluster rather than run here.", show_default=False),
    ] = None,
    image_has_it: Annotated[
        bool, typer.Option("--image-has-it", help="With --address: its nodes have all packages already.")
    ] = False,
    settings: Settings = None,
    checked: Annotated[
        bool, typer.Option("--check/--no-check", help="Look at the checkpoint and the input first, as plan does.")
    ] = True,
) -> None:
    """Write ready files that run a job again and again; every run annotates what is new."""
    from jobs.scheduling import manifests, schedules
    from jobs.scheduling.cron import Cron
    from jobs.terminal import Terminal

    times = Cron.parse(cron)
    called = name or _name_from(job)
    if to not in get_args(Target):
        raise SpecError(f"--to {to}: choose one of {', '.join(get_args(Target))}")
    if not NAME.fullmatch(called):
        raise SpecError(f"--name {called}: at most 40 lower-case letters, digits and dashes, such as nightly-topics")
    _check_zone(zone)
    written_spec = job_spec(job=job, settings=settings)
    if to == "kubernetes":
        _check_addresses(written_spec)
        _check_gpus(written_spec)
    else:
        _check_paths(written_spec, to=to)
    spec, local = with_absolute_paths(written_spec)
    console = Terminal()
    if local and address:
        console.print(f"local paths must be there, with the same content, on every node: {', '.join(local)}")
    if checked:
        validate(spec)
    if to == "kubernetes":
        content = as_written(job, settings=settings or ())
        files = for_kubernetes(
            manifests.Running(name=called, job=content, cpu=cpu_image, cuda=cuda_image), times, zone=zone
        )
    else:
        if settings:
            raise SpecError(
                f"--set with --to {to}: these files run the job file as it stands; write the setting into it"
            )
        command = schedules.Command(
            name=called,
            python=Path(sys.executable),
            folder=ROOT,
            job=job.resolve(),
            address=address,
            image_has_it=image_has_it,
        )
        files = getattr(schedules, to)(command, times, zone=zone)
    output_folder.mkdir(parents=True, exist_ok=True)
    written = [output_folder / file for file in files]
    for path, content in zip(written, files.values(), strict=True):
        path.write_text(content, encoding="utf-8")
    for path in written:
        console.print(f"wrote {path}")
    console.print(HOW_TO[to].format(*written))


def for_kubernetes(running: manifests.Running, times: Cron, *, zone: str | None) -> dict[str, str]:
    """Both ways to schedule on Kubernetes."""
    from jobs.scheduling import manifests

    when = manifests.Times(times.in_numbers(), zone or "Etc/UTC")
    return {
        f"{running.name}-raycronjob.yaml": manifests.to_yaml(*manifests.ray_cron_job(running, when)),
        f"{running.name}-cronjob.yaml": manifests.to_yaml(*manifests.cron_job(running, when)),
    }


def as_written(job: Path, *, settings: Sequence[str]) -> str:
    """The job file as its author wrote it, with each `--set` in its place: defaults stay those of the version that runs it."""
    if not settings:
        return job_text(job)
    import yaml

    from pipeline.spec.settings import override, read_yaml

    return yaml.safe_dump(override(values=read_yaml(job_text(job)), settings=settings), sort_keys=False)


def validate(spec: JobSpec) -> None:
    """Check whether the job could run now, as far as possible without a cluster. Raises PrelnError."""
    from pipeline.prepare import check_columns, checked_tasks, schema_of
    from pipeline.reading.inputs import describe, list_files

    facts = checked_tasks(spec)
    described = describe(list_files(spec.input, output=spec.output.url).files)
    check_columns(schema=schema_of(described, spec=spec), spec=spec, facts=facts)


def _name_from(job: Path) -> str:
    stem = re.sub(r"[^a-z0-9]+", "-", job.stem.lower()).strip("-")[:30].strip("-")
    return f"preln-{stem}" if stem and stem != "preln" else "preln"


def _addresses(spec: JobSpec) -> dict[str, list[str]]:
    return {"input": spec.input.urls, "model": [spec.model.checkpoint], "output": [spec.output.url]}


def _is_of_this_machine(url: str) -> bool:
    return any(
        "://" not in link
        or link.partition("://")[0].lower() in LOCAL_SCHEMES
        or urlsplit(link).hostname in ("localhost", "127.0.0.1", "::1")
        for link in url.split("::")
        if link not in CHAINED
    )


def _check_addresses(spec: JobSpec) -> None:
    """Refuse what only this machine has: a pod would not find the input, or would write where nobody looks."""
    local = [f"{key}: {url}" for key, urls in _addresses(spec).items() for url in urls if _is_of_this_machine(url)]
    if local:
        raise SpecError(
            f"--to kubernetes: a pod can't see paths of this machine ({'; '.join(local)}); write addresses that every node "
            "reads, such as s3://, gs://, abfs:// or hf://"
        )


def _check_paths(spec: JobSpec, *, to: str) -> None:
    """Refuse relative paths: the scheduler does not start the command in the folder that they are relative to."""
    relative = [
        f"{key}: {url}"
        for key, urls in _addresses(spec).items()
        for url in urls
        if "://" not in url and not os.path.isabs(os.path.expanduser(url))
    ]
    if relative:
        raise SpecError(
            f"--to {to}: the schedule does not run in this folder, so paths must be absolute; the job has {'; '.join(relative)}"
        )


def _check_gpus(spec: JobSpec) -> None:
    """Require `gpus` in the job: the manifests' cluster starts without GPU nodes, and its driver can't know of later ones."""
    if spec.resources.gpus is None and not spec.resources.accelerator:
        raise SpecError(
            "--to kubernetes: the job must say what its replicas take, for its cluster begins without GPUs; write `gpus: 1` "
            "under resources (or --set resources.gpus=1) for one replica a GPU, or `gpus: 0` for replicas on CPUs"
        )


def _check_zone(zone: str | None) -> None:
    if zone is None:
        return
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise SpecError(f"--time-zone {zone}: no such zone; write one such as Europe/Berlin or UTC") from None
