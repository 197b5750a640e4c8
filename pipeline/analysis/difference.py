"""Two output folders in, what is different between them out: row by row where they have rows in common, else as distributions."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.analysis.answers import columns_of
from pipeline.analysis.changes import Changes, changes_of
from pipeline.analysis.dataset import Dataset
from pipeline.analysis.distributions import Gap
from pipeline.analysis.join import Join, Pair
from pipeline.analysis.lookup import Place, look_up, look_up_texts, tables, wanted_rows
from pipeline.analysis.lottery import Lowest
from pipeline.analysis.output_profile import carried_text, gaps, profile
from pipeline.errors import PrelnError, SpecError
from pipeline.inference.questions import facts_of
from pipeline.spec.named_tasks import NamedTask

FLIPPED_FIRST = 1e6
"""More than any answer changes without becoming another."""


@dataclass(frozen=True)
class Example:
    """A row that changed. size: how much, within its task. flipped: to another answer. texts: what the task reads, by
    part; empty if it can't be read."""

    task: str
    source: str
    row: int
    size: float
    flipped: bool
    texts: Mapping[str, Any]
    a: Mapping[str, Any]
    b: Mapping[str, Any]


@dataclass(frozen=True)
class TaskDifference:
    """One task. name: in A and in B. changes: of the common rows. gaps: of all rows, where the folders do not have the same.
    examples: the rows that changed most."""

    names: tuple[str, str]
    task: str
    changes: Changes
    gaps: Sequence[Gap]
    examples: Sequence[Example]


@dataclass(frozen=True)
class Difference:
    """What is different. settings: parts of the jobs that answers depend on: key -> (in A, in B). joined: common rows;
    only_a, only_b: the others. changed_files: whose versions differ. flipped: common rows with another answer in any task.
    notes: what could not be compared, and why."""

    a: str
    b: str
    settings: Mapping[str, tuple[Any, Any]]
    joined: int
    only_a: int
    only_b: int
    changed_files: Sequence[str]
    flipped: int
    tasks: Sequence[TaskDifference]
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def flips(self) -> float | None:
        """The share of common rows with another answer; None if there are none."""
        return self.flipped / self.joined if self.joined else None


@dataclass(eq=False)
class Compared:
    """A task that both jobs have, and what has been seen of it. columns: (of A, of B), by their name in the task."""

    task_a: NamedTask
    task_b: NamedTask
    columns: tuple[dict[str, str], dict[str, str]]
    changes: Changes
    largest: Lowest

    def add(self, pair: Pair, prefix: str) -> np.ndarray:
        """The answers of some common rows; returns which of them flipped."""
        sides = ({name: side[prefix + name].combine_chunks() for name in self.columns[0]} for side in (pair.a, pair.b))
        flipped, size = self.changes.add(*sides)
        changed = np.flatnonzero(size > 0)
        if len(changed):
            rows = pa.array(changed)
            same = pa.array(np.zeros(len(changed), np.int32))
            self.largest.add(
                pa.table(
                    {
                        "group": pa.array([""]).take(same),
                        "rank": -size[changed] - FLIPPED_FIRST * flipped[changed],
                        "size": size[changed],
                        "flipped": flipped[changed],
                        "source": pa.array([pair.source]).take(same),
                        "row": pair.a["row"].combine_chunks().take(rows),
                        "a": pa.array([pair.keys[0]]).take(same),
                        "b": pa.array([pair.keys[1]]).take(same),
                    }
                )
            )
        return flipped


def difference(output_a: str, output_b: str, *, examples: int = 20) -> Difference:
    """Compare two output folders. Raises OutputError, SpecError if they have no task in common."""
    a, b = Dataset(output_a), Dataset(output_b)
    notes: list[str] = []
    compared = shared_tasks(a, b, notes=notes, examples=examples)
    columns: tuple[dict[str, str], dict[str, str]] = ({"row": a.own("row")}, {"row": b.own("row")})
    for number, task in enumerate(compared):
        for side, own in zip(columns, task.columns, strict=True):
            side.update({f"{number} {name}": column for name, column in own.items()})
    join = Join(a=a, b=b, columns_a=columns[0], columns_b=columns[1])
    flipped = 0
    for pair in join.pairs():
        flips = [task.add(pair, f"{number} ") for number, task in enumerate(compared)]
        flipped += int(np.logical_or.reduce(flips).sum())
    if join.changed:
        notes.append(
            f"files that changed between the runs are not joined: {len(join.changed)}, such as {join.changed[0]}"
        )
    if not join.rows:
        notes.append(f"no row in common: A has rows of {a.shards[0].uri}, B of {b.shards[0].uri}")
    texts: set[tuple[str | None, str | None]] = set()
    apart = bool(join.only_a or join.only_b)
    return Difference(
        a=a.folder.url,
        b=b.folder.url,
        settings=settings(a, b),
        joined=join.rows,
        only_a=join.only_a,
        only_b=join.only_b,
        changed_files=join.changed,
        flipped=flipped,
        tasks=[
            TaskDifference(
                names=(task.task_a.name, task.task_b.name),
                task=task.task_a.task.name,
                changes=task.changes,
                gaps=distances(a, b, task, texts=texts, notes=notes) if apart else (),
                examples=largest_changes(task, a=a, b=b, notes=notes),
            )
            for task in compared
        ],
        notes=tuple(dict.fromkeys(notes)),
    )


def shared_tasks(a: Dataset, b: Dataset, *, notes: list[str], examples: int) -> list[Compared]:
    """The tasks of the same name and kind, or the only ones of their kind on both sides. Raises SpecError if there are none."""
    of_a, of_b = a.job.spec.named_tasks, b.job.spec.named_tasks
    pairs = [
        (task, of_b[name]) for name, task in of_a.items() if name in of_b and of_b[name].task.name == task.task.name
    ]
    left_a = [task for task in of_a.values() if task not in [pair[0] for pair in pairs]]
    left_b = [task for task in of_b.values() if task not in [pair[1] for pair in pairs]]
    for task in list(left_a):
        mine = [one for one in left_a if one.task.name == task.task.name]
        theirs = [one for one in left_b if one.task.name == task.task.name]
        if len(mine) == len(theirs) == 1:
            pairs.append((task, theirs[0]))
            left_a.remove(task)
            left_b.remove(theirs[0])
    if not pairs:
        raise SpecError(f"no task in common: A has {', '.join(of_a)}, B has {', '.join(of_b)}")
    notes += [f"only {side} has the task {task.name}" for side, left in (("A", left_a), ("B", left_b)) for task in left]
    return [_compared(task_a, task_b, a, b, notes=notes, examples=examples) for task_a, task_b in pairs]


def _compared(
    task_a: NamedTask, task_b: NamedTask, a: Dataset, b: Dataset, *, notes: list[str], examples: int
) -> Compared:
    own = columns_of(task_a, names=a.schema.names), columns_of(task_b, names=b.schema.names)
    common = [name for name in own[0] if name in own[1]]
    if "labels" in {*own[0]} ^ {*own[1]} and task_a.task.name == "text-classification":
        notes.append(f"{task_a.name}: only one side has labels over a threshold, so the best labels are compared")
    columns = ({name: own[0][name] for name in common}, {name: own[1][name] for name in common})
    regression = task_a.task.name == "text-classification" and (is_regression(a, task_a) or is_regression(b, task_b))
    return Compared(
        task_a=task_a,
        task_b=task_b,
        columns=columns,
        changes=changes_of(task_a.task.name, columns[0], regression=regression),
        largest=Lowest(examples),
    )


def is_regression(stored: Dataset, task: NamedTask) -> bool:
    """Whether a classifier's score is its answer: by its checkpoint, or, if that is gone, by the first rows."""
    with suppress(PrelnError, ValueError):
        return facts_of(stored.job.spec)[task.name].config.problem_type == "regression"
    columns = columns_of(task, names=stored.schema.names)
    _, table = next(tables(stored, [columns["label"], columns["score"]]))
    beyond = pc.or_(pc.less(table[columns["score"]], 0), pc.greater(table[columns["score"]], 1))
    return len(pc.unique(table[columns["label"]].drop_null())) == 1 and bool(pc.any(beyond).as_py())


def settings(a: Dataset, b: Dataset) -> dict[str, tuple[Any, Any]]:
    """What the jobs do not have in common of all that answers depend on, and the checkpoints' addresses."""
    sides = [{"model.checkpoint": stored.job.spec.model.checkpoint, **stored.job.identity} for stored in (a, b)]
    keys = dict.fromkeys([*sides[0], *sides[1]])
    return {key: (sides[0].get(key), sides[1].get(key)) for key in keys if sides[0].get(key) != sides[1].get(key)}


def distances(
    a: Dataset, b: Dataset, task: Compared, *, texts: set[tuple[str | None, str | None]], notes: list[str]
) -> list[Gap]:
    """How far apart all rows of both sides are. texts: columns of texts that were compared already."""
    text_a, text_b = carried_text(a, b, task.task_a, task.task_b)
    if text_a is None:
        notes.append(f"{task.task_a.name}: text lengths are not compared, since not both outputs carry the texts")
    if (text_a, text_b) in texts:
        text_a = text_b = None  # another task has compared them
    texts.add((text_a, text_b))
    profiles = profile(a, task.task_a, text=text_a), profile(b, task.task_b, text=text_b)
    for side, one in zip("AB", profiles, strict=True):
        notes += [f"{task.task_a.name}, {side}: {note}" for note in one.notes]
    return gaps(*profiles)


def largest_changes(task: Compared, *, a: Dataset, b: Dataset, notes: list[str]) -> list[Example]:
    """The rows that changed most, with their texts where these can be had."""
    chosen = task.largest.rows()
    if chosen is None:
        return []
    rows = chosen.to_pylist()
    wanted = wanted_rows(rows, key="a")
    of_a = look_up(a, wanted, task.columns[0])
    of_b = look_up(b, wanted_rows(rows, key="b"), task.columns[1])
    texts: dict[Place, dict[str, Any]] = {}
    try:
        texts, _ = look_up_texts(a, wanted, task=task.task_a)
    except PrelnError as error:
        notes.append(f"{task.task_a.name}: the texts of the rows that changed most can't be read: {error}")
    return [
        Example(
            task=task.task_a.name,
            source=row["source"],
            row=row["row"],
            size=row["size"],
            flipped=row["flipped"],
            texts=texts.get((row["source"], row["row"]), {}),
            a=of_a[row["source"], row["row"]],
            b=of_b[row["source"], row["row"]],
        )
        for row in rows
    ]
