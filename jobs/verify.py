"""`preln verify`: checks an output folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.arguments import Input
from pipeline.plurals import counted

if TYPE_CHECKING:
    from pipeline.output.verify import Verdict
    from pipeline.spec.job_spec import InputSpec


SHOWN = 20


def verify(
    output: Annotated[str, typer.Argument(help="Output folder of a job, at any URL.", show_default=False)],
    input_urls: Input = None,
    input_format: Annotated[
        str, typer.Option("--input-format", help="Format of the input, if the file names do not say.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Check that every planned shard is there, with every row once, and nothing from another job; --input recounts the input.

    Exit codes: 0 the folder is OK, 3 it is not.
    """
    from pipeline.output.verify import verify as verify_output

    verdict = verify_output(output, input_spec=recount_spec(input_urls, input_format) if input_urls else None)
    if as_json:
        print(json.dumps({**asdict(verdict), "drift": [{**vars(d), "meaning": d.meaning} for d in verdict.drift]}))
    else:
        print_verdict(verdict)
    raise typer.Exit(0 if verdict.holds else 3)


def recount_spec(urls: Sequence[str], format_: str) -> InputSpec:
    """The input to recount, with absolute URLs. Raises SpecError."""
    from pipeline.spec.job_spec import InputSpec
    from pipeline.store.storage import canonical

    spec = InputSpec.parse({"urls": urls, "format": format_})
    return spec.model_copy(update={"urls": [canonical(url) for url in spec.urls]})


def print_verdict(verdict: Verdict) -> None:
    """Print a verdict."""
    from jobs.terminal import Terminal

    console = Terminal()
    checked = (
        f"{counted(verdict.shards, 'shard')} of {counted(verdict.files, 'file')} with {counted(verdict.rows, 'row')}"
    )
    recounted = ", and recounted the input" if verdict.recounted else ""
    console.print(f"Checked {checked}{recounted}.")
    for finding in verdict.findings[:SHOWN]:
        console.print(f"  {finding.rule}: {finding.where} {finding.message}")
    if len(verdict.findings) > SHOWN:
        by_rule = Counter(finding.rule for finding in verdict.findings[SHOWN:])
        console.print(
            f"  and {len(verdict.findings) - SHOWN:,} more: " + ", ".join(f"{n} {rule}" for rule, n in by_rule.items())
        )
    for drift in verdict.drift:
        console.print(f"  {drift}")
    if verdict.holds:
        console.print("OK: every planned shard is there, every row once, nothing from another job.")
    else:
        console.print(f"Not OK: {counted(len(verdict.findings), 'finding')}. docs/recovery.md says what to do.")
