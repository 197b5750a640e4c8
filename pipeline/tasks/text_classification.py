"""A text, or a pair of texts, in, its label and score out, by the sequence classification head.

Legend: N items, W windows, L labels.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from models.boundary import Answers, Head, HeadAsk
from pipeline.errors import OptionError
from pipeline.rows import no_errors
from pipeline.tasks.scores import LABEL_SCORE, Floats, Function, ranked, scored
from pipeline.tasks.task import Decoded, Encoding, ModelFacts, Part, Task
from pipeline.tasks.tokens import OnLong, encode_from_start, first_positions

THRESHOLD = 0.5
"""The default threshold for labels of a multi-label checkpoint."""


class TextClassification(Task):
    """text-classification: `label`, `score`; `labels` of those over a threshold; `scores` where top_k is asked for."""

    answer_version: ClassVar[int] = 2

    name: Literal["text-classification"] = "text-classification"
    top_k: int | Literal["all"] | None = Field(default=None)
    """How many labels `scores` lists, best first; no `scores` column when absent."""
    function: Literal["auto", "softmax", "sigmoid", "none"] = "auto"
    """From logits to scores; auto goes by the checkpoint: none for regression, sigmoid for several labels at once or a
    single one, else softmax."""
    threshold: float | None = None
    """The score by which a label is listed in `labels`; when absent the checkpoint's, else 0.5 where it is multi-label, and
    elsewhere no `labels` column."""
    thresholds: dict[str, float] = Field(default={})
    """Thresholds of single labels, over `threshold`."""
    on_long: OnLong = "truncate"
    """A text longer than the model: truncate (sets `truncated`) or error."""

    def parts(self) -> tuple[Part, ...]:
        return (Part("text"), Part("text_pair", required=False))

    def heads(self, facts: ModelFacts) -> tuple[Head, ...]:
        return ("sequence-classification",)

    def asks(self, facts: ModelFacts) -> HeadAsk:
        return HeadAsk(head="sequence-classification", causal=facts.config.is_decoder)

    def fields(self, facts: ModelFacts) -> list[pa.Field]:
        if isinstance(self.top_k, int) and self.top_k < 1:
            raise OptionError("top_k", f"{self.top_k} labels are none; give 1 or more, or all")
        fields = [pa.field("label", pa.string()), pa.field("score", pa.float32())]
        if self.least_scores(facts) is not None:
            fields.append(pa.field("labels", pa.list_(LABEL_SCORE)))
        return [*fields, pa.field("scores", pa.list_(LABEL_SCORE))] if self.top_k is not None else fields

    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        encoding = encode_from_start(parts["text"], facts=facts, on_long=self.on_long, pairs=parts.get("text_pair"))
        windows = encoding.windows.append_column("positions", first_positions(encoding.windows.num_rows))
        return Encoding(windows=windows, truncated=encoding.truncated, errors=encoding.errors)

    def decode(
        self, *, parts: Mapping[str, pa.Array], windows: pa.Table, answers: Answers, facts: ModelFacts
    ) -> Decoded:
        items = len(parts["text"])
        scores_WL = scored(answers["logits"], function=self.resolved_function(facts))
        scores_NL = np.zeros((items, scores_WL.shape[1]), np.float32)
        scores_NL[windows["item"].to_numpy()] = scores_WL
        labels = pa.array(facts.labels)
        best_N = scores_NL.argmax(axis=1)
        columns = [labels.take(pa.array(best_N)), pa.array(scores_NL[np.arange(items), best_N])]
        least_L = self.least_scores(facts)
        if least_L is not None:
            columns.append(ranked(scores_NL, labels=labels, top_k=len(labels), least_L=least_L))
        if self.top_k is not None:
            top_k = len(labels) if self.top_k == "all" else self.top_k
            columns.append(ranked(scores_NL, labels=labels, top_k=top_k))
        return Decoded(columns=columns, errors=no_errors(items))

    def resolved_function(self, facts: ModelFacts) -> Function:
        """The function that turns this checkpoint's logits into scores."""
        if self.function != "auto":
            return self.function
        configured = facts.task_parameter(task=self.name, key="function_to_apply")
        if configured in ("softmax", "sigmoid", "none"):
            return configured
        if facts.config.problem_type == "regression":
            return "none"
        several = facts.config.problem_type == "multi_label_classification"
        return "sigmoid" if several or len(facts.labels) == 1 else "softmax"

    def least_scores(self, facts: ModelFacts) -> Floats | None:
        """[L], the score from which each label is listed; None if no threshold is set. Raises SpecError for thresholds of labels
        that the checkpoint does not have."""
        single = {**(facts.task_parameter(task=self.name, key="thresholds") or {}), **self.thresholds}
        unknown = [label for label in single if label not in facts.labels]
        if unknown:
            raise OptionError(
                "thresholds", f"the checkpoint has no label {unknown[0]!r}; it has {', '.join(facts.labels[:20])}"
            )
        common = facts.task_parameter(task=self.name, key="threshold") if self.threshold is None else self.threshold
        several = facts.config.problem_type == "multi_label_classification"
        if not (single or several or common is not None):
            return None
        return np.array(
            [single.get(label, THRESHOLD if common is None else common) for label in facts.labels], np.float32
        )
