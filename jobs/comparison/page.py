"""A difference between two output folders in, one HTML page without any external address out; needs the extra `report`."""

from typing import Any

from jobs.comparison.words import KINDS, answer, change_lines, flips_of, ranked, short, summary, text_of
from pipeline.analysis.answers import SCORE_OF
from pipeline.analysis.changes import BINS, LabelChanges, SpanChanges
from pipeline.analysis.difference import Difference, TaskDifference
from pipeline.store.storage import readable

MATRIX = 20
"""Labels of a confusion table; of more, the pairs that differ are listed."""
PAIRS = 100
"""Pairs of different labels that are listed."""


def page(found: Difference) -> str:
    """The page. Raises SpecError without the extra."""
    from jobs.pages.page import render

    return render(
        "diff.html",
        {
            "a": readable(found.a),
            "b": readable(found.b),
            "summary": list(summary(found)),
            "notes": found.notes,
            "settings": [(key, short(a), short(b)) for key, (a, b) in found.settings.items()],
            "tasks": [_task(task, number, joined=bool(found.joined)) for number, task in enumerate(found.tasks)],
        },
    )


def _task(task: TaskDifference, number: int, *, joined: bool) -> dict[str, Any]:
    from jobs.pages.plots import histogram

    changes, (a, b) = task.changes, task.names
    drawn = None
    if joined and changes.shift.rows:
        edges = [-1 + 2 * place / BINS for place in range(BINS + 1)]
        drawn = histogram(changes.shift.bins, edges, name=f"shift-{number}", xlabel="change")
    return {
        "title": f"{a if a == b else f'{a} / {b}'} ({task.task})",
        "lines": list(change_lines(changes, task=task.task, counts=False)) if joined else [],
        "span_header": ("", *KINDS),
        "spans": _spans(changes) if isinstance(changes, SpanChanges) else [],
        **_confusion(changes),
        "score": SCORE_OF[task.task],
        "histogram": drawn,
        "gaps": [(one.of, one.statistic, f"{one.value:.3f}", one.n_a, one.n_b, one.meaning) for one in task.gaps],
        "examples": [
            (text_of(one), answer(one.a), answer(one.b), f"{one.source} row {one.row}") for one in task.examples
        ],
    }


def _spans(changes: SpanChanges) -> list[tuple[str | int, ...]]:
    return [(label, *(counts.get(kind, 0) for kind in KINDS)) for label, counts in ranked(changes.counts).items()]


def _confusion(changes: object) -> dict[str, Any]:
    """A confusion table of few labels; of many, and of spans, the pairs that differ."""
    values: dict[str, Any] = {"labels": [], "matrix": [], "flips": [], "more_flips": 0}
    if not isinstance(changes, LabelChanges | SpanChanges):
        return values
    flips = flips_of(changes)
    labels = sorted({label for pair in changes.confusion for label in pair})
    if isinstance(changes, LabelChanges) and len(labels) <= MATRIX:
        matrix = [(one, [changes.confusion.get((one, other), 0) for other in labels]) for one in labels]
        return {**values, "labels": labels, "matrix": matrix}
    listed = [(one, other, count) for (one, other), count in list(flips.items())[:PAIRS]]
    return {**values, "flips": listed, "more_flips": max(0, len(flips) - PAIRS)}
