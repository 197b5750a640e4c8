"""A text in, its label and score out, by the sequence classification head."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from models.boundary import Answers, Head
from pipeline.rows import no_errors
from pipeline.tasks.task import Decoded, Encoding, HeadAsk, ModelFacts, Part, Task
from pipeline.tasks.tokens import OnLong, encode_from_start, first_positions

SCORE_TYPE = pa.list_(pa.struct([pa.field("label", pa.string()), pa.field("score", pa.float32())]))


class TextClassification(Task):
    """text-classification: `label`, `score`, and `scores` where top_k is asked for."""

    answer_version: ClassVar[int] = 1

    name: Literal["text-classification"] = "text-classification"
    top_k: int | Literal["all"] | None = Field(default=None)
    """How many labels `scores` lists, best first; no `scores` column when absent."""
    function: Literal["auto", "softmax", "sigmoid", "none"] = "auto"
    """From logits to scores; auto goes by the checkpoint: none for regression, sigmoid for several labels at once or a
    single one, else softmax."""
    on_long: OnLong = "truncate"
    """A text longer than the model: truncate (said in `truncated`) or error."""

    def parts(self) -> tuple[Part, ...]:
        return (Part("text"),)

    def heads(self) -> tuple[Head, ...]:
        return ("sequence-classification",)

    def asks(self, facts: ModelFacts) -> HeadAsk:
        return HeadAsk(head="sequence-classification")

    def fields(self, facts: ModelFacts) -> list[pa.Field]:
        fields = [pa.field("label", pa.string()), pa.field("score", pa.float32())]
        return [*fields, pa.field("scores", SCORE_TYPE)] if self.top_k is not None else fields

    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        encoding = encode_from_start(parts["text"], facts=facts, on_long=self.on_long)
        windows = encoding.windows.append_column("positions", first_positions(encoding.windows.num_rows))
        return Encoding(windows=windows, truncated=encoding.truncated, errors=encoding.errors)

    def decode(self, *, items: int, windows: pa.Table, answers: Answers, facts: ModelFacts) -> Decoded:
        scores_WL = scored(answers["logits"], function=self.resolved_function(facts))
        scores_NL = np.zeros((items, scores_WL.shape[1]), np.float32)
        scores_NL[windows["item"].to_numpy()] = scores_WL
        labels = pa.array(facts.labels)
        best_N = scores_NL.argmax(axis=1)
        columns = [labels.take(pa.array(best_N)), pa.array(scores_NL[np.arange(items), best_N])]
        if self.top_k is not None:
            columns.append(self._ranked(scores_NL, labels))
        return Decoded(columns=columns, errors=no_errors(items))

    def resolved_function(self, facts: ModelFacts) -> str:
        """The function that turns this checkpoint's logits into scores."""
        if self.function != "auto":
            return self.function
        if facts.config.problem_type == "regression":
            return "none"
        return (
            "sigmoid"
            if facts.config.problem_type == "multi_label_classification" or len(facts.labels) == 1
            else "softmax"
        )

    def _ranked(self, scores_NL: np.ndarray, labels: pa.Array) -> pa.Array:
        items, count = scores_NL.shape
        k = count if self.top_k in (None, "all") else min(int(self.top_k), count)
        order_Nk = np.argsort(-scores_NL, axis=1, kind="stable")[:, :k]
        flat = pa.StructArray.from_arrays(
            [
                labels.take(pa.array(order_Nk.ravel())),
                pa.array(np.take_along_axis(scores_NL, order_Nk, axis=1).ravel()),
            ],
            fields=list(SCORE_TYPE.value_type),
        )
        return pa.ListArray.from_arrays(pa.array(np.arange(items + 1, dtype=np.int32) * k), flat)


def scored(logits_GL: np.ndarray, *, function: str) -> np.ndarray:
    """Scores [G, L] float32 of logits: softmax over the labels (shifted by the maximum), sigmoid, or as they are."""
    logits_GL = logits_GL.astype(np.float32)
    if function == "softmax":
        powers_GL = np.exp(logits_GL - logits_GL.max(axis=1, keepdims=True))
        return np.asarray(powers_GL / powers_GL.sum(axis=1, keepdims=True))
    if function == "sigmoid":
        powers_GL = np.exp(-np.abs(logits_GL))  # never overflows
        return np.where(logits_GL >= 0, 1 / (1 + powers_GL), powers_GL / (1 + powers_GL))
    return logits_GL
