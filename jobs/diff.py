"""`preln diff`: what is different between two output folders."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from jobs.exit_codes import NOT_OK


def diff(
    output_a: Annotated[str, typer.Argument(metavar="OUT_A", help="Output folder, at any URL.", show_default=False)],
    output_b: Annotated[str, typer.Argument(metavar="OUT_B", help="The one to compare it with.", show_default=False)],
    max_flips: Annotated[
        float | None,
        typer.Option(
            "--max-flips",
            min=0,
            max=1,
            help="Exit with 3 if a larger share of the common rows has another answer.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        str | None,
        typer.Option("--html", help="Write a page of it to this file, at any URL (extra report).", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Compare two output folders: row by row where they are of the same input, else as distributions.

    Exit codes: 0, or 3 if more rows than --max-flips have another answer.
    """
    from jobs.comparison.page import page
    from jobs.comparison.values import as_values
    from jobs.comparison.words import lines
    from jobs.pages.page import require_extra
    from jobs.terminal import Terminal
    from pipeline.analysis.difference import difference
    from pipeline.errors import SpecError
    from pipeline.store.storage import canonical, put

    if html is not None:
        require_extra()  # before minutes of reading
    found = difference(output_a, output_b)
    if html is not None:
        put(canonical(html), page(found).encode())
    if as_json:
        print(json.dumps(as_values(found)))
    else:
        console = Terminal()
        for line in lines(found):
            console.print(line)
    if max_flips is None:
        return
    if found.flips is None:
        raise SpecError("--max-flips: the outputs have no row in common, so no answer can flip")
    if found.flips > max_flips:
        if not as_json:
            console.print(f"More than --max-flips: {found.flips:.2%} of the common rows, and {max_flips:.2%} may flip.")
        raise typer.Exit(NOT_OK)
