"""A task's answers of two runs to the same rows in, what changed out: flips, moved spans, shifted scores.

Legend: R rows, S spans, D size of a vector.
"""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.analysis.answers import (
    Columns,
    Floats,
    answered,
    entity_types,
    firsts,
    floats,
    owners,
    scores,
    vectors,
)

Bools: TypeAlias = npt.NDArray[np.bool_]

LEAST_COSINE = 0.99
"""Vectors with a smaller cosine count as changed."""
LEAST_CHANGE = 0.01
"""Numbers count as changed if they differ by more than this share of the larger one, or of 1 if that is more."""
BINS = 41
"""Of the histogram of score differences, from -1 to 1; an odd number, so that no change has a bin of its own."""


@dataclass
class Shift:
    """How scores moved from A to B, over rows that have one in both. bins: counts of the differences from -1 to 1, those beyond
    in the outer bins."""

    rows: int = 0
    total: float = 0.0
    total_absolute: float = 0.0
    largest: float = 0.0
    bins: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, difference_R: Floats) -> None:
        """The differences of some rows, B less A; NaN where there is none."""
        known = difference_R[~np.isnan(difference_R)]
        if not len(known):
            return
        self.rows += len(known)
        self.total += float(known.sum())
        self.total_absolute += float(np.abs(known).sum())
        self.largest = max(self.largest, float(np.abs(known).max()))
        counts, _ = np.histogram(np.clip(known, -1, 1), bins=BINS, range=(-1, 1))
        self.bins = [one + int(more) for one, more in zip(self.bins, counts, strict=True)]

    @property
    def mean(self) -> float:
        """The mean difference."""
        return self.total / max(self.rows, 1)

    @property
    def mean_absolute(self) -> float:
        """The mean size of a difference."""
        return self.total_absolute / max(self.rows, 1)


@dataclass
class Changes(ABC):
    """What changed in one task's answers. rows: that at least one side answered. flipped: whose answer is another, or which only
    one side answered (only_a, only_b). shift: of `scores`."""

    rows: int = 0
    flipped: int = 0
    only_a: int = 0
    only_b: int = 0
    shift: Shift = field(default_factory=Shift)

    def add(self, a: Columns, b: Columns) -> tuple[Bools, Floats]:
        """[R], which rows flipped, and how much each changed: 0 is not at all; more is more within one task."""
        has_a, has_b = answered(a), answered(b)
        both = has_a & has_b
        self.rows += int((has_a | has_b).sum())
        self.only_a += int((has_a & ~has_b).sum())
        self.only_b += int((has_b & ~has_a).sum())
        scores_a, scores_b = scores(a), scores(b)
        difference_R = np.where(both, scores_b - scores_a, np.nan)
        self.shift.add(difference_R)
        flipped, size_R = self._compare(a, b, both=both, scores_R=(scores_a, scores_b))
        flipped = (flipped & both) | (has_a != has_b)
        self.flipped += int(flipped.sum())
        size_R = np.where(has_a != has_b, 1.0, np.where(both, size_R, 0.0))
        return flipped, np.nan_to_num(size_R)

    @abstractmethod
    def _compare(self, a: Columns, b: Columns, *, both: Bools, scores_R: tuple[Floats, Floats]) -> tuple[Bools, Floats]:
        """(which rows differ, by how much), of rows that both sides answered."""


@dataclass
class LabelChanges(Changes):
    """One label a row. confusion: (label in A, label in B) -> rows."""

    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)

    def _compare(self, a: Columns, b: Columns, *, both: Bools, scores_R: tuple[Floats, Floats]) -> tuple[Bools, Floats]:
        labels_a, labels_b = (side["label"] if "label" in side else side["choice"].cast(pa.string()) for side in (a, b))
        where = pa.array(both)
        counted = pa.table({"a": labels_a.filter(where), "b": labels_b.filter(where)}).group_by(["a", "b"])
        for row in counted.aggregate([([], "count_all")]).to_pylist():
            self.confusion[row["a"], row["b"]] += row["count_all"]
        differ = pc.fill_null(pc.not_equal(labels_a, labels_b), False).to_numpy(zero_copy_only=False)
        score_a, score_b = scores_R
        # Two sure answers that contradict each other come first.
        return np.asarray(differ, bool), np.where(differ, (score_a + score_b) / 2, np.abs(score_b - score_a) / 2)


@dataclass
class SpanChanges(Changes):
    """Spans, or labels of several. counts: label -> kept, lost, gained, moved (overlaps one of the same label), relabelled
    (the same place under another label, which is in `confusion`)."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)

    def _compare(self, a: Columns, b: Columns, *, both: Bools, scores_R: tuple[Floats, Floats]) -> tuple[Bools, Floats]:
        spans_a, spans_b = Spans.of(a), Spans.of(b)
        spans_a, spans_b = (spans.of_rows(both) for spans in (spans_a, spans_b))
        kept_a, kept_b = _matched(spans_a, spans_b)
        for label, count in Counter(spans_a.labels.filter(pa.array(kept_a)).to_pylist()).items():
            self.counts[self._kind(label)]["kept"] += count
        self._settle(spans_a.left(~kept_a), spans_b.left(~kept_b))
        size_R = np.zeros(len(both))
        for spans, kept in ((spans_a, kept_a), (spans_b, kept_b)):
            np.add.at(size_R, spans.row_S[~kept], spans.score_S[~kept])
        flipped = np.zeros(len(both), bool)
        flipped[spans_a.row_S[~kept_a]] = True
        flipped[spans_b.row_S[~kept_b]] = True
        return flipped, np.where(flipped, size_R, np.abs(scores_R[1] - scores_R[0]) / 2)

    def _kind(self, label: str) -> str:
        """What a label is counted under."""
        return label

    def _settle(self, left_a: dict[int, list["Span"]], left_b: dict[int, list["Span"]]) -> None:
        """Say what became of the spans that only one side has."""
        for row in left_a.keys() | left_b.keys():
            mine, theirs = left_a.get(row, []), left_b.get(row, [])
            for kind, alike in (("relabelled", _same_place), ("moved", _overlap)):
                for one in list(mine):
                    other = next((span for span in theirs if alike(one, span)), None)
                    if other is not None:
                        mine.remove(one)
                        theirs.remove(other)
                        self.counts[self._kind(one[2])][kind] += 1
                        if kind == "relabelled" and self._kind(one[2]) == one[2]:
                            self.confusion[one[2], other[2]] += 1
            for one in mine:
                self.counts[self._kind(one[2])]["lost"] += 1
            for one in theirs:
                self.counts[self._kind(one[2])]["gained"] += 1


Span: TypeAlias = tuple[int, int, str]
"""start, end, label."""


def _same_place(one: Span, other: Span) -> bool:
    return one[:2] == other[:2] and one[1] > one[0]


def _overlap(one: Span, other: Span) -> bool:
    return one[2] == other[2] and one[0] < other[1] and other[0] < one[1]


@dataclass(frozen=True, eq=False)
class Spans:
    """Spans of many rows end to end. Labels without a place are at 0 to 0."""

    row_S: npt.NDArray[np.int64]
    start_S: npt.NDArray[np.int64]
    end_S: npt.NDArray[np.int64]
    labels: pa.Array
    score_S: Floats

    @classmethod
    def of(cls, columns: Columns) -> "Spans":
        """The entities; the best answer, if there is one; the labels over their threshold; the best fill of each mask."""
        if "entities" in columns:
            flat, row_S = columns["entities"].flatten(), owners(columns["entities"])
            return cls._placed(flat, row_S, labels=entity_types(flat))
        if "answers" in columns:
            best, row_S = firsts(columns["answers"])
            there = floats(pc.struct_field(best, "end")) > floats(pc.struct_field(best, "start"))
            best = best.filter(pa.array(there))
            return cls._placed(best, row_S[there], labels=pa.array(["answer"] * len(best), pa.string()))
        if "labels" in columns:
            flat, row_S = columns["labels"].flatten(), owners(columns["labels"])
            nowhere = np.zeros(len(flat), np.int64)
            return cls(row_S, nowhere, nowhere, pc.struct_field(flat, "label"), floats(pc.struct_field(flat, "score")))
        masks, row_S = columns["masks"].flatten(), owners(columns["masks"])
        best, mask_S = firsts(pc.struct_field(masks, "fills"))
        start_S = pc.struct_field(masks, "start").to_numpy().astype(np.int64)[mask_S]
        token = pc.struct_field(best, "token_str")
        return cls(row_S[mask_S], start_S, start_S + 1, token, floats(pc.struct_field(best, "score")))

    @classmethod
    def _placed(cls, flat: pa.StructArray, row_S: npt.NDArray[np.int64], *, labels: pa.Array) -> "Spans":
        start_S, end_S = (pc.struct_field(flat, name).to_numpy().astype(np.int64) for name in ("start", "end"))
        return cls(row_S, start_S, end_S, labels, floats(pc.struct_field(flat, "score")))

    def of_rows(self, wanted: Bools) -> "Spans":
        """Those of the rows that a mask selects."""
        return self._where(wanted[self.row_S])

    def _where(self, mask: Bools) -> "Spans":
        arrays = (self.row_S[mask], self.start_S[mask], self.end_S[mask])
        return Spans(*arrays, labels=self.labels.filter(pa.array(mask)), score_S=self.score_S[mask])

    def left(self, mask: Bools) -> dict[int, list[Span]]:
        """Those that a mask selects, by row."""
        some = self._where(mask)
        found: dict[int, list[Span]] = defaultdict(list)
        for row, start, end, label in zip(
            some.row_S.tolist(), some.start_S.tolist(), some.end_S.tolist(), some.labels.to_pylist(), strict=True
        ):
            found[row].append((start, end, label))
        return found


def _matched(a: Spans, b: Spans) -> tuple[Bools, Bools]:
    """Which spans of each side the other has too: same row, start, end and label."""
    labels = pa.chunked_array([a.labels, b.labels], pa.string()).combine_chunks().dictionary_encode().indices.to_numpy()
    keys = [np.concatenate(pair) for pair in ((a.row_S, b.row_S), (a.start_S, b.start_S), (a.end_S, b.end_S))]
    order = np.lexsort((labels, *reversed(keys)))
    differs = np.zeros(len(order), bool)
    for key in (*keys, labels):
        differs[1:] |= np.diff(key[order]) != 0
    run = np.cumsum(differs)
    is_b = order >= len(a.row_S)
    runs = int(run[-1]) + 1 if len(run) else 0
    in_a, in_b = np.bincount(run[~is_b], minlength=runs) > 0, np.bincount(run[is_b], minlength=runs) > 0
    kept = np.zeros(len(order), bool)
    kept[order] = (in_a & in_b)[run]
    return kept[: len(a.row_S)], kept[len(a.row_S) :]


@dataclass
class FillChanges(SpanChanges):
    """The best fill of each mask. Words are counted together, since there are as many as in the vocabulary."""

    def _kind(self, label: str) -> str:
        return "mask"


@dataclass
class VectorChanges(Changes):
    """Vectors, by their cosine. cosines: from A to B, less 1; so 0 is no change and -2 the opposite."""

    cosines: Shift = field(default_factory=Shift)
    sizes: tuple[int, int] | None = None

    def _compare(self, a: Columns, b: Columns, *, both: Bools, scores_R: tuple[Floats, Floats]) -> tuple[Bools, Floats]:
        a_RD, b_RD = vectors(a["embedding"]), vectors(b["embedding"])
        if a_RD.shape != b_RD.shape:
            self.sizes = (a_RD.shape[1], b_RD.shape[1])
            return both, np.ones(len(both))
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine_R = (a_RD * b_RD).sum(axis=1) / (scores_R[0] * scores_R[1])
        self.cosines.add(np.where(both, cosine_R - 1, np.nan))
        return cosine_R < LEAST_COSINE, 1 - cosine_R


@dataclass
class NumberChanges(Changes):
    """Numbers: values of a regression, log probabilities of a token."""

    def _compare(self, a: Columns, b: Columns, *, both: Bools, scores_R: tuple[Floats, Floats]) -> tuple[Bools, Floats]:
        return _far(*scores_R), np.abs(scores_R[1] - scores_R[0])


def _far(a_R: Floats, b_R: Floats) -> Bools:
    return np.asarray(np.abs(b_R - a_R) > LEAST_CHANGE * np.maximum(1, np.maximum(np.abs(a_R), np.abs(b_R))))


def changes_of(task: str, columns: Mapping[str, str], *, regression: bool = False) -> Changes:
    """How the answers of a task are compared. columns: those that both sides have."""
    if task == "text-classification":
        if regression:
            return NumberChanges()
        return SpanChanges() if "labels" in columns else LabelChanges()
    kinds: dict[str, type[Changes]] = {
        "multiple-choice": LabelChanges,
        "token-classification": SpanChanges,
        "question-answering": SpanChanges,
        "fill-mask": FillChanges,
        "feature-extraction": VectorChanges,
        "text-scoring": NumberChanges,
    }
    return kinds[task]()
