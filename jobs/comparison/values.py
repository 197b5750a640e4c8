"""A difference between two output folders as plain values, for JSON."""

from dataclasses import asdict, replace
from typing import Any

from jobs.comparison.words import answer, text_of
from pipeline.analysis.changes import Changes, LabelChanges, SpanChanges
from pipeline.analysis.difference import Difference, TaskDifference


def as_values(found: Difference) -> dict[str, Any]:
    """All of a difference; pairs of labels are lists of [in A, in B, rows]."""
    return {
        **asdict(replace(found, tasks=())),
        "flips": found.flips,
        "settings": {key: {"a": a, "b": b} for key, (a, b) in found.settings.items()},
        "tasks": [_task(task) for task in found.tasks],
    }


def _task(task: TaskDifference) -> dict[str, Any]:
    return {
        "name": task.names[0],
        "name_in_b": task.names[1],
        "task": task.task,
        **_changes(task.changes),
        "gaps": [asdict(gap) for gap in task.gaps],
        "examples": [
            {
                "source": one.source,
                "row": one.row,
                "size": one.size,
                "flipped": one.flipped,
                "text": text_of(one),
                "a": answer(one.a),
                "b": answer(one.b),
            }
            for one in task.examples
        ],
    }


def _changes(changes: Changes) -> dict[str, Any]:
    values = {
        name: value for name, value in vars(changes).items() if name not in ("shift", "cosines", "counts", "confusion")
    }
    values["shift"] = {
        **asdict(changes.shift),
        "mean": changes.shift.mean,
        "mean_absolute": changes.shift.mean_absolute,
    }
    if isinstance(changes, LabelChanges | SpanChanges):
        values["confusion"] = [[a, b, count] for (a, b), count in changes.confusion.most_common()]
    if isinstance(changes, SpanChanges):
        values["spans"] = {label: dict(counts) for label, counts in sorted(changes.counts.items())}
    cosines = getattr(changes, "cosines", None)
    if cosines is not None:
        values["cosine"] = {"mean": 1 + cosines.mean, "least": 1 - cosines.largest}
    return values
