"""`preln show`: prints some rows of an output folder."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

CELL = 200
"""The most characters of a cell; longer values are cut, with an ellipsis."""


def show(
    output: Annotated[str, typer.Argument(help="Output folder of a job, at any URL.", show_default=False)],
    rows: Annotated[int, typer.Option("-n", "--rows", help="Rows to show.", min=1)] = 5,
) -> None:
    """Print some rows of an output folder as a readable table."""
    from jobs.terminal import Terminal

    found = first_rows(output, rows=rows)
    Terminal(soft_wrap=False).print(as_table(found))


def first_rows(output: str, *, rows: int) -> pa.Table:
    """The first rows of an output folder. Raises OutputError if it is not one, or has no rows yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.errors import OutputError
    from pipeline.output.folder import OutputFolder
    from pipeline.store.storage import canonical, readable

    folder = OutputFolder(canonical(output))
    folder.require_job()
    tables: list[pa.Table] = []
    for key in sorted(folder.written_keys()):
        if sum(table.num_rows for table in tables) >= rows:
            break
        with folder.data.open(key) as stream:
            batches = pq.ParquetFile(stream).iter_batches(batch_size=rows)
            tables += [pa.table(batch) for batch in islice(batches, 1)]
    if not tables:
        raise OutputError(f"{readable(folder.url)}: no rows yet; see preln status")
    return pa.concat_tables(tables).slice(0, rows)


def as_table(found: pa.Table) -> Table:
    """Rows with one line per column, so that wide rows fit a narrow terminal; columns without a value are left out."""
    from rich.table import Table

    table = Table("column", "value", show_lines=False)
    for row in found.to_pylist():
        for name, value in row.items():
            if value is not None:
                table.add_row(name, words(value))
        table.add_section()
    return table


def words(value: Any) -> str:
    """A value as a cell."""
    if isinstance(value, float):
        text = f"{value:.4g}"
    elif isinstance(value, list):
        text = ", ".join(map(words, value[:20])) + (f", … ({len(value):,} values)" if len(value) > 20 else "")
    elif isinstance(value, dict):
        text = " ".join(f"{key}={words(one)}" for key, one in value.items())
    else:
        text = str(value)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= CELL else f"{text[: CELL - 1]}…"
