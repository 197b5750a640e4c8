"""The tasks, one file each; `AnyTask` is the union that a job's `task` key is read as, discriminated by `name`."""

from typing import TypeAlias, get_args

from pipeline.tasks.feature_extraction import FeatureExtraction
from pipeline.tasks.fill_mask import FillMask
from pipeline.tasks.multiple_choice import MultipleChoice
from pipeline.tasks.question_answering import QuestionAnswering
from pipeline.tasks.text_classification import TextClassification
from pipeline.tasks.text_scoring import TextScoring
from pipeline.tasks.token_classification import TokenClassification

AnyTask: TypeAlias = (
    FeatureExtraction
    | FillMask
    | MultipleChoice
    | QuestionAnswering
    | TextClassification
    | TextScoring
    | TokenClassification
)

TASK_NAMES = frozenset(str(task.model_fields["name"].default) for task in get_args(AnyTask))

__all__ = [
    "TASK_NAMES",
    "AnyTask",
    "FeatureExtraction",
    "FillMask",
    "MultipleChoice",
    "QuestionAnswering",
    "TextClassification",
    "TextScoring",
    "TokenClassification",
]
