"""The command-line options that name a job (a file, flags, --set), the same for every verb that takes a job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import SpecError

if TYPE_CHECKING:
    from pipeline.spec.job_spec import JobSpec


JobFile = Annotated[
    Path | None, typer.Argument(help="Job file (YAML). Flags and --set change what it says.", show_default=False)
]
TASK_NAMES = (
    "feature-extraction",
    "fill-mask",
    "multiple-choice",
    "question-answering",
    "text-classification",
    "text-scoring",
    "token-classification",
)
"""For shell completion, which should not wait for the tasks' imports; a test compares this list with the tasks."""


def task_names(typed: str) -> list[str]:
    """The tasks that complete a word."""
    return [name for name in TASK_NAMES if name.startswith(typed)]


def frameworks(typed: str) -> list[str]:
    """The frameworks that complete a word."""
    return [name for name in ("torch", "tensorflow", "flax") if name.startswith(typed)]


def dtypes(typed: str) -> list[str]:
    """The dtypes that complete a word."""
    return [name for name in ("auto", "float32", "bfloat16", "float16") if name.startswith(typed)]


TaskName = Annotated[
    str | None,
    typer.Option("--task", help="Task, such as text-classification.", show_default=False, autocompletion=task_names),
]
Model = Annotated[str | None, typer.Option("--model", help="Checkpoint folder, at any URL.", show_default=False)]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", help="Input file, folder or glob, at any URL; may be repeated.", show_default=False),
]
Output = Annotated[str | None, typer.Option("--output", help="Output folder, at any URL.", show_default=False)]
FrameworkName = Annotated[
    str | None,
    typer.Option("--framework", help="torch, tensorflow or flax.", show_default=False, autocompletion=frameworks),
]
DtypeName = Annotated[
    str | None,
    typer.Option("--dtype", help="auto, float32, bfloat16 or float16.", show_default=False, autocompletion=dtypes),
]
Replicas = Annotated[int | None, typer.Option("--replicas", help="Copies of the model.", min=1, show_default=False)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of the job, such as input.columns.text=body; may be repeated.",
        show_default=False,
    ),
]


def job_spec(
    *,
    job: Path | None,
    task: str | None = None,
    model: str | None = None,
    input_urls: list[str] | None = None,
    output: str | None = None,
    framework: str | None = None,
    dtype: str | None = None,
    replicas: int | None = None,
    settings: list[str] | None = None,
) -> JobSpec:
    """The job that a command line names. Raises SpecError."""
    from pipeline.spec.job_spec import JobSpec
    from pipeline.spec.settings import override, read_yaml

    values: dict[str, Any] = {} if job is None else read_yaml(job_text(job))
    flags = {
        "task.name": task,
        "model.checkpoint": model,
        "input.urls": input_urls or None,
        "output.url": output,
        "model.framework": framework,
        "model.dtype": dtype,
        "resources.replicas": replicas,
    }
    values = override(
        values=values,
        flags=[(key, value) for key, value in flags.items() if value is not None],
        settings=settings or (),
    )
    return JobSpec.parse(values)


def job_text(job: Path) -> str:
    """The text of a job file. Raises SpecError."""
    try:
        return job.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{job}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{job}: byte {error.start} is not UTF-8; a job file is YAML in UTF-8") from None
