"""Scores of words or tokens in, entities out: neighbours of one tag joined, with their place in the text.

Legend: G asked tokens, U units (words or tokens), E entities, N items, L labels.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ragged import Integers, run_starts
from pipeline.tasks.scores import Floats
from pipeline.tasks.spans import Characters, grouped
from pipeline.tasks.tags import Tags

Aggregation: TypeAlias = Literal["none", "simple", "first", "average", "max"]

ENTITY = pa.struct(
    [
        pa.field("entity_group", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("word", pa.string()),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
    ]
)
TOKEN_ENTITY = pa.struct(
    [
        pa.field("entity", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("index", pa.int32()),
        pa.field("word", pa.string()),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
    ]
)


@dataclass(frozen=True, eq=False)
class Units:
    """Words or tokens with one label each, in the order of the text.

    number_U: of the word, or of the token counted from 1, in its item. start_U, end_U: characters.
    """

    item_U: Integers
    number_U: Integers
    label_U: npt.NDArray[np.int64]
    score_U: Floats
    start_U: npt.NDArray[np.int32]
    end_U: npt.NDArray[np.int32]


def labelled(
    *,
    scores_GL: Floats,
    item_G: Integers,
    number_G: Integers,
    start_G: Integers,
    end_G: Integers,
    aggregation: Aggregation,
) -> Units:
    """Units of tokens: tokens of one item with the same number are pieces of one word, which `average` and `max` merge."""
    first = np.flatnonzero(run_starts(item_G, number_G)) if len(item_G) else np.empty(0, np.int64)
    last = np.append(first[1:], len(item_G)) - 1
    best_UL: Floats
    if not len(first):
        best_UL = scores_GL[:0]
    elif aggregation == "average":
        sums_UL: Floats = np.add.reduceat(scores_GL, first, axis=0)
        best_UL = (sums_UL / (last - first + 1)[:, None]).astype(np.float32)
    elif aggregation == "max":
        best_UL = scores_GL[_best_pieces(scores_GL.max(axis=1), first, last)]
    else:
        best_UL = scores_GL[first]
    label_U = best_UL.argmax(axis=1)
    return Units(
        item_U=item_G[first],
        number_U=number_G[first],
        label_U=label_U,
        score_U=best_UL[np.arange(len(first)), label_U],
        start_U=start_G[first].astype(np.int32),
        end_U=end_G[last].astype(np.int32),
    )


def _best_pieces(score_G: Floats, first: Integers, last: Integers) -> npt.NDArray[np.int64]:
    """The first piece of each word that has the word's highest score."""
    counts = last - first + 1
    reaches = np.flatnonzero(score_G == np.repeat(np.maximum.reduceat(score_G, first), counts))
    word = np.repeat(np.arange(len(first)), counts)[reaches]
    return reaches[np.unique(word, return_index=True)[1]]


def entities(units: Units, *, tags: Tags, ignored: list[str], min_score: float, characters: Characters) -> pa.ListArray:
    """Neighbouring units of one tag as entities, one list an item; their score is the mean of their units'."""
    tag_U = tags.tag_L[units.label_U]
    begins_U = tags.begins_L[units.label_U]
    begins_U[1:] |= tags.ends_L[units.label_U[:-1]]
    first = np.flatnonzero(run_starts(units.item_U, tag_U) | begins_U) if len(tag_U) else np.empty(0, np.int64)
    count_E = np.diff(np.append(first, len(tag_U)))
    score_E = np.empty(0, np.float32)
    if len(first):
        score_E = (np.add.reduceat(units.score_U.astype(np.float64), first) / count_E).astype(np.float32)
    kept_L = np.array([name not in ignored for name in tags.names])
    kept = np.flatnonzero(kept_L[tag_U[first]] & (score_E >= min_score))
    first, last = first[kept], first[kept] + count_E[kept] - 1
    item_E, start_E, end_E = units.item_U[first], units.start_U[first], units.end_U[last]
    flat = pa.StructArray.from_arrays(
        [
            pa.array(tags.names).take(pa.array(tag_U[first])),
            pa.array(score_E[kept]),
            characters.substrings(text_E=item_E, start_E=start_E, end_E=end_E).cast(pa.string()),
            pa.array(start_E),
            pa.array(end_E),
        ],
        fields=list(ENTITY),
    )
    return grouped(flat, counts_N=np.bincount(item_E, minlength=len(characters.lengths_N)))


def token_entities(
    units: Units, *, labels: list[str], ignored: list[str], min_score: float, characters: Characters
) -> pa.ListArray:
    """Every token whose label is not ignored, one list an item."""
    kept_L = np.array([label not in ignored for label in labels])
    kept = np.flatnonzero(kept_L[units.label_U] & (units.score_U >= min_score))
    item_E, start_E, end_E = units.item_U[kept], units.start_U[kept], units.end_U[kept]
    flat = pa.StructArray.from_arrays(
        [
            pa.array(labels).take(pa.array(units.label_U[kept])),
            pa.array(units.score_U[kept]),
            pa.array(units.number_U[kept].astype(np.int32)),
            characters.substrings(text_E=item_E, start_E=start_E, end_E=end_E).cast(pa.string()),
            pa.array(start_E),
            pa.array(end_E),
        ],
        fields=list(TOKEN_ENTITY),
    )
    return grouped(flat, counts_N=np.bincount(item_E, minlength=len(characters.lengths_N)))
