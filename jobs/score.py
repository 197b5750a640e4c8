"""`preln score`: the error rate of a job's answers, from the rows that a person has reviewed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.plurals import counted

if TYPE_CHECKING:
    from pipeline.analysis.reviewed import Review

SHOWN_STRATA = 12


def score(
    reviewed: Annotated[
        str,
        typer.Argument(
            help="Reviewed file of `preln sample`: JSON Lines, CSV, or Label Studio's JSON export; any URL.",
            show_default=False,
        ),
    ],
    confidence: Annotated[float, typer.Option("--confidence", help="Of the interval.", min=0.5, max=0.999)] = 0.95,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """State the share of wrong answers among all answered rows, with its interval, from reviewed rows."""
    from jobs.review.form import read
    from jobs.terminal import Terminal
    from pipeline.analysis.reviewed import review
    from pipeline.errors import SpecError
    from pipeline.store.storage import canonical, read_bytes

    try:
        content = read_bytes(canonical(reviewed))
    except FileNotFoundError:
        raise SpecError(f"{reviewed}: there is no such file") from None
    found = review(read(content, name=reviewed), confidence=confidence)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    console = Terminal()
    for line in lines(found):
        console.print(line)


def lines(found: Review) -> list[str]:
    """A review in words."""
    rate = found.error
    said = [f"Reviewed {rate.reviewed:,} of {counted(found.rows, 'row')} of {found.task}: {rate.wrong:,} wrong."]
    if found.open:
        said.append(
            f"{counted(found.open, 'row')} not reviewed; if they were left out because they are hard, the rate is too low."
        )
    said += [f"{counted(count, 'row')} not counted: {fault}." for fault, count in found.faults.most_common()]
    said.append(
        f"Error rate {percent(rate.rate)}, {rate.confidence:.0%} interval {percent(rate.low)} to {percent(rate.high)}, "
        f"of the {found.population - rate.not_covered:,} answered rows."
    )
    if rate.not_covered:
        said.append(f"{counted(rate.not_covered, 'row')} of strata of which nothing was reviewed are not part of it.")
    if found.design == "stratified":
        ranked = sorted(rate.strata.items(), key=lambda item: (-item[1].wrong / max(item[1].reviewed, 1), item[0]))
        said += [
            f"  {name}: {one.wrong} of {one.reviewed} wrong, {counted(one.rows, 'row')} in all"
            for name, one in ranked[:SHOWN_STRATA]
        ]
        if len(ranked) > SHOWN_STRATA:
            said.append(f"  and {len(ranked) - SHOWN_STRATA} more strata; --json has all")
    said.append(
        f"Method: {rate.method}; as good as {rate.effective:,.0f} rows drawn at random."
        if rate.effective != float("inf")
        else f"Method: {rate.method}; every row was reviewed."
    )
    return said


def percent(share: float) -> str:
    """A share with two digits that count."""
    return f"{share:.1%}" if share >= 0.01 or share == 0 else f"{share:.2%}"
