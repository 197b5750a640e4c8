"""`preln doctor`: reports what jobs would find on this machine, and what to do if one would fail."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.exit_codes import LATER
from pipeline.errors import SpecError

if TYPE_CHECKING:
    from models.boundary import Device, Framework

MARKS = {True: "ok", False: "FAILS", None: "-"}


def known(names: Collection[str]) -> list[Framework]:
    """Names of frameworks. Raises SpecError for others."""
    from models.load import FOLDERS

    for name in names:
        if name not in FOLDERS:
            raise SpecError(f"--framework {name}: choose one of {', '.join(FOLDERS)}")
    return [framework for framework in FOLDERS if framework in names]


def doctor(
    framework: Annotated[
        list[str] | None, typer.Option("--framework", help="Check this framework; may be repeated. All by default.")
    ] = None,
    gpu: Annotated[
        bool | None, typer.Option("--gpu/--cpu", help="What jobs should run on; by default a GPU if there is one.")
    ] = None,
    storage: Annotated[
        list[str] | None, typer.Option("--storage", metavar="URL", help="Folder that must answer; may be repeated.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="URL", help="Checkpoint whose family, heads and limit to name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, for machines.")] = False,
) -> None:
    """Report what each framework sees here, the kernels and dtype a job would get, and whether memory, disk, Ray and storage do.

    Exit code 1 if a job would fail. On a cluster's node: preln submit job.yaml --doctor
    """
    from jobs.diagnosis import examine
    from jobs.terminal import Terminal

    device: Device | None = None if gpu is None else "cuda" if gpu else "cpu"
    console = Terminal()
    failed = False
    for finding in examine(frameworks=known(framework or ()), device=device, storage=storage or (), model=model):
        failed |= finding.good is False
        if as_json:
            print(json.dumps(asdict(finding)), flush=True)
            continue
        console.print(f"{MARKS[finding.good]:6} {finding.about}: {finding.said}")
        if finding.good is False and finding.fix:
            console.print(f"       {finding.fix}")
    if failed:
        raise typer.Exit(LATER)
