"""A difference between two output folders in, lines for a terminal out."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.analysis.answers import SCORE_OF
from pipeline.analysis.changes import (
    LEAST_CHANGE,
    LEAST_COSINE,
    Changes,
    LabelChanges,
    NumberChanges,
    Shift,
    SpanChanges,
    VectorChanges,
)
from pipeline.analysis.difference import Difference, Example, TaskDifference
from pipeline.plurals import counted
from pipeline.store.storage import readable

SHOWN = 8
"""Flips between labels, labels of spans, and rows that are printed; --json and --html have more."""
KINDS = ("kept", "lost", "gained", "moved", "relabelled")
TEXT = 160
"""Characters of a text that are printed."""


def lines(found: Difference) -> Iterator[str]:
    """What is different, in words."""
    yield f"A  {readable(found.a)}"
    yield f"B  {readable(found.b)}"
    for key, (a, b) in found.settings.items():
        yield f"   {key}: {short(a)} in A, {short(b)} in B"
    yield from summary(found)
    for task in found.tasks:
        yield from _task(task, joined=bool(found.joined))
    yield from (f"Note: {note}." for note in found.notes)


def summary(found: Difference) -> Iterator[str]:
    """The rows in common, and how many have another answer."""
    if found.joined:
        yield f"{counted(found.joined, 'row')} in common; {found.only_a:,} only in A, {found.only_b:,} only in B."
        yield f"{percent(found.flipped, found.joined)} of them ({found.flipped:,}) have another answer in B."
    else:
        yield f"No row in common: {counted(found.only_a, 'row')} in A, {counted(found.only_b, 'row')} in B."


def _task(task: TaskDifference, *, joined: bool) -> Iterator[str]:
    a, b = task.names
    yield f"{a if a == b else f'{a} / {b}'} ({task.task})" if a != task.task else a
    if joined:
        yield from (f"  {line}" for line in change_lines(task.changes, task=task.task))
    for gap in task.gaps:
        yield f"  {gap.of}: {gap.statistic} {gap.value:.3f} (n {gap.n_a:,} and {gap.n_b:,}): {gap.meaning}"
    flipped = [example for example in task.examples if example.flipped][:SHOWN]
    if flipped:
        yield "  Rows that changed most:"
    for example in flipped:
        yield f"    {example.source} row {example.row}: {answer(example.a)} -> {answer(example.b)}"
        text = text_of(example)
        if text:
            yield f"      {text}"


def change_lines(changes: Changes, *, task: str, counts: bool = True) -> Iterator[str]:
    """What changed in the answers to the common rows. counts: of labels and spans too."""
    yield f"{percent(changes.flipped, changes.rows)} of {counted(changes.rows, 'row')} with another answer ({changes.flipped:,})"
    if changes.only_a or changes.only_b:
        yield f"answered only in A: {changes.only_a:,}; only in B: {changes.only_b:,}"
    if counts and isinstance(changes, SpanChanges):
        for label, found in list(ranked(changes.counts).items())[:SHOWN]:
            yield f"{label}: " + ", ".join(f"{found[kind]:,} {kind}" for kind in KINDS)
    if counts and isinstance(changes, LabelChanges | SpanChanges):
        flips = flips_of(changes)
        for (one, other), count in list(flips.items())[:SHOWN]:
            yield f"{one} -> {other}: {count:,}"
        if len(flips) > SHOWN:
            yield f"and {len(flips) - SHOWN:,} more flips between labels"
    if isinstance(changes, VectorChanges):
        yield vector_line(changes)
    if isinstance(changes, NumberChanges):
        yield f"a number counts as changed from {LEAST_CHANGE:.0%} of the larger one on, or of 1 if that is more"
    if changes.shift.rows:
        yield f"{SCORE_OF[task]}: {shift_line(changes.shift)}"


def vector_line(changes: VectorChanges) -> str:
    """How far vectors turned."""
    if changes.sizes:
        return f"vectors of {changes.sizes[0]} and of {changes.sizes[1]} numbers can't be compared"
    cosines = changes.cosines
    return (
        f"cosine {1 + cosines.mean:.6f} on average, {1 - cosines.largest:.6f} at least; a vector counts as changed "
        f"below {LEAST_COSINE}"
    )


def shift_line(shift: Shift) -> str:
    """How scores moved."""
    return (
        f"{shift.mean:+.4f} from A to B on average, {shift.mean_absolute:.4f} up or down, {shift.largest:.4f} at most"
    )


def flips_of(changes: LabelChanges | SpanChanges) -> dict[tuple[str, str], int]:
    """The pairs of different labels, the most frequent first."""
    pairs = {pair: count for pair, count in changes.confusion.items() if pair[0] != pair[1]}
    return dict(sorted(pairs.items(), key=lambda item: (-item[1], item[0])))


def ranked(counts: Mapping[str, Mapping[str, int]]) -> dict[str, Mapping[str, int]]:
    """Labels of spans, those with most changes first."""
    changed = {label: sum(one.values()) - one.get("kept", 0) for label, one in counts.items()}
    return dict(sorted(counts.items(), key=lambda item: (-changed[item[0]], item[0])))


def answer(columns: Mapping[str, Any]) -> str:
    """A row's answer in a few words."""
    first = next(iter(columns.values()))
    if first is None:
        return "no answer"
    if "labels" in columns:
        return ", ".join(f"{one['label']} {one['score']:.2f}" for one in columns["labels"]) or "no label"
    if "label" in columns:
        return f"{columns['label']} {columns['score']:.2f}"
    if "choice" in columns:
        return f"choice {columns['choice']}"
    if "entities" in columns:
        found = (
            f"{one.get('entity_group', one.get('entity'))} {one['word']!r} {one['start']}-{one['end']}" for one in first
        )
        return ", ".join(found) or "no entity"
    if "answers" in columns:
        return (
            f"{first[0]['answer']!r} {first[0]['score']:.2f}"
            if first and first[0]["answer"]
            else "no answer in the text"
        )
    if "masks" in columns:
        return ", ".join(repr(mask["fills"][0]["token_str"]) for mask in first if mask["fills"]) or "no mask"
    if "tokens" in columns:
        return f"log probability {first:.3f}"
    return "a vector"


def text_of(example: Example) -> str:
    """The text of an example, cut."""
    text = " | ".join(str(value) for value in example.texts.values() if value)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"


def percent(part: int, whole: int) -> str:
    """A share in percent."""
    return f"{part / whole:.2%}" if whole else "none"


def short(value: object) -> str:
    """A setting, cut."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
