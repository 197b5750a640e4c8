"""A text, or a pair of texts, in, its label and score out, by the sequence classification head.

Legend: N items, W windows, L labels.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from models.boundary import Answers, Head, HeadAsk
from models.calibration_file import CALIBRATION_NAME
from pipeline.errors import OptionError
from pipeline.rows import no_errors
from pipeline.tasks.acceptance import Accept
from pipeline.tasks.scores import LABEL_SCORE, Floats, Function, ranked, scored
from pipeline.tasks.task import Decoded, Encoding, ModelFacts, Part, Task
from pipeline.tasks.tokens import OnLong, encode_from_start, first_positions

THRESHOLD = 0.5
"""The default threshold for labels of a multi-label checkpoint."""


class TextClassification(Task):
    """text-classification: `label`, `score`; `labels` of those over a threshold; `scores` where top_k is asked for; `accepted`
    where an error rate is."""

    answer_version: ClassVar[int] = 2
    later_options: ClassVar[frozenset[str]] = frozenset({"accept"})
    restated_options: ClassVar[frozenset[str]] = frozenset({"accept"})

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
    accept: Accept | None = None
    """The column `accepted`: labels from the score on that keeps an error rate on labelled rows; no such column when absent."""

    def parts(self) -> tuple[Part, ...]:
        return (Part("text"), Part("text_pair", required=False))

    def heads(self, facts: ModelFacts) -> tuple[Head, ...]:
        return ("sequence-classification",)

    def asks(self, facts: ModelFacts) -> HeadAsk:
        return HeadAsk(head="sequence-classification", causal=facts.config.is_decoder)

    def fields(self, facts: ModelFacts) -> list[pa.Field]:
        if isinstance(self.top_k, int) and self.top_k < 1:
            raise OptionError("top_k", f"{self.top_k} labels are none; give 1 or more, or all")
        function = self.resolved_function(facts)
        if self.accept is not None and function == "none":
            raise OptionError("accept", "needs scores from 0 to 1, and this function, or a regression, gives others")
        fields = [pa.field("label", pa.string()), pa.field("score", pa.float32())]
        if self.least_scores(facts) is not None:
            fields.append(pa.field("labels", pa.list_(LABEL_SCORE)))
        if self.top_k is not None:
            fields.append(pa.field("scores", pa.list_(LABEL_SCORE)))
        return fields if self.accept is None else [*fields, pa.field("accepted", pa.bool_())]

    def resolved_options(self, facts: ModelFacts) -> dict[str, Any]:
        return {} if self.accept is None else dict(self.accept.identity())

    def notes(self, facts: ModelFacts) -> list[str]:
        return [] if self.accept is None else [self.accept.note()]

    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        encoding = encode_from_start(parts["text"], facts=facts, on_long=self.on_long, pairs=parts.get("text_pair"))
        windows = encoding.windows.append_column("positions", first_positions(encoding.windows.num_rows))
        return Encoding(windows=windows, truncated=encoding.truncated, errors=encoding.errors)

    def decode(
        self, *, parts: Mapping[str, pa.Array], windows: pa.Table, answers: Answers, facts: ModelFacts
    ) -> Decoded:
        items = len(parts["text"])
        scores_WL = self.scores(answers["logits"], facts)
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
        if self.accept is not None:
            columns.append(self.accept.accepted(scores_NL[np.arange(items), best_N]))
        return Decoded(columns=columns, errors=no_errors(items))

    def scores(self, logits_WL: npt.NDArray[Any], facts: ModelFacts) -> Floats:
        """[W, L], by the checkpoint's calibration if it has one; `none` gives logits as they are."""
        function = self.resolved_function(facts)
        if facts.calibration is not None and function != "none":
            logits_WL = facts.calibration.applied(logits_WL)
        return scored(logits_WL, function=function)

    def resolved_function(self, facts: ModelFacts) -> Function:
        """The function that turns this checkpoint's logits into scores. Raises SpecError if it is calibrated for another."""
        fitted = None if facts.calibration is None else facts.calibration.function
        if self.function != "auto":
            if fitted not in (None, self.function) and self.function != "none":
                raise OptionError(
                    "function",
                    f"the checkpoint's {CALIBRATION_NAME} is for {fitted}, not {self.function}; leave it out",
                )
            return self.function
        if fitted is not None:
            return fitted
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
        single = {**(facts.task_parameter(task=self.name, key="thresholds") or {})}
        if facts.calibration is not None and self.threshold is None and self.resolved_function(facts) != "none":
            single |= facts.calibration.thresholds
        single |= self.thresholds
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
