"""`preln demo`: annotates the embedded sample with the embedded checkpoint's four heads, and shows some answers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.annotate import EXIT_CODES, annotate_spec
from jobs.embedded import DEMO, SAMPLE

if TYPE_CHECKING:
    from rich.table import Table


QUESTION = "Where?"
TASKS: dict[str, Any] = {
    "intents": "text-classification",
    "entities": {"name": "token-classification", "min_score": 0.6},
    "masks": {"name": "fill-mask", "top_k": 3, "no_mask": "empty"},
    "questions": {"name": "question-answering", "question": QUESTION, "allow_null": True},
}


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
            f"The checkpoint is a small one, for trying this out: {DEMO.name}/CARD.md in {DEMO.parent} says how good it is."
        )
        console.print(
            f"The Parquet is in {folder}/data: the glob {folder}/data/*.parquet reads it in pyarrow, pandas, DuckDB."
        )
    raise typer.Exit(EXIT_CODES[report.state])


def answers_table(folder: Path) -> Table:
    """A table for a terminal: from each input file the rows with the most certain intent, entities and masks."""
    import pyarrow.dataset as ds
    from rich.table import Table

    rows = ds.dataset(folder / "data").to_table().to_pylist()
    table = Table("text", "answers", title="The surest answers", show_lines=True)
    for source in sorted({row["source"] for row in rows}):
        mine = [row for row in rows if row["source"] == source and row["error"] is None]
        for sureness in (of_intents, of_entities, of_masks):
            best = max(mine, key=sureness)
            if sureness(best):
                table.add_row(best["text"], "\n".join(answers_of(best)))
                mine.remove(best)
    return table


def of_intents(row: dict[str, Any]) -> float:
    """How sure the intent is."""
    return float(row["intents_score"])


def of_entities(row: dict[str, Any]) -> float:
    """How sure the least sure of its entities is, if it has two or more."""
    scores = [one["score"] for one in row["entities_entities"]]
    return float(min(scores)) if len(scores) > 1 else 0.0


def of_masks(row: dict[str, Any]) -> float:
    """How sure the first mask's best word is."""
    return float(row["masks_masks"][0]["fills"][0]["score"]) if row["masks_masks"] else 0.0


def answers_of(row: dict[str, Any]) -> list[str]:
    """Each task's answer for a row, one line per task that has one."""
    entities = ", ".join(f"{one['word'].strip()} ({one['entity_group']})" for one in row["entities_entities"])
    fills = ", ".join(fill["token_str"].strip() for mask in row["masks_masks"] for fill in mask["fills"])
    answer = row["questions_answers"][0]["answer"] if row["questions_answers"] else ""
    said = {"intents": f"{row['intents_label']} {row['intents_score']:.2f}", "entities": entities, "masks": fills}
    said[f"questions ({QUESTION})"] = answer
    return [f"{task}: {words}" for task, words in said.items() if words]
