"""An output's answer columns in, what a person judges out: each row's answer, how sure the model is, and a group to draw by.

Legend: R rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.analysis.answers import NO_ANSWER, Floats, columns_of, entity_types, first_values, floats, owners, scores
from pipeline.errors import SpecError
from pipeline.spec.named_tasks import NamedTask

Kind: TypeAlias = Literal["label", "labels", "entities", "answer", "choice"]
"""label: one of several. labels: any number of them. entities: typed spans of the text. answer: a span of the context, or
none. choice: the index of a choice."""

REVIEWABLE = ("text-classification", "token-classification", "question-answering", "multiple-choice")
"""The tasks whose answers are labels or spans."""


@dataclass(frozen=True)
class Judged:
    """A task whose answers a person can judge. columns: those of its answers that the output has, by their name in the task."""

    task: NamedTask
    kind: Kind
    columns: Mapping[str, str]

    @classmethod
    def of(cls, task: NamedTask, *, names: list[str]) -> "Judged":
        """names: the output's columns. Raises SpecError for a task whose answers are no labels or spans."""
        if task.task.name not in REVIEWABLE:
            raise SpecError(
                f"{task.name}: a person can't judge the answers of {task.task.name}; {', '.join(REVIEWABLE)} can be reviewed"
            )
        columns = columns_of(task, names=names)
        kinds: dict[str, Kind] = {
            "text-classification": "labels" if "labels" in columns else "label",
            "token-classification": "entities",
            "question-answering": "answer",
            "multiple-choice": "choice",
        }
        return cls(task=task, kind=kinds[task.task.name], columns=columns)

    def by_token(self, schema: pa.Schema) -> bool:
        """Whether its entities are single tokens, with the checkpoint's labels as they are."""
        return bool(schema.field(self.columns["entities"]).type.value_type.get_field_index("entity") >= 0)

    def named(self, rows: pa.Table) -> dict[str, pa.Array]:
        """The answer columns by their names in the task."""
        return {name: rows[column].combine_chunks() for name, column in self.columns.items()}


def confidence(judged: Judged, columns: Mapping[str, pa.Array]) -> Floats:
    """[R], from 0 to 1, how sure the model is of a row's answer; of rows with an answer.

    label, choice: its score. labels: how far the score nearest to 0.5 is from it, times two. entities: the lowest score, 1 for
    a text without any. answer: the best one's score. Where a job asks for no probabilities, the scores as they are.
    """
    found_R = np.nan_to_num(scores(columns), nan=1.0)
    if judged.kind == "labels":
        found_R, listed = np.abs(found_R - 0.5) * 2, columns["labels"]
        distance = np.abs(floats(pc.struct_field(listed.flatten(), "score")) - 0.5) * 2
        np.minimum.at(found_R, owners(listed), distance)
    return found_R


def group(judged: Judged, columns: Mapping[str, pa.Array]) -> pa.Array:
    """[R] of strings: the label, or the best one; the type of the least sure entity; whether there is an answer; the choice."""
    if judged.kind in ("label", "labels"):
        return columns["label"]
    if judged.kind == "choice":
        return columns["choice"].cast(pa.string())
    if judged.kind == "answer":
        found_R = first_values(columns["answers"], "end") > 0
        return pa.array(np.where(found_R, "(answer)", NO_ANSWER).tolist(), pa.string())
    entities = columns["entities"]
    flat = entities.flatten()
    order = np.lexsort((floats(pc.struct_field(flat, "score")), owners(entities)))
    owner, first = np.unique(owners(entities)[order], return_index=True)
    index_R = np.full(len(entities), -1)
    index_R[owner] = order[first]
    return pc.fill_null(entity_types(flat).take(pa.array(index_R, mask=index_R < 0)), NO_ANSWER)


def prediction(judged: Judged, row: Mapping[str, Any]) -> Any:
    """A row's answer as a plain value. row: its answer columns by their names in the task."""
    if judged.kind == "label":
        return row["label"]
    if judged.kind == "choice":
        return row["choice"]
    if judged.kind == "labels":
        return sorted(item["label"] for item in row["labels"] or ())
    if judged.kind == "answer":
        best = (row["answers"] or [None])[0]
        return (
            [] if best is None or best["end"] <= best["start"] else [spanned(best, label="answer", text=best["answer"])]
        )
    return [
        spanned(one, label=one.get("entity_group", one.get("entity")), text=one["word"])
        for one in row["entities"] or ()
    ]


def spanned(span: Mapping[str, Any], *, label: str, text: str) -> dict[str, Any]:
    """A span as a plain value; start and end count characters, end exclusive."""
    return {"label": label, "start": int(span["start"]), "end": int(span["end"]), "text": text}


def same(kind: Kind, one: Any, other: Any) -> bool:
    """Whether two answers mean the same: spans by label, start and end, in any order."""
    if kind in ("entities", "answer"):
        return sorted(map(_place, one)) == sorted(map(_place, other))
    if kind == "labels":
        return set(one) == set(other)
    return bool(one == other)


def _place(span: Mapping[str, Any]) -> tuple[str, int, int]:
    return (span["label"], span["start"], span["end"])
