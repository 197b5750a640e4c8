"""Scores of a row's windows in, exactly the entities of the Hugging Face pipeline out.

Each window is aggregated by itself, and overlapping entities of several windows are resolved afterwards; a word is joined
from pieces of the vocabulary; a group is named by what follows the first hyphen of its first label. Source: the
behaviour of transformers 4.57.6.

Legend: S asked tokens of a window, L labels, P pieces of a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.tasks.entities import Aggregation
from pipeline.tasks.scores import Floats
from pipeline.tasks.vocabulary import Vocabulary

Entity = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ScoredWindow:
    """A window's tokens: their pieces in the vocabulary's spelling, places, and whether each continues a word."""

    scores_SL: Floats
    pieces: Sequence[str]
    start_S: npt.NDArray[np.int32]
    end_S: npt.NDArray[np.int32]
    continues_S: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ReferenceRule:
    """How windows become entities."""

    aggregation: Aggregation
    labels: Sequence[str]
    ignored: Sequence[str]
    vocabulary: Vocabulary

    def entities(self, windows: Sequence[ScoredWindow]) -> list[Entity]:
        """The entities of one row."""
        found = [entity for window in windows for entity in self._of_window(window)]
        return settled(found) if len(windows) > 1 else found

    def _of_window(self, window: ScoredWindow) -> list[Entity]:
        if self.aggregation == "none":
            return [token for token in self._tokens(window) if token["entity"] not in self.ignored]
        units = self._tokens(window) if self.aggregation == "simple" else self._words(window)
        groups = [self._group(members) for members in self._neighbours(units)]
        return [group for group in groups if group["entity_group"] not in self.ignored]

    def _tokens(self, window: ScoredWindow) -> list[Entity]:
        label_S = window.scores_SL.argmax(axis=1)
        return [
            {
                "entity": self.labels[label],
                "score": float(window.scores_SL[place, label]),
                "index": place + 1,
                "word": window.pieces[place],
                "start": int(window.start_S[place]),
                "end": int(window.end_S[place]),
            }
            for place, label in enumerate(label_S.tolist())
        ]

    def _words(self, window: ScoredWindow) -> list[Entity]:
        """The words of a window, each with one label for all its pieces."""
        begins = np.flatnonzero(~window.continues_S).tolist()
        if len(window.pieces) and (not begins or begins[0] != 0):
            begins = [0, *begins]
        words = []
        for first, stop in zip(begins, [*begins[1:], len(window.pieces)], strict=True):
            score_L = self._word_scores(window.scores_SL[first:stop])
            label = int(score_L.argmax())
            words.append(
                {
                    "entity": self.labels[label],
                    "score": float(score_L[label]),
                    "word": self.vocabulary.join(window.pieces[first:stop]),
                    "start": int(window.start_S[first]),
                    "end": int(window.end_S[stop - 1]),
                }
            )
        return words

    def _word_scores(self, scores_PL: Floats) -> Floats:
        if self.aggregation == "first":
            return scores_PL[0]
        if self.aggregation == "max":
            return scores_PL[scores_PL.max(axis=1).argmax()]
        mean_L: Floats = scores_PL.mean(axis=0)
        return mean_L

    @staticmethod
    def _neighbours(units: Sequence[Entity]) -> list[list[Entity]]:
        groups: list[list[Entity]] = []
        last = None
        for unit in units:
            prefix, tag = _prefix_and_tag(unit["entity"])
            if groups and tag == last and prefix != "B":
                groups[-1].append(unit)
            else:
                groups.append([unit])
            last = tag
        return groups

    def _group(self, members: Sequence[Entity]) -> Entity:
        return {
            "entity_group": members[0]["entity"].split("-", 1)[-1],
            "score": float(np.mean([member["score"] for member in members])),
            "word": self.vocabulary.join([member["word"] for member in members]),
            "start": members[0]["start"],
            "end": members[-1]["end"],
        }


def _prefix_and_tag(label: str) -> tuple[str, str]:
    return (label[0], label[2:]) if label.startswith(("B-", "I-")) else ("I", label)


def settled(entities: Sequence[Entity]) -> list[Entity]:
    """Entities by their start. One that begins within the last kept entity replaces it if it is longer, or equally long with a
    higher score; otherwise it is dropped."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda entity: entity["start"]):
        if not kept or not kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept.append(entity)
            continue
        length, before = entity["end"] - entity["start"], kept[-1]["end"] - kept[-1]["start"]
        if length > before or (length == before and entity["score"] > kept[-1]["score"]):
            kept[-1] = entity
    return kept
