"""`preln evaluate`: scores a checkpoint on labelled data."""

from __future__ import annotations

import json
import tempfile
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.annotate import annotate_spec
from jobs.arguments import DtypeName, FrameworkName, Replicas, Settings, job_spec
from pipeline.errors import SpecError

if TYPE_CHECKING:
    from rich.table import Table

    from jobs.evaluation.scores import Measured
    from pipeline.output.report import Report
    from pipeline.spec.job_spec import JobSpec


TASKS = (
    "text-classification",
    "token-classification",
    "question-answering",
    "multiple-choice",
    "fill-mask",
    "text-scoring",
)
"""The tasks whose answers can be scored. `--help` imports no task; a test compares this list with them."""
SHOWN_LABELS = 12
COUNTS = ("rows", "rows_with_errors", "masks", "tokens")


def evaluate(
    task: Annotated[str, typer.Option("--task", help=f"One of {', '.join(TASKS)}.")],
    model: Annotated[str, typer.Option("--model", help="Checkpoint folder, at any URL.")],
    data: Annotated[
        list[str],
        typer.Option("--data", help="Rows with their truth: file, folder or glob at any URL; may be repeated."),
    ],
    gold: Annotated[
        str | None,
        typer.Option("--gold", help="Column of the truth; by default label, tags or answers.", show_default=False),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            help="Folder for the annotated rows, report.json and confusion.svg; a new temporary one when absent.",
            show_default=False,
        ),
    ] = None,
    mask_rate: Annotated[float, typer.Option("--mask-rate", help="fill-mask: share of tokens hidden.")] = 0.15,
    framework: FrameworkName = None,
    dtype: DtypeName = None,
    replicas: Replicas = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Annotate labelled data as `annotate` would, and score the answers.

    Accuracy, macro-F1, ECE, Brier score and accuracy against coverage; entity F1; exact match and F1 of answers; guessed tokens;
    perplexity (text-scoring).
    """
    from jobs.evaluation.measure import hide_tokens, measure, settings_of
    from jobs.evaluation.picture import draw_confusion
    from jobs.terminal import Terminal
    from pipeline.store.storage import join, put

    folder = output or tempfile.mkdtemp(prefix="preln-evaluation-")
    asked = [*settings_of(task), *(settings or ())]
    if task == "fill-mask":
        if not 0 < mask_rate < 1:
            raise SpecError(f"--mask-rate {mask_rate}: a share of tokens is between 0 and 1")
        column = next((part.partition("=")[2] for part in asked if part.startswith("input.columns.text=")), "text")
        asked = [part for part in asked if not part.startswith("input.columns.text=")]
        data = [hide_tokens(urls=data, column=column, checkpoint=model, into=folder, rate=mask_rate)]
    spec = job_spec(
        job=None,
        task=task,
        model=model,
        input_urls=data,
        output=join(folder, "annotated"),
        framework=framework,
        dtype=dtype,
        replicas=replicas,
        settings=asked,
    )
    measured = measure(spec, annotate=run_quietly if as_json else annotate_spec, gold=gold)
    summary = {"task": task, "model": model, "data": data, "framework": spec.model.framework, **measured.numbers}
    if measured.accuracy_at:
        summary["accuracy_at_coverage"] = {f"{coverage:g}": value for coverage, value in measured.accuracy_at.items()}
    put(join(folder, "report.json"), (json.dumps({**summary, "by_label": measured.by_label}, indent=1) + "\n").encode())
    drawn = None if measured.confusion is None else draw_confusion(measured.confusion)
    if drawn is not None:
        put(join(folder, "confusion.svg"), drawn)
    if as_json:
        print(json.dumps({**summary, "report": join(folder, "report.json")}))
        return
    console = Terminal()
    console.print(numbers_table(measured))
    console.print(f"Annotated rows, report.json{' and confusion.svg' if drawn else ''} are in {folder}")


def run_quietly(spec: JobSpec) -> Report:
    """Run a job without a progress line."""
    from jobs.connect import this_cluster
    from jobs.progress import ProgressLine
    from jobs.terminal import Terminal
    from pipeline import run

    with ProgressLine(Terminal(stderr=True, quiet=True), as_json=False) as line:
        return run.annotate(spec=spec, cluster=this_cluster(say=line.waiting), watcher=line)


def numbers_table(measured: Measured) -> Table:
    """All numbers, then those of the labels with the most rows, as a table for a terminal."""
    from rich.table import Table

    table = Table("", "value")
    for name, value in measured.numbers.items():
        table.add_row(name.replace("_", " "), f"{value:,.0f}" if name in COUNTS else f"{value:.4f}")
    for coverage, value in measured.accuracy_at.items():
        table.add_row(f"accuracy of the {coverage:.0%} with the best scores", f"{value:.4f}")
    ranked = sorted(measured.by_label.items(), key=lambda item: -item[1]["support"])
    for label, rates in ranked[:SHOWN_LABELS]:
        table.add_row(f"F1 of {label}", f"{rates['f1']:.4f}")
    return table
