"""An output folder in, rows for a person to review out: drawn with known probabilities, with their texts and answers.

random: every row is as likely as any other. stratified: the same number from every group of answers, as far as it has as
many. uncertain: the less sure the model, the likelier (priority sampling: Duffield, Lund and Thorup, "Priority sampling for
estimation of arbitrary subset sums", 2007), so that the rows with errors come first and an error rate still follows.

Legend: R rows.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.analysis.answers import NO_ANSWER, Floats, answered
from pipeline.analysis.dataset import Dataset
from pipeline.analysis.error_rate import Design
from pipeline.analysis.lookup import look_up, look_up_texts, tables, wanted_rows
from pipeline.analysis.lottery import Lowest, lowest_of_groups, uniform
from pipeline.analysis.predictions import REVIEWABLE, Judged, Kind, confidence, group, prediction
from pipeline.errors import PrelnError, SpecError
from pipeline.inference.questions import facts_of
from pipeline.tasks.tags import Tags

LEAST_SIZE = 0.1
"""uncertain: a row of which the model is sure is drawn a tenth as often as one of which it knows nothing; if it were never
drawn, confident errors would not count."""
EVERY = "all rows"
"""The one group of a design without strata."""
OTHER = "(other)"
"""The stratum of the groups that are too many for a sample."""


@dataclass(frozen=True)
class Drawn:
    """One row for review. texts: what the task reads, by part. score: how sure the model is. weight: how many rows it stands for,
    1 / the probability of being drawn."""

    source: str
    row: int
    texts: Mapping[str, Any]
    prediction: Any
    score: float
    stratum: str
    weight: float


@dataclass(frozen=True)
class ReviewSample:
    """Rows for review, in random order. model: that answered. labels: that an answer may have, as far as known.
    population: rows with an answer; unanswered: the others, which can't be drawn. strata: rows of each stratum.
    read_again: whether the texts are not in the output and come from the input."""

    task: str
    kind: Kind
    model: str
    labels: Sequence[str]
    design: Design
    seed: int
    population: int
    unanswered: int
    strata: Mapping[str, int]
    rows: Sequence[Drawn]
    read_again: bool

    def needed(self, row: Drawn) -> dict[str, Any]:
        """What the error rate needs to know of a row, in every form of file."""
        return {
            "task": self.task,
            "answers": self.kind,
            "prediction": row.prediction,
            "design": self.design,
            "stratum": row.stratum,
            "stratum_rows": self.strata[row.stratum],
            "population": self.population,
            "sample_rows": len(self.rows),
            "weight": row.weight,
        }


def review_sample(
    output: str, *, rows: int, design: Design = "random", seed: int = 0, task: str | None = None
) -> ReviewSample:
    """A sample of an output folder's rows. task: its name, if the job has several that can be reviewed.

    Raises OutputError, SpecError for answers that can't be judged or drawn so, SourceError for texts that are not there any more.
    """
    stored = Dataset(output)
    judged = judged_task(stored, task)
    draw = Draw(judged=judged, design=design, rows=rows, seed=seed, prefix=stored.own(""))
    names = [stored.own("source"), stored.own("row"), *judged.columns.values()]
    for entry, table in tables(stored, names):
        draw.add(entry.key, table)
    chosen, strata = draw.chosen()
    checkpoint = stored.job.spec.model.checkpoint.rstrip("/").rpartition("/")[2]
    drawn, read_again = with_texts(chosen, stored=stored, judged=judged)
    order = {
        (one.source, one.row): uniform(seed=seed, source=one.source, rows_R=np.array([one.row]), stream="order")[0]
        for one in drawn
    }
    return ReviewSample(
        task=judged.task.name,
        kind=judged.kind,
        model=f"{checkpoint} {stored.job.fingerprint[:8]}",
        labels=labels_of(judged, stored=stored, seen=draw.labels),
        design=design,
        seed=seed,
        population=sum(strata.values()),
        unanswered=draw.unanswered,
        strata=strata,
        rows=sorted(drawn, key=lambda one: (order[one.source, one.row], one.source, one.row)),
        read_again=read_again,
    )


def judged_task(stored: Dataset, name: str | None) -> Judged:
    """The task of an output that is to be reviewed. Raises SpecError."""
    tasks = stored.job.spec.named_tasks
    if name is None:
        fit = [task for task in tasks.values() if task.task.name in REVIEWABLE] or list(tasks.values())
        if len(fit) > 1:
            raise SpecError(
                f"the job has several tasks: {', '.join(task.name for task in fit)}; choose one with --task"
            )
        return Judged.of(fit[0], names=stored.schema.names)
    if name not in tasks:
        raise SpecError(f"--task {name}: the job has no such task; it has {', '.join(tasks)}")
    return Judged.of(tasks[name], names=stored.schema.names)


def labels_of(judged: Judged, *, stored: Dataset, seen: Collection[str]) -> list[str]:
    """The labels that a reviewer may choose: those of the checkpoint, if it is still there, and those that the answers have."""
    if judged.kind not in ("label", "labels", "entities"):
        return []
    known: list[str] = []
    with suppress(PrelnError, ValueError):
        labels = facts_of(stored.job.spec)[judged.task.name].labels
        known = labels if judged.kind != "entities" or judged.by_token(stored.schema) else list(Tags.of(labels).names)
    ignored = set(getattr(judged.task.task, "ignore_labels", ()))
    return [*(label for label in known if label not in ignored), *sorted({*seen} - {*known, NO_ANSWER})]


def with_texts(chosen: pa.Table, *, stored: Dataset, judged: Judged) -> tuple[list[Drawn], bool]:
    """(the chosen rows, with their texts and answers; whether the texts had to be read from the input)."""
    rows = chosen.to_pylist()
    wanted = wanted_rows(rows, key="key")
    answers = look_up(stored, wanted, judged.columns)
    texts, read_again = look_up_texts(stored, wanted, task=judged.task)
    drawn = [
        Drawn(
            source=row["source"],
            row=row["row"],
            texts=texts[row["source"], row["row"]],
            prediction=prediction(judged, answers[row["source"], row["row"]]),
            score=row["score"],
            stratum=row["group"],
            weight=row["weight"],
        )
        for row in rows
    ]
    return drawn, read_again


class Draw:
    """Chooses rows while the shards of an output go by, in any order. prefix: of the output's columns."""

    def __init__(self, *, judged: Judged, design: Design, rows: int, seed: int, prefix: str) -> None:
        self._judged = judged
        self._design = design
        self._rows = rows
        self._seed = seed
        self._names = (f"{prefix}source", f"{prefix}row")
        self._lowest = Lowest(rows + 1)  # one more says where the chosen ones end
        self.unanswered = 0
        self.labels: set[str] = set()

    def add(self, key: str, table: pa.Table) -> None:
        """The rows of one object. Raises SpecError if its answers can't be drawn by this design."""
        columns = self._judged.named(table)
        answered_R = answered(columns)
        self.unanswered += int((~answered_R).sum())
        if not answered_R.any():
            return
        where = pa.array(answered_R)
        columns = {name: column.filter(where) for name, column in columns.items()}
        source, row = (table[name].combine_chunks().filter(where) for name in self._names)
        rank_R = uniform(seed=self._seed, source=source[0].as_py(), rows_R=row.to_numpy())  # an object has one source
        sure_R = confidence(self._judged, columns)
        if self._design == "uncertain":
            rank_R = rank_R / self._size(sure_R)
        groups = group(self._judged, columns)
        self.labels.update(pc.unique(groups).to_pylist())
        named = {"source": source, "row": row, "rank": rank_R, "score": sure_R, "key": _repeated(key, len(row))}
        stratum = groups if self._design == "stratified" else _repeated(EVERY, len(row))
        self._lowest.add(pa.table({**named, "group": stratum}))

    def _size(self, sure_R: Floats) -> Floats:
        """[R], how likely each row is to be drawn, relative to one of which the model knows nothing."""
        if sure_R.min() < 0 or sure_R.max() > 1 + 1e-6:
            raise SpecError(
                f"{self._judged.task.name}: its scores are no probabilities, so no answer is less sure; use --by random"
            )
        return np.maximum(1 - sure_R, LEAST_SIZE)

    def chosen(self) -> tuple[pa.Table, dict[str, int]]:
        """(the chosen rows with their stratum and weight, the rows of each stratum). Raises SpecError if there is no row."""
        found = self._lowest.rows()
        if found is None:
            raise SpecError("no row has an answer yet, so there is nothing to review")
        counts = self._lowest.counts
        if self._design == "uncertain":
            return self._by_threshold(found), dict(counts)
        if self._design == "stratified":
            found, counts = _fewer_strata(found, counts, most=max(1, self._rows // 2))
        shares = allocation(counts, rows=self._rows)
        parts = []
        for stratum, share in shares.items():
            rows = lowest_of_groups(found.filter(pc.equal(found["group"], stratum)), most=share)
            parts.append(
                rows.append_column("weight", pa.array(np.full(rows.num_rows, counts[stratum] / max(share, 1))))
            )
        return pa.concat_tables(parts), dict(counts)

    def _by_threshold(self, found: pa.Table) -> pa.Table:
        """A row is chosen if its rank is below that of the first row left out; given that rank, the rows are independent."""
        sizes = self._size(found["score"].to_numpy())
        if found.num_rows <= self._rows:
            return found.append_column("weight", pa.array(np.ones(found.num_rows)))
        threshold = found["rank"][self._rows].as_py()
        weight = 1 / np.minimum(1, sizes * threshold)
        return found.append_column("weight", pa.array(weight)).slice(0, self._rows)


def allocation(counts: Mapping[str, int], *, rows: int) -> dict[str, int]:
    """How many rows each stratum gives: equally many, and what small strata lack goes to the others."""
    shares: dict[str, int] = {}
    left = rows
    for place, (stratum, count) in enumerate(sorted(counts.items(), key=lambda item: (item[1], item[0]))):
        shares[stratum] = min(count, left // (len(counts) - place))
        left -= shares[stratum]
    return shares


def _fewer_strata(found: pa.Table, counts: Counter[str], *, most: int) -> tuple[pa.Table, Counter[str]]:
    """At most `most` strata, so that each has two rows: the rarest become one."""
    if len(counts) <= most:
        return found, counts
    kept = {stratum for stratum, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: most - 1]}
    groups = [stratum if stratum in kept else OTHER for stratum in found["group"].to_pylist()]
    merged = Counter({stratum: counts[stratum] for stratum in kept})
    merged[OTHER] = sum(count for stratum, count in counts.items() if stratum not in kept)
    place = found.schema.get_field_index("group")
    return found.set_column(place, "group", pa.array(groups, pa.string())), merged


def _repeated(value: str, count: int) -> pa.Array:
    return pa.array([value]).take(pa.array(np.zeros(count, np.int32)))
