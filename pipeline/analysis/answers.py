"""A task's answer columns in; which rows have an answer, one score for each row, and the labels that occur, out.

Legend: R rows, D size of a vector.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.spec.named_tasks import NamedTask

Floats: TypeAlias = npt.NDArray[np.float64]
Columns: TypeAlias = Mapping[str, pa.Array]
"""A task's answer columns by their names in the task."""

ANSWERS: Mapping[str, tuple[str, ...]] = {
    "feature-extraction": ("embedding",),
    "fill-mask": ("masks",),
    "multiple-choice": ("choice", "scores"),
    "question-answering": ("answers",),
    "text-classification": ("label", "score", "labels"),
    "text-scoring": ("log_probability", "tokens"),
    "token-classification": ("entities",),
}
"""The answer columns that are compared, by task; the first is null in a row without an answer."""
NO_ANSWER = "(none)"
"""What counts as the label of a text without an entity, or of a question without an answer."""

SCORE_OF = {
    "feature-extraction": "length of the vector",
    "fill-mask": "mean score of the best fills",
    "multiple-choice": "score of the choice",
    "question-answering": "score of the best answer",
    "text-classification": "score",
    "text-scoring": "log probability of a token",
    "token-classification": "lowest score of an entity",
}
"""What `scores` gives, by task."""


def columns_of(task: NamedTask, *, names: Sequence[str]) -> dict[str, str]:
    """The task's answer columns that an output has: name in the task -> column."""
    return {name: task.prefix + name for name in ANSWERS[task.task.name] if task.prefix + name in names}


def answered(columns: Columns) -> npt.NDArray[np.bool_]:
    """[R], whether each row has an answer."""
    return np.asarray(next(iter(columns.values())).is_valid().to_numpy(zero_copy_only=False), bool)


def scores(columns: Columns) -> Floats:
    """[R], a row's score as `SCORE_OF` says; NaN for rows without an answer, an entity or a mask."""
    if "score" in columns:
        return floats(columns["score"])
    if "tokens" in columns:
        return floats(columns["log_probability"]) / np.maximum(floats(columns["tokens"]), 1)
    if "entities" in columns:
        return reduced(columns["entities"], "score", np.minimum, start=np.inf)
    if "answers" in columns:
        return first_values(columns["answers"], "score")
    if "masks" in columns:
        best = first_values(pc.struct_field(columns["masks"].flatten(), "fills"), "score")
        owner_R = owners(columns["masks"])
        count_R = np.bincount(owner_R, minlength=len(columns["masks"]))
        total_R = np.bincount(owner_R, weights=best, minlength=len(columns["masks"]))
        return np.where(count_R > 0, total_R / np.maximum(count_R, 1), np.nan)
    if "embedding" in columns:
        return np.asarray(np.linalg.norm(vectors(columns["embedding"]), axis=1))
    found_R = np.full(len(columns["scores"]), -np.inf)
    np.maximum.at(found_R, owners(columns["scores"]), floats(columns["scores"].flatten()))
    return np.where(np.isfinite(found_R), found_R, np.nan)


def labels(columns: Columns) -> pa.Array | None:
    """The labels that occur, in no certain order: one for each answered row, entity, or label over its threshold; None for
    tasks without labels."""
    if "labels" in columns:
        return pc.struct_field(columns["labels"].flatten(), "label")
    if "label" in columns:
        return columns["label"].drop_null()
    if "choice" in columns:
        return columns["choice"].drop_null().cast(pa.string())
    if "entities" in columns:
        return entity_types(columns["entities"].flatten())
    if "answers" in columns:
        found = ~np.isnan(first_values(columns["answers"], "score")) & (first_values(columns["answers"], "end") > 0)
        named = np.where(found[answered(columns)], "(answer)", NO_ANSWER)
        return pa.array(named.tolist(), pa.string())
    return None


def entity_types(flat: pa.StructArray) -> pa.Array:
    """The type of each entity: `entity` where tokens were not merged, else `entity_group`."""
    return pc.struct_field(flat, "entity" if flat.type.get_field_index("entity") >= 0 else "entity_group")


def owners(lists: pa.Array) -> npt.NDArray[np.int64]:
    """The row of each value of a list column."""
    return np.asarray(pc.list_parent_indices(lists).to_numpy(), np.int64)


def firsts(lists: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """(the first value of each list that has one, its row)."""
    owner_R, first = np.unique(owners(lists), return_index=True)
    return lists.flatten().take(pa.array(first)), owner_R


def first_values(lists: pa.Array, field: str) -> Floats:
    """[R], a number of each list's first struct; NaN for empty and null lists."""
    values, owner_R = firsts(lists)
    found_R = np.full(len(lists), np.nan)
    found_R[owner_R] = floats(pc.struct_field(values, field))
    return found_R


def reduced(lists: pa.Array, field: str, function: np.ufunc, *, start: float) -> Floats:
    """[R], a number of each list's structs reduced to one; NaN for empty and null lists."""
    found_R = np.full(len(lists), start)
    function.at(found_R, owners(lists), floats(pc.struct_field(lists.flatten(), field)))
    return np.where(np.isfinite(found_R), found_R, np.nan)


def vectors(embedding: pa.Array) -> Floats:
    """[R, D], the vectors; the mean of a text's tokens where each has one; NaN for rows without an answer."""
    if pa.types.is_fixed_size_list(embedding.type):
        size = embedding.type.list_size
        flat = np.full((len(embedding), size), np.nan)
        flat[answered({"embedding": embedding})] = floats(embedding.flatten()).reshape(-1, size)
        return flat
    tokens, owner = vectors(embedding.flatten()), owners(embedding)
    count_R = np.bincount(owner, minlength=len(embedding))
    total_RD = np.zeros((len(embedding), embedding.type.value_type.list_size))
    np.add.at(total_RD, owner, tokens)
    with np.errstate(invalid="ignore"):
        return np.asarray(total_RD / count_R[:, None])


def floats(values: pa.Array) -> Floats:
    """Numbers as float64, nulls as NaN."""
    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
