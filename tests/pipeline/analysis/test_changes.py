"""What changed in the answers of each task: flips, spans that moved, scores that shifted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.analysis.changes import (
    Changes,
    FillChanges,
    LabelChanges,
    NumberChanges,
    SpanChanges,
    VectorChanges,
    changes_of,
)
from pipeline.tasks.entities import ENTITY, TOKEN_ENTITY
from pipeline.tasks.question_answering import ANSWER
from pipeline.tasks.scores import LABEL_SCORE

FILL = pa.struct(
    [("token", pa.int32()), ("token_str", pa.string()), ("score", pa.float32()), ("sequence", pa.string())]
)
MASK = pa.struct([("start", pa.int32()), ("fills", pa.list_(FILL))])


def entity(kind: str, start: int, end: int, score: float = 0.5) -> dict[str, Any]:
    return {"entity_group": kind, "entity": kind, "index": 1, "score": score, "word": "w", "start": start, "end": end}


def compared(changes: Changes, a: Mapping[str, pa.Array], b: Mapping[str, pa.Array]) -> tuple[list[bool], list[float]]:
    """Which rows flipped, and by how much they changed."""
    flipped, size = changes.add(a, b)
    return flipped.tolist(), [round(float(one), 3) for one in size]


def test_labels_flip_into_a_confusion_table_and_a_row_answered_by_one_side_flips() -> None:
    def side(labels: Sequence[str | None], scores: Sequence[float | None]) -> dict[str, pa.Array]:
        return {"label": pa.array(labels, pa.string()), "score": pa.array(scores, pa.float32())}

    changes = LabelChanges()
    a = side(["x", "x", "y", None, "x", None], [0.9, 0.8, 0.5, None, 0.5, None])
    b = side(["x", "y", "y", "x", None, None], [0.7, 0.6, 0.5, 0.1, None, None])
    assert compared(changes, a, b) == ([False, True, False, True, True, False], [0.1, 0.7, 0.0, 1.0, 1.0, 0.0])
    assert changes.confusion == {("x", "x"): 1, ("x", "y"): 1, ("y", "y"): 1}
    assert (changes.rows, changes.flipped, changes.only_a, changes.only_b) == (5, 3, 1, 1)
    assert changes.shift.rows == 3
    assert changes.shift.mean == pytest.approx(-0.4 / 3)
    assert changes.shift.largest == pytest.approx(0.2)
    assert sum(changes.shift.bins) == 3


@pytest.mark.parametrize("kind", [ENTITY, TOKEN_ENTITY], ids=["merged", "tokens"])
def test_entities_are_kept_lost_gained_moved_or_relabelled(kind: pa.StructType) -> None:
    changes = SpanChanges()
    rows_a = [
        [entity("PER", 0, 3), entity("LOC", 5, 9)],
        [entity("PER", 0, 3), entity("ORG", 10, 12)],
        [],
        [entity("PER", 4, 8)],
        None,
    ]
    rows_b = [
        [entity("LOC", 5, 9), entity("PER", 0, 3)],
        [entity("PER", 0, 8), entity("MISC", 20, 22)],
        [entity("LOC", 1, 2)],
        [entity("ORG", 4, 8)],
        [],
    ]
    a, b = ({"entities": pa.array(rows, pa.list_(kind))} for rows in (rows_a, rows_b))
    flipped, size = compared(changes, a, b)
    assert flipped == [False, True, True, True, True]
    assert size == [0.0, 2.0, 0.5, 1.0, 1.0]
    assert {label: dict(counts) for label, counts in changes.counts.items()} == {
        "PER": {"kept": 1, "moved": 1, "relabelled": 1},
        "LOC": {"kept": 1, "gained": 1},
        "ORG": {"lost": 1},
        "MISC": {"gained": 1},
    }
    assert changes.confusion == {("PER", "ORG"): 1}
    assert changes.only_b == 1


def test_of_answers_the_best_counts_and_none_is_no_span() -> None:
    def answer(start: int, end: int) -> dict[str, Any]:
        return {"answer": "a", "score": 0.5, "start": start, "end": end}

    rows_a = [[answer(0, 4), answer(9, 11)], [answer(0, 0)], [answer(2, 5)], [answer(2, 5)], []]
    rows_b = [[answer(0, 4), answer(1, 3)], [answer(3, 5)], [answer(0, 0)], [answer(4, 7)], []]
    changes = SpanChanges()
    a, b = ({"answers": pa.array(rows, pa.list_(ANSWER))} for rows in (rows_a, rows_b))
    assert compared(changes, a, b)[0] == [False, True, True, True, False]
    assert dict(changes.counts["answer"]) == {"kept": 1, "gained": 1, "lost": 1, "moved": 1}


def test_labels_of_several_are_gained_and_lost_without_being_moved() -> None:
    def side(rows: Sequence[Sequence[str] | None]) -> dict[str, pa.Array]:
        listed = [None if row is None else [{"label": label, "score": 0.75} for label in row] for row in rows]
        best = [None if row is None else (row or ["z"])[0] for row in rows]
        score = [None if row is None else 0.75 for row in rows]
        return {
            "label": pa.array(best, pa.string()),
            "score": pa.array(score, pa.float32()),
            "labels": pa.array(listed, pa.list_(LABEL_SCORE)),
        }

    changes = changes_of("text-classification", {"label": "", "score": "", "labels": ""})
    assert isinstance(changes, SpanChanges)
    flipped, _ = compared(changes, side([["x", "y"], ["x"], [], None]), side([["y", "x"], ["y"], [], None]))
    assert flipped == [False, True, False, False]
    assert dict(changes.counts["x"]) == {"kept": 1, "lost": 1}
    assert dict(changes.counts["y"]) == {"kept": 1, "gained": 1}


def test_of_fills_the_best_of_each_mask_counts() -> None:
    def side(rows: Sequence[Sequence[tuple[int, str]]]) -> dict[str, pa.Array]:
        def fills(word: str) -> list[dict[str, Any]]:
            return [{"token": 1, "token_str": one, "score": 0.5, "sequence": ""} for one in (word, "second")]

        return {
            "masks": pa.array(
                [[{"start": at, "fills": fills(word)} for at, word in row] for row in rows], pa.list_(MASK)
            )
        }

    changes = FillChanges()
    a, b = side([[(0, "a"), (9, "b")], [(3, "c")], []]), side([[(0, "a"), (9, "c")], [(3, "c")], []])
    assert compared(changes, a, b)[0] == [True, False, False]
    assert dict(changes.counts["mask"]) == {"kept": 2, "relabelled": 1}
    assert not changes.confusion


@pytest.mark.parametrize("per_token", [False, True])
def test_vectors_turn(per_token: bool) -> None:
    rows_a: list[Any] = [[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], None]
    rows_b: list[Any] = [[2.0, 0.0], [0.0, 1.0], [0.02, 2.0], None]
    kind = pa.list_(pa.float32(), 2)
    if per_token:
        rows_a, rows_b = ([row and [row, row] for row in rows] for rows in (rows_a, rows_b))
        kind = pa.list_(kind)
    changes = VectorChanges()
    a, b = ({"embedding": pa.array(rows, kind)} for rows in (rows_a, rows_b))
    assert compared(changes, a, b) == ([False, True, False, False], [0.0, 1.0, 0.0, 0.0])
    assert 1 - changes.cosines.largest == pytest.approx(0, abs=1e-6)
    assert changes.cosines.rows == 3
    other = {"embedding": pa.array([[1.0, 0.0, 0.0]] * 4, pa.list_(pa.float32(), 3))}
    if not per_token:
        assert compared(VectorChanges(), a, other)[0] == [True, True, True, True]


def test_numbers_change_from_one_percent_on() -> None:
    changes = changes_of("text-classification", {"label": "", "score": ""}, regression=True)
    assert isinstance(changes, NumberChanges)
    a, b = (
        {"label": pa.array(["LABEL_0"] * 3), "score": pa.array(scores, pa.float32())}
        for scores in ([0.5, 3.0, 300.0], [0.505, 3.1, 301.0])
    )
    assert compared(changes, a, b)[0] == [False, True, False]
    a, b = (
        {"log_probability": pa.array(logs), "tokens": pa.array([10, 10], pa.int32())}
        for logs in ([-20.0, -20.0], [-20.0, -23.0])
    )
    assert compared(changes_of("text-scoring", {}), a, b) == ([False, True], [0.0, 0.3])


def test_choices_and_scores_of_choices() -> None:
    a, b = (
        {"choice": pa.array(choices, pa.int32()), "scores": pa.array(scores, pa.list_(pa.float32()))}
        for choices, scores in (([0, 1], [[0.9, 0.1], [0.2, 0.8]]), ([0, 0], [[0.7, 0.3], [0.6, 0.4]]))
    )
    changes = changes_of("multiple-choice", {})
    assert compared(changes, a, b)[0] == [False, True]
    assert isinstance(changes, LabelChanges)
    assert changes.confusion == {("0", "0"): 1, ("1", "0"): 1}
    assert changes.shift.mean == pytest.approx(-0.2)


def test_many_spans_are_matched_as_one_by_one() -> None:
    random = np.random.default_rng(0)

    def side() -> list[list[dict[str, Any]]]:
        return [
            [
                entity(str(random.integers(3)), int(start), int(start) + 2)
                for start in random.choice(8, size=3, replace=False)
            ]
            for _ in range(300)
        ]

    rows_a, rows_b = side(), side()
    a, b = ({"entities": pa.array(rows, pa.list_(ENTITY))} for rows in (rows_a, rows_b))
    changes = SpanChanges()
    flipped, _ = compared(changes, a, b)
    sets = [[{(one["entity_group"], one["start"]) for one in row} for row in rows] for rows in (rows_a, rows_b)]
    assert flipped == [one != other for one, other in zip(*sets, strict=True)]
    assert sum(counts["kept"] for counts in changes.counts.values()) == sum(
        len(one & other) for one, other in zip(*sets, strict=True)
    )
    total = sum(counts[kind] for counts in changes.counts.values() for kind in ("kept", "moved", "relabelled", "lost"))
    assert total == 900
