"""The verbs as functions, for programs and notebooks: what `import preln` offers."""

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from rich.progress import Progress

from jobs import tables
from jobs.plan import PlanSummary, summary_of
from jobs.verify import recount_spec
from pipeline.annotator import Annotator
from pipeline.cluster.placement import best_dtype
from pipeline.errors import SpecError
from pipeline.output.report import Report
from pipeline.output.status import Status, read_status
from pipeline.output.verify import Verdict
from pipeline.output.verify import verify as verify_output
from pipeline.prepare import notes_of
from pipeline.spec.accepts import accepts_of, certificates_of
from pipeline.spec.job_spec import JobSpec
from pipeline.spec.settings import override, read_yaml

Job: TypeAlias = JobSpec | Mapping[str, Any] | str | os.PathLike[str]
"""A job: its values, or the path of its YAML file."""
Device: TypeAlias = Literal["auto", "cpu", "gpu"]

NOWHERE = "memory:"


class Model:
    """A checkpoint with its tasks, loaded once and called with texts or tables; a context manager.

    model: checkpoint folder, at any URL. task: a task's name, with its options as further keywords; or tasks: {name: task} for
    several heads at once. columns: part -> column. keep: the table's columns in the result, all if None.
    device: auto takes a GPU if there is one. isolate: False runs the model in this process, for debugging.
    progress: a bar; None shows it on terminals and in notebooks when there is more than one step.
    Raises PrelnError for what can't work, in one line.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        task: str | None = None,
        tasks: Mapping[str, Any] | None = None,
        framework: str = "torch",
        dtype: str = "auto",
        max_length: int | None = None,
        columns: Mapping[str, Any] | None = None,
        keep: Sequence[str] | None = None,
        prefix: str = "",
        device: Device = "auto",
        isolate: bool = True,
        progress: bool | None = None,
        **options: Any,
    ) -> None:
        if device not in ("auto", "cpu", "gpu"):
            raise SpecError(f"device is {device!r}; choose auto, cpu or gpu")
        if options and task is None:
            raise SpecError(f"{', '.join(options)}: options of a task, and no task is named; write task=…")
        values: dict[str, Any] = {
            "input": {"urls": NOWHERE, "columns": dict(columns or {}), "keep": []},
            "model": {
                "checkpoint": os.fspath(model),
                "framework": framework,
                "dtype": dtype,
                "max_length": max_length,
            },
            "output": {"url": NOWHERE, "prefix": prefix},
        }
        if task is not None:
            values["task"] = {"name": task, **options}
        if tasks is not None:
            values["tasks"] = dict(tasks)
        spec = JobSpec.parse(values)
        self._keep = None if keep is None else list(keep)
        self._progress = progress
        gpu = device == "gpu" or (device == "auto" and has_gpu())
        dtype_used, advice = (
            best_dtype(spec.model.framework, gpu) if spec.model.dtype == "auto" else (spec.model.dtype, None)
        )
        if advice:
            warnings.warn(advice, stacklevel=2)
        self._annotator = Annotator(
            spec,
            dtype=dtype_used,
            threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            gpu=gpu,
            isolate=isolate,
        )
        certificates = certificates_of(self._annotator.spec)
        certified = [
            accept.note()
            for name, accept in accepts_of(self._annotator.spec).items()
            if name in certificates and certificates[name].threshold is not None
        ]
        for note in notes_of(self._annotator.spec):
            if not note.endswith(tuple(certified)):
                warnings.warn(note, stacklevel=2)

    def __call__(self, data: Any) -> Any:
        """The rows with their answers: a frame for a frame, an Arrow table for texts, dicts and Arrow tables.

        A text that can't be answered has nulls and an `error`. Raises SpecError for a missing column.
        """
        spec = self._annotator.spec
        rows, errors = tables.rows_of(data, spec=spec)
        wanted = list(
            dict.fromkeys(task.column(part.name) for task in spec.named_tasks.values() for part in task.task.parts())
        )
        read = rows.select([name for name in wanted if name in rows.column_names])
        if not read.num_columns:
            read = rows
        steps = read.num_rows > self._annotator.rows_each
        with Progress(disable=not (steps if self._progress is None else self._progress), transient=True) as bar:
            step = bar.add_task("annotating", total=read.num_rows)
            answers = self._annotator.annotate(
                read, errors=errors, progress=lambda count: bar.update(step, advance=count)
            )
        return tables.with_answers(data, rows=rows, answers=answers, keep=self._keep)

    def close(self) -> None:
        """End the model's process."""
        self._annotator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


load = Model
"""A model to call many times: `with preln.load("checkpoint", task="text-classification") as model: model(texts)`."""


def annotate(data: Any, *, model: str | os.PathLike[str], **options: Any) -> Any:
    """Annotate texts, dicts, an Arrow table or a frame: the same rows with their answers. options: those of `load`."""
    with Model(model, **options) as loaded:
        return loaded(data)


def has_gpu() -> bool:
    """Whether this process sees an NVIDIA GPU."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and shutil.which("nvidia-smi") is not None and Path("/dev/nvidia0").exists()


def run(job: Job, *, retry_errors: bool = False, prune: bool = False, accept_failed: bool = False) -> Report:
    """Bring a job's output folder up to date on Ray, quietly, as `preln annotate` does. Raises PrelnError."""
    from jobs.connect import this_cluster
    from pipeline import run as runs
    from pipeline.run_options import RunOptions

    options = RunOptions(retry_errors=retry_errors, prune=prune, accept_failed=accept_failed)
    return runs.annotate(spec=job_spec(job), cluster=this_cluster(), watcher=runs.Unwatched(), options=options)


def plan(job: Job) -> PlanSummary:
    """What `run` would do, without writing anything. Raises PrelnError."""
    return summary_of(job_spec(job))


def status(output: str | os.PathLike[str]) -> Status:
    """What is done, missing and failed in an output folder. Raises PrelnError."""
    return read_status(os.fspath(output))


def verify(
    output: str | os.PathLike[str], *, input_urls: str | Sequence[str] | None = None, input_format: str = "auto"
) -> Verdict:
    """Whether every planned row is there once; with `input_urls`, also recounts the input. Raises PrelnError."""
    if input_urls is None:
        return verify_output(os.fspath(output))
    urls = [input_urls] if isinstance(input_urls, str) else list(input_urls)
    return verify_output(os.fspath(output), input_spec=recount_spec(urls, input_format))


def job_spec(job: Job) -> JobSpec:
    """A job's spec, from values or the path of a file. Raises SpecError."""
    if isinstance(job, JobSpec):
        return job
    if isinstance(job, Mapping):
        return JobSpec.parse(job)
    try:
        return JobSpec.parse(override(values=read_yaml(Path(job).read_text(encoding="utf-8")), settings=()))
    except OSError as error:
        raise SpecError(f"{os.fspath(job)}: {error.strerror or error}") from None
