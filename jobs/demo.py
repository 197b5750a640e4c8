"""`preln demo`: nothing in, the embedded sample annotated with the embedded checkpoint and shown as a table out."""

import tempfile
from pathlib import Path
from typing import Annotated

import pyarrow.dataset as ds
import typer
from rich.console import Console
from rich.table import Table

from jobs.annotate import EXIT_CODES, annotate_spec
from jobs.embedded import CHECKPOINT, SAMPLE
from pipeline.spec import JobSpec

SHOWN = 12


def demo(
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Output folder; a new temporary one when absent.", show_default=False),
    ] = None,
) -> None:
    """Annotate the embedded sample with the embedded checkpoint, and show the first answers."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    folder = output or Path(tempfile.mkdtemp(prefix="preln-demo-"))
    spec = JobSpec.parse(
        {
            "input": str(SAMPLE / "texts.*"),
            "model": {"checkpoint": str(CHECKPOINT), "dtype": "float32"},
            "task": "text-classification",
            "output": str(folder),
        }
    )
    report = annotate_spec(spec)
    if report.state == "done":
        console.print(answers_table(folder))
        console.print(
            "The checkpoint is a small random one: it shows that everything runs, and its labels mean nothing."
        )
        console.print(
            f"The Parquet lies in {folder}/data: the glob {folder}/data/*.parquet reads it in pyarrow, pandas, DuckDB."
        )
    raise typer.Exit(EXIT_CODES[report.state])


def answers_table(folder: Path) -> Table:
    """The first answers of each input file, as a table for a terminal."""
    rows = ds.dataset(folder / "data").to_table(columns=["source", "text", "label", "score"]).to_pylist()
    sources = sorted({row["source"] for row in rows})
    table = Table("file", "text", "label", "score", title="First answers")
    for source in sources:
        for row in [row for row in rows if row["source"] == source][: SHOWN // len(sources)]:
            table.add_row(source.rpartition("/")[2], row["text"], row["label"], f"{row['score']:.3f}")
    return table
