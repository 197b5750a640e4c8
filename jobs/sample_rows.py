"""`preln sample`: rows of an output for a person to review."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.review import Form
from pipeline.analysis.error_rate import Design
from pipeline.plurals import counted

if TYPE_CHECKING:
    from pipeline.analysis.review_sample import ReviewSample


def sample(
    output: Annotated[str, typer.Argument(help="Output folder of a job, at any URL.", show_default=False)],
    to: Annotated[Form, typer.Option("--to", help="Form of the file.")] = "jsonl",
    rows: Annotated[int, typer.Option("-n", "--rows", help="Rows to draw.", min=1)] = 500,
    by: Annotated[
        Design,
        typer.Option(
            "--by",
            help="random; uncertain: rows that the model is less sure of, more often; stratified: equally many for each label.",
        ),
    ] = "random",
    seed: Annotated[int, typer.Option("--seed", help="Another seed draws other rows.")] = 0,
    task: Annotated[
        str | None, typer.Option("--task", help="Name of the task, if the job has several.", show_default=False)
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(
            "--into", help="File to write, at any URL; review.json, .jsonl or .csv if absent.", show_default=False
        ),
    ] = None,
) -> None:
    """Draw rows for human review, with the job's answers pre-filled; `preln score` reads the reviewed file.

    The same seed draws the same rows. Rows have weights, so that the error rate of all answers follows from those reviewed.
    """
    from jobs.review import label_studio
    from jobs.review.form import SUFFIX, written
    from jobs.terminal import Terminal
    from pipeline.analysis.review_sample import review_sample
    from pipeline.errors import SpecError
    from pipeline.store.storage import canonical, exists, put

    file = into or f"review{SUFFIX[to]}"
    config = f"{file.removesuffix('.json')}.interface.xml"
    files = [file, config] if to == "label-studio" else [file]
    for one in files:
        if exists(canonical(one)):
            raise SpecError(f"{one}: there is such a file, which may hold a review; name another with --into")
    found = review_sample(output, rows=rows, design=by, seed=seed, task=task)
    put(canonical(file), written(found, form=to))
    if to == "label-studio":
        put(canonical(config), label_studio.interface(found))
    console = Terminal()
    for line in lines(found, asked=rows):
        console.print(line)
    console.print(f"Wrote {' and '.join(files)}. {NEXT[to]}")


NEXT: dict[Form, str] = {
    "label-studio": "Create a project, paste the second file at Settings > Labeling Interface > Code, and import the first; "
    "export it as JSON for preln score.",
    "jsonl": "Correct the answers, and set reviewed to true on each row that you looked at; then run preln score.",
    "csv": "Correct the answers, and write x under reviewed on each row that you looked at; then run preln score.",
}


def lines(found: ReviewSample, *, asked: int) -> list[str]:
    """What was drawn, in words."""
    drawn = len(found.rows)
    design = f"{found.design}, seed {found.seed}"
    said = [f"Drew {counted(drawn, 'row')} of {found.population:,} with an answer of {found.task} ({design})."]
    if drawn < asked and drawn < found.population:
        said.append(
            f"These are fewer than {asked:,} so that each of the {counted(len(found.strata), 'stratum')} has its share."
        )
    if found.unanswered:
        said.append(
            f"{counted(found.unanswered, 'row')} without an answer can't be drawn, and the error rate does not count them."
        )
    if found.design == "stratified":
        shown = ", ".join(
            f"{name} ({rows:,})" for name, rows in sorted(found.strata.items(), key=lambda item: -item[1])[:10]
        )
        said.append(f"Strata: {shown}{', …' if len(found.strata) > 10 else ''}.")
    if found.read_again:
        said.append("The output does not carry the texts, so they were read from the input again.")
    return said
