"""Start and end logits of a row's windows in, exactly the answers of the Hugging Face pipeline out.

Every window has its own softmax, and the scores of answers with the same text add up, wherever they stand. Source: the
behaviour of transformers 4.57.6.

Legend: S asked tokens of a window: `<s>`, then its context, C candidate spans, A lengths of an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.tasks.scores import Floats

Answer = dict[str, Any]


@dataclass(frozen=True, eq=False)
class LogitWindow:
    """A window's logits, and the characters that an answer from or to each token begins and ends at."""

    start_logits_S: Floats
    end_logits_S: Floats
    start_S: npt.NDArray[np.int32]
    end_S: npt.NDArray[np.int32]


@dataclass(frozen=True)
class AnswerRule:
    """How windows become answers. candidates: spans looked at in each window."""

    top_k: int
    candidates: int
    longest: int
    allow_null: bool

    def answers(self, context: str, windows: Sequence[LogitWindow]) -> tuple[list[Answer], float]:
        """The answers of one row, best first, and the score of no answer."""
        found: dict[str, Answer] = {}
        null = np.float32(1_000_000.0)  # where the reference begins to look for the least
        for window in windows:
            starts_S, ends_S = _softmax(window.start_logits_S), _softmax(window.end_logits_S)
            null = min(null, starts_S[0] * ends_S[0])
            for first, last, score in self._spans(starts_S, ends_S):
                begin, stop = int(window.start_S[first]), int(window.end_S[last])
                text = context[begin:stop]
                known = found.setdefault(text.lower(), {"answer": text, "score": 0.0, "start": begin, "end": stop})
                known["score"] += score
        answers = list(found.values())
        if self.allow_null:
            answers.append({"answer": "", "score": float(null), "start": 0, "end": 0})
        return sorted(answers, key=lambda answer: -answer["score"])[: self.top_k], float(null)

    def _spans(self, starts_S: Floats, ends_S: Floats) -> list[tuple[int, int, float]]:
        """(first, last, score) of the best spans of a window, `<s>` left out, best first."""
        size = len(starts_S) - 1
        to_SA = np.arange(1, size + 1)[:, None] + np.arange(self.longest)
        ends_SA = np.where(to_SA <= size, ends_S[np.minimum(to_SA, size)], np.float32(0))
        score_C = (starts_S[1:, None] * ends_SA).ravel()
        count = min(self.candidates, len(score_C))
        best = np.argpartition(-score_C, count - 1)[:count] if count else np.empty(0, np.int64)
        best = best[np.argsort(-score_C[best], kind="stable")]
        return [
            (
                int(place // self.longest) + 1,
                int(place // self.longest + place % self.longest) + 1,
                float(score_C[place]),
            )
            for place in best.tolist()
            if score_C[place] > 0
        ]


def _softmax(logits_S: Floats) -> Floats:
    powers_S = np.exp(logits_S - logits_S.max())
    scores_S: Floats = powers_S / powers_S.sum()
    return scores_S
