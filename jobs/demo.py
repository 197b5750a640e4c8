"""`preln demo`: nothing in, the embedded sample annotated with the embedded checkpoint's four heads and shown out."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import pyarrow.dataset as ds
import typer
from rich.console import Console
from rich.table import Table

from jobs.annotate import EXIT_CODES, annotate_spec
from jobs.embedded import DEMO, SAMPLE
from pipeline.spec import JobSpec

SHOWN = 12
QUESTION = "Who?"
TASKS: dict[str, Any] = {
    "intents": "text-classification",
    "entities": "token-classification",
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
    console = Console(highlight=False, soft_wrap=True, markup=False)
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
            f"The Parquet lies in {folder}/data: the glob {folder}/data/*.parquet reads it in pyarrow, pandas, DuckDB."
        )
    raise typer.Exit(EXIT_CODES[report.state])


def answers_table(folder: Path) -> Table:
    """Some rows of each input file with their answers, as a table for a terminal."""
    rows = ds.dataset(folder / "data").to_table().sort_by([("source", "ascending"), ("row", "ascending")]).to_pylist()
    sources = list(dict.fromkeys(row["source"] for row in rows))
    table = Table("text", "intents", "entities", "masks", f"questions: {QUESTION}", title="Some answers")
    for source in sources:
        mine = [row for row in rows if row["source"] == source and row["error"] is None]
        # Rows with more to show first, in their order.
        mine.sort(key=lambda row: -bool(row["entities_entities"]))
        for row in mine[: SHOWN // len(sources)]:
            table.add_row(row["text"], *answers_of(row))
    return table


def answers_of(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """What each task says of a row, in a few words."""
    entities = ", ".join(f"{one['word'].strip()} ({one['entity_group']})" for one in row["entities_entities"])
    fills = [fill["token_str"].strip() for mask in row["masks_masks"] for fill in mask["fills"]]
    answer = row["questions_answers"][0]["answer"] if row["questions_answers"] else ""
    return f"{row['intents_label']} {row['intents_score']:.2f}", entities, ", ".join(fills), answer
