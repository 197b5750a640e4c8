"""`preln demo`: annotates the embedded sample with the embedded checkpoint's four heads, and shows some answers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.annotate import EXIT_CODES, annotate_spec
from jobs.embedded import DEMO, DEMO_NUMBERS, SAMPLE

if TYPE_CHECKING:
    from rich.table import Table


QUESTION = "Where?"
TASKS: dict[str, Any] = {
    "intents": "text-classification",
    "entities": {"name": "token-classification", "min_score": 0.6},
    "masks": {"name": "fill-mask", "top_k": 3, "no_mask": "empty"},
    "questions": {"name": "question-answering", "question": QUESTION, "allow_null": True},
}
LEAST_INTENT = 0.5
"""Score of an intent that is shown."""
LEAST_FILL = 0.05
"""Score of a mask's word that is shown."""
SHOWN = (
    "What's the weather going to be like in Lisbon this weekend?",
    "Do I need a visa for three weeks in Vietnam?",
    "What vaccinations are recommended for Kenya?",
    "Find me a hotel near the harbour with free breakfast.",
    "Tomasz Kowalski took the ferry from Gdynia to Karlskrona with two bicycles.",
    "My neighbour Elena Petrova plays the viola in the city orchestra of Graz.",
    "UNESCO has its headquarters in Paris.",
    "It is the largest city in the <mask>.",
    "The city has a <mask> of about two million people.",
    "A cat is a small <mask>.",
)
"""Texts of the sample whose answers are right, in the order in which they are shown."""


def demo(
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Output folder; a new temporary one when absent.", show_default=False),
    ] = None,
) -> None:
    """Annotate the embedded sample with four tasks at once, and show some answers."""
    from jobs.terminal import Terminal
    from pipeline.spec.job_spec import JobSpec

    console = Terminal()
    folder = output or Path(tempfile.mkdtemp(prefix="preln-demo-"))
    spec = JobSpec.parse(
        {
            "input": {"urls": [str(SAMPLE / "texts.*"), str(SAMPLE / "blanks.txt")], "columns": {"context": "text"}},
            "model": {"checkpoint": str(DEMO), "dtype": "float32"},
            "tasks": TASKS,
            "output": str(folder),
        }
    )
    report = annotate_spec(spec)
    if report.state == "done":
        console.print(answers_table(folder))
        console.print(
            "These rows were chosen because their answers are right. Intents are shown from a score of "
            f"{LEAST_INTENT} on, words for a mask from {LEAST_FILL} on."
        )
        if (numbers := below_floor()) is not None:
            console.print(
                f"Questions are answered too, but not shown: {numbers[0]:.1%} of XQuAD's answers are exactly right, "
                f"and {numbers[1]:.1%} by simple rules."
            )
        console.print(
            f"The checkpoint is a small one, for trying this out: {DEMO.name}/CARD.md in {DEMO.parent} says how good it is."
        )
        console.print(
            f"All answers are in {folder}/data: the glob {folder}/data/*.parquet reads the Parquet in pyarrow, pandas, DuckDB."
        )
    raise typer.Exit(EXIT_CODES[report.state])


def answers_table(folder: Path) -> Table:
    """A table for a terminal: the rows of SHOWN with what is shown of their answers."""
    import pyarrow.dataset as ds
    from rich.table import Table

    rows = {row["text"]: row for row in ds.dataset(folder / "data").to_table().to_pylist()}
    table = Table("text", "answers", title="Some of the answers", show_lines=True)
    for text in SHOWN:
        table.add_row(text, "\n".join(answers_of(rows[text])))
    return table


def answers_of(row: dict[str, Any]) -> list[str]:
    """Each task's answer for a row, one line per task that has one good enough to show."""
    entities = ", ".join(f"{one['word'].strip()} ({one['entity_group']})" for one in row["entities_entities"])
    guesses = [fill for mask in row["masks_masks"] for fill in mask["fills"] if fill["score"] >= LEAST_FILL]
    fills = ", ".join(fill["token_str"].strip() for fill in guesses)
    sure = row["intents_score"] >= LEAST_INTENT
    said = {"intents": f"{row['intents_label']} {row['intents_score']:.2f}" if sure else ""}
    said |= {"entities": entities, "masks": fills}
    if row["questions_answers"] and below_floor() is None:
        said[f"questions ({QUESTION})"] = row["questions_answers"][0]["answer"]
    return [f"{task}: {words}" for task, words in said.items() if words]


def below_floor() -> tuple[float, float] | None:
    """The questions head's exact match and its baseline, if it is not above that: then its answers are not shown."""
    numbers = json.loads((DEMO / DEMO_NUMBERS).read_text(encoding="utf-8"))["measured"]["questions-test/exact_match"]
    return None if numbers["value"] > numbers["floor"] else (numbers["value"], numbers["floor"])
