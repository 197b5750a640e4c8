"""`preln submit`: runs a job, or `preln doctor` for it, on a cluster, prints its log and returns its exit code."""

from __future__ import annotations

import os
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
from models.errors import PrelnError

if TYPE_CHECKING:
    from pipeline.spec.job_spec import JobSpec


Address = Annotated[
    str,
    typer.Option(
        "--address",
        envvar="RAY_API_SERVER_ADDRESS",
        help="Where the cluster's dashboard answers, such as http://HEAD:8265.",
    ),
]
LOCALHOST = "http://127.0.0.1:8265"


def submit(
    job: JobFile = None,
    flags: Annotated[
        list[str] | None, typer.Argument(help="Behind --: further flags of annotate, such as --retry-errors.")
    ] = None,
    address: Address = LOCALHOST,
    task: TaskName = None,
    model: Model = None,
    input_urls: Input = None,
    output: Output = None,
    framework: FrameworkName = None,
    dtype: DtypeName = None,
    replicas: Replicas = None,
    settings: Settings = None,
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Follow the log and return the driver's exit code, or leave at once."),
    ] = True,
    environment: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="KEY=VALUE", help="A variable for the driver and all workers; may be repeated."),
    ] = None,
    doctor: Annotated[
        bool,
        typer.Option("--doctor", help="Instead of the job, run preln doctor for it on a node that suits its replicas."),
    ] = False,
    image_has_it: Annotated[
        bool, typer.Option("--image-has-it", help="The nodes have all packages already: install nothing.")
    ] = False,
) -> None:
    """Run a job on a cluster. The same job, while it runs, is found rather than started twice.

    Exit codes with --wait are those of annotate on the cluster; 130 where the job was stopped.
    """
    from jobs.submission import submission
    from jobs.submission.job_api import JobApi
    from jobs.terminal import Terminal, harmless_log
    from models.hub import refuse_hub_name

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
    console = Terminal(stderr=True)
    refuse_hub_name(spec.model.checkpoint)
    spec, local = with_absolute_paths(spec)
    if local:
        console.print(f"local paths must be there, with the same content, on every node: {', '.join(local)}")
    api = JobApi.at(address, say=console.print)
    work = submission.doctor_for(spec) if doctor else submission.ANNOTATE
    if work.demand is not None:
        console.print(f"preln doctor waits for {work.demand}")
    found = submission.submit(
        api,
        spec=spec,
        flags=flags or (),
        environment=variables(environment or ()),
        image_has_it=image_has_it,
        work=work,
    )
    console.print(f"submitted as {found.id}" if found.fresh else f"this job runs already, as {found.id}")
    if not wait:
        print(found.id)
        return
    try:
        for text in submission.follow(api, found.id):
            print(harmless_log(text), end="", flush=True)
    except KeyboardInterrupt:
        console.print(f"\nThe job keeps running. `preln logs {found.id}` follows it, `preln stop {found.id}` ends it.")
        raise typer.Exit(submission.EXIT_STOPPED) from None
    code = submission.exit_code(api, found.id)
    if code == submission.EXIT_FAILED:
        console.print(submission.why_it_failed(api, found.id))
    raise typer.Exit(code)


def with_absolute_paths(spec: JobSpec) -> tuple[JobSpec, list[str]]:
    """The job with its local paths absolute, for the cluster starts it elsewhere; and those paths. Other URLs stay as they
    are: their stores' packages need not be here."""
    local: list[str] = []

    def anchored(url: str) -> str:
        if "://" in url:
            return url
        local.append(os.path.abspath(os.path.expanduser(url)))
        return local[-1]

    changes = {
        "input": spec.input.model_copy(update={"urls": [anchored(url) for url in spec.input.urls]}),
        "model": spec.model.model_copy(update={"checkpoint": anchored(spec.model.checkpoint)}),
        "output": spec.output.model_copy(update={"url": anchored(spec.output.url)}),
    }
    return spec.model_copy(update=changes), local


def variables(settings: list[str] | tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` words as a mapping. Raises PrelnError."""
    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise PrelnError(f"--env {setting}: write NAME=VALUE, such as --env AWS_REGION=us-west-2")
        found[name] = value
    return found
