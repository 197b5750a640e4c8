"""`preln audit`: recomputes a random sample of rows and compares."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.arguments import DtypeName, FrameworkName
from pipeline.errors import SpecError
from pipeline.plurals import counted

if TYPE_CHECKING:
    from pipeline.analysis.audit import Audit

DIFFERENT = 3
"""Exit code where rows differ, as of `verify`."""


def audit(
    output: Annotated[str, typer.Argument(help="Output folder of a job, at any URL.", show_default=False)],
    rows: Annotated[int, typer.Option("-n", "--rows", help="Rows to recompute.", min=1)] = 200,
    framework: FrameworkName = None,
    dtype: DtypeName = None,
    seed: Annotated[int, typer.Option("--seed", help="Which random sample.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Recompute a random sample of rows from the input on this machine, also in another framework or dtype, and compare.

    Exit codes: 0 all agree, 3 some differ.
    """
    from jobs.in_python import has_gpu
    from jobs.terminal import Terminal
    from pipeline.analysis import audit as audits

    if framework not in (None, "torch", "tensorflow", "flax"):
        raise SpecError(f"--framework {framework}: choose torch, tensorflow or flax")
    if dtype not in (None, *audits.TOLERANCES):
        raise SpecError(f"--dtype {dtype}: choose {', '.join(audits.TOLERANCES)}")
    found = audits.audit(
        output,
        rows=rows,
        seed=seed,
        framework=framework,  # type: ignore[arg-type]  # checked above
        dtype=dtype,
        threads=len(os.sched_getaffinity(0)),
        gpu=has_gpu(),
    )
    if as_json:
        print(json.dumps(asdict(found), default=str))
    else:
        Terminal().print("\n".join(words_of(found)))
    raise typer.Exit(DIFFERENT if found.differ else 0)


def words_of(found: Audit) -> list[str]:
    """An audit as lines of text."""
    from jobs.show import words

    lines = [
        (
            f"Recomputed {counted(found.sampled, 'row')} of {found.rows:,} with {found.framework} {found.dtype}: "
            f"{found.agree:,} agree, {found.differ:,} differ."
        ),
        (
            f"  labels, spans and carried columns are compared exactly, scores to {found.tolerance:g}; "
            f"the largest difference where rows agree is {found.largest:.2g}"
        ),
    ]
    lines += [
        f"  {one.source} row {one.row}: {one.column} is {words(one.stored)}, and {words(one.computed)} now"
        for one in found.differences
    ]
    lines += [f"  {counted(count, 'row')} not compared: {why}" for why, count in found.unread.items()]
    if found.sampled == found.rows:
        lines.append(f"Every row was recomputed: {found.bound:.2%} are wrong.")
    else:
        lines.append(f"With 95 % confidence, at most {found.bound:.2%} of the rows are wrong.")
    return lines
