"""The tasks, one file each; `AnyTask` is the union that a job's `task` key is read as, told apart by `name`."""

from typing import TypeAlias

from pipeline.tasks.feature_extraction import FeatureExtraction
from pipeline.tasks.text_classification import TextClassification

AnyTask: TypeAlias = FeatureExtraction | TextClassification

__all__ = ["AnyTask", "FeatureExtraction", "TextClassification"]
